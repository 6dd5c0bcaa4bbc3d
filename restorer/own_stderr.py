"""The command line keeps standard error for its own lines: C libraries write theirs to nowhere.

libmpg123, inside libsndfile, prints a line for each odd frame of a damaged MP3, and cannot be told not to.
"""

import os
import sys
from io import UnsupportedOperation


def own_stderr() -> None:
    """Move `sys.stderr` to a descriptor of its own, and point the one that libraries use to the null device.

    For programs only, once, before threads start. Where `sys.stderr` has been replaced, nothing happens.
    """
    try:
        if sys.stderr is None or sys.stderr.fileno() != 2:
            return
    except (UnsupportedOperation, ValueError):
        return
    sys.stderr.flush()
    sys.stderr = os.fdopen(
        os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False
    )
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
