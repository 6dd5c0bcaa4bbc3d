"""The signal path of `restorer.transform` in PyTorch, differentiable, for training and for checking exports."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WINDOW, HOP = 2048, 512
BINS = WINDOW // 2 + 1


@lru_cache(maxsize=64)
def hann(samples: int, device: torch.device) -> Tensor:
    """The periodic Hann window (samples,), made once per device; never change it in place."""
    return torch.hann_window(samples, periodic=True).to(device)


def analyse(audio: Tensor) -> Tensor:
    """Compute signed-square-root STFT frames (paper eq. 4): (B, samples) -> (B, 2, T, 1025).

    No padding: T = (samples - 2048) // 512 + 1.
    """
    spectrum = torch.fft.rfft(audio.unfold(-1, WINDOW, HOP) * hann(WINDOW, audio.device))
    parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
    return parts.sign() * parts.abs().sqrt()


def synthesise(frames: Tensor) -> Tensor:
    """Overlap-add frames to audio: (B, 2, T, 1025) -> (B, (T - 3) * 512), the stretch that four frames cover."""
    parts = frames * frames.abs()
    pieces = torch.fft.irfft(torch.complex(*parts.unbind(1)), n=WINDOW) * (hann(WINDOW, frames.device) / 1.5)
    length = (frames.shape[2] - 1) * HOP + WINDOW
    audio = functional.fold(pieces.transpose(1, 2), (1, length), (1, WINDOW), stride=(1, HOP))[:, 0, 0]
    return audio[:, WINDOW - HOP : length - (WINDOW - HOP)]


@torch.no_grad()
def restore(generator: torch.nn.Module, audio: np.ndarray, z: Tensor | None) -> np.ndarray:
    """Restore whole signals in one call, on the generator's device, silence before and after them.

    It is the reference for streaming.

    Shape: audio (channels, samples) float32 at 44.1 kHz, z (noise_size,) -> (channels, samples).
    """
    samples = audio.shape[1]
    before = generator.context_frames - generator.config.lookahead_frames
    count = -(-samples // HOP) + 3  # frames that touch the signal
    start = (before + 3) * HOP
    total = (before + count + generator.config.lookahead_frames - 1) * HOP + WINDOW
    device = next(generator.parameters()).device
    padded = functional.pad(torch.from_numpy(audio), (start, total - start - samples)).to(device)
    noise = None if z is None else z.to(device).expand(audio.shape[0], -1)
    (frames, *_) = generator(analyse(padded), noise)
    return synthesise(frames)[:, :samples].cpu().numpy()
