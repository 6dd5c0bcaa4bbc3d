"""Training is one computation however it is divided: over processes, passes, runs that were killed, and workers."""

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file
from toy_paper import toy_paper_config

from restorer.errors import ConfigError
from restorer.training import checkpoint
from restorer.training.distributed import Stop, World, join, launch
from restorer.training.loader import Excerpts, load, shards
from restorer.training.pairs import Pairs
from restorer.training.train import Trainer, train
from restorer.training.train_command import train_command
from restorer.training.wgan import Segments, build_trainer

CPU = torch.device("cpu")
KINDS = ("hinge", "wgan", "paper")
# Adam's first steps turn rounding errors of tiny gradients into full steps, so the critic stands still where gradients
# of what comes after its update are compared.
JUDGED = {"adversarial_from": 0, "critic_warmup": 0, "critic_learning_rate": 0.0}


def scheduled(config, **changes):
    return replace(config, schedule=replace(config.schedule, **changes))


def audio(config, seed=0, rank=0, size=1):
    """A rank's share of a batch of noise, its low-passed copy and bandwidths.

    Excerpts differ in level, in what survives and in what counts.
    """
    count, frames = config.schedule.batch, config.schedule.frames
    random = torch.Generator().manual_seed(seed)
    original = torch.randn(count, 2048 + (frames - 1) * 512, generator=random)
    original *= torch.rand(count, 1, generator=random) * 0.3 + 0.01
    coded = original.clone()
    coded[::2] = torch.nn.functional.avg_pool1d(original[:, None], 5, 1, 2)[::2, 0]
    bandwidth_hz = torch.rand(count, generator=random) * 9000 + 12000
    return [tensor[rank::size] for tensor in (original, coded, bandwidth_hz)]


def networks(trainer):
    return {f"{n}.{k}": v for n in ("generator", "critic") for k, v in getattr(trainer, n).named_parameters()}


def judged(config, kind):
    """A step of each kind of training: the loop's own with two losses of the critic, and the paper's."""
    if kind == "paper":
        return scheduled(toy_paper_config(batch=config.schedule.batch), critic_learning_rate=0.0)
    return scheduled(config, **JUDGED, adversarial_kind=kind)


def gradients_of_one_step(config, rank=0, size=1):
    trainer = build_trainer(config)
    if config.wgan is None:
        with torch.no_grad():  # an untrained generator changes nothing, and |log p - log q| has no gradient at p = q
            trainer.generator.out.conv.weight.mul_(100)
    terms = trainer.step(*audio(config, 0, rank, size))
    return {name: parameter.grad.contiguous() for name, parameter in networks(trainer).items()}, terms


def weights_after(steps, config, rank=0, size=1):
    trainer = build_trainer(config)
    for step in range(steps):
        trainer.step(*audio(config, step, rank, size))
    return {name: parameter.detach().contiguous() for name, parameter in networks(trainer).items()}


def one_rank(rank, port, config, steps, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with join() as world:
        assert (world.rank, world.size) == (rank, 2)
        assert world.any(rank == 1) and not world.any(False)
        for kind in KINDS:
            found, terms = gradients_of_one_step(judged(config, kind), rank, 2)
            if rank == 0:
                save_file(found | {"loss": torch.tensor(list(terms.values()))}, folder / f"{kind}.safetensors")
        for kind, trained in (("hinge", judged(config, "hinge")), ("paper", toy_paper_config(batch=6))):
            save_file(weights_after(steps, trained, rank, 2), folder / f"{kind}-{rank}.safetensors")


def test_two_processes_give_the_gradients_of_one_with_twice_the_batch(small_config, tmp_path, one_thread):
    config = scheduled(small_config, batch=6)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(one_rank, (port, config, 3, tmp_path), nprocs=2)
    for kind in KINDS:
        expected, terms = gradients_of_one_step(judged(config, kind))
        got = load_file(tmp_path / f"{kind}.safetensors")
        torch.testing.assert_close(got.pop("loss"), torch.tensor(list(terms.values())), rtol=1e-4, atol=1e-6)
        close(got, expected)
    for kind in ("hinge", "paper"):
        ranks = [load_file(tmp_path / f"{kind}-{rank}.safetensors") for rank in (0, 1)]
        assert all(torch.equal(value, ranks[1][name]) for name, value in ranks[0].items())
    alike(ranks[0], toy_paper_config(batch=6), 3)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def close(got, expected):
    """Gradients agree to 3e-5 of each tensor's own size; or, where sums cancel, to a millionth of all."""
    assert got.keys() == expected.keys()
    everything = float(torch.cat([value.flatten() for value in expected.values()]).norm())
    for name, value in expected.items():
        assert float((got[name] - value).norm()) <= 3e-5 * float(value.norm()) + 1e-6 * everything, name


def alike(got, config, steps):
    """Weights have moved as those of one process with the whole batch, but for a thousandth of the way.

    Adam's first steps go by the signs of gradients, which rounding decides where they nearly cancel: so everything here
    computes on one thread, as the ranks do.
    """
    start, expected = weights_after(0, config), weights_after(steps, config)
    apart, way = (
        torch.cat([(a[name] - b[name]).flatten() for name in start]).norm()
        for a, b in ((got, expected), (start, expected))
    )
    assert 0 < apart < 1e-3 * way


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", [2, 6])
def test_accumulated_gradients_are_those_of_the_whole_batch(small_config, kind, accumulate):
    config = judged(scheduled(small_config, batch=6), kind)
    expected, terms = gradients_of_one_step(config)
    got, same = gradients_of_one_step(scheduled(config, accumulate=accumulate))
    assert same == pytest.approx(terms, rel=1e-4)
    close(got, expected)


def test_accumulated_steps_of_the_paper_lead_where_those_of_the_whole_batch_lead(one_thread):
    config = toy_paper_config(batch=6)
    alike(weights_after(2, scheduled(config, accumulate=2)), config, 2)


@pytest.mark.parametrize("kind", ["wgan", "paper"])
def test_global_random_numbers_have_no_part(small_config, kind):
    config = judged(small_config, kind)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first, _ = gradients_of_one_step(config)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        second, _ = gradients_of_one_step(config)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_batch_must_divide(small_config):
    with pytest.raises(ConfigError, match="multiple of processes x accumulate = 1 x 4 and not 2"):
        Trainer(scheduled(small_config, accumulate=4))


@pytest.mark.parametrize("kind", ["compact", "paper"])
def test_run_killed_after_any_step_equals_the_uninterrupted_one(pairs_dir, small_config, tmp_path, kind):
    config = small_config if kind == "compact" else toy_paper_config(steps=4)
    config = replace(config, data=replace(config.data, checkpoint_minutes=0.0, valid_every=2))
    pairs, state = Pairs(pairs_dir, "train"), tmp_path / "state.safetensors"
    whole, steps = build_trainer(config), config.schedule.steps

    def keep(step, _):
        if step > 1:  # what is on disk now would be left if the next step were killed
            shutil.copy(state, tmp_path / f"{step - 1}.safetensors")

    def validate(trainer):  # and killed while it validates
        shutil.copy(state, tmp_path / f"validating-{trainer.step_number}.safetensors")

    assert train(whole, pairs, tmp_path, validate, keep)
    copies = [*tmp_path.glob("?.safetensors"), *tmp_path.glob("validating-*")]
    assert len(copies) == steps - 1 + steps // 2
    for copy in copies:
        resumed = build_trainer(config)
        resumed.resume(copy)
        step, validated = resumed.step_number, []
        assert train(
            resumed, pairs, tmp_path / ".", lambda t, seen=validated: seen.append(t.step_number), lambda *_: None
        )
        assert validated == [n for n in range(2, steps + 1, 2) if n > step or (n == step and "validating" in copy.name)]
        for name, value in networks(whole).items():
            assert torch.equal(value, networks(resumed)[name]), (copy.name, name)
        for a, b in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
            assert torch.equal(a, b)


def test_state_without_the_newer_fields_loads(small_config, tmp_path):
    trainer = Trainer(small_config)
    trainer.step(*audio(small_config))
    trainer.save(tmp_path / "new.safetensors")
    tensors, _, extra = checkpoint.load(tmp_path / "new.safetensors")
    extra.pop("validated")

    class Older:
        def to_dict(self):
            values = small_config.to_dict()
            return values | {
                "schedule": {k: v for k, v in values["schedule"].items() if k not in ("accumulate", "compile")}
            }

    checkpoint.save(tmp_path / "old.safetensors", tensors, Older(), extra)
    again = Trainer(small_config)
    again.resume(tmp_path / "old.safetensors")
    assert again.step_number == again.validated == 1
    assert again.step(*audio(small_config, seed=1)) == trainer.step(*audio(small_config, seed=1))


def test_shards_cover_every_batch_once():
    for size in (1, 2, 3):
        ranks = [list(shards(24, 6, rank, size)) for rank in range(size)]
        for index in range(4):
            assert sorted(item for rank in ranks for item in rank[index]) == list(range(6 * index, 6 * index + 6))


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_gives_the_same_excerpts_from_any_start_and_rank(pairs_dir, small_config, workers):
    config, pairs = scheduled(small_config, steps=3, batch=4), Pairs(pairs_dir, "train", quick=True)
    everything = [Excerpts(pairs, config, 0)[index] for index in range(12)]
    for rank in (0, 1):
        batches = list(load(Excerpts(pairs, config, 4), 4, workers, World(rank, 2, CPU)))
        assert len(batches) == 2
        for index, batch in enumerate(batches):
            for row, place in enumerate(range(4 + 4 * index + rank, 8 + 4 * index, 2)):
                for got, expected in zip(batch, everything[place], strict=True):
                    np.testing.assert_array_equal(got[row], expected)


def test_excerpts_travel_to_workers_that_are_spawned(pairs_dir, small_config):
    """Where processes do not fork, excerpts are pickled: they come out the same, and without what was read."""
    toy = toy_paper_config()
    pairs = Pairs(pairs_dir, "train", quick=True)
    for excerpts in (Excerpts(pairs, small_config, 2), Segments(pairs, toy, toy.wgan, 1)):
        expected = excerpts[1]
        sent = pickle.dumps(excerpts)
        assert len(sent) < 20_000
        again = pickle.loads(sent)
        assert len(again) == len(excerpts) and again.pairs.quick
        for got, value in zip(again[1], expected, strict=True):
            np.testing.assert_array_equal(got, value)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_survive_signals_to_the_whole_group(pairs_dir, small_config):
    config = scheduled(small_config, steps=40)
    before = children(os.getpid())
    batches = load(Excerpts(Pairs(pairs_dir, "train"), config, 0), 2, 1, World(0, 1, CPU))
    next(batches)
    (worker,) = children(os.getpid()) - before
    os.kill(int(worker), signal.SIGINT)
    os.kill(int(worker), signal.SIGTERM)
    assert len(list(batches)) == 39
    assert worker not in children(os.getpid())


def children(pid):
    """Process ids, as Linux knows them."""
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_second_ctrl_c_ends_at_once():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_launch_gives_ranks_and_ends_all_when_one_fails(tmp_path):
    code = "import os, sys, time; r = os.environ['RANK']; open(sys.argv[1] + r, 'w').write(os.environ['WORLD_SIZE']);"
    command = [sys.executable, "-c", code + "time.sleep(0 if r == '1' else 60); sys.exit(7)", str(tmp_path / "rank")]
    started = time.monotonic()
    assert launch(command, 3) == 7
    assert time.monotonic() - started < 30
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(3)] == ["3"] * 3


def test_command_on_two_devices_stops_on_a_signal_and_one_device_goes_on(pairs_dir, small_config, tmp_path):
    from click.testing import CliRunner

    config = scheduled(small_config, steps=30, adversarial_from=20, workers=1)
    config = replace(config, data=replace(config.data, valid_every=1000, checkpoint_minutes=0.0))
    sections = {k: v for k, v in config.to_dict().items() if isinstance(v, dict)}
    text = [
        f"[{k}]\n" + "\n".join(f"{n} = {json.dumps(x)}" for n, x in v.items() if x is not None)
        for k, v in sections.items()
    ]
    (tmp_path / "small.toml").write_text("\n".join(text))
    run = tmp_path / "run"
    arguments = [str(tmp_path / "small.toml"), "--pairs", str(pairs_dir), "--out", str(run), "--precision", "fp32"]
    with pytest.raises(ConfigError, match="multiple of devices x accumulate = 3 x 1 and not 2"):
        CliRunner().invoke(train_command, [*arguments, "--devices", "3"], catch_exceptions=False)

    command = [sys.executable, "-m", "restorer", "train", *arguments, "--devices", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (run / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C: to all processes, workers included
    lines = process.communicate(timeout=120)[1].strip().splitlines()
    assert process.returncode == 2, lines
    assert "saved; go on with: restorer train" in lines[-1] and "Traceback" not in "".join(lines)
    step = checkpoint.load(run / "state.safetensors")[2]["step"]
    assert 0 < step < 30

    result = CliRunner().invoke(train_command, [*arguments, "--resume"], catch_exceptions=False)
    assert result.exit_code == 0 and "Trained to step 30" in result.output
    whole = Trainer(config)
    train(whole, Pairs(pairs_dir, "train", quick=True), tmp_path, lambda _: None, lambda *_: None)
    resumed = checkpoint.load(run / "state.safetensors")[0]
    for name, value in networks(whole).items():
        torch.testing.assert_close(resumed[name], value.detach(), rtol=1e-2, atol=1e-3)
