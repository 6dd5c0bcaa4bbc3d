"""An uploaded file is read once in a process of its own: a decoder that crashes or hangs does so there.

What the studio does with the file afterwards, in its own process, are the same calls on the same bytes.

python -m restorer.plugins.studio.trial FILE SECONDS    (reads FILE, at most SECONDS of sound; says nothing)
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from restorer.errors import AudioFileError, RestorerError

LIMIT_SECONDS = 120.0
LIMIT_BYTES = 2 << 30  # of address space, which is more than the memory in use
_MODULE = "restorer.plugins.studio.trial"
_BLOCK_SAMPLES = 1 << 16


def try_reading(path: Path, max_seconds: float) -> None:
    """Decode and inspect `path` in a process with limits; what is wrong with it in other ways is no matter here.

    Raises
    ------
    AudioFileError : that process crashed, or took more time or memory than the limits.
    """
    paths = os.pathsep.join(filter(None, sys.path))  # the package as it was found here, and never the current folder
    variables = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", _MODULE, str(path), str(max_seconds)]
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdin=null, stdout=null, stderr=null, env=variables, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise AudioFileError(
            f"{path} takes more than {LIMIT_SECONDS:.0f} s to read, which a sound file of this length does not"
        ) from None
    if done.returncode:
        raise AudioFileError(f"{path} makes its decoder crash or run out of memory, so it is not opened")


def main(path: str, max_seconds: str) -> None:
    """What that process does."""
    _limit_memory()
    from restorer.audio_in import AudioReader
    from restorer.inspection import inspect_file

    with suppress(RestorerError):
        with AudioReader(path, None) as reader:
            left = float(max_seconds) * reader.source_rate
            for block in reader.blocks(_BLOCK_SAMPLES):
                left -= block.shape[1]
                if left < 0:
                    return
        inspect_file(path, count_clipped=False)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))


if __name__ == "__main__":
    main(*sys.argv[1:])
