"""Feeds hostile cases to a worker process, and reports its crash or hang as the failure of that one case."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile_mutations import Case, make_case

LIMIT_SECONDS = 60.0
LIMIT_BYTES = 1_000_000_000
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Result:
    """How one case ended; `outcome` is "restored", "refused" or "failed", and `line` says why."""

    index: int
    case: Case
    outcome: str
    line: str
    seconds: float = 0.0
    elapsed_seconds: float = 0.0
    peak_bytes: int = 0
    grown_bytes: int = 0
    printed: str = ""


def run_cases(model: Path, folder: Path, seed: int, indices: Iterable[int]) -> Iterator[Result]:
    """Try each case in a worker, which is started again after it has died or was killed."""
    worker: _Worker | None = None
    try:
        for index in indices:
            if worker is None:
                worker = _Worker(model, folder)
            answer = worker.ask(seed, index)
            case = make_case(seed, index)
            if "elapsed_seconds" not in answer:
                worker.close()
                worker = None
                for path in folder.iterdir():
                    path.unlink()
            result = Result(index, case, **answer)
            yield _within_limits(result)
    finally:
        if worker is not None:
            worker.close()


def _within_limits(result: Result) -> Result:
    over = ""
    if result.elapsed_seconds > LIMIT_SECONDS:
        over = f"took {result.elapsed_seconds:.0f} s"
    elif result.peak_bytes > LIMIT_BYTES:
        over = f"took {result.peak_bytes / 1e6:.0f} MB"
    if not over or result.outcome == "failed":
        return result
    return Result(**{**vars(result), "outcome": "failed", "line": f"{over}; {result.line}"})


class _Worker:
    def __init__(self, model: Path, folder: Path) -> None:
        script = Path(__file__).with_name("hostile_worker.py")
        self._log = folder.parent / f"{folder.name}.worker.txt"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(script), str(model), str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._allowance = _START_SECONDS
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, seed: int, index: int) -> dict[str, object]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seed} {index}\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=LIMIT_SECONDS + self._allowance)
        except queue.Empty:
            return {"outcome": "failed", "line": f"hangs: no end after {LIMIT_SECONDS:.0f} s"}
        except BrokenPipeError:
            line = ""
        if not line:
            said = self._log.read_text(errors="replace")[-500:]
            return {"outcome": "failed", "line": f"the process died with status {self._process.wait()} {said}"}
        self._allowance = 5.0
        return dict(json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
