"""mutagen reads tags from files that nobody vouches for: with a budget, so that no tag takes all memory or time.

mutagen reads a tag as a whole, as large as its header claims (256 MiB at most), inflates compressed ID3 frames
without a limit (a megabyte becomes a gigabyte), and copies the rest of a frame for each text in it, which takes
hours for a million of them. It has no settings for that, so two of its functions are replaced here.
"""

from __future__ import annotations

import io
import threading
import zlib
from pathlib import Path
from typing import Any

import mutagen
from mutagen.id3 import _frames, _specs

BUDGET_BYTES = 32 << 20  # a cover of the largest size that FLAC allows, and more
_BUDGET_READS = 500_000
_BUDGET_COPIED = 1 << 30

_left = threading.local()


class TagsTooLargeError(mutagen.MutagenError):
    """The tags take more than the budget."""


class TagFile(io.BufferedReader):
    """A file that stops giving bytes to mutagen when the budget is spent; its own thread's inflating counts."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "rb"))
        self._bytes, self._reads = BUDGET_BYTES, _BUDGET_READS
        _left.inflated, _left.copied = BUDGET_BYTES, _BUDGET_COPIED

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > self._bytes or not self._reads:
            wanted = min(size, self._rest()) if size is not None and size >= 0 else self._rest()
            if wanted > self._bytes or not self._reads:
                raise TagsTooLargeError(
                    f"they take more than {BUDGET_BYTES >> 20} MiB or {_BUDGET_READS} steps to read"
                )
            size = wanted
        data = super().read(size)
        self._bytes -= len(data)
        self._reads -= 1
        return data

    def _rest(self) -> int:
        here = self.tell()
        end = self.seek(0, io.SEEK_END)
        self.seek(here)
        return max(0, end - here)


def read_tagged(path: Path, kinds: list[Any]) -> Any:
    """What `mutagen.File` makes of `path`, one of `kinds` or None, within the budget.

    Raises
    ------
    TagsTooLargeError : the tags are larger; mutagen lets many other kinds of error through.
    """
    with TagFile(path) as file:
        return mutagen.File(file, options=kinds)


class _BoundedZlib:
    """Stands in for zlib where mutagen inflates ID3 frames."""

    error = zlib.error

    @staticmethod
    def decompress(data: bytes) -> bytes:
        inflater, left = zlib.decompressobj(), getattr(_left, "inflated", BUDGET_BYTES)
        inflated = inflater.decompress(data, left + 1)
        _left.inflated = max(0, left - len(inflated))
        if len(inflated) > left:
            raise TagsTooLargeError(f"compressed frames inflate to more than {BUDGET_BYTES >> 20} MiB")
        if not inflater.eof:
            raise zlib.error("incomplete or truncated stream")
        return inflated


_decode_terminated = _specs.decode_terminated


def _bounded_decode_terminated(data: bytes, *settings: Any, **more: Any) -> tuple[str, bytes]:
    _left.copied = getattr(_left, "copied", _BUDGET_COPIED) - len(data)
    if _left.copied < 0:
        raise TagsTooLargeError("they hold too many texts in one frame")
    return _decode_terminated(data, *settings, **more)


_frames.zlib = _BoundedZlib  # type: ignore[assignment]
_specs.decode_terminated = _bounded_decode_terminated
