"""`restorer train`: a config and a folder of pairs become a generator."""

import json
import signal
import time
from pathlib import Path

import click
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from restorer.errors import ConfigError, RestorerError
from restorer.training.config import Config
from restorer.training.pairs import Pairs
from restorer.training.train import Trainer, train
from restorer.training.validation import Validation, preview
from restorer.training.wgan import build_trainer

SHOWN = ("loss", "magnitude", "log_magnitude", "survived", "profile", "adversarial", "critic")


@click.command("train")
@click.argument("config_path", metavar="CONFIG.toml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--pairs",
    "pairs_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder made by restorer prepare.",
)
@click.option(
    "--out",
    "run_dir",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for checkpoints, TensorBoard logs and previews.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run folder.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all.")
def train_command(config_path: Path, pairs_dir: Path, run_dir: Path, resume: bool, threads: int | None) -> None:
    """Train a generator as CONFIG.toml says.

    Writes RUN_DIR/best.safetensors (averaged weights, for restorer export), RUN_DIR/state.safetensors (everything,
    for --resume), metrics.jsonl, previews/ and TensorBoard logs. Ctrl-C saves and stops.
    """
    config = Config.load(config_path)
    state = run_dir / "state.safetensors"
    if state.exists() and not resume:
        raise ConfigError(f"'{run_dir}' already holds a run; continue it with --resume or choose another --out")
    if resume and not state.exists():
        raise ConfigError(f"nothing to resume in '{run_dir}': no state.safetensors there")
    if threads:
        torch.set_num_threads(threads)
    training, validating = Pairs(pairs_dir, "train", quick=True), Pairs(pairs_dir, "valid")
    trainer = build_trainer(config)
    if resume:
        trainer.resume(state)
    run_dir.mkdir(parents=True, exist_ok=True)
    writer = SummaryWriter(str(run_dir / "tensorboard"))
    validation = Validation(validating, config.data.valid_codings, config.data.valid_songs)
    best = run_dir / "best.json"
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
        table = validation(trainer.average, config.generator.noise_size)
        score = validation.score(table)
        row = {"step": trainer.step_number, "seconds": round(trainer.seconds), "score": score, **table}
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, values in table.items():
            for key, value in values.items():
                writer.add_scalar(f"valid-{name}/{key}", value, trainer.step_number)
            tqdm.write(
                f"{trainer.step_number} {name}: LSD {values['lsd_mp3']:.2f} -> {values['lsd_restored']:.2f}, "
                f"SNR {values['snr_mp3_scaled']:.1f} -> {values['snr_restored']:.1f} dB, "
                f"ODG {values['odg_mp3']:.2f} -> {values['odg_restored']:.2f}, "
                f"DI {values['di_mp3']:.2f} -> {values['di_restored']:.2f}"
            )
        trainer.save_generator(run_dir / "last.safetensors", {"validation": table})
        if not best.exists() or score > json.loads(best.read_text())["score"]:
            trainer.save_generator(run_dir / "best.safetensors", {"validation": table})
            best.write_text(json.dumps({"score": score, "step": trainer.step_number}))
        preview(trainer, validation, run_dir / "previews", writer)

    numbers = (signal.SIGINT, signal.SIGTERM)  # SIGINT too: shells hide it from background jobs
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    started = time.monotonic()
    try:
        train(trainer, training, run_dir, validate, report)
    except KeyboardInterrupt:
        raise RestorerError(
            f"interrupted at step {trainer.step_number}, saved; go on with: "
            f"restorer train {config_path} --pairs {pairs_dir} --out {run_dir} --resume"
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bar.close()
        writer.close()
    click.echo(f"Trained to step {trainer.step_number} in {time.monotonic() - started:.0f} s; best: {best.read_text()}")
