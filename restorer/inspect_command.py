"""``restorer inspect``: what files are, where their spectrum is cut, and whether restoring them is worth it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from restorer.audio_in import AudioReader
from restorer.batch import format_table
from restorer.batch_plan import find_audio
from restorer.errors import AudioFileError, ConfigError
from restorer.inspection import Inspection, inspect_all

_PICTURE_SECONDS = 30.0
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
    spectrum fades out by itself. Exit status 1 if a file could not be read.
    """
    files = find_audio(inputs)
    many = len(files) > 1
    pictures = _name_pictures(files, png, many) if png else {}
    found: list[Inspection] = []
    failed = 0
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for (path, result), (_, place) in zip(inspect_all([path for path, _ in files]), files, strict=True):
        if isinstance(result, Exception):
            if not many:
                raise result
            failed += 1
            click.echo(f"Failed: {' '.join(str(result).split())}", err=True)
            continue
        found.append(result)
        for warning in result.warnings:
            click.echo(f"Warning: {warning}", err=True)
        rows.append(_row(place, result))
        if path in pictures:
            _draw(result, pictures[path])
    if as_json:
        click.echo(json.dumps([result.as_dict() for result in found], indent=1, ensure_ascii=False))
    elif found:
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


def _name_pictures(files: list[tuple[Path, Path]], png: Path, many: bool) -> dict[Path, Path]:
    if not many and not png.is_dir():
        if png.suffix.lower() != ".png":
            raise ConfigError(f"--png must end in .png or be a folder and not {png}")
        if not png.parent.is_dir():
            raise AudioFileError(f"cannot write {png}: the folder {png.parent} does not exist; make it first")
        return {files[0][0]: png}
    if png.exists() and not png.is_dir():
        raise ConfigError(f"--png must be a folder for {len(files)} files and not the file {png}")
    return {path: png / place.with_name(f"{place.name}.png") for path, place in files}


def _draw(result: Inspection, picture: Path) -> None:
    """The middle of the song, up to half a minute, with its verdict as title."""
    import numpy as np

    from restorer.pictures import draw_spectrograms

    with AudioReader(result.path, None) as reader:
        samples = min(reader.source_samples, round(_PICTURE_SECONDS * reader.source_rate))
        start = (reader.source_samples - samples) / 2 / reader.source_rate
        first = round(start * reader.source_rate)
        pieces, done = [], 0
        for block in reader.blocks(1 << 16):
            if done + block.shape[1] > first and done < first + samples:
                pieces.append(block[:, max(0, first - done) : first + samples - done].mean(axis=0))
            done += block.shape[1]
    excerpt = np.concatenate(pieces)
    picture.parent.mkdir(parents=True, exist_ok=True)
    title = f"{Path(result.path).name}, from {start:.0f} s: {result.reason}"
    draw_spectrograms(picture, [(title, excerpt)], result.sample_rate_hz, stacked=True)
