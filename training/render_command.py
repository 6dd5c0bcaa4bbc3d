"""`restorer render`: music that nothing was coded from before, played by soundfonts and a synthesiser."""

import os
import re
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from restorer.cli import INTERRUPTED
from restorer.errors import AudioFileError, ConfigError, RestorerError
from restorer.folder_lock import locked_folder
from restorer.training.distributed import Stop
from restorer.training.manifest import COLUMNS, read_manifest, write_manifest
from restorer.training.mix_command import sounds_below
from restorer.training.rendering.drums import OneShots
from restorer.training.rendering.fluidsynth import find_fluidsynth
from restorer.training.rendering.materials import Materials
from restorer.training.rendering.notes import read_midi
from restorer.training.rendering.pieces import Outcome, file_name, write_piece
from restorer.training.rendering.soundfont import SoundFont
from restorer.training.rendering.workers import Lost, in_processes

MIDI_EXTENSIONS = (".mid", ".midi")
SHORTEST_LIMIT_SECONDS = 12.0
MANIFEST_SECONDS = 5.0  # between two manifests; what a killed run made after its last one is made again
LOST_AT_MOST = 100  # processes that may die before the command gives up
BROKEN_SHOWN = 10  # MIDI files that are named at the end
PIECE = re.compile(r"piece\d+-\d{5,}\.flac")


@click.command("render", context_settings={"show_default": True})
@click.argument("renderings_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--midi",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of MIDI files; without it all songs are made by chance.",
)
@click.option(
    "--soundfont",
    "soundfonts",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="SF2 or SF3 that FluidSynth plays; of several, each piece draws one. Without it all is synthesised.",
)
@click.option(
    "--oneshots",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of single drum sounds, named as kick, snare, hat, ...",
)
@click.option("--count", default=100, type=click.IntRange(1), help="Number of pieces.")
@click.option("--seconds", default=45.0, type=click.FloatRange(SHORTEST_LIMIT_SECONDS, 300), help="Longest piece.")
@click.option("--synthesised", default=0.3, type=click.FloatRange(0, 1), help="Share played by the own synthesiser.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Chooses other pieces.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one for each core but two.")
@click.pass_context
def render_command(
    context: click.Context,
    renderings_dir: Path,
    midi: Path | None,
    soundfonts: tuple[Path, ...],
    oneshots: Path | None,
    count: int,
    seconds: float,
    synthesised: float,
    seed: int,
    workers: int | None,
) -> None:
    """Make pieces of music for training in RENDERINGS_DIR.

    Each is a stretch of a MIDI file, in another key and tempo and sometimes with other instruments, or a song made by
    chance; FluidSynth plays it with a soundfont, or an own synthesiser does; and it is mixed and mastered as records
    are. RENDERINGS_DIR gets FLAC files and a MANIFEST.csv that puts all of them into the train split, for
    `restorer pool`, which takes new ones as they come, `mix` and `prepare`. The same seed makes the same
    pieces; started again with it, the command makes those that are missing.
    """
    materials = Materials(
        seconds=seconds,
        seed=seed,
        midi=_scores_below(midi),
        soundfonts=[SoundFont.read(path) for path in soundfonts],
        fluidsynth=find_fluidsynth() if soundfonts else "",
        one_shots=OneShots(sounds_below(oneshots)),
        synthesised=synthesised,
    )
    try:
        renderings_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"cannot make the folder '{renderings_dir}': {error.strerror or error}") from error
    with locked_folder(renderings_dir):
        run = _Run(renderings_dir, materials, count)
        run.make(workers or max(1, (os.cpu_count() or 1) - 2))
    if run.stopped:
        click.echo("Interrupted; run it again to go on", err=True)
        context.exit(INTERRUPTED)


class _Run:
    """One run of the command: its pieces, its manifest, and what it reports."""

    def __init__(self, folder: Path, materials: Materials, count: int):
        self.folder, self.materials = folder, materials
        self.manifest = folder / "MANIFEST.csv"
        self.rows = _rows_there(self.manifest)
        self.missing = [index for index in range(count) if file_name(materials.seed, index) not in self.rows]
        self.stopped = False
        self._made, self._seconds, self._lost = 0, 0.0, 0
        self._failed: Counter[str] = Counter()
        self._broken: set[str] = set()

    def make(self, workers: int) -> None:
        """Make what is missing, in so many processes.

        Raises
        ------
        RestorerError
            The disk refuses, processes keep dying, or no piece could be made.
        """
        started = written = time.monotonic()
        task = partial(write_piece, self.materials, self.folder)
        try:
            with Stop() as stop, click.progressbar(length=len(self.missing), label="Pieces", show_pos=True) as bar:
                done = in_processes(task, self.missing, min(workers, len(self.missing)), lambda: stop.wanted)
                with closing(done):
                    for index, outcome in done:
                        self._take(index, outcome)
                        bar.update(1)
                        if self._made and (time.monotonic() - written > MANIFEST_SECONDS or self._made == 1):
                            self._write_manifest()
                            written = time.monotonic()
                self.stopped = stop.wanted
        finally:
            if self.rows:
                self._write_manifest()
        self._report(time.monotonic() - started)

    def _take(self, index: int, outcome: Outcome | Lost) -> None:
        if isinstance(outcome, Lost):
            self._lost += 1  # to a library that crashes, or for want of memory
            self._failed[f"a process ended with status {outcome.status}, perhaps for want of memory"] += 1
            if self._lost > LOST_AT_MOST:
                raise RestorerError(f"{self._lost} processes that make pieces ended, the last with {outcome.status}")
            return
        self._broken |= set(outcome.broken)
        if outcome.refused:
            raise RestorerError(outcome.why)
        if outcome.why:
            self._failed[outcome.why] += 1
            return
        self.rows[file_name(self.materials.seed, index)] = outcome.row
        self._made += 1
        self._seconds += outcome.seconds

    def _write_manifest(self) -> None:
        write_manifest(self.manifest, (self.rows[name] for name in sorted(self.rows)))

    def _report(self, wall_seconds: float) -> None:
        broken = sorted(self._broken)
        for line in broken[:BROKEN_SHOWN]:
            click.echo(f"Skipped {line}", err=True)
        if len(broken) > BROKEN_SHOWN:
            click.echo(f"Skipped {len(broken) - BROKEN_SHOWN} other MIDI files", err=True)
        given_up = sum(self._failed.values())
        often, why = max(((number, reason) for reason, number in self._failed.items()), default=(0, ""))
        if given_up and not self._made and not self.stopped:
            raise RestorerError(f"none of {given_up} pieces could be made; {often} because: {why}")
        if given_up:
            click.echo(f"{given_up} pieces could not be made; {often} because: {why}", err=True)
        click.echo(
            f"{self._made} pieces, {self._seconds / 60:.1f} minutes, in {wall_seconds:.0f} s; {len(self.rows)} in "
            f"'{self.folder}'",
            err=True,
        )


def _scores_below(folder: Path | None) -> list[Path]:
    """All MIDI files below a folder, at least one of which can be read; none for None."""
    if folder is None:
        return []
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MIDI_EXTENSIONS and path.is_file())
    if not paths:
        raise ConfigError(f"no MIDI files below '{folder}'; looked for {', '.join(MIDI_EXTENSIONS)}")
    why = ""
    for path in paths:
        try:
            read_midi(path)
        except RestorerError as error:
            why = why or str(error)
        else:
            return paths
    raise ConfigError(f"none of the {len(paths)} MIDI files below '{folder}' can be read; the first: {why}")


def _rows_there(manifest: Path) -> dict[str, tuple[str, ...]]:
    """The rows of an earlier run, as far as their files are there.

    Raises
    ------
    ConfigError
        The folder is of other music.
    """
    if not manifest.exists():
        return {}
    rows = read_manifest(manifest)
    foreign = [name for name, row in rows.items() if not PIECE.fullmatch(name) or set(row) != set(COLUMNS)]
    if foreign:
        raise ConfigError(
            f"'{manifest}' is of other music, such as '{foreign[0]}'; choose another folder than '{manifest.parent}'"
        )
    return {
        name: tuple(row[column] for column in COLUMNS)
        for name, row in rows.items()
        if (manifest.parent / name).is_file()
    }
