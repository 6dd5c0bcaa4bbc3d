"""Training really runs: losses fall, the critic joins, runs resume exactly, faults stop with a line."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner
from toy_config import write_config

from restorer.errors import ConfigError, ModelError
from restorer.training import checkpoint
from restorer.training.config import Config
from restorer.training.critic import Critic, critic_loss
from restorer.training.loader import Excerpts
from restorer.training.losses import LossConfig, judged_bandwidth, profile_loss, reconstruction, survival
from restorer.training.pairs import Pairs
from restorer.training.signal import HOP, WINDOW
from restorer.training.train import Diverged, Trainer, train


def batch(pairs_dir, config, index=0):
    excerpts = Excerpts(Pairs(pairs_dir, "train"), config, 0)
    count = config.schedule.batch
    return torch.utils.data.default_collate([excerpts[index * count + i] for i in range(count)])


def test_reconstruction_learns(pairs_dir, small_config):
    schedule = replace(small_config.schedule, steps=60, adversarial_from=60, warmup_steps=5, learning_rate=3e-3)
    trainer = Trainer(replace(small_config, schedule=schedule))
    data = batch(pairs_dir, trainer.config)
    losses = [trainer.step(*data) for _ in range(40)]
    assert losses[-1]["log_magnitude"] < 0.9 * losses[0]["log_magnitude"]
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_critic_joins_and_both_move(pairs_dir, small_config):
    trainer = Trainer(small_config)
    before = [p.clone() for p in trainer.critic.parameters()]
    for index in range(5):
        terms = trainer.step(*batch(pairs_dir, small_config, index))
        assert ("critic" in terms) == (index >= small_config.schedule.adversarial_from)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.critic.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["hinge", "wgan"])
def test_critic_learns_to_tell(small_config, kind):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic(small_config.critic)
        optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
        coded = torch.randn(4, 2, 12, 1025) * 3
        real, fake = coded + torch.randn_like(coded), coded * 0.5
        for _ in range(25):
            optimiser.zero_grad()
            loss = critic_loss(critic, real, fake, coded, torch.rand(4, 1, 1, 1), kind, 10.0, 1e-3)
            loss.backward()
            optimiser.step()
        assert torch.isfinite(loss)
        assert critic(real, coded)[0].mean() > critic(fake, coded)[0].mean()
        assert critic(real, coded)[0].shape == (4, 12)


def test_critic_groups_meet_only_in_the_output(small_config):
    critic = Critic(small_config.critic)
    frames = torch.randn(1, 2, 8, 1025)
    critic.groups[0](torch.cat([frames, frames], 1)[..., :1024])[-1].sum().backward()
    assert all(p.grad is None for p in critic.groups[1].parameters())
    assert any(p.grad is not None for p in critic.groups[0].parameters())


def test_resumed_run_equals_an_uninterrupted_one(pairs_dir, small_config, tmp_path):
    whole, broken = Trainer(small_config), Trainer(small_config)
    for index in range(5):
        expected = whole.step(*batch(pairs_dir, small_config, index))
    for index in range(2):
        broken.step(*batch(pairs_dir, small_config, index))
    broken.save(tmp_path / "state.safetensors")
    resumed = Trainer(small_config)
    resumed.resume(tmp_path / "state.safetensors")
    for index in range(2, 5):
        got = resumed.step(*batch(pairs_dir, small_config, index))
    assert got == pytest.approx(expected, rel=1e-4)
    for a, b in zip(whole.generator.parameters(), resumed.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_loop_saves_validates_and_stops_at_the_last_step(pairs_dir, small_config, tmp_path):
    trainer, seen, validated = Trainer(small_config), [], []
    pairs = Pairs(pairs_dir, "train")
    train(trainer, pairs, tmp_path, lambda t: validated.append(t.step_number), lambda s, _: seen.append(s))
    assert seen == [1, 2, 3, 4, 5, 6] and validated == [6]
    assert checkpoint.load(tmp_path / "state.safetensors")[2]["step"] == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_a_resumable_run(pairs_dir, small_config, tmp_path, number):
    def report(step, _):
        if step == 2:
            os.kill(os.getpid(), number)

    assert not train(Trainer(small_config), Pairs(pairs_dir, "train"), tmp_path, lambda _: None, report)
    resumed = Trainer(small_config)
    resumed.resume(tmp_path / "state.safetensors")
    assert resumed.step_number == 2
    wider = Trainer(replace(small_config, generator=replace(small_config.generator, stack_maps=8)))
    with pytest.raises(ModelError, match="is no run of the config's networks: size mismatch"):
        wider.resume(tmp_path / "state.safetensors")


def test_divergence_stops_with_a_line(pairs_dir, small_config):
    trainer = Trainer(small_config)
    with torch.no_grad():
        trainer.generator.out.conv.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="diverged at step 0"):
        trainer.step(*batch(pairs_dir, small_config))


def test_command_trains_and_resumes(pairs_dir, small_config, tmp_path):
    from restorer.training.train_command import train_command

    config = write_config(small_config, tmp_path / "small.toml")
    run = tmp_path / "run"
    arguments = [str(config), "--pairs", str(pairs_dir), "--out", str(run)]
    starts = []
    for noise_size in (small_config.generator.noise_size, 0):  # the second lacks what the first brings
        starts += ["--start", str(tmp_path / f"{noise_size}.safetensors")]
        first = Trainer(replace(small_config, generator=replace(small_config.generator, noise_size=noise_size)))
        first.save_generator(Path(starts[-1]), {})
    result = CliRunner().invoke(train_command, arguments + starts, catch_exceptions=False)
    assert result.exit_code == 0 and "therefore new" not in result.output, result.output
    generator, loaded, _ = checkpoint.load_generator(run / "best.safetensors")
    assert loaded == small_config and generator.config == small_config.generator
    row = json.loads((run / "metrics.jsonl").read_text())
    assert row["32m"]["lsd_mp3"] > 0 and row["step"] == 6
    assert list((run / "previews").glob("*.png")) and list((run / "tensorboard").iterdir())
    with pytest.raises(ConfigError, match="already holds a run"):
        CliRunner().invoke(train_command, arguments, catch_exceptions=False)


def test_start_takes_weights_and_names_what_is_new(small_config, tmp_path):
    path = tmp_path / "first.safetensors"
    first = Trainer(small_config)
    first.save_generator(path, {})
    wider = replace(small_config, generator=replace(small_config.generator, fine_maps=4))
    second = Trainer(wider)
    assert {name.split(".")[0] for name in second.start_from(path)} == {"fine"}
    for network in (second.generator, second.average):
        torch.testing.assert_close(network.merge.conv.weight, first.average.merge.conv.weight, rtol=0, atol=0)
    second.save_generator(path, {})
    with pytest.raises(ConfigError, match="fine_maps must be at least 4"):
        first.start_from(path)
    smaller = Trainer(replace(small_config, generator=replace(wider.generator, stack_maps=4)))
    with pytest.raises(ConfigError, match="stack_maps must be at least"):
        smaller.start_from(path)
    other = Trainer(replace(small_config, generator=replace(wider.generator, noise_size=5)))
    with pytest.raises(ModelError, match="does not fit"):
        other.start_from(path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"front_maps": 12, "stack_maps": 12},
        {"band_maps": 24, "aggregation_maps": 6},
        {"fine_maps": 7, "hint_maps": 6},
        {"fine_levels": True},
        {"dilations": (1, 2, 4), "stack_maps": 20},
        {"aggregation_rank": 7, "stack_maps": 9},
    ],
    ids=" ".join,
)
def test_larger_generator_begins_with_the_same_function(small_config, tmp_path, sizes):
    path = tmp_path / "first.safetensors"
    rank = 3 if "aggregation_rank" in sizes else 0
    levels = "fine_levels" not in sizes
    generator = replace(small_config.generator, fine_maps=4, fine_levels=levels, aggregation_rank=rank)
    first = Trainer(replace(small_config, generator=generator))
    with torch.no_grad():
        for parameter in first.average.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    first.save_generator(path, {})
    larger = Trainer(replace(first.config, generator=replace(first.config.generator, **sizes)))
    assert larger.start_from(path) == []
    frames = torch.randn(1, 2, 60, 1025, generator=torch.Generator().manual_seed(0))
    z = torch.ones(1, small_config.generator.noise_size)
    with torch.no_grad():
        (expected,), (found,) = first.average(frames, z), larger.average(frames, z)
    torch.testing.assert_close(found[:, :, -5:], expected[:, :, -5:], rtol=0, atol=1e-4)
    audio = torch.randn(4, WINDOW + (small_config.schedule.frames - 1) * HOP) * 0.1
    larger.step(audio, audio, torch.full((4,), 22050.0))
    for name, parameter in larger.generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().amax() > 0, name


def test_aggregation_filters_of_a_lower_rank_are_the_nearest(small_config, tmp_path):
    path = tmp_path / "first.safetensors"
    first = Trainer(small_config)
    with torch.no_grad():  # filters that are sums of five
        for layer in (first.average.aggregate, first.average.spread):
            left, values, right = torch.linalg.svd(layer.dense.weight, full_matrices=False)
            layer.dense.weight.copy_(left[:, :5] * values[:5] @ right[:5])
    first.save_generator(path, {})
    frames = torch.randn(1, 2, 60, 1025, generator=torch.Generator().manual_seed(0))
    z = torch.ones(1, small_config.generator.noise_size)
    errors = []
    for rank, sizes in ((5, {}), (5, {"stack_maps": 9}), (2, {})):
        config = replace(small_config, generator=replace(small_config.generator, aggregation_rank=rank, **sizes))
        lower = Trainer(config)
        assert lower.start_from(path) == []
        with torch.no_grad():
            errors.append(float((lower.average(frames, z)[0] - first.average(frames, z)[0]).abs().amax()))
    assert errors[0] < 1e-4 and errors[1] < 1e-4 and errors[2] > 1e-3
    lower.save_generator(path, {})
    with pytest.raises(ConfigError, match="aggregation_rank must be at least 2"):
        Trainer(small_config).start_from(path)


def test_a_narrower_last_stage_keeps_what_matters(small_config, tmp_path):
    path = tmp_path / "first.safetensors"
    first = Trainer(replace(small_config, generator=replace(small_config.generator, fine_maps=5)))
    with torch.no_grad():
        fine = first.average.fine
        fine.fill.conv.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        fine.fill.conv.weight[:, 1] = 0  # two maps that nothing comes of: not heard behind, and deaf
        for layer in (fine.look, fine.merge):
            layer.conv.weight[4] *= 1e-6
            layer.conv.bias[4] = 0
    first.save_generator(path, {})
    frames = torch.randn(1, 2, 60, 1025, generator=torch.Generator().manual_seed(0))
    z = torch.ones(1, small_config.generator.noise_size)
    errors = []
    for maps, stack_maps in ((3, 8), (3, 9), (2, 8)):
        sizes = {"fine_maps": maps, "stack_maps": stack_maps}
        fewer = Trainer(replace(small_config, generator=replace(small_config.generator, **sizes)))
        assert fewer.start_from(path) == []
        with torch.no_grad():
            errors.append(float((fewer.average(frames, z)[0] - first.average(frames, z)[0]).abs().amax()))
    assert errors[0] < 1e-4 and errors[1] < 1e-4 and errors[2] > 1e-3


def test_a_last_stage_without_levels_keeps_what_it_makes_of_contrast(small_config, tmp_path):
    path = tmp_path / "first.safetensors"
    first = Trainer(replace(small_config, generator=replace(small_config.generator, fine_maps=5)))
    with torch.no_grad():
        first.average.fine.fill.conv.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        first.average.fine.look.conv.weight[:, 0] = 0  # deaf to levels
    first.save_generator(path, {})
    other = Trainer(replace(first.config, generator=replace(first.config.generator, fine_levels=False)))
    assert other.start_from(path) == []
    frames = torch.randn(1, 2, 60, 1025, generator=torch.Generator().manual_seed(0))
    z = torch.ones(1, small_config.generator.noise_size)
    with torch.no_grad():
        torch.testing.assert_close(other.average(frames, z)[0], first.average(frames, z)[0])


def test_only_parts_that_the_schedule_names_learn(small_config):
    trainer = Trainer(replace(small_config, schedule=replace(small_config.schedule, only=("noise",))))
    before = {name: tensor.clone() for name, tensor in trainer.generator.state_dict().items()}
    audio = torch.randn(4, WINDOW + (small_config.schedule.frames - 1) * HOP) * 0.1
    trainer.step(audio, audio * 0.9, torch.full((4,), 22050.0))
    changed = {name for name, tensor in trainer.generator.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"noise.weight"}
    with pytest.raises(ConfigError, match="only must name parts of the generator"):
        Trainer(replace(small_config, schedule=replace(small_config.schedule, only=("noises",))))


def test_start_without_noise_is_the_mean_of_noise(small_config, tmp_path):
    path = tmp_path / "first.safetensors"
    first = Trainer(small_config)
    first.save_generator(path, {})
    second = Trainer(replace(small_config, generator=replace(small_config.generator, noise_size=0)))
    assert second.start_from(path) == []
    frames = torch.randn(1, 2, 40, 1025, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (expected,) = first.average(frames, torch.zeros(1, small_config.generator.noise_size))
        (found,) = second.average(frames)
    torch.testing.assert_close(found, expected)


def test_config_errors_name_the_known_keys(tmp_path):
    path = tmp_path / "c.toml"
    for text, words in (
        ("[schedule]\nstep = 3", "unknown key 'step'; known are .*steps"),
        ('[schedule]\nsteps = "many"', "'steps' must be int and not 'many'"),
        ("[generator]\ndilations = 3", "'dilations' must be"),
        ("name = ", "not valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            Config.load(path)


def test_a_config_may_begin_with_another(tmp_path):
    (tmp_path / "base.toml").write_text('name = "a"\n[schedule]\nsteps = 7\nbatch = 2\n[loss]\nwindows = [512, 1024]')
    (tmp_path / "middle.toml").write_text('base = "base.toml"\n[schedule]\nsteps = 8')
    path = tmp_path / "c.toml"
    path.write_text('base = "middle.toml"\nname = "c"\n[schedule]\nseed = 3\n[loss]\nwindows = [256]')
    config = Config.load(path)
    assert (config.name, config.schedule.steps, config.schedule.batch, config.schedule.seed) == ("c", 8, 2, 3)
    assert config.loss.windows == (256,)
    for text, words in (
        ('base = "none.toml"', "none.toml' cannot be read"),
        ("base = 3", "'base' must be the name of a config and not 3"),
        ('base = "c.toml"', "not in a circle"),
        ('base = "base.toml"\nschedule = 3', "'schedule' must be a table"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            Config.load(path)


def test_shipped_configs_load():
    from importlib.resources import files

    configs = [p for p in files("restorer.training").joinpath("configs").iterdir() if p.name.endswith(".toml")]
    assert configs
    for path in configs:
        Config.load(str(path))


def test_foreign_checkpoints_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(ModelError, match="no checkpoint"):
        checkpoint.load(path)
    torch.save({"a": torch.zeros(3)}, path)  # a pickle
    with pytest.raises(ModelError, match="not a readable safetensors"):
        checkpoint.load(path)


def test_losses_are_zero_for_the_original_and_survival_knows_the_cut():
    from restorer.training.signal import analyse

    audio = torch.randn(2, 2048 * 8, generator=torch.Generator().manual_seed(0)) * 0.1
    band = torch.tensor([20000.0, 20000.0])
    assert all(float(v) < 1e-6 for v in reconstruction(audio, audio, audio, band, LossConfig()).values())
    assert all(float(v) > 0.1 for v in reconstruction(audio * 0.5, audio, audio, band, LossConfig()).values())
    frames = analyse(audio)
    cut = frames.clone()
    cut[..., 400:] = 0
    kept = survival(frames, cut)
    assert kept[..., :380].mean() > 0.95 and kept[..., 420:].max() == 0


def test_profile_loss_falls_as_takes_part():
    draw = torch.Generator().manual_seed(0)
    original, first = torch.randn(2, 2, 2048 + 9 * 512, generator=draw)
    z1, z2 = torch.randn(2, 2, 8, generator=draw)
    lost = torch.zeros(2, 1, 10, 1025)
    values = [float(profile_loss(first, first * (1 + d), z1, z2, original, lost)) for d in (0.0, 0.05, 0.3, 1.0)]
    assert values == sorted(values, reverse=True) and values[-1] < 0.2 * values[0]


def test_profile_loss_has_a_gradient_in_silence():
    takes = torch.zeros(2, 2, 2048 + 9 * 512, requires_grad=True)
    z1, z2 = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0))
    profile_loss(takes[0], takes[1], z1, z2, takes[0].detach(), torch.zeros(2, 1, 10, 1025)).backward()
    assert torch.isfinite(takes.grad).all()


def test_harm_counts_only_what_is_worse_than_the_mp3():
    draw = torch.Generator().manual_seed(0)
    original, error = torch.randn(2, 1, 22050, generator=draw) * torch.tensor([[[0.1]], [[0.001]]])
    coded, band = 0.95 * (original + error), torch.tensor([22050.0])
    config = LossConfig(harm=1.0)
    harms = [
        float(reconstruction(original + share * error, original, coded, band, config)["harm"])
        for share in (0.0, 0.5, 0.99, 2.0, 4.0)
    ]
    assert harms[:3] == [0, 0, 0]
    assert harms[3] > 0.15 * 6  # its noise alone is 6 dB more
    assert harms[4] > harms[3]


def test_losses_judge_everything_where_the_mp3_reaches_as_far_as_the_original():
    own = torch.tensor([15000.0, 15000.0])
    kept = torch.ones(2, 1, 8, 1025)
    kept[1, ..., 500:] = 0  # 10.8 kHz
    judged = judged_bandwidth(kept, own)
    assert judged[0] > 22050 + 300 and judged[1] == own[1]


def test_relative_distance_counts_excerpts_alike_however_good_their_mp3s():
    draw = torch.Generator().manual_seed(0)
    original, error = torch.randn(2, 2, 22050, generator=draw) * torch.tensor([[[0.1]], [[0.01]]])
    coded, band = 0.95 * (original + error * torch.tensor([[1.0], [0.3]])), torch.full((2,), 22400.0)
    config = LossConfig(relative=1.0)

    def distance(first: float, second: float) -> float:
        restored = original + error * torch.tensor([[first], [second]])
        return float(reconstruction(restored, original, coded, band, config)["relative"])

    assert distance(0, 0) < 0.1
    assert distance(1.0, 0.3) == pytest.approx(1, abs=0.05)
    assert distance(2.0, 0.3) > 1.3 and distance(1.0, 0.6) > 1.3
    assert distance(0.0, 0.3) < 0.6 and distance(1.0, 0.0) < 0.6
    assert "relative" not in reconstruction(original, original, coded, band, LossConfig())
