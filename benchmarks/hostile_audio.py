"""Thousands of broken audio files: each must be restored or refused in one line, in bounded time and memory.

python benchmarks/hostile_audio.py --count 3000 --seed 0 --out DIR

DIR gets results.csv and the files of the failures. A run may be split: --first 1000 goes on where 1000 ended.
"""

import csv
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from hostile_guard import LIMIT_BYTES, LIMIT_SECONDS, Result, run_cases  # noqa: E402
from toy_model import save_convolution  # noqa: E402

OUTCOMES = ("restored", "refused", "failed")
SHOWN = 5


@click.command()
@click.option("--count", default=3000, show_default=True, type=click.IntRange(min=1), help="Files to try.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(min=0), help="Number of the first.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="ONNX model; else a small one, made here.")
def main(count: int, first: int, seed: int, out: Path, model: Path | None) -> None:
    """Try hostile files, and print what came of each kind."""
    out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    table = out / f"results-{seed}-{first}.csv"
    with tempfile.TemporaryDirectory() as scratch, table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "kind", "note", "outcome", "elapsed_seconds", "peak_bytes", "grown_bytes", "line"])
        model = model or save_convolution(Path(scratch) / "toy.onnx", window=256, hop=128)
        folder = Path(scratch) / "files"
        folder.mkdir()
        for result in run_cases(model, folder, seed, range(first, first + count)):
            results.append(result)
            rows.writerow(_row(result))
            file.flush()
            if result.outcome == "failed":
                result.case.write(out, f"failed-{seed}-{result.index}")
                click.echo(f"{result.index} {result.case.kind} ({result.case.note}): {result.line}")
    report(results)
    sys.exit(1 if any(result.outcome == "failed" for result in results) else 0)


def _row(result: Result) -> list[object]:
    case = result.case
    numbers = [f"{result.elapsed_seconds:.3f}", result.peak_bytes, result.grown_bytes]
    return [result.index, case.kind, case.note, result.outcome, *numbers, result.line]


def report(results: list[Result]) -> None:
    """Print outcomes by kind, and the slowest and the largest."""
    kinds = sorted({result.case.kind for result in results})
    counts = Counter((result.case.kind, result.outcome) for result in results)
    click.echo(f"\n| kind | {' | '.join(OUTCOMES)} |\n|---|{'---:|' * len(OUTCOMES)}")
    for kind in kinds:
        click.echo(f"| {kind} | {' | '.join(str(counts[kind, outcome]) for outcome in OUTCOMES)} |")
    totals = Counter(result.outcome for result in results)
    click.echo(f"| all {len(results)} | {' | '.join(str(totals[outcome]) for outcome in OUTCOMES)} |")
    slowest, largest = max(r.elapsed_seconds for r in results), max(r.peak_bytes for r in results)
    click.echo(
        f"\n{len(results)} hostile files: {totals['restored']} restored, {totals['refused']} refused in one line, "
        f"{totals['failed']} failed; at most {slowest:.1f} s and {largest / 1e6:.0f} MB."
    )
    printed = [result for result in results if result.printed]
    click.echo(f"\nLimits: {LIMIT_SECONDS:.0f} s, {LIMIT_BYTES / 1e6:.0f} MB. Slowest:")
    for result in sorted(results, key=lambda r: -r.elapsed_seconds)[:SHOWN]:
        click.echo(f"  {result.elapsed_seconds:.2f} s  {_name(result)}, {result.seconds:.1f} s of audio")
    click.echo("Largest in memory, and growth over what the process had before:")
    for result in sorted(results, key=lambda r: -r.peak_bytes)[:SHOWN]:
        click.echo(f"  {result.peak_bytes / 1e6:.0f} MB, {result.grown_bytes / 1e6:+.0f} MB  {_name(result)}")
    click.echo(f"{len(printed)} files made a library print on stderr:")
    for result in printed[:SHOWN]:
        click.echo(f"  {_name(result)}: {' '.join(result.printed.split())[:150]}")


def _name(result: Result) -> str:
    return f"{result.index} {result.case.kind} ({result.case.note})"


if __name__ == "__main__":
    main()
