"""Audio to spectrogram frames and back, block by block: the signal path around the generator.

The frames are an un-normalised STFT of audio in [-1, 1] with a periodic Hann window, real and imaginary
parts as two maps, each compressed by the signed square root (paper eq. 4). The way back squares, inverts,
windows once more and overlap-adds, divided by the sum of the squared windows (1.5 for 2048/512).
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
# 360 dB below full scale: what lies lower is silence, as processors compute with denormal numbers many times slower.
_SILENCE = 1e-18


def signed_sqrt(values: Float32) -> Float32:
    """sign(x) sqrt(|x|), element by element (paper eq. 4)."""
    roots = np.abs(values)
    np.sqrt(roots, out=roots)
    return np.copysign(roots, values, out=roots)


def signed_square(values: Float32) -> Float32:
    """sign(x) x^2, element by element: the inverse of `signed_sqrt`."""
    return values * np.abs(values)


def hann_window(window_samples: int) -> Float32:
    """The periodic Hann window.

    Shape: ``(window_samples,)``
    """
    phase = np.arange(window_samples) * (2.0 * np.pi / window_samples)
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def synthesis_window(window_samples: int, hop_samples: int) -> Float32:
    """The Hann window over the sum of the overlapping squared windows: overlap-add gives the signal back.

    For a hop that divides the window at least three times the sum is constant (1.5 for 2048/512).

    Shape: ``(window_samples,)``
    """
    window = hann_window(window_samples).astype(np.float64)
    overlapping = np.zeros(hop_samples)
    np.add.at(overlapping, np.arange(window_samples) % hop_samples, window**2)
    return (window / overlapping[np.arange(window_samples) % hop_samples]).astype(np.float32)


class Analysis:
    """Cuts a stream of blocks into frames; frame j starts at sample ``j * hop - (window - hop)``.

    Everything before the first sample is silence, so n samples make ``n // hop`` frames.
    """

    def __init__(self, channels: int, window_samples: int, hop_samples: int) -> None:
        self.channels = channels
        self.window_samples = window_samples
        self.hop_samples = hop_samples
        self._window = hann_window(window_samples)
        self.reset()

    def reset(self) -> None:
        """Forget the signal: what came before is silence again."""
        self._waiting: Float32 = np.zeros((self.channels, self.window_samples - self.hop_samples), np.float32)

    def __call__(self, block: Float32) -> Float32:
        """Every frame that `block` completes.

        Shape
        -----
        Input: ``(channels, samples)``, any number of samples. Output: ``(channels, 2, frames, window / 2 +
        1)``, zero where nothing reaches 360 dB below full scale.
        """
        signal = np.concatenate([self._waiting, block], axis=1)
        frames = (signal.shape[1] - self.window_samples) // self.hop_samples + 1
        if frames <= 0:
            self._waiting = signal
            return np.empty((self.channels, 2, 0, self.window_samples // 2 + 1), np.float32)
        self._waiting = signal[:, frames * self.hop_samples :].copy()
        if signal.max() < _SILENCE and signal.min() > -_SILENCE:
            return np.zeros((self.channels, 2, frames, self.window_samples // 2 + 1), np.float32)
        if frames == 1:  # most calls of a stream in small blocks
            views = signal[:, None, : self.window_samples]
        else:  # views, which `sliding_window_view` would give more slowly
            row, sample = signal.strides
            shape, strides = (self.channels, frames, self.window_samples), (row, self.hop_samples * sample, sample)
            views = np.lib.stride_tricks.as_strided(signal, shape, strides, writeable=False)
        spectrum = scipy.fft.rfft(views * self._window, axis=-1, workers=1)
        maps = np.empty((self.channels, 2, frames, spectrum.shape[-1]), np.float32)
        maps[:, 0], maps[:, 1] = spectrum.real, spectrum.imag
        return signed_sqrt(maps)


class Synthesis:
    """Turns frames back into a stream: each frame completes one hop of samples.

    The samples that follow the first frame's hop-by-hop completion start where that frame starts, so the
    caller drops the first ``window - hop`` samples of a stream (they are the silence before it).
    """

    def __init__(self, batch: int, window_samples: int, hop_samples: int) -> None:
        self.batch = batch
        self.window_samples = window_samples
        self.hop_samples = hop_samples
        self._overlap = -(-window_samples // hop_samples)
        self._window = synthesis_window(window_samples, hop_samples)
        self.reset()

    def reset(self) -> None:
        """Forget the frames that still overlap the future."""
        self._tail: Float32 = np.zeros((self.batch, self._overlap - 1, self.hop_samples), np.float32)

    def __call__(self, maps: Float32) -> Float32:
        """The samples that these frames complete.

        Shape
        -----
        Input: ``(batch, 2, frames, window / 2 + 1)``. Output: ``(batch, frames * hop)``.
        """
        batch, _, frames, bins = maps.shape
        squares = signed_square(maps)
        spectrum = np.empty((batch, frames, bins), np.complex64)
        spectrum.real, spectrum.imag = squares[:, 0], squares[:, 1]
        signal = scipy.fft.irfft(spectrum, n=self.window_samples, axis=-1, overwrite_x=True, workers=1)
        signal *= self._window
        missing = self._overlap * self.hop_samples - self.window_samples
        if missing:
            signal = np.pad(signal, ((0, 0), (0, 0), (0, missing)))
        hops = signal.reshape(batch, frames, self._overlap, self.hop_samples)
        if frames == 1:  # most calls of a stream in small blocks
            total = hops[:, 0]
            total[:, :-1] += self._tail
            self._tail = total[:, 1:]
            return total[:, 0]
        # Oldest frame first in every sum, whatever the number of frames per call: rounding never depends on
        # it.
        total = np.zeros((batch, frames + self._overlap - 1, self.hop_samples), np.float32)
        total[:, : self._overlap - 1] = self._tail
        for k in reversed(range(self._overlap)):
            total[:, k : k + frames] += hops[:, :, k]
        self._tail = total[:, frames:].copy()
        return total[:, :frames].reshape(batch, frames * self.hop_samples)
