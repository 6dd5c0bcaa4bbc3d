"""A file comes in as the raw body of a request: counted, timed, and under a name that we choose."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from restorer.errors import RestorerError
from restorer.plugins.studio.limits import Limits

_LONGEST_NAME = 120
_SUFFIXES = (".mp3", ".mp2", ".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc")


class UploadError(RestorerError):
    """An upload is too large, too slow, or no file; `status` is that of HTTP."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def clean_name(name: str) -> str:
    """What a browser calls a file, as one harmless line: no folders, no control or formatting characters."""
    name = unicodedata.normalize("NFC", name)
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C")
    name = re.split(r"[/\\]", name)[-1].strip(" .")
    if len(name) > _LONGEST_NAME:
        stem, dot, suffix = name.rpartition(".")
        suffix = dot + suffix if dot and len(suffix) <= 5 else ""
        name = (stem if suffix else name)[: _LONGEST_NAME - len(suffix)] + suffix
    return name or "song"


def source_name(name: str) -> str:
    """The name under which an upload is stored; of its own it keeps a known extension at most."""
    suffix = Path(name).suffix.lower()
    return f"source{suffix}" if suffix in _SUFFIXES else "source"


def check_head(request: Request, limits: Limits) -> None:
    """Refuse by what the request says about itself, before its body is read.

    Raises
    ------
    UploadError : another type than bytes, or a length that is impossible or too large.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/octet-stream":
        raise UploadError(415, f"a file must come as application/octet-stream and not {kind or 'nameless'!r}")
    if announced_bytes(request) > limits.upload_bytes:
        raise _too_large(limits)


def announced_bytes(request: Request) -> int:
    """The length that a request says its body has; 0 where it says none."""
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise UploadError(400, "the length of the upload is no number")
    return int(length)


async def receive(request: Request, target: Path, limits: Limits) -> int:
    """Write the body of a request to `target`; return its number of bytes.

    Raises
    ------
    UploadError : too large, too slow, or it ended early. What arrived is still there.
    """
    size = 0
    chunks = request.stream()
    try:
        with target.open("xb") as file:
            async with asyncio.timeout(limits.upload_seconds):
                while True:
                    async with asyncio.timeout(limits.stall_seconds):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    size += len(chunk)
                    if size > limits.upload_bytes:
                        raise _too_large(limits)
                    file.write(chunk)
    except TimeoutError as error:
        raise UploadError(408, "the upload was too slow and was given up; try again") from error
    except OSError as error:
        raise UploadError(507, f"the studio's disk refuses the file: {error.strerror}") from error
    except ClientDisconnect as error:
        raise UploadError(400, "the upload was broken off") from error
    if not size:
        raise UploadError(400, "the file is empty; choose another")
    return size


def _too_large(limits: Limits) -> UploadError:
    return UploadError(
        413,
        f"the file is larger than {limits.upload_words}, the limit of this studio; use `restorer restore`, which has "
        "none, or start the studio with a larger --max-mb",
    )
