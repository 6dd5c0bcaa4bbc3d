"""`restorer prepare`: a folder of music becomes aligned pairs of originals and MP3s."""

import hashlib
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile

from restorer.audio_in import read_audio
from restorer.errors import ConfigError, RestorerError
from restorer.training.flac import write_flac
from restorer.training.manifest import read_manifest
from restorer.training.mp3 import (
    CODED_RATES_HZ,
    SAMPLE_RATE,
    Coding,
    describe_rounding,
    encode_mp3,
    rounded_codings,
)
from restorer.training.pairs import Song, measure_bandwidth
from restorer.training.splits import split_songs
from restorer.whole_file import whole_file

EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".aif", ".aiff", ".mp3")
KILLED = (
    "a process was killed, perhaps for want of memory; run it again, with fewer --jobs if it happens again: "
    "what is done is kept"
)
MONO_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192)


@dataclass(frozen=True)
class Task:
    """One song to prepare, and where it goes."""

    source: Path
    folder: Path
    split: str
    codings: tuple[str, ...]
    row: dict[str, str]


def song_id(relative: str) -> str:
    """Make a folder name from a path: readable, and unique through a short hash."""
    digest = hashlib.sha256(relative.encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(relative).stem).strip("-")[:48]
    return f"{stem}-{digest}"


def find_recordings(folder: Path) -> list[Path]:
    """All audio files below a folder, sorted by their paths."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def plan(music: Path, pairs: Path | None, manifest: Path | None, codings: tuple[str, ...]) -> list[Task]:
    """List the songs below `music` (or those the manifest names) with split and target folder.

    Songs that `pairs` holds already keep their split, so that adding songs moves no other; None: nothing is held.
    """
    rows: dict[str, dict[str, str]] = {}
    if manifest is not None:
        rows = read_manifest(manifest)
        files = list(rows)
        missing = [name for name in files if not (music / name).is_file()]
        if missing:
            raise ConfigError(f"manifest '{manifest}' names {len(missing)} missing files, the first: '{missing[0]}'")
    else:
        files = [path.relative_to(music).as_posix() for path in find_recordings(music)]
    if not files:
        raise RestorerError(f"no music below '{music}'; looked for {', '.join(EXTENSIONS)}")
    folders = {name: (pairs or Path()) / song_id(name) for name in files}
    known = {}
    if pairs is not None:
        known = {name: Song.read(path).split for name, path in folders.items() if (path / "song.json").exists()}
    splits = split_songs(files, known | {name: row["split"] for name, row in rows.items() if row["split"]})
    return [Task(music / name, folders[name], splits[name], codings, rows.get(name, {})) for name in files]


def prepare_song(task: Task, quality: int, coded_rate_hz: int | None = None) -> Song:
    """Write one song's original and MP3s; what an earlier, interrupted run finished is kept.

    Raises
    ------
    AudioFileError
        The song cannot be read.
    OSError
        The disk refuses.
    """
    finished = task.folder / "song.json"
    if finished.exists():
        song = Song.read(task.folder)
        possible = {name for name in task.codings if song.channels == 2 or not Coding.parse(name).stereo}
        if possible <= set(song.codings) and song.coded_rate_hz == coded_rate_hz:
            return song
    task.folder.mkdir(parents=True, exist_ok=True)
    audio, _ = read_audio(task.source, SAMPLE_RATE)
    if audio.shape[0] > 2:
        audio = audio.mean(axis=0, keepdims=True)
    peak = float(np.abs(audio).max(initial=0.0))
    if peak > 1:  # lossy sources overshoot; the original must not clip where the MP3 does not
        audio = audio / peak
    write_flac(task.folder / "original.flac", audio)
    done = []
    for name in task.codings:
        coding = Coding.parse(name)
        if coding.stereo and audio.shape[0] == 1:
            continue
        with whole_file(task.folder / f"{name}.mp3") as partial:
            partial.write_bytes(encode_mp3(audio, coding, quality=quality, coded_rate_hz=coded_rate_hz))
        done.append(name)
    row = task.row
    song = Song(
        id=task.folder.name,
        split=task.split,
        source=task.source.name,
        channels=audio.shape[0],
        samples=audio.shape[1],
        bandwidth_hz=float(row.get("bandwidth_hz") or measure_bandwidth(audio)),
        codings=tuple(done),
        artist=row.get("artist", ""),
        title=row.get("title", ""),
        licence=row.get("licence", ""),
        coded_rate_hz=coded_rate_hz,
    )
    song.write(task.folder)
    return song


def check_coded_rate(pairs: Path, coded_rate_hz: int | None) -> None:
    """Refuse to add to a folder whose MP3s are coded at other sample rates."""
    for path in sorted(pairs.glob("*/song.json")):
        known = Song.read(path.parent).coded_rate_hz
        if known != coded_rate_hz:
            held, wanted = (
                "LAME's own sample rates" if rate is None else f"{rate} Hz" for rate in (known, coded_rate_hz)
            )
            again = "no --coded-rate" if known is None else f"--coded-rate {known}"
            raise ConfigError(
                f"'{pairs}' holds MP3s coded at {held} and not at {wanted}; choose another folder or give {again}"
            )


class ManyValues(click.Command):
    """A command whose options `many` take several values in a row: --kbps 16 24 32.

    A bitrate is a number, so that whatever follows one of `numbers` and is none is an argument again.
    """

    many: tuple[str, ...] = ("--kbps", "--joint-kbps")
    numbers = ("--kbps", "--joint-kbps")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        option = None
        for arg in args:
            if arg.startswith("-"):
                option = arg if arg in self.many else None
                if option is None:
                    spread.append(arg)
            elif option and (arg.isdigit() or option not in self.numbers):
                spread += [option, arg]
            else:
                spread.append(arg)
        return super().parse_args(ctx, spread)


def coded_rate_option(condition: str = "") -> Callable[[Any], Any]:
    """The option --coded-rate of a command that codes MP3s."""
    return click.option(
        "--coded-rate",
        "coded_rate_hz",
        type=click.Choice([str(rate) for rate in CODED_RATES_HZ]),
        callback=lambda _context, _option, value: None if value is None else int(value),
        help=f"Sample rate of the MP3s in Hz, in place of LAME's choice for each bitrate{condition}.",
    )


@click.command(cls=ManyValues, context_settings={"show_default": True})
@click.argument("music_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("pairs_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--kbps",
    multiple=True,
    type=int,
    help="Mono bitrates in kbit/s, several in a row; default 16 24 32 48 64 96.",
)
@click.option("--joint-kbps", multiple=True, type=int, help="Joint-stereo bitrates, several in a row.")
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns file, split (train, valid, test); default: MUSIC_DIR/MANIFEST.csv if there.",
)
@click.option("--quality", default=2, type=click.IntRange(0, 9), help="LAME's quality, 0 best.")
@coded_rate_option()
@click.option("--jobs", default=2, type=click.IntRange(1), help="Songs at a time.")
def prepare(
    music_dir: Path,
    pairs_dir: Path,
    kbps: tuple[int, ...],
    joint_kbps: tuple[int, ...],
    manifest: Path | None,
    quality: int,
    coded_rate_hz: int | None,
    jobs: int,
) -> None:
    """Make training pairs in PAIRS_DIR from the music in MUSIC_DIR.

    Songs are split by song into train, valid and test, 80/10/10 (or as the manifest says), coded with LAME at its own
    sample rates (or at --coded-rate), and aligned to the sample. Started again, it finishes what is missing; songs
    that were added since move no other to another split.
    """
    mono = kbps or (16, 24, 32, 48, 64, 96)
    for value in mono + joint_kbps:
        if value not in MONO_KBPS:
            raise ConfigError(f"kbps must be one of {list(MONO_KBPS)} and not {value}")
    codings = tuple(f"{value}m" for value in mono) + tuple(f"{value}j" for value in joint_kbps)
    check_coded_rate(pairs_dir, coded_rate_hz)
    if rounded := rounded_codings(codings, coded_rate_hz):
        click.echo(f"Note: {describe_rounding(rounded, coded_rate_hz)}.", err=True)
    default = music_dir / "MANIFEST.csv"
    tasks = plan(music_dir, pairs_dir, manifest or (default if default.exists() else None), codings)
    pairs_dir.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    songs: list[Song] = []
    pool = ProcessPoolExecutor(jobs)
    try:
        futures = {pool.submit(prepare_song, task, quality, coded_rate_hz): task for task in tasks}
        with click.progressbar(as_completed(futures), length=len(futures), label="Songs", show_pos=True) as bar:
            for future in bar:
                try:
                    songs.append(future.result())
                except (RestorerError, soundfile.LibsndfileError) as error:
                    shutil.rmtree(futures[future].folder, ignore_errors=True)
                    failed.append(f"{futures[future].source}: {error}")
    except BrokenProcessPool as error:
        raise RestorerError(KILLED) from error
    finally:
        pool.shutdown(cancel_futures=True)
    for line in failed:
        click.echo(f"Skipped {line}", err=True)
    if not songs:
        raise RestorerError(f"none of the {len(tasks)} songs below '{music_dir}' could be prepared")
    for split in ("train", "valid", "test"):
        chosen = [song for song in songs if song.split == split]
        minutes = sum(song.samples for song in chosen) / SAMPLE_RATE / 60
        click.echo(f"{split}: {len(chosen)} songs, {minutes:.1f} minutes, codings {' '.join(codings)}")
