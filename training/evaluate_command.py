"""`restorer evaluate`: the table of a model's quality, and the paper's figures."""

import importlib.util
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

from restorer.errors import ConfigError, RestorerError
from restorer.metrics import DEFAULT_METRICS, METRICS
from restorer.model_file import import_onnxruntime
from restorer.training.evaluation import (
    ModelFile,
    Results,
    Settings,
    open_models,
    open_restorer,
    plan_work,
    run,
)
from restorer.training.evaluation_data import (
    SHORTEST_SECONDS,
    common_coded_rate,
    find_music,
    find_pairs,
    rounded_kbps,
)
from restorer.training.evaluation_figures import draw_figures
from restorer.training.evaluation_summary import collect, summarise, write_summary
from restorer.training.prepare_command import MONO_KBPS, ManyValues, coded_rate_option

DEFAULT_KBPS = (16, 24, 32, 48, 64, 96, 128)
DEFAULT_JOINT_KBPS = (64, 128)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class EvaluateCommand(ManyValues):
    """Options that take several values in a row."""

    many = ("--kbps", "--joint-kbps", "--model")


@click.command("evaluate", cls=EvaluateCommand, context_settings={"show_default": True})
@click.option("--music", type=FOLDER, help="Folder of music, coded with LAME as it is measured.")
@click.option("--pairs", type=FOLDER, help="Folder made by restorer prepare, instead of --music.")
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns file, split; default: MUSIC/MANIFEST.csv if there, else split as restorer prepare "
    "splits a new folder. Songs added after that may change this: then take --pairs.",
)
@click.option("--split", default="test", type=click.Choice(["test", "valid", "train", "all"]))
@click.option(
    "--model",
    "model_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="ONNX models or names of bundled ones, several in a row; default: compact.",
)
@click.option(
    "--kbps",
    multiple=True,
    type=int,
    help=f"Mono bitrates, several in a row; default {' '.join(map(str, DEFAULT_KBPS))}.",
)
@click.option(
    "--joint-kbps",
    multiple=True,
    type=int,
    help="Joint-stereo bitrates, several in a row; default "
    f"{' '.join(map(str, DEFAULT_JOINT_KBPS))}, none where --kbps is given.",
)
@click.option("--takes", default=1, type=click.IntRange(1), help="Restorations of each excerpt, seeds 0, 1, ...")
@click.option("--seconds", default=6.0, type=click.FloatRange(1.5, 60), help="Length of an excerpt.")
@click.option("--excerpts-per-song", default=1, type=click.IntRange(1), help="Spread evenly over each song.")
@click.option("--metrics", default=",".join(DEFAULT_METRICS), help=f"Any of {','.join(METRICS)}.")
@click.option(
    "--normalise/--no-normalise",
    default=False,
    help="Bring each song's peak to full scale before coding (with --music).",
)
@coded_rate_option(" (with --music)")
@click.option("--jobs", default=1, type=click.IntRange(1), help="Excerpts at a time, in processes.")
@click.option("--threads", default=1, type=click.IntRange(1), help="CPU threads of each job's model.")
@click.option("--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--figures/--no-figures", default=True, help="Draw the paper's figures 3, 4 and 5.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where results go.")
def evaluate(
    music: Path | None,
    pairs: Path | None,
    manifest: Path | None,
    split: str,
    model_paths: tuple[Path, ...],
    kbps: tuple[int, ...],
    joint_kbps: tuple[int, ...],
    takes: int,
    seconds: float,
    excerpts_per_song: int,
    metrics: str,
    normalise: bool,
    coded_rate_hz: int | None,
    jobs: int,
    threads: int,
    device: str,
    figures: bool,
    out: Path,
) -> None:
    """Measure how close models bring MP3s to their originals.

    Writes summary.md, summary.csv and summary.json (means, 95 % intervals, share of excerpts made worse),
    every single result (results.jsonl) and the figures into OUT. Started again with the same OUT, it measures
    only what is missing; more models, bitrates, takes or metrics may be added.
    """
    chosen = _check_metrics(metrics)
    codings, default_codings = _codings(kbps, joint_kbps)
    if pairs is not None and music is None:
        if normalise or manifest or coded_rate_hz:
            raise ConfigError(
                "--normalise, --manifest and --coded-rate go with --music: the MP3s of --pairs are coded already"
            )
        data, pieces = pairs, find_pairs(pairs, split, codings, skip_absent=default_codings)
    elif music is not None and pairs is None:
        data, pieces = music, find_music(music, manifest, split, codings, coded_rate_hz)
    else:
        raise ConfigError("give either --music DIR or --pairs DIR, one of them")
    coded_rate_hz, rounded = common_coded_rate(pieces), rounded_kbps(pieces)
    models = open_models(model_paths or (None,), device)
    settings = Settings(data.resolve().name, split, seconds, excerpts_per_song, normalise, coded_rate_hz)
    results = Results(out, settings)
    everything = plan_work(pieces, settings, models, takes, chosen, device, threads)
    left = [work for work in map(results.missing, everything) if work]
    problems = []
    with tqdm(total=len(everything), initial=len(everything) - len(left), unit="excerpt") as bar:
        for problem in run(left, results, jobs):
            bar.update()
            if problem:
                problems.append(problem)
                bar.write(f"Skipped {problem}", file=sys.stderr)
    table = collect(everything, results, models)
    lines = summarise(table, results, chosen)
    if not lines:
        reason = problems[0] if problems else f"none of {len(pieces)} songs lasts {SHORTEST_SECONDS} s"
        raise RestorerError(f"nothing in '{data}' could be measured: {reason}")
    facts = {
        "models": [{**model.description, "label": model.label} for model in models],
        **asdict(settings),
        "songs": max(line.songs for line in lines),
        "takes": takes,
        "metrics": chosen,
        "rounded_kbps": rounded,
        "skipped": problems,
        "hardware": describe_hardware(models[0], device, jobs, threads),
    }
    click.echo(write_summary(out, lines, chosen, facts), nl=False)
    if figures:
        for line in draw_figures(out, everything, table, results, models, chosen):
            click.echo(line, err=True)


def _check_metrics(text: str) -> tuple[str, ...]:
    """Names from a comma-separated list, in the project's order."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in METRICS:
            raise ConfigError(f"--metrics must be some of {','.join(METRICS)} and not {name!r}")
    if "visqol" in names and importlib.util.find_spec("visqol") is None:
        raise ConfigError("metric visqol is not installed; run: pip install 'restorer[visqol]'")
    return tuple(name for name in (*DEFAULT_METRICS, "visqol") if name in names)


def _codings(kbps: tuple[int, ...], joint_kbps: tuple[int, ...]) -> tuple[tuple[str, ...], bool]:
    """Names of the codings, each once, and whether they are the default ones."""
    for value in kbps + joint_kbps:
        if value not in MONO_KBPS:
            raise ConfigError(f"kbps must be one of {list(MONO_KBPS)} and not {value}")
    default = not kbps and not joint_kbps
    mono, joint = (DEFAULT_KBPS, DEFAULT_JOINT_KBPS) if default else (kbps, joint_kbps)
    names = [f"{value}m" for value in mono] + [f"{value}j" for value in joint]
    return tuple(dict.fromkeys(names)), default


def describe_hardware(model: ModelFile, device: str, jobs: int, threads: int) -> str:
    """Name the processor, what the models ran on, and the runtime's version."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = found[0].partition(":")[2].strip() if found else name
    where = open_restorer(model.path, device, threads).device
    return (
        f"{name}, {os.cpu_count()} cores, {jobs} jobs of {threads} threads, models on {where}, "
        f"ONNX Runtime {import_onnxruntime().__version__}, Python {platform.python_version()}"
    )
