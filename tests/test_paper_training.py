"""The paper's training is eq. 1 and eq. 3 on overlapping segments, as paper.toml says."""

import tomllib
from dataclasses import fields, replace
from functools import partial
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner
from toy_paper import toy_paper_config

from restorer.errors import ConfigError
from restorer.training.config import Config, from_dict
from restorer.training.pairs import Pairs
from restorer.training.paper_critic import PaperCriticConfig, wgan_loss
from restorer.training.paper_generator import PaperGeneratorConfig
from restorer.training.train import Diverged, Trainer, train
from restorer.training.train_command import check_coded_rate, check_devices, train_command
from restorer.training.training_speed import largest_batch, measure_training
from restorer.training.wgan import Segments, WganTrainer, build_trainer, profile_loss
from restorer.training.wgan_config import WganConfig

PAPER = resources.files("restorer.training") / "configs" / "paper.toml"


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_wgan_loss_is_equation_1_with_penalty_and_drift():
    """A linear critic has a known gradient: the penalty is (its norm - 1) squared."""
    weight = random(1, 2, 6, 5)
    real, fake, coded = (random(3, 2, 6, 5, seed=seed) for seed in range(3))

    def linear(x, _):
        return (x * weight).sum(dim=(1, 3)), []

    loss, distance = wgan_loss(linear, real, fake, coded, torch.rand(3, 1, 1, 1), 10.0, 0.5)
    r, f = ((x * weight).sum(dim=(1, 3)) for x in (real, fake))
    expected = f.mean() - r.mean() + 10 * (weight.norm() / 6 - 1) ** 2 + 0.5 * r.square().mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(distance, r.mean() - f.mean())


def test_profile_loss_is_equation_3():
    first, second = (random(2, 2, 7, 9, seed=seed).double() for seed in (1, 2))
    z1, z2 = random(2, 4, seed=3).double(), random(2, 4, seed=4).double()
    got = profile_loss(first, second, z1, z2, WganConfig(theta=50.0))
    expected = []
    for i in range(2):
        p, q = (np.hypot(*(x[i].numpy() ** 2)) for x in (first, second))  # eq. 4 undone: magnitudes
        noise = 50 * np.linalg.norm(z1[i] - z2[i])
        frequency = (np.abs(p.sum(axis=0) - q.sum(axis=0)) ** 1.3).sum()
        rhythm = (np.abs(p.sum(axis=1) - q.sum(axis=1)) ** 1.6).sum()
        expected.append(noise / (frequency + 1) + noise / (rhythm + 1))  # the floor of 1
    assert float(got) == pytest.approx(np.mean(expected), rel=1e-6)
    assert float(profile_loss(first, first, z1, z2, WganConfig())) > 100 * float(got)


def test_config_is_complete_and_commented():
    text = PAPER.read_text()
    values = tomllib.loads(text)
    for section, cls in (("generator", PaperGeneratorConfig), ("critic", PaperCriticConfig), ("wgan", WganConfig)):
        assert set(values[section]) == {field.name for field in fields(cls)}
    lines = text.splitlines()
    for above, line in pairwise(lines):
        if " = " in line and not line.startswith("#"):
            assert "#" in line or above.startswith("#"), line
    config = Config.load(PAPER)
    s, w = config.schedule, config.wgan
    assert (s.steps, s.batch, s.frames, s.learning_rate, s.critic_learning_rate) == (40000, 12, 336, 1e-3, 1e-3)
    assert (w.frequency_exponent, w.rhythm_exponent, w.segment_overlap) == (1.3, 1.6, 0.5)
    assert config.data.codings == ("16m", "32m", "64m") and config.data.coded_rate_hz == 44100
    assert from_dict(Config, config.to_dict()) == config


def test_pairs_of_another_coded_rate_are_refused_before_training(pairs_dir, tmp_path):
    training, validating = Pairs(pairs_dir, "train"), Pairs(pairs_dir, "valid")
    config = toy_paper_config()
    check_coded_rate(config, training, validating)
    config = replace(config, data=replace(config.data, coded_rate_hz=44100))
    assert from_dict(Config, config.to_dict()) == config
    words = "coded at LAME's own sample rates and data.coded_rate_hz is 44100; .* restorer prepare --coded-rate 44100"
    with pytest.raises(ConfigError, match=words):
        check_coded_rate(config, training, validating)
    validating.songs = training.songs = [replace(training.songs[0], coded_rate_hz=44100)]
    check_coded_rate(config, training, validating)
    with pytest.raises(ConfigError, match="'coded_rate_hz' must be int and not '44100'"):
        from_dict(Config, {"data": {"coded_rate_hz": "44100"}})
    arguments = [str(PAPER), "--pairs", str(pairs_dir), "--out", str(tmp_path / "run")]
    with pytest.raises(ConfigError, match=words):
        CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_a_measured_training_has_a_speed():
    speed = measure_training(toy_paper_config(), steps=2, warmup_steps=1)
    assert speed.steps_per_second > 0 and speed.peak_bytes is None  # of a GPU alone
    assert speed.days(86400) == pytest.approx(1 / speed.steps_per_second)
    assert largest_batch(toy_paper_config(), fits=lambda config: config.schedule.batch <= 37) == 37
    assert largest_batch(toy_paper_config(), fits=lambda config: False) == 0


def test_unknown_kind_and_missing_paper_model_are_named(small_config):
    values = Config().to_dict()
    values["generator"] = {"kind": "huge"}
    with pytest.raises(ConfigError, match="'kind' must be one of compact, paper and not 'huge'"):
        from_dict(Config, values)
    with pytest.raises(ConfigError, match="generator kind 'paper' and not 'compact'"):
        build_trainer(replace(small_config, wgan=WganConfig()))
    assert type(build_trainer(small_config)) is Trainer
    assert Config.load(PAPER.parent / "compact.toml").wgan is None


def test_segments_are_all_pieces_with_half_overlap(pairs_dir):
    pairs, config = Pairs(pairs_dir, "train"), toy_paper_config(steps=50)
    segments = Segments(pairs, config, config.wgan, 0)
    samples = 2048 + 11 * 512
    starts = sorted({segment.start for segment in segments.segments})
    assert set(np.diff(starts)) == {samples // 2} and starts[-1] + samples <= pairs.songs[0].samples
    assert {segment.coding for segment in segments.segments} == {"16m", "64m"}
    epoch = segments._shuffle(0)
    assert sorted(epoch) == list(range(2 * len(starts))) and list(epoch) != list(segments._shuffle(1))
    original, coded, _ = segments[5]
    chosen = segments.segments[epoch[5]]
    expected = pairs.excerpt(chosen.song, chosen.coding, chosen.start, samples)
    np.testing.assert_array_equal(original, expected[0])
    np.testing.assert_array_equal(coded, expected[1])
    np.testing.assert_array_equal(Segments(pairs, config, config.wgan, 3)[2][0], original)


@pytest.mark.parametrize("noise_size", [4, 0])
def test_training_moves_both_networks_and_resumes_exactly(pairs_dir, tmp_path, noise_size):
    pairs, config = Pairs(pairs_dir, "train"), toy_paper_config(noise_size)
    seen = []

    def keep(step, terms):
        seen.append(terms)
        if step == 1:
            trainer.save(tmp_path / "first.safetensors")

    trainer = build_trainer(config)
    assert isinstance(trainer, WganTrainer)
    before = [p.clone() for network in (trainer.generator, trainer.critic) for p in network.parameters()]
    train(trainer, pairs, tmp_path, lambda _: None, keep)
    after = [p for network in (trainer.generator, trainer.critic) for p in network.parameters()]
    assert sum(torch.equal(a, b) for a, b in zip(before, after, strict=True)) == 0
    assert ("profile" in seen[0]) == bool(noise_size)
    for mean, parameter in zip(trainer.average.parameters(), trainer.generator.parameters(), strict=True):
        torch.testing.assert_close(mean, parameter.cpu())

    again = build_trainer(config)
    again.resume(tmp_path / "first.safetensors")
    later = []
    train(again, pairs, tmp_path, lambda _: None, lambda _, terms: later.append(terms))
    assert len(later) == 1 and later[0] == pytest.approx(seen[1], rel=1e-4)


def test_compiled_training_computes_the_same(monkeypatch):
    """Traced and differentiated as torch.compile does it, but run without its code generator, which takes minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = toy_paper_config()
    audio = random(2, 2048 + 11 * 512) * 0.1
    terms = []
    for compiled in (False, True):
        trainer = build_trainer(replace(config, schedule=replace(config.schedule, compile=compiled)))
        terms.append(trainer.step(audio, audio.round(decimals=1), torch.full((2,), 2e4)))
    assert terms[1] == pytest.approx(terms[0], rel=1e-4)


def test_devices_share_the_papers_batch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # processes on CPUs, however many
    config = Config.load(PAPER)
    for devices in (1, 2, 3, 4, 6, 12):
        check_devices(config, devices)
    with pytest.raises(ConfigError, match="multiple of devices x accumulate = 5 x 1 and not 12"):
        check_devices(config, 5)


def test_a_loss_that_is_not_finite_stops_training_before_weights_move():
    trainer = build_trainer(toy_paper_config())
    before = [parameter.clone() for parameter in trainer.critic.parameters()]
    audio = torch.full((2, 2048 + 11 * 512), torch.nan)
    with pytest.raises(Diverged, match=r"step 0: loss is not finite \(critic nan"):
        trainer.step(audio, audio, torch.full((2,), 2e4))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.critic.parameters(), strict=True))
