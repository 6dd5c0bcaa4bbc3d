"""Restores heavily compressed music to full-band audio.

>>> from restorer import Restorer                       # doctest: +SKIP
>>> restored = Restorer()(audio, sample_rate)           # doctest: +SKIP

Names are loaded on first use, so that `import restorer` and whatever needs no model work without ONNX
Runtime; asking for `Restorer` without it raises an ImportError that names the commands to install it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from restorer.errors import AudioFileError, ConfigError, DeviceError, ModelError, RestorerError

if TYPE_CHECKING:
    from restorer.model_file import ModelInfo
    from restorer.noise import draw_noise
    from restorer.restore_report import RestoreReport
    from restorer.restorer import Restorer
    from restorer.stream import Stream

__version__ = "0.1.0"

_HOME = {
    "ModelInfo": "restorer.model_file",
    "RestoreReport": "restorer.restore_report",
    "Restorer": "restorer.restorer",
    "Stream": "restorer.stream",
    "draw_noise": "restorer.noise",
}

__all__ = [
    "AudioFileError",
    "ConfigError",
    "DeviceError",
    "ModelError",
    "ModelInfo",
    "RestoreReport",
    "Restorer",
    "RestorerError",
    "Stream",
    "draw_noise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
