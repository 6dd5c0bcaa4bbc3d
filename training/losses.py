"""Losses: what a restoration must match, where, and what noise must change."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from restorer.training.hearing import Heard, hearing_loss, listen
from restorer.training.mp3 import LAME_GAIN
from restorer.training.signal import WINDOW, hann

POWER_FLOOR = 1e-3  # in the scale of an un-normalised 2048 STFT of audio in [-1, 1], as in the log-spectral distance
RATE_HZ = 44100
SNR_PER_DB = 0.15  # so much of the distortion index a decibel of signal-to-noise ratio counts in harm_loss
PROFILE_FLOOR = (
    0.1  # keeps the slope of eq. 3 below 100; at 0.01 rare excerpts had thirty times the gradient of all else
)
SMALLEST_DB = 0.5  # log-spectral distance of an MP3 that is as good as its original
MASKED = 0.05  # share of a band's energy that an error there may have before it is heard, about -13 dB


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; 0 switches a term off."""

    magnitude: float = 2.0  # L1 of square-rooted magnitudes, several windows
    log_magnitude: float = 0.25  # L1 of log power, several windows: what the log-spectral distance sees
    distance: float = 0.0  # log-spectral distance in dB, the metric itself: sees holes, whose errors are large
    relative: float = 0.0  # the same over what the MP3 has of it, so that excerpts of all bitrates count alike
    bands: float = 0.3  # L1 of log power pooled over bands and time: the right energy, whatever the fine structure
    noise_to_mask: float = 0.2  # log of magnitude error over what the original masks, per band, as in PEAQ's NMR
    hearing: float = 0.0  # fall of PEAQ's distortion index through what differs, see hearing.py
    survived: float = 2.0  # L1 of signed-square-root frames where the MP3 still has the signal: anchors the phase
    harm: float = 0.0  # whatever is worse than in the MP3 at its original's level, see harm_loss
    profile: float = 0.02  # theta of eq. 3
    adversarial: float = 0.05
    feature_matching: float = 0.2
    windows: tuple[int, ...] = (512, 1024, 2048)
    bands_per_window: int = 48


def magnitudes(audio: Tensor, window: int) -> Tensor:
    """Power spectrogram in the scale of a 2048 window: (B, samples) -> (B, T, window / 2 + 1)."""
    spectrum = torch.fft.rfft(audio.unfold(-1, window, window // 4) * (hann(window, audio.device) * (2048 / window)))
    return spectrum.real.square() + spectrum.imag.square()


@lru_cache(maxsize=64)
def band_matrix(window: int, bands: int, device: torch.device) -> Tensor:
    """Rectangular bands of equal width on the ERB-rate scale: (window / 2 + 1, bands), columns average.

    Made once per device; never change it in place.
    """
    frequency = torch.arange(window // 2 + 1) * RATE_HZ / window
    erb = 21.4 * torch.log10(1 + 0.00437 * frequency)
    index = (erb / erb[-1] * bands).floor().clamp(max=bands - 1).long()
    matrix = functional.one_hot(index, bands).float()
    matrix = matrix[:, matrix.sum(0) > 0]
    return (matrix / matrix.sum(0)).to(device)


def below(bandwidth_hz: Tensor, bins: int) -> Tensor:
    """Weight (B, 1, bins): one where the original has a spectrum of its own, zero above its bandwidth.

    A lossy original's own low-pass must not be learnt. Above 18 kHz nearly all originals end; where one ends
    below, the loss says nothing there.
    """
    frequency = torch.linspace(0, RATE_HZ / 2, bins, device=bandwidth_hz.device)
    return (frequency[None, None] < (bandwidth_hz[:, None, None] - 300)).float()


def survival(original: Tensor, coded: Tensor) -> Tensor:
    """Where the MP3 kept the signal: (B, 1, T, 1025) in 0..1 from two (B, 2, T, 1025) frame tensors.

    Powers are smoothed over 17 bins and 3 frames; 1 where the MP3 holds most of the original's, 0 where it
    lacks more than 10 dB.
    """
    powers = torch.cat([original.pow(4).sum(1, keepdim=True), coded.pow(4).sum(1, keepdim=True)], dim=1)
    powers = functional.avg_pool2d(powers, (3, 17), 1, (1, 8), count_include_pad=False) + POWER_FLOOR
    return ((powers[:, 1:] / powers[:, :1] - 0.1) / 0.4).clamp(0, 1)


def reconstruction(
    restored: Tensor,
    original: Tensor,
    coded: Tensor,
    bandwidth_hz: Tensor,
    config: LossConfig,
    all_bandwidths_hz: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compare waveforms (B, samples) with the original by their spectrograms, and with what the MP3 had.

    Each term is an average over what lies below the bandwidths (B,), so excerpts weigh by their bandwidth. If
    these B are a part of a larger batch, `all_bandwidths_hz` is the whole batch's: then the mean over equal parts
    is the value for the whole.
    """
    if all_bandwidths_hz is None:
        all_bandwidths_hz = bandwidth_hz
    names = ("magnitude", "log_magnitude", "distance", "bands", "noise_to_mask")
    totals = {name: restored.new_zeros(()) for name in names}
    for window in config.windows:
        p, q = magnitudes(restored, window), magnitudes(original, window)
        weight = below(bandwidth_hz, window // 2 + 1)
        all_weights = below(all_bandwidths_hz, window // 2 + 1)
        norm = all_weights.mean()
        p_root, q_root = (p + 1e-5).pow(0.25), (q + 1e-5).pow(0.25)
        log = ((p + POWER_FLOOR).log() - (q + POWER_FLOOR).log()).abs() * weight
        totals["magnitude"] += ((p_root - q_root).abs() * weight).mean() / norm
        totals["log_magnitude"] += log.mean() / norm
        if config.distance:
            totals["distance"] += _distances_db(log, weight).mean()
        matrix = band_matrix(window, config.bands_per_window, restored.device)
        inside = (weight[:, 0] @ matrix > 0.9).float()[:, None]
        inside_norm = (all_weights[:, 0] @ matrix > 0.9).float().mean()
        error = (p_root.square() - q_root.square()).square() @ matrix
        masked = MASKED * (q @ matrix) + POWER_FLOOR
        totals["noise_to_mask"] += ((1 + error / masked).log() * inside).mean() / inside_norm
        frames = max(1, 2048 // window)
        pooled = [functional.avg_pool1d((power @ matrix).mT, frames) + POWER_FLOOR for power in (p, q)]
        bands = (pooled[0].log() - pooled[1].log()).abs() * inside.mT
        totals["bands"] += bands.mean() / inside_norm
    terms = {name: total / len(config.windows) for name, total in totals.items()}
    if not config.distance:
        del terms["distance"]
    if config.relative:
        terms["relative"] = relative_distance(restored, original, coded, bandwidth_hz)
    if config.hearing or config.harm:
        reference = listen(original)
        heard = hearing_loss(listen(restored), reference, bandwidth_hz)
        terms["hearing"] = heard.mean()
        if config.harm:
            terms["harm"] = harm_loss(heard, reference, restored, original, coded, bandwidth_hz)
    return terms


def relative_distance(restored: Tensor, original: Tensor, coded: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """Log-spectral distance of each excerpt, over that of the MP3 at its original's level; the mean over the batch.

    Shape: restored, original, coded (B, samples); bandwidth_hz (B,) -> scalar.
    """
    weight = below(bandwidth_hz, WINDOW // 2 + 1)
    reference = (magnitudes(original, WINDOW) + POWER_FLOOR).log()

    def distance_db(audio: Tensor) -> Tensor:
        log = ((magnitudes(audio, WINDOW) + POWER_FLOOR).log() - reference) * weight
        return _distances_db(log, weight).mean(dim=1)

    with torch.no_grad():
        before = distance_db(coded / LAME_GAIN).clamp(min=SMALLEST_DB)
    return (distance_db(restored) / before).mean()


def _distances_db(log: Tensor, weight: Tensor) -> Tensor:
    """Log-spectral distance of each frame in dB, (B, T).

    From differences of the logarithms of power (B, T, bins), 0 where `weight` (B, 1, bins) is.
    """
    square = log.square().sum(dim=2) / weight.sum(dim=2).clamp(min=1) + 1e-4
    return (10 / math.log(10)) * square.sqrt()


def survived_loss(restored: Tensor, original: Tensor, kept: Tensor, kept_share: Tensor | None = None) -> Tensor:
    """L1 of frames where the MP3 kept the signal; all (B, ., T, 1025).

    `kept_share` is the mean of `kept` over the whole batch if these B are a part of one.
    """
    if kept_share is None:
        kept_share = kept.mean()
    return ((restored - original).abs() * kept).mean() / kept_share.clamp(min=1e-3)


def harm_loss(
    heard: Tensor, reference: Heard, restored: Tensor, original: Tensor, coded: Tensor, bandwidth_hz: Tensor
) -> Tensor:
    """How much worse than the MP3 each excerpt is, by ear and by signal-to-noise ratio; 0 where it is not.

    Averages over a batch hardly see high bitrates, where all errors are small; this one sees nothing else.

    Shape: heard (B,), `hearing_loss` of restored; reference, what the ear makes of original; restored, original,
    coded (B, samples); bandwidth_hz (B,) -> scalar, the mean over the batch.
    """
    coded = coded / LAME_GAIN
    with torch.no_grad():
        heard_in_coded = hearing_loss(listen(coded), reference, bandwidth_hz)
    errors = [(audio - original).square().mean(dim=1) + 1e-9 for audio in (restored, coded)]
    noise_db = 10 * torch.log10(errors[0] / errors[1])
    return (functional.relu(heard - heard_in_coded) + SNR_PER_DB * functional.relu(noise_db)).mean()


def judged_bandwidth(kept: Tensor, bandwidth_hz: Tensor) -> Tensor:
    """Up to where the losses may judge, in Hz: (B,) from the survival map (B, 1, T, 1025) and bandwidths (B,).

    The original's own bandwidth, since a lossy original's low-pass must not be learnt; but all where the MP3 reaches
    as far as the original does: then it shows that nothing is missing, and nothing may be added.
    """
    frequency = torch.linspace(0, RATE_HZ / 2, kept.shape[3], device=kept.device)
    top = ((frequency < bandwidth_hz[:, None] - 300) & (frequency > bandwidth_hz[:, None] - 1000)).float()
    reached = (kept[:, 0].mean(dim=1) * top).sum(dim=1) / top.sum(dim=1).clamp(min=1)
    return torch.where(reached > 0.8, RATE_HZ / 2 + 301.0, bandwidth_hz)


def profile_loss(first: Tensor, second: Tensor, z1: Tensor, z2: Tensor, original: Tensor, kept: Tensor) -> Tensor:
    """Eq. 3 of the paper without theta: large while noise does not change frequency and rhythm profiles.

    Three deviations: takes are compared as audio, since what differs in frames may cancel where they overlap; and,
    for training without a settled critic, only what the MP3 lost counts (noise must not touch the rest), and profiles
    are means relative to the original's mean magnitude there, so that the loss does not depend on level or length;
    `PROFILE_FLOOR` bounds it.

    Shape: first, second, original (B, samples); z1, z2 (B, noise_size); kept (B, 1, T, 1025), T frames of original.
    """
    lost = 1 - kept[:, 0]
    first, second, original = ((magnitudes(audio, WINDOW) + 1e-6).sqrt() * lost for audio in (first, second, original))
    scale = original.mean(dim=(1, 2), keepdim=True) + 1e-3
    difference = (first - second) / scale
    frequency = difference.mean(dim=1).abs().add(1e-6).pow(1.3).mean(dim=1)
    rhythm = difference.mean(dim=2).abs().add(1e-6).pow(1.6).mean(dim=1)
    distance = (z1 - z2).norm(dim=1) / math.sqrt(2 * z1.shape[1])
    relevant = (lost.mean(dim=(1, 2)) * 4).clamp(max=1)
    return (relevant * distance * (1 / (frequency + PROFILE_FLOOR) + 1 / (rhythm + PROFILE_FLOOR))).mean()
