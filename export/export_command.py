"""`restorer export`: a checkpoint becomes a streaming ONNX model."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from restorer import checksums
from restorer.errors import ConfigError
from restorer.export.brightness import (
    Search,
    excerpt_samples,
    excerpts_of_pairs,
    find_brightness,
    synthesised_excerpts,
)
from restorer.export.convert import WEIGHTS, export_checkpoint, redescribe
from restorer.export.results import read_metrics
from restorer.model_file import Model
from restorer.transform import Float32
from restorer.whole_file import whole_file


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("model", metavar="MODEL.onnx", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--card",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON whose keys (name, version, licence, training_data, trained_kbps, metrics) go into the model.",
)
@click.option(
    "--brightness",
    is_flag=True,
    help="Find how noise changes the energy above the cut-off, on music made by code, so that `restorer restore "
    "--brightness` works; takes some minutes.",
)
@click.option(
    "--brightness-pairs",
    type=click.Path(path_type=Path),
    metavar="PAIRS_DIR",
    help="Find it on the train split of this folder of `restorer prepare` instead.",
)
@click.option(
    "--brightness-excerpts",
    type=click.IntRange(min=1),
    default=Search.excerpts,
    show_default=True,
    help="Find it on that many excerpts.",
    metavar="N",
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    default="float32",
    show_default=True,
    help="int8 computes large layers in 8 bits: a smaller file in half the time.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Leave the noise out, as if z were always 0, its mean: one restoration of a song.",
)
@click.option(
    "--results",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="SUMMARY.json",
    help="Write what restorer evaluate measured of this model, the summary.json of its --out, into it.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads for --brightness.")
@click.option("--overwrite", is_flag=True, help="Replace MODEL.onnx if it exists.")
def export(
    checkpoint: Path,
    model: Path,
    card: Path | None,
    brightness: bool,
    brightness_pairs: Path | None,
    brightness_excerpts: int,
    weights: str,
    deterministic: bool,
    results: Path | None,
    threads: int | None,
    overwrite: bool,
) -> None:
    """Convert CHECKPOINT to MODEL.onnx and check that both compute the same, whole and frame by frame.

    CHECKPOINT may be an exported .onnx itself, to write it with another --card, --results or a --brightness.
    """
    if model.exists() and not overwrite:
        raise ConfigError(f"'{model}' exists; add --overwrite to replace it")
    if not model.resolve().parent.is_dir():
        raise ConfigError(f"folder '{model.parent}' does not exist")
    try:
        extra = json.loads(card.read_text()) if card else {}
    except json.JSONDecodeError as error:
        raise ConfigError(f"card '{card}' is not valid JSON: {error}") from None
    wanted = brightness or brightness_pairs is not None
    if deterministic and wanted:
        raise ConfigError("a model without noise has no brightness; leave out --deterministic or --brightness")
    if wanted:
        _check_music(brightness_pairs)
    exported = checkpoint.suffix.lower() == ".onnx"
    if exported and deterministic:
        raise ConfigError(f"'{checkpoint}' is exported already; give its checkpoint to --deterministic")
    if exported and not (card or wanted or results):
        raise ConfigError(
            f"'{checkpoint}' is exported already; give --card, --results or --brightness to change what it says"
        )
    with whole_file(model) as partial:
        if exported:
            info = redescribe(checkpoint, partial, extra)
        else:
            info = export_checkpoint(checkpoint, partial, extra, weights, deterministic)
        if results:
            redescribe(partial, partial, {"metrics": read_metrics(results, info["name"])})
        if wanted:
            axis = _search(partial, brightness_pairs, Search(brightness_excerpts), threads)
            redescribe(partial, partial, {"brightness": axis})
    if (model.parent / checksums.NAME).is_file():
        checksums.write_sums(model.parent)
    size = f"{model.stat().st_size / 1e6:.1f} MB, latency {info['latency_samples']} samples"
    if not exported:
        size = f"{info['parameters'] / 1e6:.2f} M parameters, {size}"
        size += f", differs from PyTorch by {info['difference']:.1e} of full scale"
    click.echo(f"{model}: {size}")
    if wanted:
        click.echo(
            f"brightness: {axis['db_per_unit']:.2f} dB per standard deviation; from dark to bright every step is "
            f"brighter on {axis['monotonic']:.0%} of {axis['checked']} excerpts that it was not found on"
        )


def _check_music(pairs: Path | None) -> None:
    """Try the source of music before the slow work."""
    next(synthesised_excerpts(4096, 0) if pairs is None else excerpts_of_pairs(pairs, 4096, 0))


def _search(path: Path, pairs: Path | None, search: Search, threads: int | None) -> dict[str, Any]:
    model = Model(path, "auto", threads)
    samples = excerpt_samples(model)
    if pairs is None:
        excerpts: Iterator[Float32] = synthesised_excerpts(samples, search.seed)
    else:
        excerpts = excerpts_of_pairs(pairs, samples, search.seed)
    found_on = "synthesised" if pairs is None else "train split"
    total = search.excerpts + search.checked
    with click.progressbar(length=total, label="Brightness", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        axis = find_brightness(model, excerpts, search, lambda done, _: bar.update(done - bar.pos))
    return {**axis, "found_on": found_on}
