"""Which band costs PEAQ how much: swap bands of original, MP3 and restored at the cut-off (EXPERIMENTS.md, 2).

python benchmarks/band_swap.py CHECKPOINT PAIRS_DIR 32m 8300
"""

from pathlib import Path

import click
import numpy as np
import torch

from restorer.metrics import peaq
from restorer.training.checkpoint import load_generator
from restorer.training.pairs import Pairs
from restorer.training.signal import restore

RATE_HZ = 44100
SECONDS = 6
ROWS = ("M -", "R R", "R -", "M R", "M O", "O -", "O R")  # below and above the cut-off; - is what the MP3 has


def join(low: np.ndarray, high: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Take `low` below and `high` above the cut-off, 200 Hz of cross-fade; (samples,) each."""
    frequency = np.fft.rfftfreq(len(low), 1 / RATE_HZ)
    upper = np.clip((frequency - cutoff_hz) / 200 + 0.5, 0, 1)
    mixed = np.fft.rfft(low) * (1 - upper) + np.fft.rfft(high) * upper
    return np.fft.irfft(mixed, len(low)).astype(np.float32)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("pairs_dir", type=click.Path(exists=True, path_type=Path))
@click.argument("coding")
@click.argument("cutoff_hz", type=float)
@click.option("--songs", default=8, show_default=True)
def main(checkpoint: Path, pairs_dir: Path, coding: str, cutoff_hz: float, songs: int) -> None:
    """Print mean ODG and DI of each combination on the valid split."""
    generator, config, _ = load_generator(checkpoint)
    z = torch.randn(config.generator.noise_size, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(pairs_dir, "valid")
    grades: dict[str, list[tuple[float, float]]] = {row: [] for row in ROWS}
    for song in pairs.songs[:songs]:
        samples = min(song.samples, SECONDS * RATE_HZ)
        original, coded = pairs.excerpt(song, coding, (song.samples - samples) // 2, samples)
        parts = {"O": original, "M": coded, "-": coded, "R": restore(generator, coded[None], z)[0]}
        for row in ROWS:
            low, high = (parts[name] for name in row.split())
            result = peaq(original, join(low, high, cutoff_hz), RATE_HZ)
            grades[row].append((result.odg, result.di))
    click.echo("below above   ODG     DI")
    for row, values in grades.items():
        odg, di = np.mean(values, axis=0)
        click.echo(f"{row:<10} {odg:6.2f} {di:6.2f}")


if __name__ == "__main__":
    main()
