"""Validation inside a training run: metrics, audio and pictures of songs that are not trained on."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch

from restorer.metrics import lsd, peaq, snr
from restorer.pictures import draw_spectrograms
from restorer.training.pairs import Pairs
from restorer.training.signal import restore
from restorer.training.train import Trainer

RATE_HZ = 44100
SECONDS = 6


class Validation:
    """Excerpts of 6 s of every validation song, mono, at the configured bitrates.

    The score that picks a run's best checkpoint is the mean over codings of the share by which the LSD falls
    plus a quarter of the gain in DI: LSD sees missing energy wherever it is, DI what is audible, also of what
    was added by mistake, and unlike ODG it does not saturate at low bitrates. Reaching 0.55 of the MP3's LSD
    counts about as much as 1.8 of DI. Higher is better.
    """

    def __init__(self, pairs: Pairs, codings: tuple[str, ...], songs: int):
        self.excerpts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in codings}
        for song in pairs.songs[:songs]:
            samples = min(song.samples, SECONDS * RATE_HZ)
            start = (song.samples - samples) // 2
            for name in codings:
                if name in song.codings:
                    self.excerpts[name].append(pairs.excerpt(song, name, start, samples))

    def __call__(self, generator: torch.nn.Module, noise_size: int) -> dict[str, dict[str, float]]:
        """Measure every coding: LSD, SNR, ODG and DI of the restored, the MP3, and MP3 / 0.95."""
        rng = np.random.default_rng(0)
        table = {}
        for name, excerpts in self.excerpts.items():
            rows = []
            for original, coded in excerpts:
                z = torch.from_numpy(rng.standard_normal(noise_size).astype(np.float32)) if noise_size else None
                restored = restore(generator, coded[None], z)[0]
                row = {}
                for label, audio in (("restored", restored), ("mp3", coded), ("mp3_scaled", coded / 0.95)):
                    row[f"lsd_{label}"] = lsd(original, audio)
                    row[f"snr_{label}"] = snr(original, audio)
                    row[f"odg_{label}"], row[f"di_{label}"] = astuple(peaq(original, audio, RATE_HZ))[:2]
                rows.append(row)
            if rows:
                table[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        return table

    def score(self, table: dict[str, dict[str, float]]) -> float:
        gains = [
            1 - row["lsd_restored"] / row["lsd_mp3"] + 0.25 * (row["di_restored"] - row["di_mp3"])
            for row in table.values()
        ]
        return float(np.mean(gains))


def preview(trainer: Trainer, validation: Validation, folder: Path, writer: Any, songs: int = 3) -> None:
    """Write spectrograms (PNG) and audio of the first songs at each coding, two takes each."""
    step = trainer.step_number
    folder.mkdir(parents=True, exist_ok=True)
    size = trainer.config.generator.noise_size
    for name, excerpts in validation.excerpts.items():
        for index, (original, coded) in enumerate(excerpts[:songs]):
            panels = [("original", original[None]), (f"MP3 {name}", coded[None])]
            for take in range(2 if size else 1):
                z = torch.randn(size, generator=torch.Generator().manual_seed(take)) if size else None
                panels.append((f"take {take}", restore(trainer.average, coded[None], z)))
            picture = folder / f"{step:06d}-{name}-{index}.png"
            draw_spectrograms(picture, panels, RATE_HZ)
            writer.add_image(f"{name}-{index}", matplotlib.image.imread(picture), step, dataformats="HWC")
            for title, audio in panels:
                writer.add_audio(f"{name}-{index}/{title}", torch.from_numpy(audio.clip(-1, 1)), step, RATE_HZ)
