"""Hosts: effects that are called like those of pedalboard, and a `Chain` that runs both kinds together.

>>> from restorer.plugins import Chain, RestorerPlugin                      # doctest: +SKIP
>>> board = Chain([HighpassFilter(), RestorerPlugin(mix=0.8), Reverb()])    # doctest: +SKIP
>>> restored = board(audio, sample_rate)                                    # doctest: +SKIP

Nothing here needs pedalboard until one of its plug-ins is put into a chain.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restorer.plugins.chain import Chain
    from restorer.plugins.processor import RestorerPlugin

_HOME = {"Chain": "restorer.plugins.chain", "RestorerPlugin": "restorer.plugins.processor"}

__all__ = ["Chain", "RestorerPlugin"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
