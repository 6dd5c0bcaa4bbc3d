"""`restorer models`: which models are here, bundled and in the hub's cache."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import click

from restorer.batch import format_table
from restorer.bundled import bundled_models
from restorer.errors import ConfigError, ModelError
from restorer.model_file import ModelInfo
from restorer.protobuf import fields

# Field numbers of onnx.proto.
_MODEL_METADATA, _ENTRY_KEY, _ENTRY_VALUE = 14, 1, 2


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def models(as_json: bool) -> None:
    """List the models that load without a network: the bundled ones, and those that were fetched from the hub.

    The first is what loads where none is named. `Restorer` and --model take the name of a bundled one,
    `Restorer.from_pretrained` any NAME, as it stands here.
    """
    from restorer.hub import cached_models

    found = list(bundled_models().items())
    try:
        found += cached_models()
    except ConfigError as error:
        click.echo(f"Note: only the bundled models are listed: {error}", err=True)
    entries = [entry for name, file in found if (entry := describe(name, file))]
    if as_json:
        click.echo(json.dumps(entries, indent=1, ensure_ascii=False))
        return
    rows = [("NAME", "MODEL", "LICENCE", "SIZE", "FILE")]
    for entry in entries:
        rows.append(
            (entry["name"], entry["model"], entry["licence"], f"{entry['size_bytes'] / 1e6:.1f} MB", entry["file"])
        )
    click.echo(format_table(rows))


def describe(name: str, file: Path) -> dict[str, Any] | None:
    """What a row says; None for an ONNX file that is not one of restorer's, or is gone."""
    try:
        said = read_metadata(file).get("restorer")
        info = ModelInfo.from_json(said, str(file)) if said else None
        size = file.stat().st_size
    except (ModelError, OSError):
        return None
    if info is None:
        return None
    return {
        "name": name,
        "model": f"{info.name} {info.version}",
        "licence": info.licence or "not stated",
        "size_bytes": size,
        "file": str(file),
    }


def read_metadata(file: Path) -> dict[str, str]:
    """What an ONNX file has as metadata, without loading its weights; the cache may hold anybody's models.

    Raises
    ------
    ModelError : the file is no protobuf message.
    """
    try:
        with file.open("rb") as opened:
            data = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        entries = [dict(fields(value)) for field, value in fields(data) if field == _MODEL_METADATA]
        return {bytes(entry[_ENTRY_KEY]).decode(): bytes(entry.get(_ENTRY_VALUE, b"")).decode() for entry in entries}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: is no readable ONNX model: {error}") from error
