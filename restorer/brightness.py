"""Brightness: how far z lies along the direction in which a model gains energy above the cut-off (paper 4.1.1).

The paper found that one z sounds dark or bright on whatever it restores. The direction is a unit vector u that
`restorer export` measures and the model file carries. A take of brightness b has ``z' = z + (b - <z, u>) u``,
computed in double and rounded to float32: everything else about the take stays as its seed drew it.

As z is drawn from N(0, I), <z, u> is drawn from N(0, 1), so b counts standard deviations. "dark" and "bright"
are -2 and 2: 95 % of random takes lie between them, so both are as far out as training has seen often. Beyond 4
(one random take in 16000) a model was hardly ever trained, and numbers end there.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.cutoff import LongTermSpectrum, find_cutoff
from restorer.errors import ConfigError

NAMES = {"dark": -2.0, "neutral": 0.0, "bright": 2.0}
LIMIT = 4.0
# Where the spectrum has no edge below this, what lies above this counts as the upper band.
_HIGHEST_CUTOFF_HZ, _LOWEST_CUTOFF_HZ = 16_000.0, 1000.0
_FLOOR = 1e-16
_WINDOW_SAMPLES, _HOP_SAMPLES = 2048, 1024


def check_brightness(brightness: object) -> float | None:
    """Standard deviations from -4 (dark) to 4 (bright), or None: z stays as its seed draws it.

    Parameters
    ----------
    brightness
        "dark", "neutral" or "bright", a number or its text, or None.

    Raises
    ------
    ConfigError
        It is something else, or out of range.
    """
    if brightness is None:
        return None
    value = math.nan
    if isinstance(brightness, str) and brightness in NAMES:
        value = NAMES[brightness]
    elif not isinstance(brightness, (bool, np.bool_)):
        with contextlib.suppress(TypeError, ValueError):
            value = float(brightness)  # type: ignore[arg-type]
    if not -LIMIT <= value <= LIMIT:
        raise ConfigError(
            f"brightness must be {', '.join(NAMES)} or a number from {-LIMIT:g} (dark) to {LIMIT:g} (bright) "
            f"and not {brightness!r}"
        )
    return value


def place_noise(
    noise: NDArray[np.float32], brightness: float | None, axis: Mapping[str, Any] | None, source: str
) -> NDArray[np.float32]:
    """Noise vectors moved to a brightness, by the rule above; unchanged for None.

    Parameters
    ----------
    noise
        ``(takes, noise_size)``.
    brightness
        As `check_brightness` gives it.
    axis
        `ModelInfo.brightness` of the model, and
    source
        its name, for the error.

    Raises
    ------
    ConfigError
        The model has no noise, or its file carries no direction.
    """
    if brightness is None:
        return noise
    if not noise.shape[1]:
        raise ConfigError(f"{source}: has no noise and makes one restoration only; leave brightness out")
    if axis is None:
        raise ConfigError(
            f"{source}: carries no brightness direction; leave brightness out, or find one with: "
            "restorer export MODEL.onnx NEW.onnx --brightness"
        )
    direction = np.asarray(axis["direction"], np.float64)
    drawn = noise.astype(np.float64)
    return (drawn + (brightness - drawn @ direction)[:, None] * direction).astype(np.float32)


def find_upper_band_hz(audio: NDArray[np.float32], sample_rate: int) -> float:
    """Where the upper band begins: at the codec's edge, else where the sound ends; 16 kHz at most.

    Shape: (channels, samples), coded and not restored.
    """
    spectrum = LongTermSpectrum(sample_rate)
    spectrum.add(audio)
    cutoff = find_cutoff(spectrum.loud_power(), sample_rate)
    found = cutoff.bandwidth_hz if cutoff.edge_hz is None else cutoff.edge_hz
    return float(np.clip(found, _LOWEST_CUTOFF_HZ, min(_HIGHEST_CUTOFF_HZ, 0.9 * sample_rate / 2)))


def upper_level_db(audio: NDArray[np.float32], sample_rate: int, above_hz: float) -> float:
    """Level of what lies above a frequency, over the whole signal and all channels: 0 dB is a mean square of 1.

    Shape: (channels, samples).
    """
    return power_db(float(upper_power(audio, sample_rate, above_hz).mean()))


def upper_power(audio: NDArray[np.float32], sample_rate: int, above_hz: float) -> NDArray[np.float64]:
    """Mean square above a frequency, per frame of 2048 samples every 1024; silence follows the end.

    Shape: (channels, samples) -> (1 + samples // 1024,).
    """
    from scipy import fft

    window = np.hanning(_WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
    first = math.ceil(above_hz * _WINDOW_SAMPLES / sample_rate)
    power = np.zeros(1 + audio.shape[1] // _HOP_SAMPLES)
    for channel in audio:
        padded = np.pad(channel, (0, _WINDOW_SAMPLES))
        frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::_HOP_SAMPLES][: len(power)]
        spectra = fft.rfft(frames * window, axis=1)[:, first:]
        power += (spectra.real.astype(np.float64) ** 2 + spectra.imag.astype(np.float64) ** 2).sum(axis=1)
    # Two-sided, and by Parseval relative to the window's energy.
    return 2.0 * power / (len(audio) * _WINDOW_SAMPLES * float((window**2).sum()))


def power_db(power: Any) -> Any:
    """A mean square, or an array of them, in dB; silence is -160 dB."""
    return 10.0 * np.log10(np.maximum(power, _FLOOR))
