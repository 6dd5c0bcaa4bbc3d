"""The process that a hostile file may take down: restores the cases whose numbers it reads, one line of JSON each.

python hostile_worker.py MODEL FOLDER    ("SEED INDEX" lines on standard input)
"""

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import soundfile
from hostile_mutations import Case, make_case

from restorer import Restorer
from restorer.audio_in import SequentialFile
from restorer.errors import RestorerError
from restorer.inspection import inspect_file
from restorer.restoring import restore_or_copy

ADDRESS_SPACE_BYTES = 4 << 30  # what the runtime maps without using it counts too
TARGETS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".wav", ".flac", ".wav")


def main() -> None:
    restorer, folder = Restorer(sys.argv[1], device="cpu", threads=1), Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    out = os.fdopen(os.dup(1), "w")
    complaints = folder / "stderr.txt"
    with complaints.open("wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    for line in sys.stdin:
        seed, index = map(int, line.split())
        case = make_case(seed, index)
        answer = try_case(restorer, case, index, folder)
        sys.stderr.flush()
        answer["printed"] = complaints.read_bytes()[:300].decode("utf-8", "replace")
        os.truncate(complaints, 0)
        for number in (1, 2):
            os.lseek(number, 0, os.SEEK_SET)
        out.write(json.dumps(answer) + "\n")
        out.flush()


def try_case(restorer: Restorer, case: Case, index: int, folder: Path) -> dict[str, object]:
    """Restore one file; "outcome" is "restored", "refused", or "failed" with what was wrong in "line"."""
    source = case.write(folder, f"in{index}")
    target = folder / f"out{index}{TARGETS[index % len(TARGETS)]}"
    before = (source.stat().st_size, source.stat().st_mtime_ns)
    _forget_peak()
    at_first, started = _peak_bytes(), time.perf_counter()
    outcome, line, seconds = "refused", "", 0.0
    try:
        if index % 3 == 0:
            inspect_file(source)
        report, found = restore_or_copy(restorer, source, target, force=bool(index % 2))
        outcome, seconds = "restored", report.seconds
        line = _flaw_of_output(target, report.samples, copied=found is not None) or _flaw_of_lines(report.warnings)
        if line:
            outcome = "failed"
    except RestorerError as error:
        line = str(error)
        if _flaw_of_lines([line]) or target.exists():
            outcome, line = "failed", f"error of several lines, or with an output: {line!r}"
    except BaseException:
        outcome, line = "failed", traceback.format_exc()
    elapsed, peak = time.perf_counter() - started, _peak_bytes()
    if (source.stat().st_size, source.stat().st_mtime_ns) != before:
        outcome, line = "failed", "the input was changed"
    source.unlink()
    target.unlink(missing_ok=True)
    left = [path.name for path in folder.iterdir() if path.name != "stderr.txt"]
    if left:
        outcome, line = "failed", f"left behind: {left}"
        for name in left:
            (folder / name).unlink()
    return {
        "outcome": outcome,
        "line": line,
        "seconds": seconds,
        "elapsed_seconds": elapsed,
        "peak_bytes": peak,
        "grown_bytes": peak - at_first,
    }


def _flaw_of_output(path: Path, samples: int, copied: bool) -> str:
    try:
        # In order and in small blocks: beyond the end of an MP3 without an Info frame, which may have been copied,
        # libsndfile gives memory that it never wrote.
        with SequentialFile(path) as file:
            read = 0
            while len(block := file.read(4096, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    return "the output holds NaN or infinity"
                read += len(block)
    except soundfile.LibsndfileError as error:
        return f"the output cannot be read: {error}"
    exact = path.suffix in (".wav", ".flac", ".ogg") and not copied
    return f"{read} samples in the output and {samples} in the report" if exact and read != samples else ""


def _flaw_of_lines(lines: list[str] | tuple[str, ...]) -> str:
    bad = [line for line in lines if "\n" in line or len(line) > 500 or not line.isprintable()]
    return f"not one clear line: {bad[0]!r}" if bad else ""


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
