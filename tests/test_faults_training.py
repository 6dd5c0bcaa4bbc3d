"""A training run that is killed, or finds no room, keeps its last checkpoint and goes on as if nothing had been."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorboard")
pytest.importorskip("onnxruntime")

from fault_batch import file_limit

from restorer.errors import RestorerError
from restorer.folder_lock import locked_folder
from restorer.training import checkpoint
from restorer.training.pairs import Pairs
from restorer.training.train import Trainer

SEED = 1


@pytest.fixture
def small_run(pairs_dir: Path, small_config, tmp_path: Path):
    from fault_training import InterruptedTraining

    data = replace(small_config.data, checkpoint_minutes=0.0)
    schedule = replace(small_config.schedule, steps=16, adversarial_from=8)
    return InterruptedTraining(tmp_path, pairs_dir, replace(small_config, data=data, schedule=schedule))


def test_a_killed_training_run_goes_on_with_the_same_losses(small_run, tmp_path: Path) -> None:
    """benchmarks/faults.py kills 50 times."""
    expected, seconds = small_run.whole()
    kill = small_run.kill(tmp_path / "run", SEED, 0, 0.8 * seconds)
    assert kill.signal_name == "SIGKILL" and not kill.failures
    assert small_run.finish(tmp_path / "run") == expected


def test_a_training_folder_has_one_run_at_a_time(pairs_dir: Path, small_config, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    from restorer.training.train_command import run as train_run

    pairs = [Pairs(pairs_dir, split) for split in ("train", "valid")]
    with locked_folder(tmp_path), pytest.raises(RestorerError, match="another run is writing"):
        train_run(Trainer(small_config), *pairs, tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_keeps_the_last_checkpoint(small_config, tmp_path: Path) -> None:
    trainer, path = Trainer(small_config), tmp_path / "state.safetensors"
    trainer.save(path)
    whole = path.read_bytes()
    trainer.step_number = 5
    with file_limit(len(whole) // 2), pytest.raises(RestorerError, match=r"cannot write .*state") as raised:
        trainer.save(path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == whole and checkpoint.load(path)[2]["step"] == 0
    assert os.listdir(tmp_path) == ["state.safetensors"]
