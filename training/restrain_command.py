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
    load_examples,
    save_examples,
    unrestrained,
    with_restraint,
)

SECONDS = 6
GRADES = (-4.0, -2.0, -1.0, -0.5, -0.2, 0.3)  # of the MP3s, between which the table tells excerpts apart
FEWEST = 20  # excerpts that something can be learnt from
KEPT_EVERY = 200  # of them, grades reach their file

_examiner: tuple[Generator, Pool] | None = None


@click.command("restrain", context_settings={"show_default": True})
@click.argument("checkpoint_file", metavar="CHECKPOINT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--pool", "pool_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Pairs to learn from."
)
@click.option("--like", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take another's restraint.")
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
    """Write to OUT the CHECKPOINT with a last part that holds changes back where little is missing.

    Excerpts of a pool (`restorer pool`, with pairs of 6 s at least, of every coding from the worst to the best) are
    restored, and PEAQ and the log-spectral distance say how much of the changes each should get; the part learns to
    tell that from the MP3 alone, and knows nothing of codings that the pool lacks. An excerpt takes a process a second
    or two: --grades keeps them. Or take over, with --like, what another checkpoint has learnt.
    """
    if (like is None) == (pool_dir is None and grades_file is None):
        raise ConfigError("give either --pool or --grades, to learn from, or --like, a checkpoint that has learnt")
    generator, config, extra = checkpoint.load_generator(checkpoint_file)
    if not isinstance(generator, Generator):
        raise ConfigError(
            f"'{checkpoint_file}' is a model after the paper; only 'compact' and its kin have a restraint"
        )
    if like is not None:
        restrained = _take_over(generator, like)
    else:
        restrained = with_restraint(generator, frames)
        weights = fingerprint(generator)
        found = load_examples(grades_file, weights) if grades_file is not None and grades_file.exists() else []
        if pool_dir is not None:
            indices = range(len(found), len(found) + excerpts)
            with click.progressbar(length=excerpts, label="grading", show_pos=True) as bar:
                for example in _examine(checkpoint_file, pool_dir, indices, seed, workers):
                    found.append(example)
                    bar.update(1)
                    if grades_file is not None and (len(found) % KEPT_EVERY == 0 or len(found) == indices.stop):
                        save_examples(grades_file, found, weights)
        if len(found) < FEWEST:
            raise ConfigError(f"{len(found)} graded excerpts are too few to learn from, {FEWEST} the fewest")
        learnt = [example for index, example in enumerate(found) if not held_out(index)]
        kept_out = [example for index, example in enumerate(found) if held_out(index)]
        assert restrained.restraint is not None
        learn(restrained.restraint, learnt)
        for line in _table(kept_out, judge(restrained.restraint, kept_out)):
            click.echo(line)
    config = dataclasses.replace(config, generator=restrained.config)
    checkpoint.save(out, checkpoint.prefixed("average", restrained.state_dict()), config, extra)
    click.echo(f"{out}", err=True)


def _take_over(generator: Generator, like: Path) -> Generator:
    """The generator with the restraint of another checkpoint."""
    other, _, _ = checkpoint.load_generator(like)
    if not isinstance(other, Generator) or other.restraint is None:
        raise ConfigError(f"'{like}' has no restraint to take over")
    restrained = with_restraint(generator, other.config.restraint_frames, other.config.restraint_maps)
    assert restrained.restraint is not None
    restrained.restraint.load_state_dict(other.restraint.state_dict())
    return restrained


def _examine(
    checkpoint_file: Path, pool_dir: Path, indices: range, seed: int, workers: int | None
) -> Iterable[Example]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (checkpoint_file, pool_dir)) as executor:
        yield from executor.map(_examine_one, [(index, seed) for index in indices], chunksize=4)


def _begin(checkpoint_file: Path, pool_dir: Path) -> None:
    global _examiner
    torch.set_num_threads(1)
    generator, _, _ = checkpoint.load_generator(checkpoint_file)
    assert isinstance(generator, Generator)
    _examiner = unrestrained(generator), Pool.open(pool_dir)


def _examine_one(place: tuple[int, int]) -> Example:
    assert _examiner is not None
    (index, seed), (generator, pool) = place, _examiner
    original, coded, _ = pool.draw(index, SECONDS * SAMPLE_RATE, seed, in_turn=True)
    return examine(generator, original, coded, np.random.default_rng([seed, index]), whole=held_out(index))


def _table(examples: list[Example], shares: np.ndarray) -> Iterable[str]:
    """How excerpts that were not learnt from fare, by the grade of their MP3s."""
    yield "ODG of the MP3       n  share  gain: all changes  worse  with restraint  worse"
    free, held = gains(examples, np.ones(len(examples))), gains(examples, shares)
    graded = np.array([example.odg[0] for example in examples])
    for low, high in itertools.pairwise(GRADES):
        inside = (graded >= low) & (graded < high)
        if inside.any():
            worse = [100 * float((gain[inside] < -WORSE_ODG).mean()) for gain in (free, held)]
            yield (
                f"{low:5.1f} to {high:4.1f}  {inside.sum():9d}  {shares[inside].mean():5.2f}"
                f"  {free[inside].mean():+17.3f}  {worse[0]:3.0f} %  {held[inside].mean():+14.3f}  {worse[1]:3.0f} %"
            )
