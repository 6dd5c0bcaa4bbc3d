"""The signal path of `restorer.transform` in PyTorch, differentiable, for training and for checking exports."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

WINDOW, HOP = 2048, 512
BINS = WINDOW // 2 + 1


def hann(samples: int) -> Tensor:
    return torch.hann_window(samples, periodic=True)


def analyse(audio: Tensor) -> Tensor:
    """Compute signed-square-root STFT frames (paper eq. 4): (B, samples) -> (B, 2, T, 1025).

    No padding: T = (samples - 2048) // 512 + 1.
    """
    spectrum = torch.fft.rfft(audio.unfold(-1, WINDOW, HOP) * hann(WINDOW))
    parts = torch.stack([spectrum.real, spectrum.imag], dim=1)
    return parts.sign() * parts.abs().sqrt()


def synthesise(frames: Tensor) -> Tensor:
    """Overlap-add frames to audio: (B, 2, T, 1025) -> (B, (T - 3) * 512), the stretch that four frames cover."""
    parts = frames * frames.abs()
    pieces = torch.fft.irfft(torch.complex(*parts.unbind(1)), n=WINDOW) * (hann(WINDOW) / 1.5)
    length = (frames.shape[2] - 1) * HOP + WINDOW
    audio = functional.fold(pieces.transpose(1, 2), (1, length), (1, WINDOW), stride=(1, HOP))[:, 0, 0]
    return audio[:, WINDOW - HOP : length - (WINDOW - HOP)]


@torch.no_grad()
def restore(generator: torch.nn.Module, audio: np.ndarray, z: Tensor | None) -> np.ndarray:
    """Restore whole signals in one call, silence before and after them; the reference for streaming.

    Shape: audio (channels, samples) float32 at 44.1 kHz, z (noise_size,) -> (channels, samples).
    """
    samples = audio.shape[1]
    before = generator.context_frames - generator.config.lookahead_frames
    count = -(-samples // HOP) + 3  # frames that touch the signal
    start = (before + 3) * HOP
    total = (before + count + generator.config.lookahead_frames - 1) * HOP + WINDOW
    padded = functional.pad(torch.from_numpy(audio), (start, total - start - samples))
    noise = None if z is None else z.expand(audio.shape[0], -1)
    (frames, *_) = generator(analyse(padded), noise)
    return synthesise(frames)[:, :samples].numpy()
