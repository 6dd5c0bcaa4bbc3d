"""`restorer export`: a checkpoint becomes a streaming ONNX model."""

import json
from pathlib import Path

import click

from restorer.errors import ConfigError
from restorer.export.convert import export_checkpoint


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("model", metavar="MODEL.onnx", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--card",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON whose keys (name, version, licence, training_data, trained_kbps, metrics) go into the model.",
)
@click.option("--overwrite", is_flag=True, help="Replace MODEL.onnx if it exists.")
def export(checkpoint: Path, model: Path, card: Path | None, overwrite: bool) -> None:
    """Convert CHECKPOINT to MODEL.onnx and check that both compute the same, whole and frame by frame."""
    if model.exists() and not overwrite:
        raise ConfigError(f"'{model}' exists; add --overwrite to replace it")
    if not model.resolve().parent.is_dir():
        raise ConfigError(f"folder '{model.parent}' does not exist")
    try:
        extra = json.loads(card.read_text()) if card else {}
    except json.JSONDecodeError as error:
        raise ConfigError(f"card '{card}' is not valid JSON: {error}") from None
    info = export_checkpoint(checkpoint, model, extra)
    click.echo(
        f"{model}: {info['parameters'] / 1e6:.2f} M parameters, {model.stat().st_size / 1e6:.1f} MB, "
        f"latency {info['latency_samples']} samples, differs from PyTorch by {info['difference']:.1e} of full scale"
    )
