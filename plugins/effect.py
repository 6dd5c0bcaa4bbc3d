"""`Effect`: the call rules of a pedalboard plug-in, kept by everything of ours that stands beside one.

Measured against pedalboard 0.9.26, whose latency plug-in answers the same calls with the same shapes.
"""

import operator
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.errors import ConfigError, RestorerError
from restorer.stream import check_format
from restorer.transform import Float32

DEFAULT_BLOCK_SAMPLES = 8192
# A plug-in that stays silent for this long while it is flushed returns nothing at all any more.
_SILENT_SECONDS = 60


class InputTypeError(RestorerError, TypeError):
    """The input is no array of float32 or float64."""


class LayoutError(RestorerError, RuntimeError):
    """The shape does not say which axis holds the channels."""


class BlockSizeError(ConfigError, ValueError):
    """`buffer_size` is no positive integer."""


class Effect(ABC):
    """Base of `RestorerPlugin` and `Chain`: input in any layout, latency compensated, one call at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Channels and sample rate of the stream that the state belongs to.
        self._format: tuple[int, float] | None = None
        self._provided = 0
        self._returned = 0
        # The layout of the latest call.
        self._channels = 0
        self._axes = 2
        self._channels_first: bool | None = None

    @property
    def is_effect(self) -> bool:
        """True: takes audio."""
        return True

    @property
    def is_instrument(self) -> bool:
        """False: does not make audio from MIDI."""
        return False

    @property
    def waiting_samples(self) -> int:
        """Samples of the current stream that were given and have not come back yet."""
        return self._provided - self._returned

    def process(
        self,
        input_array: NDArray[np.floating[Any]],
        sample_rate: float,
        buffer_size: int = DEFAULT_BLOCK_SAMPLES,
        reset: bool = True,
    ) -> Float32:
        """Run audio through, as `pedalboard.Plugin.process` does; calling the object is the same.

        Parameters
        ----------
        input_array
            float32 or float64, one or two axes. The shorter axis holds the channels, but the number of
            channels of earlier calls is remembered and wins, until `reset()`.
        sample_rate
            Of input and output, in Hz.
        buffer_size
            Native plug-ins get at most that many samples at once; the output does not depend on it.
        reset
            True: start anew, return as many samples as were given, aligned with the input. False: go on with
            the stream; what is not ready yet comes with later calls and the last of it by `flush()`. Start a
            stream with `reset()` and reset=False: after a call with True comes a gap as long as the latency.

        Returns
        -------
        New C-contiguous float32 array, with the channels where the input has them.

        Raises
        ------
        TypeError
            No numpy array, or neither float32 nor float64.
        RuntimeError
            The axis of the channels cannot be told: a square array before any other, or not 1 or 2 axes.
        ValueError
            `buffer_size` is below 1.
        RestorerError
            Base of the three and of all others: a sample rate or a number of channels that is not possible.
        """
        block_samples = _check_buffer_size(buffer_size)
        array = _check_array(input_array)
        with self._held():
            channels_first = self._detect_layout(array.shape)
            self._axes = array.ndim
            with np.errstate(over="ignore", invalid="ignore"):
                audio = np.asarray(array, np.float32)
            audio = audio.reshape(1, -1) if array.ndim == 1 else audio if channels_first else audio.T
            self._channels = audio.shape[0] or self._channels
            if audio.size == 0:
                if reset:
                    self._start_over()
                return np.zeros(array.shape, np.float32)
            before, self._format = self._format, self._check_format(audio.shape[0], sample_rate)
            audio = np.ascontiguousarray(audio)
            if reset:
                return self._shaped(self._run_whole(audio, block_samples))
            if before not in (None, self._format):
                self._start_over()
            return self._shaped(self._run_next(audio, block_samples))

    __call__ = process

    def reset(self) -> None:
        """Forget the signal, and which axis held the channels; parameters stay."""
        self._rest()
        with self._held():
            self._start_over()
            self._channels, self._channels_first = 0, None

    def flush(self) -> Float32:
        """Return what is still missing of the stream, in the layout of the last call, and start over."""
        with self._held():
            rest = self._drain(DEFAULT_BLOCK_SAMPLES)
            self._start_over()
            return self._shaped(rest)

    @abstractmethod
    def prepare(self, channels: int, sample_rate: float) -> None:
        """Do what takes time before the first block of a stream in this format comes."""

    @abstractmethod
    def _advance(self, audio: Float32, sample_rate: float, block_samples: int) -> Float32:
        """Feed the next samples, ``(channels, n)`` with n > 0; return those that are ready."""

    @abstractmethod
    def _forget(self) -> None:
        """Clear the state."""

    @abstractmethod
    def _known_latency(self, sample_rate: float) -> int:
        """Samples of latency that there are at least."""

    def _check_format(self, channels: int, sample_rate: float) -> tuple[int, float]:
        """Channels and sample rate in Hz, if they are possible; else a ConfigError."""
        return check_format(channels, sample_rate)

    @abstractmethod
    def _rest(self) -> None:
        """Compute what a start will need; without the lock, for which another thread's audio would wait."""

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other threads out."""
        with self._lock:
            yield

    def _run_whole(self, audio: Float32, block_samples: int) -> Float32:
        """One shot: as many samples back as were given."""
        self._start_over()
        ready = self._run_next(audio, block_samples)
        return np.concatenate([ready, self._drain(block_samples)], axis=1)

    def _run_next(self, audio: Float32, block_samples: int) -> Float32:
        """The next samples of the stream, counted."""
        assert self._format is not None
        ready = self._advance(audio, self._format[1], block_samples)
        self._provided += audio.shape[1]
        self._returned += ready.shape[1]
        return ready

    def _drain(self, block_samples: int) -> Float32:
        """Feed silence until all that was given is back."""
        channels, sample_rate = self._format or (self._channels, 0)
        pieces: list[Float32] = [np.zeros((channels, 0), np.float32)]
        missing, silent = self.waiting_samples, 0
        portion = self._known_latency(sample_rate) if missing else 0
        while missing > 0 and silent <= _SILENT_SECONDS * sample_rate:
            silence = np.zeros((channels, portion or missing), np.float32)
            ready = self._advance(silence, sample_rate, block_samples)
            silent = 0 if ready.shape[1] else silent + silence.shape[1]
            missing, portion = missing - ready.shape[1], 0
            pieces.append(ready)
        self._returned = self._provided - missing
        return np.concatenate(pieces, axis=1)

    def _expect(self, wanted: tuple[int, float]) -> None:
        """Forget the stream if it has another format."""
        if self._format not in (None, wanted):
            self._start_over()
            self._format = None

    def _start_over(self) -> None:
        self._provided = self._returned = 0
        self._forget()

    def _detect_layout(self, shape: tuple[int, ...]) -> bool:
        """True if the first axis holds the channels."""
        found = _read_layout(shape, self._channels)
        if found is None:
            found = self._channels_first
        if found is None:
            raise LayoutError(
                f"cannot tell the channels from the samples in an array of shape {shape}; process an array "
                "that is not square first, or pass one of 1 or 2 axes"
            )
        self._channels_first = found
        return found

    def _shaped(self, audio: Float32) -> Float32:
        if self._axes == 1:
            return np.array(audio.reshape(-1))
        return np.array(audio.T if self._channels_first is False else audio, order="C")


def _read_layout(shape: tuple[int, ...], channels: int) -> bool | None:
    """What the shape and the remembered number of channels (0: none) say; None: nothing."""
    if len(shape) == 1:
        return True
    rows, columns = shape
    if channels:
        if rows == columns > 1:
            return None
        if rows == channels:
            return True
        if columns == channels:
            return False
    if rows == 0 < columns:
        return False
    if columns == 0 < rows:
        return True
    if rows != columns:
        return rows < columns
    return True if rows == 1 else None


def _check_buffer_size(buffer_size: object) -> int:
    try:
        value = operator.index(buffer_size)  # type: ignore[arg-type]
    except TypeError:
        value = 0
    if value < 1:
        raise BlockSizeError(f"buffer_size must be an integer from 1 and not {buffer_size!r}")
    return value


def _check_array(array: object) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise InputTypeError(f"input_array must be a numpy array and not {type(array).__name__}")
    if array.dtype.char not in "fd":
        raise InputTypeError(
            f"input_array must be float32 or float64 in [-1, 1] and not {array.dtype}; scale integers to that"
        )
    if array.ndim not in (1, 2):
        raise LayoutError(f"input_array must have 1 or 2 axes and not {array.ndim}")
    return array
