"""Native pedalboard plug-ins as parts of a `Chain`: told apart, locked, and run without losing state."""

import math
import threading
import types
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from restorer.errors import ConfigError, RestorerError
from restorer.transform import Float32

# Below, native plug-ins divide by zero and end the process (pedalboard 0.9.26: Reverb under 196 Hz).
MIN_NATIVE_RATE_HZ = 1000


class PedalboardMissingError(RestorerError, ImportError):
    """pedalboard is not installed: an ImportError, and a RestorerError for whoever prints those."""


def import_pedalboard() -> types.ModuleType:
    """pedalboard, or the error that names the command which installs it."""
    try:
        import pedalboard
    except ImportError as error:
        raise PedalboardMissingError(
            f"native plug-ins need pedalboard, which cannot be imported ({error}); "
            'run: pip install "restorer[pedalboard]"'
        ) from error
    return pedalboard


def is_native(plugin: object) -> bool:
    """True for a plug-in of pedalboard itself, a VST3 or an Audio Unit.

    Raises
    ------
    PedalboardMissingError
        pedalboard is not installed.
    """
    return isinstance(plugin, import_pedalboard().Plugin)


def check_native_format(channels: int, sample_rate: object) -> tuple[int, float]:
    """A number of channels and a sample rate in Hz that native plug-ins take: any, as long as it is one."""
    try:
        rate = float(sample_rate)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        rate = math.nan
    if isinstance(sample_rate, str) or not MIN_NATIVE_RATE_HZ <= rate < math.inf:
        raise ConfigError(f"sample_rate must be a number from {MIN_NATIVE_RATE_HZ} Hz and not {sample_rate!r}")
    return channels, rate


def parts(plugin: Any) -> Iterator[Any]:
    """A native plug-in and, where it is a container, everything in it."""
    yield plugin
    if isinstance(plugin, import_pedalboard().PluginContainer):
        for inner in plugin:
            if inner is not None:
                yield from parts(inner)


class NativeLock:
    """The lock of one native plug-in, the same object for all chains that hold the plug-in."""

    _all: ClassVar["WeakValueDictionary[int, NativeLock]"] = WeakValueDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin  # kept alive, so that nothing else gets its id
        self.lock = threading.Lock()

    @classmethod
    def of(cls, plugin: Any) -> "NativeLock":
        """The lock of `plugin`; keep it for as long as the plug-in is in use."""
        with cls._guard:
            found = cls._all.get(id(plugin))
            if found is None:
                found = cls._all[id(plugin)] = cls(plugin)
            return found


class NativeRun:
    """Neighbouring native plug-ins of a chain, run by a native `Pedalboard` of their own.

    It hides two traits of pedalboard: plug-ins lose their state when a block is longer than all before it,
    and a block with as many samples as channels, or fewer, is taken for another layout.
    """

    def __init__(self, plugins: Sequence[Any]) -> None:
        self.plugins = tuple(plugins)
        self._board: Any = None
        self._channels = 0
        # No plug-in ever gets more than this at once; None before the first samples of a stream.
        self._block: int | None = None

    def reset(self) -> None:
        """Clear the state of the plug-ins."""
        self._block = None
        import_pedalboard().Pedalboard(list(self.plugins)).reset()

    def process_whole(self, audio: Float32, sample_rate: float, block_samples: int) -> Float32:
        """One shot, by pedalboard itself: ``(channels, n)`` in and out; clears the state before."""
        self._block = min(block_samples, audio.shape[1])
        return self._call(audio, sample_rate, self._block, reset=True)

    def process(self, audio: Float32, sample_rate: float, block_samples: int) -> Float32:
        """The next samples of a stream, ``(channels, n)``; returns as many as are ready.

        `block_samples` counts at the start of a stream: all its later blocks are cut to that length.
        """
        samples = audio.shape[1]
        if samples == 0:
            return audio
        if self._block is None:
            self._block = block_samples
            if samples < block_samples:
                return self._start(audio, sample_rate, block_samples)
        return self._call(audio, sample_rate, self._block)

    def _start(self, audio: Float32, sample_rate: float, block_samples: int) -> Float32:
        """Process the first samples so that the plug-ins are prepared for blocks which are longer.

        Behind one of our own effects the first block is shorter than the later ones. In a native board too,
        where pedalboard's own test plug-in stands in front: it withholds what the block lacks.
        """
        try:
            from pedalboard_native._internal import AddLatency
        except ImportError:
            self._block = audio.shape[1]
            return self._call(audio, sample_rate, self._block)
        channels, samples = audio.shape
        delay = block_samples - samples
        board = _make_board(channels, sample_rate, [AddLatency(delay), *self.plugins])
        padded = np.concatenate([audio, np.zeros((channels, delay), np.float32)], axis=1)
        return board.process(padded, sample_rate, buffer_size=block_samples, reset=False)

    def _call(self, audio: Float32, sample_rate: float, block_samples: int, reset: bool = False) -> Float32:
        if self._board is None or self._channels != audio.shape[0]:
            self._channels = audio.shape[0]
            self._board = _make_board(self._channels, sample_rate, self.plugins)
        return self._board.process(audio, sample_rate, buffer_size=block_samples, reset=reset)


def _make_board(channels: int, sample_rate: float, plugins: Sequence[Any]) -> Any:
    """A native board that takes every array as ``(channels, n)``, even a square one."""
    board = import_pedalboard().Pedalboard()
    board.process(np.zeros((channels, channels + 1), np.float32), sample_rate)
    for plugin in plugins:
        board.append(plugin)
    return board
