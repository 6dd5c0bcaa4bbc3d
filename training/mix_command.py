"""`restorer mix`: more training songs from those that are there, with voices and one-shots on top."""

from pathlib import Path

import click

from restorer.errors import ConfigError
from restorer.training.flac import write_flac
from restorer.training.manifest import read_manifest, write_manifest
from restorer.training.mixing import SHORTEST_SECONDS, Mixer, Source
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.prepare_command import EXTENSIONS, find_recordings, plan


@click.command("mix", context_settings={"show_default": True})
@click.argument("music_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("mixes_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--voices",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of dry singing and speech.",
)
@click.option(
    "--oneshots",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of single sounds: drums, notes.",
)
@click.option("--count", default=60, type=click.IntRange(1), help="Number of mixes.")
@click.option("--seconds", default=40.0, type=click.FloatRange(SHORTEST_SECONDS, 3600), help="Length of each.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Chooses other mixes.")
def mix_command(
    music_dir: Path,
    mixes_dir: Path,
    voices: Path | None,
    oneshots: Path | None,
    count: int,
    seconds: float,
    seed: int,
) -> None:
    """Make training songs in MIXES_DIR out of the train split of MUSIC_DIR/MANIFEST.csv.

    Each mix is a stretch of a song, played faster or slower, equalised, wider or narrower, sometimes louder, with
    voices and one-shots mixed in. MIXES_DIR gets FLAC files and a MANIFEST.csv that puts all of them into the
    train split and names what is in each: `restorer prepare MIXES_DIR PAIRS_DIR` adds them to the pairs.
    """
    known = _training_songs(music_dir)
    if (mixes_dir / "MANIFEST.csv").exists():
        raise ConfigError(f"'{mixes_dir}' holds mixes already; choose another folder")
    mixer = Mixer(_sources(known), sounds_below(voices), sounds_below(oneshots), seconds, seed)
    mixes_dir.mkdir(parents=True, exist_ok=True)
    made = []
    with click.progressbar(range(count), label="Mixes", show_pos=True) as bar:
        for index in bar:
            audio, bandwidth_hz, used = mixer.mix(index)
            name = f"mix{seed}-{index:04d}.flac"
            write_flac(mixes_dir / name, audio)
            made.append([name, "train", f"{bandwidth_hz:.0f}", *_credit(used, known)])
    write_manifest(mixes_dir / "MANIFEST.csv", made)


def music_sources(music_dir: Path) -> list[Source]:
    """The songs of the train split of MUSIC_DIR/MANIFEST.csv.

    Raises
    ------
    ConfigError
        There is no manifest, it has no such songs, or some are missing.
    """
    return _sources(_training_songs(music_dir))


def _training_songs(music_dir: Path) -> dict[Path, dict[str, str]]:
    manifest = music_dir / "MANIFEST.csv"
    if not manifest.is_file():
        raise ConfigError(f"'{manifest}' must say which songs are for training; see restorer prepare --manifest")
    if all(row["split"] != "train" for row in read_manifest(manifest).values()):
        raise ConfigError(f"manifest '{manifest}' has no song of split 'train' to mix from")
    return {task.source: task.row for task in plan(music_dir, None, manifest, ()) if task.row["split"] == "train"}


def _sources(songs: dict[Path, dict[str, str]]) -> list[Source]:
    return [Source(path, float(row.get("bandwidth_hz") or SAMPLE_RATE / 2)) for path, row in songs.items()]


def sounds_below(folder: Path | None) -> list[Path]:
    """All recordings below a folder; none for None."""
    if folder is None:
        return []
    found = find_recordings(folder)
    if not found:
        raise ConfigError(f"no sounds below '{folder}'; looked for {', '.join(EXTENSIONS)}")
    return found


def _credit(used: list[Path], known: dict[Path, dict[str, str]]) -> tuple[str, str, str]:
    """Artist, title and licence of a mix: its song's, and the names of the sounds in it."""
    song = next((known[path] for path in used if path in known), {})
    sounds = sorted({path.name for path in used if path not in known})
    title = " + ".join([song.get("title", "")] * bool(song) + sounds)
    return song.get("artist", ""), title, song.get("licence", "")
