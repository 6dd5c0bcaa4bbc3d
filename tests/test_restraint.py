"""Restraint: heard from the MP3 alone, learnt from what shares of the changes are worth, carried in the checkpoint."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("lameenc")
torch = pytest.importorskip("torch")

from click.testing import CliRunner
from test_generator import shaken, stream

from restorer.errors import ConfigError
from restorer.training import checkpoint
from restorer.training.generator import BINS, UNCHANGED, Generator, GeneratorConfig, Restraint, without
from restorer.training.pool_command import pool_command
from restorer.training.restrain_command import restrain_command
from restorer.training.restraint import (
    POOR_ODG,
    SHARES,
    Example,
    examine,
    fingerprint,
    gains,
    is_poor,
    judge,
    learn,
    learn_latitude,
    load_examples,
    quieter,
    save_examples,
    unrestrained,
    with_restraint,
    worth,
)
from restorer.training.train import Trainer

SIZES = {"noise_size": 3, "lookahead_frames": 2, "front_maps": 4, "stack_maps": 4, "dilations": (1, 3)}
FALLING, RISING = (4.0, 3.8, 3.5, 3.0), (2.0, 2.1, 2.2, 2.5)
BEST, WORST = np.array([-0.5, -0.3, -0.2, 0.0]), np.array([-0.1, -0.3, -0.5, -1.0])


def always(restraint, share):
    """Make it say the same whatever it hears."""
    with torch.no_grad():
        for layer in (restraint.tell, restraint.judge):
            layer.weight.zero_()
            layer.bias.zero_()
        restraint.judge.bias.fill_(float(np.log(share / (1 - share))))


def noise_power(frames, holes, seed=0):
    """Power of noise, (1, 1, frames, 1024); of its bins so many are nearly empty."""
    draw = torch.Generator().manual_seed(seed)
    power = torch.rand(1, 1, frames, BINS, generator=draw).log().neg()
    return torch.where(torch.rand(power.shape, generator=draw) < holes, 1e-4, 1.0) * power


def heard_of(power):
    """Means of its statistics, (statistics,), from power, (1, 1, frames, 1024)."""
    seen, loudness = Restraint(1).statistics(power)
    return ((seen * loudness).sum(dim=2) / loudness.sum(dim=2)).flatten()


def example(holes, odg, distances, seed=0):
    """What is heard of noise with holes, and grades."""
    level = 10 ** np.random.default_rng(seed).uniform(-1, 3)
    heard = heard_of(noise_power(40, holes, seed) * level)
    return Example(heard.numpy()[None], odg.astype(np.float32), np.array(distances, np.float32))


@torch.no_grad()
def test_share_scales_all_changes():
    free = shaken(Generator(GeneratorConfig(**SIZES, fine_maps=4)))
    held = with_restraint(free, 9, latitude=False)
    frames = torch.randn(2, 2, 30, 1025, generator=torch.Generator().manual_seed(2)) * 4
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(3))
    (changed,) = free(frames, z)
    given = frames[:, :, free.context_frames - 2 : -2, :BINS] * UNCHANGED
    for share in (1e-6, 0.3, 1 - 1e-6):
        always(held.restraint, share)
        (restored,) = held(frames, z)
        torch.testing.assert_close(
            restored[..., :BINS], given + share * (changed[..., :BINS] - given), atol=1e-4, rtol=1e-4
        )
        assert torch.equal(restored[..., BINS:], changed[..., BINS:])
    assert torch.equal(unrestrained(held)(frames, z)[0], changed)


@torch.no_grad()
def test_latitude_scales_the_noise():
    """Nearly none leaves the generator at its mean; all of it changes nothing."""
    free = shaken(Generator(GeneratorConfig(**SIZES, fine_maps=4)))
    held = with_restraint(free, 9)
    always(held.restraint, 1 - 1e-7)
    frames = torch.randn(2, 2, 30, 1025, generator=torch.Generator().manual_seed(2)) * 4
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(3))
    held.restraint.latitude.weight.zero_()
    for bias, same_as in ((20.0, z), (-20.0, torch.zeros(2, 3))):
        held.restraint.latitude.bias.fill_(bias)
        torch.testing.assert_close(held(frames, z)[0], free(frames, same_as)[0], atol=1e-4, rtol=1e-4)
    assert (free(frames, z)[0] - free(frames, torch.zeros(2, 3))[0]).abs().max() > 1e-2
    fixed = without(held, "noise_size")
    assert fixed.restraint.latitude is None
    torch.testing.assert_close(fixed(frames)[0], held(frames, torch.zeros(2, 3))[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_silence_says_nothing_and_the_past_is_forgotten():
    restraint = shaken(Restraint(8))
    power = torch.cat([noise_power(10, 0.3), torch.zeros(1, 1, 12, BINS), noise_power(5, 0.0)], dim=2)
    share, memory = restraint(power)
    assert share.shape == (1, 1, 27, 1) and memory is None
    alone, _ = restraint(power[:, :, 22:])
    torch.testing.assert_close(share[:, :, 22:], alone)
    zeros = torch.zeros(1, restraint.maps + 1, 7, 1)
    _, memory = restraint(torch.zeros(1, 1, 20, BINS), zeros)
    torch.testing.assert_close(memory, zeros, atol=1e-4, rtol=0)


def test_what_shares_are_worth():
    def best(odg, distances):
        return SHARES[np.argmax(worth(example(0, odg, np.array(distances))))]

    same = [2.0] * 4
    assert best(BEST, same) == 1.0 and best(WORST, same) == 0.0
    flat = np.full(4, -0.3)
    assert best(flat, [2.0, 1.8, 1.5, 1.0]) == 1.0 and best(flat, [2.0, 2.2, 2.5, 3.0]) == 0.0
    assert best(flat, [2.0, 1.8, 1.9, 2.5]) == 0.25
    assert best(np.array([-0.3, -0.31, -0.32, -0.33]), [2.0, 1.98, 1.96, 1.94]) == 0.0  # harm counts more
    assert is_poor(example(0, WORST - 1, same)) and not is_poor(example(0, BEST, same))
    assert gains([example(0, BEST, (2.0, 2.0))], np.array([0.75]))[0] == pytest.approx(0.4)


@pytest.mark.parametrize("gain_db", [-6, -20, -40])
def test_quieter_is_what_would_be_heard(gain_db):
    slope = torch.logspace(2, -5, BINS) * (torch.arange(BINS) < 700)  # falls to the floor, with nothing above 15 kHz
    power, gain = noise_power(60, 0.2) * slope, 10 ** (gain_db / 20)
    loud, quiet = heard_of(power), heard_of(power * gain**2)
    off = (quieter(loud[None], torch.tensor([gain]))[0] - quiet).abs()
    assert off.max() < 0.5 and off.mean() < 0.04 * (loud - quiet).abs().mean() + 0.02
    off = (quieter(loud[None], torch.ones(1))[0] - loud).abs()
    assert off.max() < 0.3 and off.mean() < 0.01  # something is lost at the floor


def test_it_learns_to_tell_holes_from_noise():
    examples = [
        example(holes, odg, distances, seed)
        for seed in range(30)
        for holes, odg, distances in ((0.3, BEST, FALLING), (0.0, WORST, RISING))
    ]
    restraint = Restraint(32)
    learn(restraint, examples[:40], steps=300)
    shares = judge(restraint, examples[40:])[:, 0]
    assert shares[::2].min() > 0.9 and shares[1::2].max() < 0.1
    with torch.no_grad():
        for holes, right in ((0.3, 1.0), (0.0, 0.0)):
            heard, _ = restraint(noise_power(32, holes, seed=99) * 30.0)
            assert heard[0, 0, -1, 0].item() == pytest.approx(right, abs=0.2)
    again = Restraint(32)
    learn(again, examples[:40], steps=300)
    assert torch.equal(again.tell.weight, restraint.tell.weight)


def test_noise_counts_where_coding_is_audible():
    grades = {0.3: BEST - 2, 0.1: BEST - 0.4, 0.0: BEST}  # ODG of the MP3s -2.5, -0.9, -0.5
    examples = [example(holes, odg, FALLING, seed) for seed in range(30) for holes, odg in grades.items()]
    restraint = Restraint(32, latitude=True)
    learn(restraint, examples[:60], steps=300)
    before = restraint.judge.weight.clone()
    learn_latitude(restraint, examples[:60])
    shares = judge(restraint, examples[60:])
    poor, middling, good = shares[::3, 1], shares[1::3, 1], shares[2::3, 1]
    assert poor.min() > 0.8 and good.max() < 0.4
    assert good.max() < middling.mean() < poor.min()
    assert torch.equal(restraint.judge.weight, before)


def test_an_example_grades_the_generator(small_config):
    generator = Generator(small_config.generator).eval()
    rng = np.random.default_rng(0)
    original = rng.standard_normal(44100).astype(np.float32) * 0.1
    coded = (original + 0.01 * rng.standard_normal(44100).astype(np.float32)) * np.float32(0.95)
    found = examine(generator, original, coded, rng)
    assert found.odg.shape == (len(SHARES),) and np.isfinite(found.heard).all() and np.isfinite(found.odg).all()
    assert found.distances_db.shape == (len(SHARES),) and found.distances_db.min() > 0
    rough = (original + 0.1 * rng.standard_normal(44100).astype(np.float32)) * np.float32(0.95)
    audible = examine(generator, original, rough, rng, whole=False)  # no share needs grading
    assert audible.odg[0] < POOR_ODG and np.isnan(audible.odg[1:]).all() and is_poor(audible)


@pytest.fixture(scope="module")
def trained(music_dir, small_config, tmp_path_factory):
    """A checkpoint, a pool, and what `restorer restrain` makes of them."""
    folder = tmp_path_factory.mktemp("restraint")
    torch.manual_seed(0)
    generator = shaken(Generator(GeneratorConfig(**SIZES)))
    config = dataclasses.replace(small_config, generator=generator.config)
    checkpoint.save(
        folder / "free.safetensors", checkpoint.prefixed("average", generator.state_dict()), config, {"step": 7}
    )
    words = [str(folder / "pool"), str(music_dir), "--slots", "6", "--seconds", "6", "--workers", "1", "--pairs", "6"]
    result = CliRunner().invoke(pool_command, [*words, "--codings", "32m 128m"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    words = [str(folder / "free.safetensors"), str(folder / "held.safetensors"), "--pool", str(folder / "pool")]
    result = CliRunner().invoke(
        restrain_command,
        [
            *words,
            "--excerpts",
            "20",
            "--frames",
            "30",
            "--workers",
            "2",
            "--grades",
            str(folder / "grades.safetensors"),
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    assert "ODG of the MP3" in result.output
    return folder


def test_command_adds_a_restraint_and_nothing_else(trained):
    free, _, _ = checkpoint.load_generator(trained / "free.safetensors")
    held, config, extra = checkpoint.load_generator(trained / "held.safetensors")
    assert config.generator.restraint_frames == 30 and extra["step"] == 7
    for name, tensor in free.state_dict().items():
        assert torch.equal(tensor, held.state_dict()[name])
    assert held.memory_frames == free.context_frames + 29
    frames = torch.randn(1, 2, 40, 1025)
    with torch.no_grad():
        pieces = stream(held, frames, torch.zeros(1, 3), [13, 1, 26])[:, :, held.context_frames :]
        torch.testing.assert_close(pieces, held(frames, torch.zeros(1, 3))[0], atol=1e-4, rtol=1e-4)


def test_command_takes_over_what_another_has_learnt(trained, tmp_path):
    words = [str(trained / "free.safetensors"), str(tmp_path / "b.safetensors")]
    result = CliRunner().invoke(restrain_command, [*words, "--like", str(trained / "held.safetensors")])
    assert result.exit_code == 0, result.output
    like, _, _ = checkpoint.load_generator(trained / "held.safetensors")
    held, _, _ = checkpoint.load_generator(tmp_path / "b.safetensors")
    for name, tensor in like.state_dict().items():
        assert torch.equal(tensor, held.state_dict()[name])


@pytest.mark.parametrize("source", ["pool", "grades"])
def test_command_learns_how_much_noise_counts_and_takes_over_the_rest(trained, tmp_path, source):
    words = [str(trained / "free.safetensors"), str(tmp_path / "c.safetensors")]
    words += ["--like", str(trained / "held.safetensors"), "--workers", "1"]
    words += ["--pool", str(trained / "pool"), "--excerpts", "20"] if source == "pool" else []
    words += ["--grades", str(trained / "grades.safetensors")] if source == "grades" else []
    before = (trained / "grades.safetensors").read_bytes()
    result = CliRunner().invoke(restrain_command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "noise" in result.output and "all changes" not in result.output
    like, _, _ = checkpoint.load_generator(trained / "held.safetensors")
    held, config, _ = checkpoint.load_generator(tmp_path / "c.safetensors")
    assert config.generator.restrained_noise
    for name, tensor in like.state_dict().items():
        if "latitude" not in name:
            assert torch.equal(tensor, held.state_dict()[name])
    assert (trained / "grades.safetensors").read_bytes() == before


def test_grades_are_kept_and_learnt_from_again(trained, tmp_path):
    free, grades = str(trained / "free.safetensors"), tmp_path / "grades.safetensors"
    grades.write_bytes((trained / "grades.safetensors").read_bytes())
    weights = fingerprint(checkpoint.load_generator(free)[0])
    kept = load_examples(grades, weights)
    assert len(kept) == 20 and np.isfinite(kept[0].odg).all()

    def restrain(name, *options):
        words = [free, str(tmp_path / name), "--frames", "30", "--grades", str(grades), *options]
        result = CliRunner().invoke(restrain_command, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return checkpoint.load_generator(tmp_path / name)[0]

    again = restrain("again.safetensors")
    first, _, _ = checkpoint.load_generator(trained / "held.safetensors")
    assert torch.equal(again.restraint.tell.weight, first.restraint.tell.weight)
    assert fingerprint(again) == weights

    restrain("more.safetensors", "--pool", str(trained / "pool"), "--excerpts", "3", "--workers", "1")
    more = load_examples(grades, weights)
    assert len(more) == 23
    np.testing.assert_array_equal(more[19].heard, kept[19].heard)
    with pytest.raises(ConfigError, match="other weights"):
        load_examples(grades, "others")
    save_examples(grades, [dataclasses.replace(found, distances_db=found.distances_db[:2]) for found in more], weights)
    with pytest.raises(ConfigError, match="of an earlier version"):
        load_examples(grades, weights)
    grades.write_bytes(b"no grades")
    with pytest.raises(ConfigError, match="holds no grades"):
        load_examples(grades, weights)


def test_training_goes_on_without_it_or_with_it(trained, small_config):
    held, config, _ = checkpoint.load_generator(trained / "held.safetensors")
    larger = dataclasses.replace(held.config, stack_maps=6)
    for sizes in (held.config, larger, dataclasses.replace(larger, restraint_frames=0)):
        trainer = Trainer(dataclasses.replace(config, generator=sizes))
        assert trainer.start_from(trained / "held.safetensors") == []
        assert (trainer.average.restraint is None) == (sizes.restraint_frames == 0)
        for name, tensor in held.restraint.state_dict().items():
            if sizes.restraint_frames:
                assert torch.equal(trainer.average.restraint.state_dict()[name], tensor)


def test_bad_requests_are_one_line(trained, tmp_path):
    free, out = str(trained / "free.safetensors"), str(tmp_path / "out.safetensors")
    for options, words in (
        ([], "give --pool or --grades"),
        (["--grades", out], "0 graded excerpts are too few"),
        (["--pool", str(trained / "pool"), "--like", free], "has no restraint"),
        (["--like", free], "has no restraint"),
    ):
        with pytest.raises(ConfigError, match=words):
            CliRunner().invoke(restrain_command, [free, out, *options], catch_exceptions=False)
    assert not (tmp_path / "out.safetensors").exists()
