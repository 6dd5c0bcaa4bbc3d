"""A training run that is killed again and again at random moments, and must end with the same losses.

As a program, which is what gets killed: python fault_training.py CONFIG.toml PAIRS_DIR RUN_DIR
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restorer.training import checkpoint
from restorer.training.config import Config, from_dict

LOSSES_NAME = "losses.jsonl"
LIMIT_SECONDS = 120.0
Losses = dict[int, dict[str, float]]
_INTERRUPTED = 3


@dataclass(frozen=True)
class Kill:
    """One end of the run; `step` is that of the checkpoint it left (None: none yet), `reported` the last step seen."""

    index: int
    signal_name: str
    after_seconds: float
    status: int
    step: int | None
    reported: int
    failures: tuple[str, ...]
    in_time: bool = True  # the run had not ended by itself before


class InterruptedTraining:
    """One run to its last step, in as many processes as it takes.

    Parameters
    ----------
    folder : empty, for the config and the runs.
    pairs : folder made by ``restorer prepare``.
    config : small; a checkpoint follows every step.
    """

    def __init__(self, folder: Path, pairs: Path, config: Config) -> None:
        self.folder, self.pairs = folder, pairs
        self.config = folder / "config.json"
        self.config.write_text(json.dumps(config.to_dict()))
        self.steps = config.schedule.steps

    def start(self, run: Path) -> subprocess.Popen[str]:
        """Begin the run, or go on with it."""
        run.mkdir(exist_ok=True)
        command = [sys.executable, str(Path(__file__)), str(self.config), str(self.pairs), str(run)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def whole(self) -> tuple[Losses, float]:
        """All losses of an undisturbed run, and the seconds that it took."""
        started = time.monotonic()
        losses = self.finish(self.folder / "whole")
        return losses, time.monotonic() - started

    def kill(self, run: Path, seed: int, index: int, longest_seconds: float) -> Kill:
        """Go on with the run and send one signal within so many seconds after its first step."""
        random = np.random.default_rng((seed, index))
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[index % 3]
        after = float(random.uniform(0.0, longest_seconds))
        before = (run / LOSSES_NAME).stat().st_size if (run / LOSSES_NAME).exists() else 0
        process = self.start(run)
        _await(process, run / LOSSES_NAME, before)
        time.sleep(after)
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        failures = []
        step, reported = None, max(read_losses(run), default=0)
        for path in run.glob("*.safetensors"):
            found = checkpoint.load(path)[2]["step"]
            if path.name == "state.safetensors":
                step = found
        ends = (0, -number if number == signal.SIGKILL else _INTERRUPTED)
        if process.returncode not in ends and step != self.steps:  # after the last step nothing holds signals back
            failures.append(f"status {process.returncode}: {errors[-500:]}")
        if number != signal.SIGKILL and step != reported:
            failures.append(f"the checkpoint is of step {step} and not {reported}")
        if step is not None and step < reported - 1:
            failures.append(f"steps {step + 1} to {reported} are lost")
        in_time = process.returncode != 0 and step != self.steps
        return Kill(index, number.name, after, process.returncode, step, reported, tuple(failures), in_time)

    def finish(self, run: Path) -> Losses:
        """Go on to the last step, in this process, and give the losses that every step reported.

        Raises
        ------
        RuntimeError : a step was done twice, with different losses.
        """
        import torch

        run.mkdir(exist_ok=True)
        threads = torch.get_num_threads()
        try:
            main(str(self.config), str(self.pairs), str(run))
        finally:
            torch.set_num_threads(threads)
        return read_losses(run)


def read_losses(run: Path) -> Losses:
    """Losses by step; a line that a kill cut short is none.

    Raises
    ------
    RuntimeError : a step was done twice, with different losses.
    """
    losses: Losses = {}
    path = run / LOSSES_NAME
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):
            step, values = json.loads(line)
            if losses.setdefault(step, values) != values:
                raise RuntimeError(f"step {step} gave {losses[step]}, and when it was done again {values}")
    return losses


def _await(process: subprocess.Popen[str], path: Path, more_than: int = 0) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not path.exists() or path.stat().st_size <= more_than:
        if process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.005)


def main(config_path: str, pairs_dir: str, run_dir: str) -> int:
    """Train as ``restorer train`` does, but with a checkpoint after every step and all losses in a file."""
    import torch

    from restorer.training.pairs import Pairs
    from restorer.training.train import Trainer, train

    torch.set_num_threads(1)
    config, run = from_dict(Config, json.loads(Path(config_path).read_text()), config_path), Path(run_dir)
    trainer = Trainer(config)
    if (run / "state.safetensors").exists():
        trainer.resume(run / "state.safetensors")
    with os.fdopen(os.open(run / LOSSES_NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as file:

        def report(step: int, losses: dict[str, Any]) -> None:
            file.write(json.dumps([step, losses]) + "\n")
            file.flush()

        validate: Callable[[Trainer], None] = lambda t: t.save_generator(run / "best.safetensors", {})  # noqa: E731
        return 0 if train(trainer, Pairs(pairs_dir, "train"), run, validate, report) else _INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
