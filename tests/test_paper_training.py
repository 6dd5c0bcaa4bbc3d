"""The paper's training is eq. 1 and eq. 3 on overlapping segments, as paper.toml says."""

import tomllib
from dataclasses import fields, replace
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restorer.errors import ConfigError
from restorer.training.config import Config, DataConfig, ScheduleConfig, from_dict
from restorer.training.pairs import Pairs
from restorer.training.paper_critic import PaperCriticConfig, wgan_loss
from restorer.training.paper_generator import PaperGeneratorConfig
from restorer.training.train import Trainer, train
from restorer.training.wgan import Segments, WganTrainer, build_trainer, profile_loss
from restorer.training.wgan_config import WganConfig

PAPER = resources.files("restorer.training") / "configs" / "paper.toml"
SHORT = {"front_maps": (2, 3, 3), "bands": 4, "stack_maps": 8, "dilations": (1, 2, 1)}


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
        if " = " in line and line.startswith(tuple("abcdefghijklmnopqrstuvwxyz")) and "kind" not in line:
            shared = line.split(" = ")[0] in ("name", "front_maps", "bands", "dilations")  # the critic's copies
            assert "#" in line or above.startswith("#") or shared, line
    config = Config.load(PAPER)
    s, w = config.schedule, config.wgan
    assert (s.steps, s.batch, s.frames, s.learning_rate, s.critic_learning_rate) == (40000, 12, 336, 1e-3, 1e-3)
    assert (w.frequency_exponent, w.rhythm_exponent, w.segment_overlap) == (1.3, 1.6, 0.5)
    assert config.data.codings == ("16m", "32m", "64m")
    assert from_dict(Config, config.to_dict()) == config


def test_unknown_kind_and_missing_paper_model_are_named(small_config):
    values = Config().to_dict()
    values["generator"] = {"kind": "huge"}
    with pytest.raises(ConfigError, match="'kind' must be one of compact, paper and not 'huge'"):
        from_dict(Config, values)
    with pytest.raises(ConfigError, match="generator kind 'paper' and not 'compact'"):
        build_trainer(replace(small_config, wgan=WganConfig()))
    assert type(build_trainer(small_config)) is Trainer
    assert Config.load(PAPER.parent / "compact.toml").wgan is None


def tiny(noise_size=4, steps=2):
    return Config(
        name="tiny",
        generator=PaperGeneratorConfig(**SHORT, noise_size=noise_size),
        critic=PaperCriticConfig(**SHORT),
        schedule=ScheduleConfig(steps=steps, batch=2, frames=24, workers=0, bf16=False),
        data=DataConfig(codings=("16m", "64m"), valid_every=100, checkpoint_minutes=100.0),
        wgan=WganConfig(critic_steps=2),
    )


def test_segments_are_all_pieces_with_half_overlap(pairs_dir):
    pairs, config = Pairs(pairs_dir, "train"), tiny(steps=50)
    segments = Segments(pairs, config, config.wgan, 0)
    samples = 2048 + 23 * 512
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
    pairs, config = Pairs(pairs_dir, "train"), tiny(noise_size)
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
