"""What PEAQ's ear hears, differentiable: four of its variables in the weights of its distortion index.

The ear model is that of `restorer.metrics.peaq_ear` and `peaq_patterns` (BS.1387-1, annex 2) at 44.1 kHz, without
what has no useful gradient: the bandwidths, and what is all or nothing once a difference is plainly heard.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from restorer.metrics import peaq_ear as ear
from restorer.metrics import peaq_patterns as patterns
from restorer.metrics.peaq_movs import MASKING, level_steps_db

RATE_HZ = 44100
FRAMES_PER_SECOND = RATE_HZ / ear.HOP
SETTLING_FRAMES = 4  # the filters start from rest
# By how much the distortion index falls per unit, measured on restored music at 16 to 64 kbit/s by setting one
# variable at a time to its best value: 0.11 to 0.13, 0.07 to 0.09, 0.1 to 0.4, 0.5 to 0.9.
NOISE_TO_MASK_PER_DB = 0.12
MODULATION = 0.085
DETECTION = 0.2
HARMONIC_ERROR = 0.6
HEARD = 1.0  # power of 0 dB SPL: differences below it are not heard
_TAPS = 12  # of the smoothing filters; the slowest has decayed to 0.5 %


def hearing_loss(restored: Tensor, original: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """How much the distortion index of PEAQ falls through what differs, in its units: 0 for equal signals or less.

    Bands above the original's own bandwidth do not count.

    Shape: restored, original (B, samples) at 44.1 kHz, at least 8192 samples; bandwidth_hz (B,) -> (B,).
    """
    c = _constants(restored.device)
    powers = [_powers(audio) for audio in (original, restored)]
    inside = (c["upper_hz"] < bandwidth_hz[:, None])[:, None].float()  # (B, 1, bands)
    share = inside.mean(dim=2).clamp(min=1e-3)[:, 0]
    bands = [(power * c["weights"]) @ c["grouping"] + c["internal_noise"] for power in powers]
    spreads = [_spread(band) for band in bands]
    excitations = [torch.maximum(_smooth(pattern, c["smearing"]), pattern) for pattern in spreads]

    noise = (((powers[0] + 1e-3).sqrt() - (powers[1] + 1e-3).sqrt()).square() * c["weights"]) @ c["grouping"]
    ratio = (noise * c["masking"] / excitations[0] * inside)[:, SETTLING_FRAMES:]
    noise_to_mask_db = 10 * torch.log10(ratio.mean(dim=(1, 2)) / share + 1e-3) + 24

    total = NOISE_TO_MASK_PER_DB * noise_to_mask_db
    total = total + MODULATION * _modulation_difference(*spreads, inside, share)
    total = total + DETECTION * _detection(*excitations, inside)
    return total + HARMONIC_ERROR * _harmonic_error(*powers)


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> dict[str, Tensor]:
    """Tables of the ear model on a device; never change them in place."""
    distance = np.arange(ear.BANDS)[None] - np.arange(ear.BANDS)[:, None]
    arrays = {
        "window": ear.frame_window(),
        "weights": ear.ear_weights(RATE_HZ),
        "grouping": ear.grouping(RATE_HZ),
        "internal_noise": ear.INTERNAL_NOISE,
        "upper_hz": ear.UPPER_HZ,
        "masking": MASKING,
        "smearing": _filter(patterns.decays(patterns.SMEARING_SECONDS, FRAMES_PER_SECOND)),
        "adaptation": _filter(patterns.decays(patterns.ADAPTATION_SECONDS, FRAMES_PER_SECOND)),
        "above": distance.clip(min=0),
        "below": (-distance).clip(min=0),
        "slope_up": (-2.4 - 23 / ear.CENTRE_HZ) * ear.BAND_WIDTH_BARK * math.log(10),
        "unit": patterns.spread_unscaled(np.ones((1, ear.BANDS))),
    }
    return {name: torch.as_tensor(array, dtype=torch.float32).to(device) for name, array in arrays.items()}


def _filter(decays: np.ndarray) -> np.ndarray:
    """Impulse responses (bands, taps) of one-pole low-passes with unit gain."""
    return (1 - decays[:, None]) * decays[:, None] ** np.arange(_TAPS)


def _smooth(pattern: Tensor, responses: Tensor) -> Tensor:
    """Low-pass (B, frames, bands) over frames, from rest."""
    x = functional.pad(pattern.mT, (_TAPS - 1, 0))
    return functional.conv1d(x, responses.flip(1)[:, None], groups=ear.BANDS).mT


def _powers(audio: Tensor) -> Tensor:
    """Power spectra (B, frames, bins) relative to 0 dB SPL."""
    spectrum = torch.fft.rfft(audio.unfold(-1, ear.FRAME, ear.HOP) * _constants(audio.device)["window"])
    return spectrum.real.square() + spectrum.imag.square()


def _spread(pattern: Tensor) -> Tensor:
    """`peaq_patterns.spread`; the slopes follow the level but pass no gradient."""
    c = _constants(pattern.device)
    with torch.no_grad():
        up = c["slope_up"] + 0.2 * ear.BAND_WIDTH_BARK * pattern.log()
        slopes = c["above"] * up[..., None] + c["below"] * (-2.7 * ear.BAND_WIDTH_BARK * math.log(10))
        area = slopes.exp().sum(dim=-1)
        slopes = (patterns.SPREADING_POWER * slopes).exp()
    source = (pattern / area).pow(patterns.SPREADING_POWER)
    return (source[..., None, :] @ slopes)[..., 0, :].pow(1 / patterns.SPREADING_POWER) / c["unit"]


def _modulation_difference(reference: Tensor, test: Tensor, inside: Tensor, share: Tensor) -> Tensor:
    """`AvgModDiff1B` of spread patterns (B, frames, bands), per excerpt: (B,)."""
    c = _constants(test.device)
    modulations, averages = [], []
    for pattern in (reference, test):
        loudness = pattern.pow(0.3)
        change = FRAMES_PER_SECOND * functional.pad((loudness[:, 1:] - loudness[:, :-1]).abs(), (0, 0, 1, 0))
        averages.append(_smooth(loudness, c["adaptation"]))
        modulations.append(_smooth(change, c["adaptation"]) / (1 + averages[-1] / 0.3))
    difference = (modulations[1] - modulations[0]).abs() / (1 + modulations[0]) * inside
    plain = 100 * difference.mean(dim=2)[:, SETTLING_FRAMES:] / share[:, None]
    heard = averages[0] / (averages[0] + 100 * c["internal_noise"].pow(0.3)) * inside
    weight = heard.sum(dim=2)[:, SETTLING_FRAMES:]
    return (weight * plain).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6)


def _detection(reference: Tensor, test: Tensor, inside: Tensor) -> Tensor:
    """`ADBB` of excitations as if every frame were distorted, per excerpt: (B,)."""
    levels = [10 * torch.log10(pattern[:, SETTLING_FRAMES:]) for pattern in (reference, test)]
    steps = level_steps_db(*(level.detach().cpu().numpy() for level in levels))
    steps = torch.from_numpy(steps).to(test)
    found = ((levels[0] - levels[1]).abs() / steps * inside).sum(dim=2).mean(dim=1)
    return torch.log10(found + 0.3)


def _harmonic_error(reference: Tensor, test: Tensor) -> Tensor:
    """`EHSB` of power spectra (B, frames, bins), per excerpt, x 1000 as the network has it: (B,)."""
    lags = ear.LAGS
    difference = torch.log(test[..., : 2 * lags - 1] + HEARD) - torch.log(reference[..., : 2 * lags - 1] + HEARD)
    head = torch.fft.rfft(difference[..., :lags], 2 * lags)
    correlation = torch.fft.irfft(head.conj() * torch.fft.rfft(difference, 2 * lags))[..., :lags]
    energy = functional.pad(difference.square().cumsum(dim=-1), (1, 0))
    energy = energy[..., lags:] - energy[..., :lags]
    correlation = correlation / (energy[..., :1] * energy + 1e-6).sqrt()
    correlation = correlation - correlation.mean(dim=-1, keepdim=True)
    window = torch.hann_window(lags, periodic=False, device=test.device) * (math.sqrt(8 / 3) / lags)
    spectrum = torch.fft.rfft(correlation * window).abs().square()
    rising = (spectrum.diff(dim=-1) > 0).detach()
    return 1000 * (spectrum[..., 1:] * rising).amax(dim=-1).mean(dim=1)
