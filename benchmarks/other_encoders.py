"""Music coded as in no training: other LAME settings, twice, other encoders, other formats (EXPERIMENTS.md, 16).

python benchmarks/other_encoders.py MODEL PAIRS_DIR    (needs the ffmpeg program; encoders it lacks are left out)
"""

import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
import soundfile

from restorer import Restorer
from restorer.audio_in import read_audio
from restorer.bundled import find_model
from restorer.metrics import align, lsd, peaq
from restorer.training.pairs import Pairs

RATE_HZ = 44100
SECONDS = 6
# What ffmpeg is told, and the file's ending; several steps are one coding after another.
CODINGS: dict[str, list[tuple[str, str]]] = {
    "LAME 64 kbit/s, as trained": [("-ac 1 -c:a libmp3lame -b:a 64k -compression_level 2", "mp3")],
    "LAME 64 kbit/s, quality 9": [("-ac 1 -c:a libmp3lame -b:a 64k -compression_level 9", "mp3")],
    "LAME 32 kbit/s at 22.05 kHz": [("-ac 1 -ar 22050 -c:a libmp3lame -b:a 32k", "mp3")],
    "LAME ABR 56 kbit/s": [("-ac 1 -c:a libmp3lame -abr 1 -b:a 56k", "mp3")],
    "LAME VBR V9": [("-ac 1 -c:a libmp3lame -q:a 9", "mp3")],
    "LAME VBR V6": [("-ac 1 -c:a libmp3lame -q:a 6", "mp3")],
    "LAME VBR V2": [("-ac 1 -c:a libmp3lame -q:a 2", "mp3")],
    "LAME 64 kbit/s stereo, no joint": [("-ac 2 -c:a libmp3lame -joint_stereo 0 -b:a 64k", "mp3")],
    "LAME 128 kbit/s after 64": [
        ("-ac 1 -c:a libmp3lame -b:a 64k", "mp3"),
        ("-ac 1 -c:a libmp3lame -b:a 128k", "mp3"),
    ],
    "LAME 48 kbit/s after AAC 64": [("-ac 1 -c:a aac -b:a 64k", "m4a"), ("-ac 1 -c:a libmp3lame -b:a 48k", "mp3")],
    "Shine 64 kbit/s": [("-ac 1 -c:a libshine -b:a 64k", "mp3")],
    "Shine 96 kbit/s": [("-ac 1 -c:a libshine -b:a 96k", "mp3")],
    "AAC 32 kbit/s": [("-ac 1 -c:a aac -b:a 32k", "m4a")],
    "Vorbis 45 kbit/s": [("-ac 1 -c:a libvorbis -q:a -1", "ogg")],
    "WMA 32 kbit/s": [("-ac 1 -c:a wmav2 -b:a 32k", "wma")],
    "Opus 16 kbit/s": [("-ac 1 -c:a libopus -b:a 16k", "opus")],
}


def ffmpeg(*arguments: str) -> bool:
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def code(original: np.ndarray, steps: list[tuple[str, str]], folder: Path) -> np.ndarray | None:
    """What (channels, samples) is after coding, at 44.1 kHz, with whatever delay; None: ffmpeg cannot."""
    file = folder / "0.wav"
    soundfile.write(file, original.T, RATE_HZ, subtype="PCM_16")
    for number, (arguments, ending) in enumerate(steps, 1):
        target = folder / f"{number}.{ending}"
        if not ffmpeg("-i", str(file), *arguments.split(), str(target)):
            return None
        file = target
    decoded = folder / "decoded.wav"
    if not ffmpeg("-i", str(file), "-ar", str(RATE_HZ), str(decoded)):
        return None
    return read_audio(decoded, RATE_HZ)[0]


@click.command()
@click.argument("model")
@click.argument("pairs_dir", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="valid", show_default=True, type=click.Choice(["valid", "test"]))
@click.option("--songs", default=15, show_default=True)
@click.option("--only", default="", help="Part of a coding's name.")
def main(model: str, pairs_dir: Path, split: str, songs: int, only: str) -> None:
    """Print means over the songs of a split: decoded file -> restored."""
    restorer = Restorer(find_model(model), device="cpu", threads=1)
    pairs = Pairs(pairs_dir, split)
    click.echo("| coded with | songs | ODG | DI | LSD | made worse by 0.1 ODG |\n|---|---|---|---|---|---|")
    for title, steps in CODINGS.items():
        if only not in title:
            continue
        rows = []
        for song in pairs.songs[:songs]:
            samples = min(song.samples, SECONDS * RATE_HZ)
            original = pairs.original(song, (song.samples - samples) // 2, samples)
            with tempfile.TemporaryDirectory() as folder:
                coded = code(original, steps, Path(folder))
            if coded is None:
                break
            original, coded = original.mean(axis=0), coded.mean(axis=0)
            aligned = align(original, coded, RATE_HZ)
            restored = restorer(aligned.test, RATE_HZ, seed=0)
            row = []
            for audio in (aligned.test, restored):
                grade = peaq(aligned.reference, audio, RATE_HZ)
                row += [grade.odg, grade.di, lsd(aligned.reference, audio)]
            rows.append(row)
        if rows:
            odg, di, distance, *after = np.mean(rows, axis=0)
            worse = np.mean([row[3] < row[0] - 0.1 for row in rows])
            click.echo(
                f"| {title} | {len(rows)} | {odg:.2f} -> {after[0]:.2f} | {di:.2f} -> {after[1]:.2f} | "
                f"{distance:.2f} -> {after[2]:.2f} | {worse:.0%} |"
            )


if __name__ == "__main__":
    main()
