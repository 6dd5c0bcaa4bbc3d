"""``restorer takes``: the busiest stretch of a song with several seeds, to choose one for the whole song."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restorer.audio_in import AudioReader
from restorer.audio_out import AudioWriter, check_target
from restorer.batch import format_table
from restorer.errors import AudioFileError, ConfigError
from restorer.restore_command import FORMATS, brightness_option

if TYPE_CHECKING:
    from restorer.inspection import Inspection
    from restorer.takes import Differences, Stretch, Take

_MOST_TAKES = 32


@click.command("takes")
@click.argument("song", metavar="SONG", type=click.Path(path_type=Path))
@click.argument("out_dir", metavar="[OUT_DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--n", "n", type=click.IntRange(1, _MOST_TAKES), default=6, show_default=True, help="How many takes to make."
)
@click.option(
    "--seconds",
    type=click.FloatRange(1.0, 120.0),
    default=20.0,
    show_default=True,
    help="Length of the stretch; the whole song if that is shorter.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first of the seeds.")
@brightness_option
@click.option("--format", "audio_format", type=click.Choice(FORMATS), default="flac", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--model", type=click.Path(path_type=Path), help="ONNX model or name of a bundled one; default: compact.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def takes(song: Path, out_dir: Path | None, **options: Any) -> None:
    """Restore the busiest stretch of SONG with several seeds, and show how the takes differ.

    OUT_DIR (SONG-takes in the current folder) gets a file per take, such as SONG-seed7.flac, and a contact
    sheet SONG-takes.png with spectrograms and brightness, the level above the cut-off. Then
    `restorer restore SONG OUTPUT --seed 7` restores the whole song as the take you like: the stretch will sound
    as it does here.
    """
    folder = Path(f"{song.stem}-takes") if out_dir is None else out_dir
    suffix = f".{options['audio_format']}"
    seeds = range(options["seed"], options["seed"] + options["n"])
    targets = {seed: folder / f"{song.stem}-seed{seed}{suffix}" for seed in seeds}
    sheet = folder / f"{song.stem}-takes.png"
    with AudioReader(song) as reader:
        channels = reader.channels
    _check_free(folder, [*targets.values(), sheet], options["overwrite"])

    from restorer import Restorer
    from restorer.inspection import inspect_file
    from restorer.takes import compare_takes, make_takes, read_stretch, upper_band_hz
    from restorer.takes_sheet import draw_sheet

    restorer = Restorer(options["model"], device=options["device"], threads=options["threads"])
    restorer.check_takes(options["n"])
    brightness = restorer.check_brightness(options["brightness"])
    _make_folder(folder)
    for path in targets.values():
        check_target(song, path, options["overwrite"], None, channels)
    found = inspect_file(song, count_clipped=False)
    stretch = read_stretch(song, restorer.model_info, options["seconds"])
    above_hz = upper_band_hz(stretch)
    made = make_takes(restorer, stretch, options["n"], options["seed"], brightness, above_hz)
    differences = compare_takes(made)
    for take in made:
        with AudioWriter(targets[take.seed], channels, restorer.sample_rate, overwrite=options["overwrite"]) as writer:
            writer.write(take.audio)
    given = (_name_input(found), stretch.inside(stretch.heard))
    first, last = (_clock(at / stretch.sample_rate) for at in (stretch.start, stretch.start + stretch.samples))
    title = f"{song.name}, {first} to {last}: {_many(len(made))} by {restorer.model_info.name}, dark to bright"
    start_seconds = stretch.start / stretch.sample_rate
    draw_sheet(sheet, title, given, made, stretch.sample_rate, start_seconds, above_hz)

    if found.transparent:
        click.echo(f"Note: {song}: {found.reason}; takes of it will hardly differ", err=True)
    report = make_report(song, stretch, made, differences, above_hz, brightness, targets, sheet)
    click.echo(json.dumps(report, indent=1, ensure_ascii=False) if options["as_json"] else format_report(report))


def make_report(
    song: Path,
    stretch: Stretch,
    made: Sequence[Take],
    differences: Differences,
    above_hz: float,
    brightness: float | None,
    targets: dict[int, Path],
    sheet: Path,
) -> dict[str, Any]:
    """What was made and measured, ready for JSON; takes from dark to bright, differences in the same order."""
    from restorer.brightness import upper_level_db

    given_db = upper_level_db(stretch.inside(stretch.heard), stretch.sample_rate, above_hz)
    frequency, rhythm = differences.mean()
    return {
        "song": str(song),
        "start_seconds": round(stretch.start / stretch.sample_rate, 3),
        "seconds": round(stretch.samples / stretch.sample_rate, 3),
        "cutoff_hz": round(above_hz, 1),
        "brightness": brightness,
        "input_db": round(given_db, 2),
        "takes": [
            {"seed": take.seed, "brightness_db": round(take.brightness_db, 2), "file": str(targets[take.seed])}
            for take in made
        ],
        "differences": {
            "frequency_mean": round(frequency, 5),
            "rhythm_mean": round(rhythm, 5),
            "frequency": differences.frequency.round(5).tolist(),
            "rhythm": differences.rhythm.round(5).tolist(),
        },
        "contact_sheet": str(sheet),
    }


def format_report(report: dict[str, Any]) -> str:
    """A report as tables for people."""
    takes, apart = report["takes"], report["differences"]
    start, seconds = report["start_seconds"], report["seconds"]
    darkest = takes[0]["brightness_db"]
    rows = [("SEED", "BRIGHTNESS", "", "FILE")]
    for take in takes:
        more = take["brightness_db"] - darkest
        rows.append((str(take["seed"]), f"{take['brightness_db']:.2f} dB", f"+{more:.2f}", take["file"]))
    lines = [
        f"{report['song']}: {_clock(start)} to {_clock(start + seconds)}, cut at {report['cutoff_hz'] / 1000:.1f} kHz, "
        f"{report['input_db']:.1f} dB above that",
        "From dark to bright:",
        format_table(rows),
    ]
    if len(takes) > 1:
        lines += [
            f"Two takes differ by {_percent(apart['frequency_mean'])} % in frequency profile and by "
            f"{_percent(apart['rhythm_mean'])} % in rhythm profile (mean; frequency below the diagonal, rhythm above):",
            format_table(_matrix(report)),
        ]
    lines.append(f"Contact sheet: {report['contact_sheet']}")
    return "\n".join(lines)


def _matrix(report: dict[str, Any]) -> list[tuple[str, ...]]:
    seeds = [str(take["seed"]) for take in report["takes"]]
    apart, rows = report["differences"], [("SEED", *(str(take["seed"]) for take in report["takes"]))]
    for i, seed in enumerate(seeds):
        cells = [apart["frequency" if j < i else "rhythm"][i][j] for j in range(len(seeds))]
        rows.append((seed, *("-" if j == i else _percent(cell) for j, cell in enumerate(cells))))
    return rows


def _check_free(folder: Path, paths: Sequence[Path], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder for the takes")
    for path in paths:
        if path.exists() and not overwrite:
            raise AudioFileError(f"{path} exists; name another folder or pass --overwrite")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"cannot write to {folder}: {error.strerror or error}") from error


def _name_input(found: Inspection) -> str:
    return f"{found.codec} at {found.kbps:.0f} kbit/s" if found.lossy else f"Input ({found.codec})"


def _many(count: int) -> str:
    return "1 take" if count == 1 else f"{count} takes"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
