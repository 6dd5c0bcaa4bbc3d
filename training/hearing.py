"""What PEAQ's ear hears, differentiable: four of its variables in the weights of its distortion index.

The ear model is that of `restorer.metrics.peaq_ear` and `peaq_patterns` (BS.1387-1, annex 2) at 44.1 kHz, without
what has no useful gradient: the bandwidths, and what is all or nothing once a difference is plainly heard.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from restorer.metrics import peaq_ear as ear
from restorer.metrics import peaq_patterns as patterns
from restorer.metrics.peaq_movs import LEVEL_STEP_POLYNOMIAL, MASKING

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


class Heard(NamedTuple):
    """What the ear makes of signals (B, samples)."""

    powers: Tensor  # (B, frames, bins), relative to 0 dB SPL
    spread: Tensor  # (B, frames, bands), pattern on the basilar membrane
    excitation: Tensor  # (B, frames, bands), the same with forward masking


def listen(audio: Tensor) -> Heard:
    """Pass signals (B, samples) at 44.1 kHz, at least 8192 samples, through the ear."""
    c = _constants(audio.device)
    powers = _powers(audio)
    spread = _spread((powers * c["weights"]) @ c["grouping"] + c["internal_noise"])
    return Heard(powers, spread, torch.maximum(_smooth(spread, c["smearing"]), spread))


def hearing_loss(restored: Heard, original: Heard, bandwidth_hz: Tensor) -> Tensor:
    """How much the distortion index of PEAQ falls through what differs, in its units: 0 for equal signals or less.

    Bands above the original's own bandwidth do not count.

    Shape: restored, original as `listen` hears B signals; bandwidth_hz (B,) -> (B,).
    """
    c = _constants(restored.powers.device)
    inside = (c["upper_hz"] < bandwidth_hz[:, None])[:, None].float()  # (B, 1, bands)
    share = inside.mean(dim=2).clamp(min=1e-3)[:, 0]
    noise = (original.powers + 1e-3).sqrt() - (restored.powers + 1e-3).sqrt()
    noise = (noise.square() * c["weights"]) @ c["grouping"]
    ratio = (noise * c["masking"] / original.excitation * inside)[:, SETTLING_FRAMES:]
    noise_to_mask_db = 10 * torch.log10(ratio.mean(dim=(1, 2)) / share + 1e-3) + 24

    total = NOISE_TO_MASK_PER_DB * noise_to_mask_db
    total = total + MODULATION * _modulation_difference(original.spread, restored.spread, inside, share)
    total = total + DETECTION * _detection(original.excitation, restored.excitation, inside)
    return total + HARMONIC_ERROR * _harmonic_error(original.powers, restored.powers)


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> dict[str, Tensor]:
    """Tables of the ear model on a device; never change them in place."""
    index = np.arange(ear.BANDS)
    distance = index[None] - index[:, None]
    down = 10 ** (-2.7 * ear.BAND_WIDTH_BARK)
    arrays = {
        "window": ear.frame_window(),
        "weights": ear.ear_weights(RATE_HZ),
        "grouping": ear.grouping(RATE_HZ),
        "internal_noise": ear.INTERNAL_NOISE,
        "upper_hz": ear.UPPER_HZ,
        "masking": MASKING,
        "smearing": _filter(patterns.decays(patterns.SMEARING_SECONDS, FRAMES_PER_SECOND)),
        "adaptation": _filter(patterns.decays(patterns.ADAPTATION_SECONDS, FRAMES_PER_SECOND)),
        "above": distance.clip(min=0) * patterns.SPREADING_POWER,
        "below": down ** (patterns.SPREADING_POWER * (-distance).clip(min=0)),
        "below_area": (1 - down ** (index + 1)) / (1 - down) - 1,
        "bands_above": ear.BANDS - index,
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
        up = up.clamp(max=-1e-3)  # as it is below 120 dB
        area = c["below_area"] + torch.expm1(c["bands_above"] * up) / torch.expm1(up)  # geometric series
        slopes = (c["above"] * up[..., None]).exp_().mul_(c["below"])
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
    steps = _level_steps_db(*(level.detach() for level in levels))
    found = ((levels[0] - levels[1]).abs() / steps * inside).sum(dim=2).mean(dim=1)
    return torch.log10(found + 0.3)


def _level_steps_db(reference_db: Tensor, test_db: Tensor) -> Tensor:
    """`peaq_movs.level_steps_db` on any device."""
    level = 0.3 * torch.maximum(reference_db, test_db) + 0.7 * test_db
    positive = level.clamp(min=1e-3)
    steps = 5.95072 * (6.39468 / positive).pow(1.71332)
    for power, factor in enumerate(reversed(LEVEL_STEP_POLYNOMIAL)):
        steps = steps + factor * positive.pow(power)
    return torch.where(level > 0, steps, 1e30)


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
