"""``restorer restore``: one audio file in, one restored file (or several candidates) out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from restorer.audio_in import AudioReader
from restorer.audio_out import check_target, choose_format

if TYPE_CHECKING:
    from restorer import RestoreReport


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which restoration to make.")
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    help="Make N restorations with seeds from --seed on; OUTPUT gets .seedS before its extension.",
    metavar="N",
)
@click.option(
    "--mix",
    type=click.FloatRange(0.0, 1.0),
    default=1.0,
    show_default=True,
    help="0 is the input, 1 the restoration.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the model runs.",
)
@click.option("--model", type=click.Path(path_type=Path), help="ONNX model; without it the bundled one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option(
    "--bits",
    "--subtype",
    "subtype",
    type=click.Choice(["16", "24", "float"]),
    help="Sample format of .wav (16, 24, float) and .flac (16, 24).  [default: 24]",
)
def restore(
    source: Path,
    target: Path,
    seed: int,
    candidates: int | None,
    mix: float,
    device: str,
    model: Path | None,
    threads: int | None,
    overwrite: bool,
    subtype: str | None,
) -> None:
    """Restore the audio file INPUT to OUTPUT at 44.1 kHz.

    INPUT is MP3, WAV, FLAC, Ogg Vorbis, Ogg Opus or AIFF. The extension of OUTPUT picks its format: .wav,
    .flac, .ogg or .mp3. Tags and cover art are carried over.
    """
    targets = {seed: target} if candidates is None else _name_candidates(target, seed, candidates)
    # Everything that can be wrong is looked at before the slow work.
    with AudioReader(source) as reader:
        channels = reader.channels
    for path in targets.values():
        check_target(source, path, overwrite, subtype, channels)
    bits = choose_format(target, subtype)[1]

    from restorer import Restorer

    restorer = Restorer(model, device=device, threads=threads)
    shown: set[str] = set()
    for each_seed, path in targets.items():
        with _progress_bar(path.name) as progress:
            report = restorer.restore_file(
                source, path, seed=each_seed, mix=mix, overwrite=overwrite, subtype=bits, progress=progress
            )
        for warning in report.warnings:
            if warning not in shown:
                click.echo(f"Warning: {warning}", err=True)
                shown.add(warning)
        click.echo(_summary(report), err=True)


def _name_candidates(target: Path, seed: int, count: int) -> dict[int, Path]:
    return {s: target.with_name(f"{target.stem}.seed{s}{target.suffix}") for s in range(seed, seed + count)}


@contextmanager
def _progress_bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr; nothing at all where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=False) as bar:

        def show(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield show


def _summary(report: RestoreReport) -> str:
    minutes, seconds = divmod(report.seconds, 60)
    parts = [
        f"{int(minutes)}:{seconds:04.1f} restored in {report.elapsed_seconds:.1f} s",
        f"real-time factor {report.real_time_factor:.3f}",
    ]
    if report.peak_memory_bytes is not None:
        parts.append(f"peak memory {report.peak_memory_bytes / 1e6:.0f} MB")
    parts.append(f"{report.clipped_samples} samples clipped")
    return f"{report.target}: {', '.join(parts)}"
