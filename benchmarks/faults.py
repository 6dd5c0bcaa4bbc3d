"""Batches and training runs that are interrupted at random moments must leave nothing broken and end the same.

python benchmarks/faults.py --count 200 --training 50 --seed 0

SIGINT, SIGTERM and SIGKILL in turn. Each batch is run again, and must then be byte for byte what an undisturbed run
makes, with inputs untouched and no half file under a final name in between. The training runs are resumed until they
end, and must report the losses of an undisturbed one.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import click

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from fault_batch import InterruptedBatches, Moment  # noqa: E402
from toy_model import save_convolution  # noqa: E402

_STEPS = 40  # of a training run
_SHARE = 0.2  # of an undisturbed run's time, at most, passes until a training process is killed


@click.command()
@click.option("--count", default=200, show_default=True, type=click.IntRange(min=0), help="Batches to interrupt.")
@click.option("--training", default=50, show_default=True, type=click.IntRange(min=0), help="Kills of training runs.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(min=0), help="Number of the first.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="ONNX model; else a small one, made here.")
def main(count: int, training: int, first: int, seed: int, model: Path | None) -> None:
    """Interrupt, check, go on, and count."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if count:
            failed += interrupt_batches(folder, model or save_convolution(folder / "toy.onnx"), seed, first, count)
        if training:
            failed += kill_training(folder, seed, first, training)
    sys.exit(1 if failed else 0)


def interrupt_batches(folder: Path, model: Path, seed: int, first: int, count: int) -> int:
    """Print what came of each signal; returns the number of failures."""
    batches = InterruptedBatches(folder, model)
    moments: list[Moment] = []
    for index in range(first, first + count):
        moments.append(batches.interrupt(seed, index))
        click.echo(f"\r{len(moments)} of {count} batches", err=True, nl=len(moments) == count)
        if moments[-1].failures:
            click.echo(str(moments[-1]))
    click.echo("| signal | batches | before any file | between | after the last | failed |")
    click.echo("|---|---:|---:|---:|---:|---:|")
    for name in (*dict.fromkeys(moment.signal_name for moment in moments), "all"):
        chosen = [moment for moment in moments if name in (moment.signal_name, "all")]
        none, whole = sum(not m.done for m in chosen), sum(m.done == m.files for m in chosen)
        failed = sum(bool(moment.failures) for moment in chosen)
        click.echo(f"| {name} | {len(chosen)} | {none} | {len(chosen) - none - whole} | {whole} | {failed} |")
    click.echo(f"Exit statuses: {dict(Counter((m.signal_name, m.status) for m in moments))}", err=True)
    failed, ended = sum(bool(moment.failures) for moment in moments), sum(moment.status == 0 for moment in moments)
    click.echo(
        f"Batches: interrupted {len(moments) - ended} times ({ended} more signals came after the end), run again to "
        f"the same bytes: {failed} failures."
    )
    return failed


def kill_training(folder: Path, seed: int, first: int, count: int) -> int:
    """Kill runs, each until it is done, `count` times in all; returns the number of failures."""
    from fault_training import InterruptedTraining, Kill

    training = InterruptedTraining(folder, _make_pairs(folder), _small_config())
    expected, seconds = training.whole()
    kills: list[Kill] = []  # that found the run at work; a signal after its end is none
    runs = signals = failed = 0
    while len(kills) < count:
        run = folder / f"run-{runs}"
        runs += 1
        while len(kills) < count:
            kill = training.kill(run, seed, first + signals, _SHARE * seconds)
            signals += 1
            kills += [kill] if kill.in_time else []
            click.echo(f"\r{len(kills)} of {count} kills", err=True, nl=len(kills) == count)
            if kill.failures:
                failed += 1
                click.echo(str(kill))
            if kill.step == _STEPS:
                break
        if training.finish(run) != expected:
            failed += 1
            click.echo(f"run {runs - 1} ends with other losses than the undisturbed one")
    counts = Counter(kill.signal_name for kill in kills)
    by_signal = ", ".join(f"{number} by {name}" for name, number in counts.items())
    click.echo(
        f"Training: killed {len(kills)} times ({by_signal}; {signals - len(kills)} more signals came after the end) in "
        f"{runs} runs of {_STEPS} steps, resumed with the losses of an undisturbed run: {failed} failures."
    )
    return failed


def _make_pairs(folder: Path) -> Path:
    import soundfile
    from click.testing import CliRunner

    from restorer.synthesis import synthesize
    from restorer.training.prepare_command import prepare

    music, pairs = folder / "music", folder / "pairs"
    music.mkdir()
    for seed in range(2):
        soundfile.write(music / f"song{seed}.flac", synthesize(6.0, 44100, seed, 2).T, 44100)
    rows = ["file,split,artist", "song0.flac,train,Somebody", "song1.flac,valid,Somebody"]
    (music / "MANIFEST.csv").write_text("\n".join(rows) + "\n")
    CliRunner().invoke(prepare, [str(music), str(pairs), "--kbps", "32"], catch_exceptions=False)
    return pairs


def _small_config():
    from restorer.training.config import Config, DataConfig, ScheduleConfig
    from restorer.training.critic import CriticConfig
    from restorer.training.generator import GeneratorConfig

    generator = GeneratorConfig(
        noise_size=4,
        lookahead_frames=3,
        front_maps=4,
        band_maps=6,
        aggregation_maps=2,
        stack_maps=6,
        dilations=(1, 2),
    )
    schedule = ScheduleConfig(
        steps=_STEPS,
        adversarial_from=_STEPS // 2,
        critic_warmup=2,
        batch=2,
        frames=24,
        workers=0,
        warmup_steps=2,
        bf16=False,
    )
    data = DataConfig(valid_codings=("32m",), valid_every=10, valid_songs=1, checkpoint_minutes=0.0)
    critic = CriticConfig(front_maps=4, stack_maps=6, dilations=(1, 2))
    return Config(name="small", generator=generator, critic=critic, schedule=schedule, data=data)


if __name__ == "__main__":
    main()
