"""Batches that a signal ends at a random moment, and everything that must be true afterwards."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import restorer
from restorer.batch import REPORT_NAME
from restorer.batch_record import RECORD_NAME
from restorer.cli import main
from restorer.synthesis import synthesize

ROOT = Path(restorer.__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LIMIT_SECONDS = 120.0
# Python dies of SIGINT before the command line is there to say "Interrupted" (130), of SIGTERM before the command has
# begun. It takes an interruption inside its own eval(), of which imports make use, for one that nobody handled, and one
# before any of our code for an error (1).
_ENDS = {
    signal.SIGINT: (0, 130, -signal.SIGINT),
    signal.SIGTERM: (0, 130, -signal.SIGTERM, -signal.SIGINT),
    signal.SIGKILL: (0, -signal.SIGKILL),
}


@dataclass(frozen=True)
class Moment:
    """One batch that was interrupted and run again; `done` of `files` were there after the first run."""

    index: int
    signal_name: str
    after_seconds: float
    status: int
    done: int
    files: int
    failures: tuple[str, ...]


def write_album(folder: Path, seconds: float = 4.0) -> Path:
    """Files to restore, one of them tagged and one in a folder, and one that lacks nothing and is copied."""
    import mutagen

    random = np.random.default_rng(0)
    (folder / "cd").mkdir(parents=True)
    for index, rate in enumerate((22050, 44100, 16000)):
        song = synthesize(seconds, rate, index, channels=1 + index % 2)
        soundfile.write(folder / ("cd" if index else "") / f"song{index}.wav", song.T, rate)
    tagged = folder / "tagged.mp3"
    soundfile.write(tagged, synthesize(seconds, 22050, 7, 2).T, 22050)
    tags = mutagen.File(tagged)
    tags.add_tags()
    tags.tags.add(mutagen.id3.TIT2(text=["A title"]))
    tags.save()
    soundfile.write(folder / "full.flac", random.uniform(-0.5, 0.5, (44100, 2)), 44100)
    return folder


def start_restorer(*arguments: str) -> subprocess.Popen[str]:
    """Begin ``restorer`` in a process of its own, the package under test being found first."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "restorer", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its place, but for the record and the report of a batch."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in (folder / RECORD_NAME, folder / REPORT_NAME)
    }


@contextmanager
def file_limit(limit_bytes: int) -> Iterator[None]:
    """The system refuses every byte of a file after so many, as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _await(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until the output folder is there, which is made when everything is loaded."""
    while not folder.exists() and process.poll() is None:
        time.sleep(0.005)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it is in, has a name that begins with a dot."""
    return any(part.startswith(".") for part in Path(name).parts)


class InterruptedBatches:
    """An album, what an undisturbed run makes of it, and how long that takes.

    Parameters
    ----------
    folder : empty; everything happens in there.
    model : the ONNX file.
    album : folder to restore; None has one made.
    """

    def __init__(self, folder: Path, model: Path, album: Path | None = None) -> None:
        self.folder, self.model = folder, model
        self.album = album or write_album(folder / "album")
        self.inputs = self._inputs()
        started = time.monotonic()
        whole = self.start(folder / "whole", 1)
        _await(whole, folder / "whole")
        begun = time.monotonic()
        _, errors = whole.communicate(timeout=LIMIT_SECONDS)
        self.seconds, self.work_seconds = time.monotonic() - started, time.monotonic() - begun
        if whole.returncode:
            raise RuntimeError(f"the undisturbed run fails: {errors}")
        self.expected = contents(folder / "whole")

    def start(self, out: Path, jobs: int) -> subprocess.Popen[str]:
        """Begin a batch in a process of its own."""
        return start_restorer(*self._arguments(out, jobs))

    def interrupt(self, seed: int, index: int) -> Moment:
        """Send one signal at a moment that (seed, index) decides, then run again; three of four once work began."""
        random = np.random.default_rng((seed, index))
        number = SIGNALS[index % len(SIGNALS)]
        out = self.folder / f"out-{seed}-{index}"
        first = self.start(out, 1 + int(random.integers(2)))
        begun = index // len(SIGNALS) % 4 > 0
        if begun:
            _await(first, out)
        after = float(random.uniform(0.0, self.work_seconds if begun else self.seconds))
        time.sleep(after)
        first.send_signal(number)
        _, errors = first.communicate(timeout=LIMIT_SECONDS)
        found = contents(out) if out.exists() else {}
        failures = self._check_first(number, first.returncode, errors, out, found)
        failures += self._check_second(out)
        if not failures:
            for path in sorted(out.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            out.rmdir()
        done = sum(name in self.expected for name in found)
        status = first.returncode
        return Moment(index, number.name, after, status, done, len(self.expected), tuple(failures))

    def _arguments(self, out: Path, jobs: int) -> list[str]:
        options = ("--model", self.model, "--device", "cpu", "--threads", 1, "--jobs", jobs)
        return ["restore", *map(str, (self.album, out, *options))]

    def _inputs(self) -> dict[str, tuple[str, int]]:
        return {name: (digest, (self.album / name).stat().st_mtime_ns) for name, digest in contents(self.album).items()}

    def _check_first(
        self, number: signal.Signals, status: int, errors: str, out: Path, found: dict[str, str]
    ) -> list[str]:
        failures = []
        starting = number == signal.SIGINT and "KeyboardInterrupt" in errors and str(ROOT) not in errors
        if status not in _ENDS[number] and not starting:
            failures.append(f"status {status}: {errors[-500:]}")
        if "Traceback" in errors and not starting and status != -signal.SIGINT:
            failures.append(f"a traceback: {errors[-500:]}")
        if self._inputs() != self.inputs:
            failures.append("an input has changed")
        for name, digest in found.items():
            if is_hidden(name):
                if number != signal.SIGKILL and not name.endswith(".jsonl"):
                    failures.append(f"{name} is left behind")
            elif digest != self.expected.get(name):
                failures.append(f"{name} is not what it must be")
        for name in (RECORD_NAME, REPORT_NAME):
            if (out / name).exists():
                json.loads((out / name).read_text())
        return failures

    def _check_second(self, out: Path) -> list[str]:
        result = CliRunner().invoke(main, self._arguments(out, 1))
        failures = [f"second run: status {result.exit_code}: {result.output[-500:]}"] if result.exit_code else []
        found = contents(out)
        failures += [f"second run: {name} differs" for name in self.expected if found.get(name) != self.expected[name]]
        failures += [f"second run: {name} is left behind" for name in found if name not in self.expected]
        if self._inputs() != self.inputs:
            failures.append("second run: an input has changed")
        return failures
