"""`restorer pool`: music becomes training excerpts that never repeat, while training goes on."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from restorer.errors import ConfigError, RestorerError
from restorer.training.codec_settings import parse_setting
from restorer.training.distributed import Stop
from restorer.training.growing_music import GrowingMusic
from restorer.training.mix_command import sounds_below
from restorer.training.mixing import NARROW_HZ, SHORTEST_SECONDS, Mixer, Sounds, narrow
from restorer.training.mp3 import SAMPLE_RATE, Coding
from restorer.training.pool import Pool, PoolShape, code_pairs

# Twice what most bad MP3s are; what was coded otherwise; and what misses so little that it should stay as it is.
CODINGS = " ".join(
    2 * ["16m 24m 32m 48m 64m 96m 128m 32j 48j 64j 96j 128j"]
    + ["a40m a80m a56j a112j v9m v6m v7j v4j"]
    + ["192m v2m 192j 320j v1j"]
)
CODINGS_EACH = 3  # of every mix
LOST_AT_MOST = 100  # processes that may die before the command gives up
PLAIN = 0.35  # share of excerpts that are a song as it is


@dataclass(frozen=True)
class Work:
    """What a process fills a pool from."""

    pool: Pool
    music: GrowingMusic
    voices: list[Path]
    oneshots: list[Path]
    codings: list[Coding]
    narrow: float  # share of excerpts


@click.command("pool", context_settings={"show_default": True})
@click.argument("pool_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("music_dirs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--voices", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of dry singing.")
@click.option("--oneshots", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of sounds.")
@click.option("--codings", default=CODINGS, help="As 64m (kbit/s, mono), 64j (joint stereo), a80m (ABR), v4j (VBR).")
@click.option("--slots", default=4096, type=click.IntRange(1), help="Pairs that the pool holds; 2 MB each of 12 s.")
@click.option("--seconds", default=12.0, type=click.FloatRange(SHORTEST_SECONDS, 600), help="Length of each.")
@click.option(
    "--narrow",
    "narrow_share",
    default=0.0,
    type=click.FloatRange(0, 1),
    help="Share of excerpts whose original ends at 9 to 16 kHz, as music of old games does.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one for each core but two.")
@click.option("--pairs", "wanted", type=click.IntRange(1), help="Stop after so many; default: go on until Ctrl-C.")
def pool_command(
    pool_dir: Path,
    music_dirs: tuple[Path, ...],
    voices: Path | None,
    oneshots: Path | None,
    codings: str,
    slots: int,
    seconds: float,
    narrow_share: float,
    workers: int | None,
    wanted: int | None,
) -> None:
    """Keep POOL_DIR filled with new training pairs made of the train split of every MUSIC_DIR/MANIFEST.csv.

    For `restorer train --pool POOL_DIR`, meanwhile. Excerpts of songs as they are or mixed as restorer mix does, coded
    by LAME (a tenth of them for the second time) and decoded again; the oldest pair makes room for the newest. A
    manifest that changes is read again, so that music may be made meanwhile, as `restorer render` does.
    POOL_DIR is best on a RAM disk such as /dev/shm. Started again, it goes on with what is there.
    """
    settings = [parse_setting(name) for name in codings.split()]
    if not settings:
        raise ConfigError("--codings names none")
    music = GrowingMusic(music_dirs)
    pool = Pool.create(pool_dir, PoolShape(slots, int(seconds * SAMPLE_RATE)))
    work = Work(pool, music, sounds_below(voices), sounds_below(oneshots), settings, narrow_share)
    context = multiprocessing.get_context("spawn")
    made, refused = context.Value("q", 0), context.SimpleQueue()
    count = workers or max(1, (os.cpu_count() or 1) - 2)

    def start(number: int) -> Any:
        seed = [time.time_ns(), number]  # other mixes after every start: a pool is there so that none comes back
        process = context.Process(target=_fill, args=(work, seed, made, wanted, refused), daemon=True)
        process.start()
        return process

    processes = [start(number) for number in range(count)]
    started, lost = time.monotonic(), 0
    with Stop() as stop:
        while not stop.wanted and any(process.is_alive() for process in processes):
            time.sleep(0.2)
            if not refused.empty():
                _end(processes)
                raise RestorerError(refused.get())
            for number, process in enumerate(processes):
                if not process.exitcode or stop.wanted:
                    continue
                lost += 1  # to a decoder that crashes, or for want of memory
                if lost > LOST_AT_MOST:
                    _end(processes)
                    raise RestorerError(
                        f"{lost} processes that fill the pool ended, the last with status {process.exitcode}, perhaps "
                        "for want of memory"
                    )
                processes[number] = start(number)
    _end(processes)
    click.echo(f"{made.value} pairs in {time.monotonic() - started:.0f} s, {pool.filled} in '{pool_dir}'", err=True)


def _end(processes: list[Any]) -> None:
    for process in processes:
        process.terminate()
        process.join()


def _fill(work: Work, seed: list[int], made: Any, wanted: int | None, refused: Any) -> None:
    """Fill slots until there are as many as wanted; why a recording cannot be used goes to `refused`."""
    try:
        _mix_and_code(work, seed, made, wanted)
    except RestorerError as error:
        refused.put(str(error))


def _mix_and_code(work: Work, seed: list[int], made: Any, wanted: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(5)  # training goes first
    rng = np.random.default_rng(seed)
    sounds = Sounds(work.pool.folder / "decoded")
    seconds = work.pool.shape.samples / SAMPLE_RATE
    mixer = Mixer(work.music.songs, work.voices, work.oneshots, seconds, int(rng.integers(1 << 31)), sounds)
    index = 0
    while wanted is None or made.value < wanted:
        if work.music.look():
            mixer.songs = work.music.songs
        if rng.random() < PLAIN:
            audio, bandwidth_hz = mixer.stretch(mixer.songs[rng.integers(len(mixer.songs))], rng)
        else:
            audio, bandwidth_hz, _ = mixer.mix(index)
        index += 1
        if rng.random() < work.narrow:
            bandwidth_hz = min(bandwidth_hz, float(np.exp(rng.uniform(*np.log(NARROW_HZ)))))
            audio = narrow(audio, bandwidth_hz)
        for original, coded in code_pairs(audio, work.codings, rng, CODINGS_EACH):
            with made.get_lock():
                number = made.value
                made.value += 1
            work.pool.write(number % work.pool.shape.slots, original, coded, bandwidth_hz)
