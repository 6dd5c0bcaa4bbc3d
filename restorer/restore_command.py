"""``restorer restore``: files, folders or a pipe in; restored files, a mirrored tree or a pipe out."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from restorer.audio_in import AudioReader
from restorer.audio_out import check_target, choose_format
from restorer.brightness import check_brightness
from restorer.errors import AudioFileError, ConfigError
from restorer.interruption import interruptible
from restorer.object_store import Location, RemotePath, at_hand, is_url, parse_location
from restorer.progress import Progress, progress_bar

if TYPE_CHECKING:
    from restorer.batch_ray import Cluster
    from restorer.inspection import Inspection
    from restorer.restore_report import RestoreReport

_PIPE = Path("-")
FORMATS = ("flac", "wav", "mp3", "ogg", "opus")


@dataclass(frozen=True)
class Options:
    """The options by their names."""

    seed: int
    candidates: int | None
    mix: float
    brightness: float | None
    device: str
    model: Path | None
    threads: int | None
    overwrite: bool
    subtype: str | None
    force: bool
    audio_format: str | None
    jobs: int | None
    dry_run: bool
    png: Path | None
    ray: str | None
    ray_cpus: float | None
    ray_gpus: float | None

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + (self.candidates or 1))

    @property
    def forced(self) -> bool:
        """Whoever asks for several candidates wants restorations, and no copies."""
        return self.force or self.candidates is not None

    @property
    def cluster(self) -> Cluster | None:
        """The Ray cluster to run on, if there is one."""
        if self.ray is None:
            if self.ray_cpus is not None or self.ray_gpus is not None:
                raise ConfigError("--ray-cpus and --ray-gpus go with --ray")
            return None
        from restorer.batch_ray import Cluster

        gpus = self.ray_gpus or 0.0
        return Cluster(self.ray, self.jobs, 1.0 if self.ray_cpus is None else self.ray_cpus, gpus)


brightness_option = click.option(
    "--brightness",
    callback=lambda _context, _option, value: check_brightness(value),
    metavar="dark|neutral|bright|NUMBER",
    help="How bright the restored band is: dark is -2, neutral 0, bright 2, up to 4 either way.  "
    "[default: as the seed has it]",
)


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True)
@click.argument("target", metavar="OUTPUT", type=click.Path())
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which restoration to make.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    help="Make N restorations with seeds from --seed on; outputs get .seedS before their extension. Implies --force.",
    metavar="N",
)
@click.option(
    "--mix",
    type=click.FloatRange(0.0, 1.0),
    default=1.0,
    show_default=True,
    help="0 is the input, 1 the restoration.",
)
@brightness_option
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the model runs.",
)
@click.option("--model", type=click.Path(path_type=Path), help="ONNX model or name of a bundled one; default: compact.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each job.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option(
    "--bits",
    "--subtype",
    "subtype",
    type=click.Choice(["16", "24", "float"]),
    help="Sample format of .wav (16, 24, float) and .flac (16, 24).  [default: 24]",
)
@click.option(
    "--force", is_flag=True, help="Restore transparent files too; without it they are copied or converted, with a note."
)
@click.option(
    "--format",
    "audio_format",
    type=click.Choice(FORMATS),
    help="Format of the files in an OUTPUT folder.  [default: flac]",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Files in work at the same time.  [default: 1; with --ray as many as the cluster has room for]",
    metavar="N",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done with each file, and write nothing.")
@click.option(
    "--png",
    type=click.Path(path_type=Path),
    help="Also draw spectrograms of the input and of what became of it; for an OUTPUT folder name a folder, which gets "
    "a picture for each file. Not where INPUT or OUTPUT is -.",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Run on a Ray cluster: HOST:PORT, ray://HOST:PORT, auto, or local. Without an address (then write it last) "
    "the one of RAY_ADDRESS or of this machine, else one is started.",
)
@click.option("--ray-cpus", type=float, metavar="CPUS", help="CPUs of each job on the cluster.  [default: 1]")
@click.option("--ray-gpus", type=float, metavar="GPUS", help="GPUs of each job, such as 1 or 0.5.  [default: 0]")
@interruptible()
def restore(sources: tuple[str, ...], target: str, **values: Any) -> None:
    """Restore audio at 44.1 kHz: a file, whole folders, or a pipe.

    INPUT is MP3, WAV, FLAC, Ogg Vorbis, Ogg Opus or AIFF. The extension of OUTPUT picks its format: .wav,
    .flac, .ogg, .mp3 or .opus (48 kHz). Tags and cover art are carried over. A file that is transparent
    already, as `restorer inspect` tells, is copied with a note, or converted where OUTPUT has another format.
    A quiet file is restored as if it were loud, and keeps its own level.

    Folders, patterns and several files go to an OUTPUT folder that mirrors their tree. What was done before
    is skipped; a bad file does not stop the rest, but the exit status is 1. INPUT and the OUTPUT folder
    may be URLs such as s3://bucket/folder.

    INPUT - reads a WAV stream from standard input, OUTPUT - writes one to standard output. A stream cannot be
    inspected before it plays, so standard input is always restored.
    """
    options = Options(**values)
    places = tuple(parse_location(source) for source in sources)
    if _PIPE in places or target == str(_PIPE):
        if is_url(target) or any(isinstance(place, RemotePath) for place in places):
            raise ConfigError("- goes with a local file on the other side and not with a URL; name a folder for it")
        _restore_through_pipe(tuple(map(Path, sources)), Path(target), options)
    elif _is_batch(places, target, options):
        from restorer.batch_command import restore_batch

        restore_batch(places, parse_location(target), options)
    else:
        if isinstance(places[0], RemotePath):
            choose_format(Path(target), options.subtype)  # before it is fetched
        with at_hand(places[0]) as (source, _):
            _restore_one(source, Path(target), options, str(places[0]))


def _is_batch(sources: tuple[Location, ...], target: str, options: Options) -> bool:
    from restorer.audio_out import EXTENSIONS
    from restorer.batch_plan import is_pattern

    out = Path(target)
    if is_url(target):
        if out.suffix.lower() in EXTENSIONS:
            raise ConfigError(f"{target}: an OUTPUT URL names a folder; name a local file or the folder of it")
        return True
    into_folder = out.is_dir() or target.endswith(("/", os.sep)) or (options.audio_format and not out.suffix)
    if not into_folder and out.suffix.lower() in EXTENSIONS:
        if len(sources) > 1:
            raise ConfigError(f"{out} names a file and there are {len(sources)} inputs; name a folder to write to")
        return False
    return bool(into_folder) or len(sources) > 1 or sources[0].is_dir() or is_pattern(sources[0])


def _refuse_batch_options(options: Options) -> None:
    for name, given in (
        ("--format", options.audio_format),
        ("--jobs", (options.jobs or 1) > 1),
        ("--dry-run", options.dry_run),
        ("--ray", options.cluster is not None),
    ):
        if given:
            raise ConfigError(f"{name} is for an OUTPUT folder; here the extension of OUTPUT says all, leave it out")


def _restore_one(source: Path, target: Path, options: Options, name: str) -> None:
    """`name` is that of the input for people, where `source` is a copy of it."""
    _refuse_batch_options(options)
    seed = options.seed
    targets = {seed: target} if options.candidates is None else _name_candidates(target, seed, options.candidates)
    # Everything that can be wrong is looked at before the slow work.
    with AudioReader(source) as reader:
        channels = reader.channels
    for path in targets.values():
        check_target(source, path, options.overwrite, options.subtype, channels)
    choose_format(target, options.subtype)

    from restorer import Restorer
    from restorer.restore_pictures import plan_pictures
    from restorer.restoring import restore_or_copy

    pictures = plan_pictures(options.png, source, list(targets.values()), options.overwrite)

    restorer = Restorer(options.model, device=options.device, threads=options.threads)
    restorer.check_takes(len(targets))
    shown: set[str] = set()
    for each_seed, path in targets.items():
        with _progress_bar(path.name) as progress:
            report, found = restore_or_copy(
                restorer,
                source,
                path,
                seed=each_seed,
                mix=options.mix,
                overwrite=options.overwrite,
                subtype=options.subtype,
                force=options.forced,
                progress=progress,
                brightness=options.brightness,
            )
        _warn(report, shown)
        _note(report, name, found)
        click.echo(_summary(report), err=True)
    for picture in pictures:
        picture.draw(source, Path(name).name, _done(report))
        click.echo(f"{picture.path}: the input and what became of it", err=True)


def _restore_through_pipe(sources: tuple[Path, ...], target: Path, options: Options) -> None:
    _refuse_batch_options(options)
    if len(sources) > 1:
        raise ConfigError(f"- stands for one stream and there are {len(sources)} inputs; name one")
    if options.candidates is not None:
        raise ConfigError("--candidates needs files and not -; choose one restoration with --seed")
    if options.png is not None:
        raise ConfigError("--png needs files and not -; restore to a file, or draw it with `restorer inspect`")
    source: Path | BinaryIO = sources[0]
    if source != _PIPE:
        AudioReader(sources[0]).close()
    elif sys.stdin.isatty():
        raise AudioFileError("standard input is a terminal; pipe a WAV stream into it")
    else:
        source = sys.stdin.buffer
    if target != _PIPE:
        check_target(sources[0], target, options.overwrite, options.subtype)
    elif sys.stdout.isatty():
        raise AudioFileError("standard output is a terminal; pipe it into a program or a file")

    from restorer import Restorer
    from restorer.restoring import restore_pipe

    restorer = Restorer(options.model, device=options.device, threads=options.threads)
    with _progress_bar(sources[0].name if sources[0] != _PIPE else "standard input") as progress:
        report, found = restore_pipe(
            restorer,
            source,
            sys.stdout.buffer if target == _PIPE else target,
            seed=options.seed,
            mix=options.mix,
            overwrite=options.overwrite,
            subtype=options.subtype,
            force=options.force,
            progress=progress,
            brightness=options.brightness,
        )
    _warn(report, set())
    _note(report, str(sources[0]), found)
    click.echo(_summary(report), err=True)


def _warn(report: RestoreReport, shown: set[str]) -> None:
    for warning in report.warnings:
        if warning not in shown:
            click.echo(f"Warning: {warning}", err=True)
            shown.add(warning)


def _note(report: RestoreReport, name: str, found: Inspection | None) -> None:
    if found:
        click.echo(f"Note: {name}: {found.reason}; it was {report.carried} (--force restores it)", err=True)


def _done(report: RestoreReport) -> str:
    """One word for what became of the input: "restored", "copied" or "converted"."""
    return report.carried.partition(" ")[0] or "restored"


def _name_candidates(target: Path, seed: int, count: int) -> dict[int, Path]:
    return {s: target.with_name(f"{target.stem}.seed{s}{target.suffix}") for s in range(seed, seed + count)}


def _progress_bar(label: str) -> AbstractContextManager[Progress | None]:
    """A bar on stderr; nothing at all where stderr is no terminal."""
    return progress_bar(label) if sys.stderr.isatty() else nullcontext()


def _summary(report: RestoreReport) -> str:
    minutes, seconds = divmod(report.seconds, 60)
    parts = [
        f"{int(minutes)}:{seconds:04.1f} {_done(report)} in {report.elapsed_seconds:.1f} s",
        f"real-time factor {report.real_time_factor:.3f}",
    ]
    if report.peak_memory_bytes is not None:
        parts.append(f"peak memory {report.peak_memory_bytes / 1e6:.0f} MB")
    parts.append(f"{report.clipped_samples} samples clipped")
    return f"{report.target}: {', '.join(parts)}"
