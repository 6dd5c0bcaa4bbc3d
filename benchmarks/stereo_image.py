"""The stereo image: left / right against mid / side, beside the original and the MP3 (EXPERIMENTS.md, 12).

python benchmarks/stereo_image.py MODEL PAIRS_DIR 64j 128j
"""

from pathlib import Path

import click
import numpy as np

from restorer import Restorer
from restorer.bundled import find_model
from restorer.metrics import lsd, peaq
from restorer.training.pairs import Pairs

RATE_HZ = 44100
SECONDS = 6
BANDS_HZ = ((100, 1000), (1000, 5000), (5000, 10000), (10000, 16000))
MIX = np.array([[0.5, 0.5], [0.5, -0.5]], np.float32)  # left, right -> mid, side


def band_images(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inter-channel correlation, and the side's share of the energy, of (2, samples) in each band."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, 2048, axis=1)[:, ::512] * np.hanning(2048)
    left, right = np.fft.rfft(frames)
    correlations, shares = [], []
    for low, high in BANDS_HZ:
        bins = slice(round(low * 2048 / RATE_HZ), round(high * 2048 / RATE_HZ))
        a, b = left[:, bins], right[:, bins]
        energies = (np.abs(a) ** 2).sum(), (np.abs(b) ** 2).sum()
        correlations.append((a * b.conj()).real.sum() / np.sqrt(energies[0] * energies[1] + 1e-9))
        shares.append((np.abs(a - b) ** 2).sum() / 2 / (sum(energies) + 1e-9))
    return np.array(correlations), np.array(shares)


@click.command()
@click.argument("model")
@click.argument("pairs_dir", type=click.Path(exists=True, path_type=Path))
@click.argument("codings", nargs=-1, required=True)
@click.option("--split", default="valid", show_default=True, type=click.Choice(["valid", "test"]))
def main(model: str, pairs_dir: Path, codings: tuple[str, ...], split: str) -> None:
    """Print means over the stereo songs of a split."""
    restorer = Restorer(find_model(model), device="cpu", threads=1)
    pairs = Pairs(pairs_dir, split)
    heads = " ".join(f"{f'{low / 1000:g}-{high / 1000:g} kHz':>12}" for low, high in BANDS_HZ)
    for coding in codings:
        songs = [song for song in pairs.songs if coding in song.codings and song.channels == 2]
        rows: dict[str, list[np.ndarray]] = {}
        for song in songs:
            samples = min(song.samples, SECONDS * RATE_HZ)
            start = (song.samples - samples) // 2
            original, coded = pairs.original(song, start, samples), pairs.coded(song, coding, start, samples)
            both = restorer(coded, RATE_HZ, seed=0)
            apart = 2 * MIX @ restorer(MIX @ coded, RATE_HZ, seed=0)
            wanted = band_images(original)
            for name, audio in {"MP3": coded, "left / right": both, "mid / side": apart}.items():
                found = band_images(audio)
                grades = [peaq(a, b, RATE_HZ).odg for a, b in zip(original, audio, strict=True)]
                mix = peaq(original.mean(axis=0), audio.mean(axis=0), RATE_HZ).odg
                distances = [lsd(a, b) for a, b in zip(original, audio, strict=True)]
                numbers = [np.mean(grades), mix, np.mean(distances)]
                rows.setdefault(name, []).append(np.concatenate([numbers, *found, abs(found[0] - wanted[0])]))
            rows.setdefault("original", []).append(np.concatenate([[0, 0, 0], *wanted, np.zeros(len(BANDS_HZ))]))
        click.echo(f"\n{coding}, {len(songs)} songs: ODG of channels and of the mix, LSD; then by band {heads}")
        for name, values in rows.items():
            odg, mix, distance, *bands = np.mean(values, axis=0)
            click.echo(f"{name:<13} {odg:6.2f} {mix:6.2f} {distance:6.2f}")
            for title, numbers in zip(
                ("correlation", "share of side", "|correlation - original's|"),
                np.reshape(bands, (3, -1)),
                strict=True,
            ):
                click.echo(f"  {title:<28}" + " ".join(f"{number:12.3f}" for number in numbers))


if __name__ == "__main__":
    main()
