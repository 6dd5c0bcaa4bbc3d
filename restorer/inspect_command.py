"""``restorer inspect``: what files are, where their spectrum is cut, and whether restoring them is worth it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from restorer.batch import format_table
from restorer.batch_plan import find_audio
from restorer.file_pictures import draw_files, name_pictures
from restorer.inspection import Inspection, inspect_all

_COLUMNS = ("FILE", "CODEC", "KBIT/S", "RATE", "CHANNELS", "ENCODER", "CUT-OFF", "CLIPPED", "VERDICT")


@click.command("inspect")
@click.argument("inputs", metavar="FILE|FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option(
    "--png",
    type=click.Path(path_type=Path),
    help="Also draw a spectrogram; with several files a folder that gets one picture for each.",
)
def inspect(inputs: tuple[Path, ...], as_json: bool, png: Path | None) -> None:
    """Say how audio files were coded, where their spectrum is cut, and whether to restore them.

    The cut-off is the -6 dB point of the steep edge that a codec's low-pass leaves; "none" means that the
    spectrum fades out by itself. Exit status 1 if one of several files could not be read; --json lists it with
    its "path" and "error".
    """
    files = find_audio(inputs)
    many = len(files) > 1
    named = name_pictures([place for _, place in files], png, many) if png else []
    pictures = {path: picture for (path, _), picture in zip(files, named, strict=False)}
    found: list[dict[str, Any]] = []
    failed = 0
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for (path, result), (_, place) in zip(inspect_all([path for path, _ in files]), files, strict=True):
        if isinstance(result, Exception):
            if not many:
                raise result
            failed += 1
            error = " ".join(str(result).split())
            click.echo(f"Failed: {error}", err=True)
            found.append({"path": str(path), "error": error})
            continue
        found.append(result.as_dict())
        for warning in result.warnings:
            click.echo(f"Warning: {warning}", err=True)
        rows.append(_row(place, result))
        if path in pictures:
            _draw(result, pictures[path])
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    elif len(rows) > 1:
        click.echo(format_table(rows))
    if failed:
        click.get_current_context().exit(1)


def _row(place: Path, result: Inspection) -> tuple[str, ...]:
    return (
        str(place),
        result.codec,
        f"{result.kbps:.0f}",
        f"{result.sample_rate_hz} Hz",
        f"{result.channels} ({result.stereo_mode})",
        result.encoder or "-",
        "none" if result.cutoff_hz is None else f"{result.cutoff_hz / 1000:.1f} kHz",
        str(result.clipped_samples),
        result.reason,
    )


def _draw(result: Inspection, picture: Path) -> None:
    """The middle of the song, up to half a minute, with its verdict as title."""
    path = Path(result.path)
    draw_files(picture, [(path.name, path)], note=f": {result.reason}")
