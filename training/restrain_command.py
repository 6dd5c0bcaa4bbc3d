"""`restorer restrain`: a trained generator learns to leave alone what lacks little."""

import dataclasses
import itertools
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import numpy as np
import torch

from restorer.errors import ConfigError
from restorer.training import checkpoint
from restorer.training.evaluation_summary import WORSE_ODG
from restorer.training.generator import Generator
from restorer.training.mp3 import SAMPLE_RATE
from restorer.training.pool import Pool
from restorer.training.restraint import (
    Example,
    examine,
    fingerprint,
    gains,
    held_out,
    judge,
    learn,
    learn_latitude,
    load_examples,
    save_examples,
    unrestrained,
    with_restraint,
)

SECONDS = 6
GRADES = (-4.0, -2.0, -1.0, -0.5, -0.2, 0.3)  # of the MP3s, between which the table tells excerpts apart
FEWEST = 20  # excerpts that something can be learnt from
KEPT_EVERY = 200  # of them, grades reach their file

_examiner: tuple[Generator | None, Pool] | None = None


@click.command("restrain", context_settings={"show_default": True})
@click.argument("checkpoint_file", metavar="CHECKPOINT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--pool", "pool_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Pairs to learn from."
)
@click.option(
    "--like",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take another's restraint; from --pool or --grades only how much its noise counts is learnt then.",
)
@click.option("--excerpts", default=3000, type=click.IntRange(1), help=f"Of {SECONDS} s, that are graded.")
@click.option(
    "--grades",
    "grades_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that keeps what is graded beside what it holds; without --pool that alone is learnt from.",
)
@click.option("--frames", default=256, type=click.IntRange(2, 4096), help="11.6 ms each, over which it judges.")
@click.option("--seed", default=0, help="Of the excerpts.")
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one for each core.")
def restrain_command(
    checkpoint_file: Path,
    out: Path,
    pool_dir: Path | None,
    like: Path | None,
    excerpts: int,
    grades_file: Path | None,
    frames: int,
    seed: int,
    workers: int | None,
) -> None:
    """Write to OUT the CHECKPOINT with a last part that holds changes back, and noise, where little is missing.

    Excerpts of a pool (`restorer pool`, with pairs of 6 s at least, of every coding from the worst to the best) are
    restored, and PEAQ and the log-spectral distance say how much of the changes each should get; the part learns to
    tell that from the MP3 alone, and knows nothing of codings that the pool lacks. An excerpt takes a process a second
    or two: --grades keeps them. Or take over, with --like, what another checkpoint has learnt.
    """
    learning = pool_dir is not None or grades_file is not None
    if like is None and not learning:
        raise ConfigError("give --pool or --grades, to learn from, or --like, a checkpoint that has learnt")
    generator, config, extra = checkpoint.load_generator(checkpoint_file)
    if not isinstance(generator, Generator):
        raise ConfigError(
            f"'{checkpoint_file}' is a model after the paper; only 'compact' and its kin have a restraint"
        )
    restrained = with_restraint(generator, frames) if like is None else _take_over(generator, like, learning)
    if learning:
        found = _grade(
            checkpoint_file if like is None else None, generator, pool_dir, excerpts, grades_file, seed, workers
        )
        learnt = [example for index, example in enumerate(found) if not held_out(index)]
        kept_out = [example for index, example in enumerate(found) if held_out(index)]
        assert restrained.restraint is not None
        if like is None:
            learn(restrained.restraint, learnt)
        if restrained.restraint.latitude is not None:
            learn_latitude(restrained.restraint, learnt)
        for line in _table(kept_out, judge(restrained.restraint, kept_out), changes=like is None):
            click.echo(line)
    config = dataclasses.replace(config, generator=restrained.config)
    checkpoint.save(out, checkpoint.prefixed("average", restrained.state_dict()), config, extra)
    click.echo(f"{out}", err=True)


def _take_over(generator: Generator, like: Path, learning: bool) -> Generator:
    """The generator with the restraint of another checkpoint; `learning`: its latitude has yet to learn."""
    other, _, _ = checkpoint.load_generator(like)
    if not isinstance(other, Generator) or other.restraint is None:
        raise ConfigError(f"'{like}' has no restraint to take over")
    if learning and not generator.config.noise_size:
        raise ConfigError("there is no noise whose share could be learnt: leave --pool and --grades out")
    latitude = learning or other.restraint.latitude is not None
    sizes = other.config
    restrained = with_restraint(generator, sizes.restraint_frames, sizes.restraint_maps, latitude)
    assert restrained.restraint is not None
    own = restrained.restraint.state_dict()
    taken = {name: tensor for name, tensor in other.restraint.state_dict().items() if name in own}
    restrained.restraint.load_state_dict(own | taken)
    return restrained


def _grade(
    checkpoint_file: Path | None,
    generator: Generator,
    pool_dir: Path | None,
    excerpts: int,
    grades_file: Path | None,
    seed: int,
    workers: int | None,
) -> list[Example]:
    """What the file holds and excerpts of the pool; without a checkpoint only MP3s are graded, and nothing is kept."""
    weights = fingerprint(generator) if checkpoint_file is not None else None
    found = load_examples(grades_file, weights) if grades_file is not None and grades_file.exists() else []
    if pool_dir is not None:
        indices = range(len(found), len(found) + excerpts)
        with click.progressbar(length=excerpts, label="grading", show_pos=True) as bar:
            for example in _examine(checkpoint_file, pool_dir, indices, seed, workers):
                found.append(example)
                bar.update(1)
                due = len(found) % KEPT_EVERY == 0 or len(found) == indices.stop
                if grades_file is not None and weights is not None and due:
                    save_examples(grades_file, found, weights)
    if len(found) < FEWEST:
        raise ConfigError(f"{len(found)} graded excerpts are too few to learn from, {FEWEST} the fewest")
    return found


def _examine(
    checkpoint_file: Path | None, pool_dir: Path, indices: range, seed: int, workers: int | None
) -> Iterable[Example]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (checkpoint_file, pool_dir)) as executor:
        yield from executor.map(_examine_one, [(index, seed) for index in indices], chunksize=4)


def _begin(checkpoint_file: Path | None, pool_dir: Path) -> None:
    global _examiner
    torch.set_num_threads(1)
    generator = None
    if checkpoint_file is not None:
        generator, _, _ = checkpoint.load_generator(checkpoint_file)
        assert isinstance(generator, Generator)
        generator = unrestrained(generator)
    _examiner = generator, Pool.open(pool_dir)


def _examine_one(place: tuple[int, int]) -> Example:
    assert _examiner is not None
    (index, seed), (generator, pool) = place, _examiner
    original, coded, _ = pool.draw(index, SECONDS * SAMPLE_RATE, seed, in_turn=True)
    return examine(generator, original, coded, np.random.default_rng([seed, index]), whole=held_out(index))


def _table(examples: list[Example], shares: np.ndarray, changes: bool) -> Iterable[str]:
    """How excerpts that were not learnt from fare, by the grade of their MP3s.

    From the shares of changes, and of noise if there is any, (n, 1 or 2). Not `changes`: what these gain is not known.
    """
    graded = np.array([example.odg[0] for example in examples])
    noisy = shares.shape[1] > 1
    yield (
        "ODG of the MP3       n  share"
        + "  noise" * noisy
        + "  gain: all changes  worse  with restraint  worse" * changes
    )
    free, held = (gains(examples, given) for given in (np.ones(len(examples)), shares[:, 0])) if changes else ((), ())
    for low, high in itertools.pairwise(GRADES):
        inside = (graded >= low) & (graded < high)
        if not inside.any():
            continue
        line = f"{low:5.1f} to {high:4.1f}  {inside.sum():9d}  {shares[inside, 0].mean():5.2f}"
        if noisy:
            line += f"  {shares[inside, 1].mean():5.2f}"
        if changes:
            worse = [100 * float((gain[inside] < -WORSE_ODG).mean()) for gain in (free, held)]
            line += (
                f"  {free[inside].mean():+17.3f}  {worse[0]:3.0f} %  {held[inside].mean():+14.3f}  {worse[1]:3.0f} %"
            )
        yield line
