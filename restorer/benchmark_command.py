"""`restorer benchmark`: how fast a model is on this machine, as a table, as JSON, or as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from restorer.errors import ConfigError


@click.command("benchmark")
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print the README's table.")
@click.option(
    "--from", "earlier", metavar="JSON_FILE", type=click.Path(path_type=Path), help="Print an earlier run's JSON."
)
@click.option("--quick", is_flag=True, help="Measure for some seconds only, less exactly.")
def benchmark(models: tuple[Path, ...], as_json: bool, markdown: bool, earlier: Path | None, quick: bool) -> None:
    """Measure on this machine how fast each MODEL is; without MODEL, the bundled model.

    Less than two minutes for the bundled model: whole signals by threads, streams by block size, latency, load time,
    memory, ONNX Runtime beside PyTorch where that is installed, and the share of the machine's matrix-product
    peak. Close other programs first.
    """
    if as_json and markdown:
        raise ConfigError("--json and --markdown are both given; give one of them")
    if earlier is not None and (models or quick):
        raise ConfigError(f"--from prints {earlier} and measures nothing; leave out MODEL and --quick")
    result = read_result(earlier) if earlier is not None else _measure(list(models), quick)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    from restorer.benchmark_report import format_markdown, format_text

    try:
        text = format_markdown(result) if markdown else format_text(result)
    except (KeyError, TypeError, AttributeError) as error:
        if earlier is None:
            raise
        raise ConfigError(
            f"{earlier} is not what this version's `restorer benchmark --json` prints: {error!r}; measure again"
        ) from error
    click.echo(text)


def _measure(models: list[Path], quick: bool) -> dict[str, Any]:
    from restorer.benchmark import FULL, QUICK, run

    return run(list(models) or [None], QUICK if quick else FULL, lambda step: click.echo(f"{step} ...", err=True))


def read_result(path: Path) -> dict[str, Any]:
    """What `restorer benchmark --json` printed.

    Raises
    ------
    ConfigError
        The file cannot be read or holds something else.
    """
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(result, dict) or not {"restorer", "machine", "models"} <= set(result):
        raise ConfigError(f"{path}: is not what `restorer benchmark --json` prints; run that first")
    return result
