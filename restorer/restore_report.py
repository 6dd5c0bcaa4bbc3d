"""`RestoreReport`: what became of one file."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RestoreReport:
    """What `restore_file` did.

    `samples` per channel and `seconds` are those of the output; `real_time_factor` is elapsed_seconds /
    seconds, decoding and encoding included. `peak_memory_bytes` is the largest the process has ever been
    (None where the system does not tell). `clipped_samples` had to be limited to full scale in the file.
    `carried` says what was done with sound that was not restored, such as "copied unprocessed".
    """

    target: Path
    samples: int
    seconds: float
    elapsed_seconds: float
    real_time_factor: float
    clipped_samples: int
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]
    carried: str = ""

    @classmethod
    def since(
        cls,
        started: float,
        target: Path,
        samples: int,
        sample_rate: int,
        clipped: int,
        warnings: Sequence[str],
        carried: str = "",
    ) -> "RestoreReport":
        """The report of work that began when `time.perf_counter` said `started`; `sample_rate` in Hz."""
        elapsed, seconds = time.perf_counter() - started, samples / sample_rate
        return cls(
            target=target,
            samples=samples,
            seconds=seconds,
            elapsed_seconds=elapsed,
            real_time_factor=elapsed / seconds if seconds else 0.0,
            clipped_samples=clipped,
            peak_memory_bytes=_peak_memory_bytes(),
            warnings=tuple(warnings),
            carried=carried,
        )


def _peak_memory_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
