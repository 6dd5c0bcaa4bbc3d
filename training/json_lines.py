"""Files of JSON lines that grow while something runs: whatever ends it, they hold whole lines only."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from restorer.errors import RestorerError


def load_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines; half a line at the end, which a kill left, is cut off the file.

    Raises
    ------
    RestorerError
        A line is no JSON object.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            rows.append(dict(json.loads(line)))
        except (RecursionError, TypeError, ValueError) as error:
            raise RestorerError(f"'{path}' is damaged in line {number}; delete that line") from error
    return rows


def append_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add lines: all of them, or, if the disk refuses, none.

    Raises
    ------
    RestorerError
        The disk is full or refuses otherwise.
    """
    before = None
    try:
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
            while data:
                data = data[file.write(data) :]
    except OSError as error:
        with suppress(OSError):
            if before is not None:
                os.truncate(path, before)
        raise RestorerError(f"cannot write '{path}': {error.strerror}; what it held before is still there") from error
