"""What the page asks for, as JSON, checked before anything is done about it."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from restorer.errors import ConfigError
from restorer.plugins.studio.sessions import Sessions
from restorer.plugins.studio.song import FORMATS
from restorer.plugins.studio.uploads import UploadError
from restorer.stream import check_mix

_MAX_BYTES = 4096


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in a small body.

    Raises
    ------
    UploadError : another type, too large, too slow, or no JSON object.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UploadError(415, f"this must come as application/json and not {kind or 'nameless'!r}")
    body = b""
    try:
        async with asyncio.timeout(request.app.state.sessions.limits.stall_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise UploadError(413, f"a request may have {_MAX_BYTES} bytes")
    except TimeoutError as error:
        raise UploadError(408, "the request was too slow") from error
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UploadError(400, "the request is no JSON") from error
    if not isinstance(values, dict):
        raise UploadError(400, "the request is no JSON object")
    return values


@dataclass(frozen=True)
class TakeRequest:
    """Restore with this seed and this brightness; None is what the model would do by itself."""

    seed: int
    brightness: float | None

    @classmethod
    def from_json(cls, values: dict[str, Any], sessions: Sessions) -> TakeRequest:
        """Raises ConfigError for unknown names and impossible values."""
        _check_names(values, {"seed", "brightness"})
        return cls(_seed(values, sessions), sessions.restorer.check_brightness(values.get("brightness")))


@dataclass(frozen=True)
class DownloadRequest:
    """Write a file with these settings."""

    seed: int
    brightness: float | None
    mix: float
    suffix: str

    @classmethod
    def from_json(cls, values: dict[str, Any], sessions: Sessions) -> DownloadRequest:
        """Raises ConfigError for unknown names and impossible values."""
        _check_names(values, {"seed", "brightness", "mix", "format"})
        suffix = values.get("format", FORMATS[0])
        if suffix not in FORMATS:
            raise ConfigError(f"format must be one of {', '.join(FORMATS)} and not {str(suffix)[:40]!r}")
        mix = check_mix(_number(values, "mix", 1.0))
        return cls(_seed(values, sessions), sessions.restorer.check_brightness(values.get("brightness")), mix, suffix)


def _check_names(values: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0][:40]!r}; known are {', '.join(sorted(known))}")


def _seed(values: dict[str, Any], sessions: Sessions) -> int:
    seed = values.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < sessions.limits.takes:
        raise ConfigError(f"seed must be an integer from 0 to {sessions.limits.takes - 1}")
    return seed


def _number(values: dict[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number")
    return float(value)
