"""`restorer train`: a config and a folder of pairs become a generator."""

import json
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from restorer.errors import ConfigError, RestorerError
from restorer.folder_lock import locked_folder
from restorer.training.config import Config
from restorer.training.distributed import join, joining, launch
from restorer.training.json_lines import append_lines, load_lines
from restorer.training.pairs import Pairs
from restorer.training.pool import Pool
from restorer.training.run_files import event_log, refusal
from restorer.training.train import LAST, Diverged, Trainer, train
from restorer.training.validation import Validation, preview
from restorer.training.wgan import build_trainer
from restorer.whole_file import whole_file

SHOWN = (
    "loss",
    "magnitude",
    "log_magnitude",
    "distance",
    "relative",
    "hearing",
    "harm",
    "survived",
    "profile",
    "adversarial",
    "critic",
)


@click.command("train")
@click.argument("config_path", metavar="CONFIG.toml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--pairs",
    "pairs_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder made by restorer prepare, to train and validate on.",
)
@click.option(
    "--pool",
    "pool_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that restorer pool fills, to train on in place of the pairs; without --pairs nothing is validated.",
)
@click.option(
    "--out",
    "run_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for checkpoints, TensorBoard logs and previews.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run folder.")
@click.option(
    "--start",
    "starts",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Checkpoint whose weights a new run begins with, such as training/checkpoints/compact.safetensors; the "
    "config's generator may be larger. Given again: the later replaces what the earlier had.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each process; default: all cores, shared.")
@click.option(
    "--devices",
    type=click.IntRange(1),
    help="Processes on this machine, one per GPU, or on CPUs where there is none; default: as many GPUs as there are "
    "and the batch divides by. Under torchrun this has no effect.",
)
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), help="In place of the config's bf16.")
@click.option("--accumulate", type=click.IntRange(1), help="Passes in which a process computes its share of a batch.")
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the networks with torch.compile; a critic with a gradient penalty stays as it is.",
)
@click.option("--workers", type=click.IntRange(0), help="Processes that decode excerpts, for each training process.")
def train_command(
    config_path: Path,
    pairs_dir: Path | None,
    pool_dir: Path | None,
    run_dir: Path,
    resume: bool,
    starts: tuple[Path, ...],
    threads: int | None,
    devices: int | None,
    precision: str | None,
    accumulate: int | None,
    compiled: bool | None,
    workers: int | None,
) -> None:
    """Train a generator as CONFIG.toml says.

    Writes RUN_DIR/best.safetensors and last.safetensors (averaged weights, for restorer export),
    RUN_DIR/state.safetensors (everything, for --resume), metrics.jsonl, previews/ and TensorBoard logs. Ctrl-C saves
    and stops.

    A batch is shared by all devices, so their number does not change the result. On several machines, which must
    see the same files, run on each:

    torchrun --nnodes N --nproc-per-node GPUS --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m restorer train ...
    """
    given = {
        "bf16": None if precision is None else precision == "bf16",
        "accumulate": accumulate,
        "compile": compiled,
        "workers": workers,
    }
    config = Config.load(config_path)
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = replace(config, schedule=replace(config.schedule, **changes))
    state = run_dir / "state.safetensors"
    if state.exists() and not resume:
        raise ConfigError(f"'{run_dir}' already holds a run; continue it with --resume or choose another --out")
    if resume and not state.exists():
        raise ConfigError(f"nothing to resume in '{run_dir}': no state.safetensors there")
    if resume and starts:
        raise ConfigError("--start begins a new run and --resume goes on with an old one; give one of them")
    if pairs_dir is None and pool_dir is None:
        raise ConfigError("nothing to train on: give --pairs, --pool, or both")
    if pool_dir is not None and config.wgan is not None:
        raise ConfigError("[wgan] trains on every excerpt of the pairs once in an epoch, which a pool does not have")
    validating = Pairs(pairs_dir, "valid") if pairs_dir is not None else None
    training = Pool.open(pool_dir) if pool_dir is not None else Pairs(pairs_dir, "train", quick=True)
    check_coded_rate(config, *(one for one in (training, validating) if isinstance(one, Pairs)))
    again = command_line(config_path, pairs_dir, pool_dir, run_dir, devices, threads, changes)
    processes = 1 if joining() else devices or default_devices(config)
    if processes > 1:
        check_devices(config, processes)
        threads_each = ["--threads", str(threads or max(1, (os.cpu_count() or 1) // processes))]
        resuming = ["--resume"] if resume else [word for start in starts for word in ("--start", str(start))]
        raise SystemExit(launch([sys.executable, "-m", "restorer", *again, *resuming, *threads_each], processes))
    if threads:
        torch.set_num_threads(threads)
    with join() as world:
        trainer = build_trainer(config)
        if resume:
            trainer.resume(state)
        elif starts:
            missing = [set(trainer.start_from(start)) for start in starts]
            new = sorted(set.intersection(*missing))
            if new and world.first:
                click.echo(f"Not in {', '.join(map(str, starts))} and therefore new: {', '.join(new)}", err=True)
        started = time.monotonic()
        going_on = f"go on from the last checkpoint with: restorer {shlex.join([*again, '--resume'])}"
        try:
            finished = run(trainer, training, validating, run_dir)
        except Diverged:
            if world.first:  # one line is enough
                raise
            return
        except KeyboardInterrupt:
            raise RestorerError(
                f"interrupted twice, at step {trainer.step_number}, and not saved; {going_on}"
            ) from None
        except (OSError, RestorerError) as error:
            if (said := refusal(error)) is None:
                raise
            if not state.exists():
                going_on = f"start again with: restorer {shlex.join(again)}"
            raise RestorerError(f"{said}; at step {trainer.step_number}; make room there, and {going_on}") from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise RestorerError(
                f"a process that decodes excerpts was killed, perhaps for want of memory, at step "
                f"{trainer.step_number}; give fewer --workers than {trainer.config.schedule.workers}, and {going_on}"
            ) from error
        if world.first and not finished:
            raise RestorerError(
                f"interrupted at step {trainer.step_number}, saved; go on with: "
                f"restorer {shlex.join([*again, '--resume'])}"
            )
        if world.first:
            best = f"best: {(run_dir / 'best.json').read_text()}" if validating else f"weights: {run_dir / LAST}"
            click.echo(f"Trained to step {trainer.step_number} in {time.monotonic() - started:.0f} s; {best}")


def default_devices(config: Config) -> int:
    """As many CUDA devices as there are and a batch can be shared by."""
    shares = config.schedule.batch // config.schedule.accumulate
    return max((count for count in range(1, torch.cuda.device_count() + 1) if shares % count == 0), default=1)


def check_devices(config: Config, processes: int) -> None:
    """Refuse, before anything starts, what each process would refuse."""
    found = torch.cuda.device_count()
    if found and processes > found:
        raise ConfigError(f"--devices must be at most the {found} GPUs of this machine and not {processes}")
    if config.schedule.batch % (processes * config.schedule.accumulate):
        raise ConfigError(
            f"batch must be a multiple of devices x accumulate = {processes} x {config.schedule.accumulate} "
            f"and not {config.schedule.batch}"
        )


def check_coded_rate(config: Config, *pairs: Pairs) -> None:
    """Refuse pairs whose MP3s are coded at another sample rate than `data.coded_rate_hz`."""
    wanted = config.data.coded_rate_hz
    for folder, song in ((one.folder, song) for one in pairs for song in one.songs):
        if wanted is not None and song.coded_rate_hz != wanted:
            held = "LAME's own sample rates" if song.coded_rate_hz is None else f"{song.coded_rate_hz} Hz"
            raise ConfigError(
                f"'{folder}' holds MP3s coded at {held} and data.coded_rate_hz is {wanted}; make others with "
                f"restorer prepare --coded-rate {wanted}, or leave coded_rate_hz out of the config"
            )


def command_line(
    config_path: Path,
    pairs_dir: Path | None,
    pool_dir: Path | None,
    run_dir: Path,
    devices: int | None,
    threads: int | None,
    changes: dict[str, Any],
) -> list[str]:
    """The arguments after `restorer` that start this run."""
    words = ["train", str(config_path)]
    for name, folder in (("--pairs", pairs_dir), ("--pool", pool_dir), ("--out", run_dir)):
        words += [] if folder is None else [name, str(folder)]
    options = {"devices": devices, "threads": threads, "accumulate": None, "workers": None} | changes
    if "bf16" in options:
        options["precision"] = "bf16" if options.pop("bf16") else "fp32"
    if "compile" in options:
        words.append("--compile" if options.pop("compile") else "--no-compile")
    return words + [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]


def run(trainer: Trainer, training: Pairs | Pool, validating: Pairs | None, run_dir: Path) -> bool:
    """Train with progress, validation and logs in the first process; the others only compute.

    Returns whether the last step was reached.

    Raises
    ------
    AudioFileError
        Another run writes to this folder.
    OSError, RestorerError
        The disk refuses what is written; `refusal` tells them from others.
    """
    if not trainer.world.first:
        return train(trainer, training, run_dir, lambda _: None, lambda *_: None)
    run_dir.mkdir(parents=True, exist_ok=True)
    with locked_folder(run_dir), event_log(run_dir / "tensorboard") as writer:
        return run_first(trainer, training, validating, run_dir, writer)


def run_first(
    trainer: Trainer, training: Pairs | Pool, validating: Pairs | None, run_dir: Path, writer: SummaryWriter
) -> bool:
    """What the first process does."""
    config = trainer.config
    validation = validating and Validation(validating, config.data.valid_codings, config.data.valid_songs)
    best, metrics = run_dir / "best.json", run_dir / "metrics.jsonl"
    bar = tqdm(total=config.schedule.steps, initial=trainer.step_number, unit="step", smoothing=0.02)
    smooth: dict[str, float] = {}

    def report(step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            smooth[name] = value + 0.98 * (smooth.get(name, value) - value)
        bar.update(step - bar.n)
        if step % 20 == 0:
            bar.set_postfix_str(" ".join(f"{name} {smooth[name]:.3f}" for name in SHOWN if name in smooth))
            for name, value in smooth.items():
                writer.add_scalar(f"train/{name}", value, step)

    def validate(trainer: Trainer) -> None:
        if validation is None:
            return
        table = validation(trainer.average, config.generator.noise_size)
        score = validation.score(table)
        row = {"step": trainer.step_number, "seconds": round(trainer.seconds), "score": score, **table}
        if trainer.step_number not in [old["step"] for old in load_lines(metrics)]:  # it is if this was interrupted
            append_lines(metrics, [row])
        for name, values in table.items():
            for key, value in values.items():
                writer.add_scalar(f"valid-{name}/{key}", value, trainer.step_number)
            tqdm.write(
                f"{trainer.step_number} {name}: LSD {values['lsd_mp3']:.2f} -> {values['lsd_restored']:.2f}, "
                f"SNR {values['snr_mp3_scaled']:.1f} -> {values['snr_restored']:.1f} dB, "
                f"ODG {values['odg_mp3']:.2f} -> {values['odg_restored']:.2f}, "
                f"DI {values['di_mp3']:.2f} -> {values['di_restored']:.2f}"
            )
        trainer.save_generator(run_dir / LAST, {"validation": table})
        if not best.exists() or score > json.loads(best.read_text())["score"]:
            trainer.save_generator(run_dir / "best.safetensors", {"validation": table})
            with whole_file(best) as partial:
                partial.write_text(json.dumps({"score": score, "step": trainer.step_number}))
        preview(trainer, validation, run_dir / "previews", writer)

    try:
        return train(trainer, training, run_dir, validate, report)
    finally:
        bar.close()
