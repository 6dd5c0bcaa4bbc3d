"""One `Restorer` for everyone: threads, tasks and processes get what each would get alone."""

import asyncio
import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from toy_model import make_music, save_convolution, toy_or_released

from restorer import Restorer
from restorer.errors import ModelError

RATE_HZ = 44100
THREADS = 6


@pytest.fixture(scope="module", params=["toy", "bundled"])
def restorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return toy_or_released(request.param, tmp_path_factory.mktemp("model"), threads=2)


def piece(number: int) -> np.ndarray:
    """Another signal for each number, of another length and with one or two channels."""
    return make_music(1 + number % 2, 6000 + 500 * number, RATE_HZ, seed=number)


def restore(restorer: Restorer, number: int) -> np.ndarray:
    return restorer(piece(number), RATE_HZ, seed=number)


def restore_in_blocks(restorer: Restorer, number: int) -> np.ndarray:
    stream = restorer.stream(1 + number % 2, RATE_HZ, seed=number)
    signal = piece(number)
    blocks = [stream.process(signal[:, start : start + 700]) for start in range(0, signal.shape[1], 700)]
    return np.concatenate([*blocks, stream.flush()], axis=1)


def check(results: list[np.ndarray], alone: list[np.ndarray]) -> None:
    for found, expected in zip(results, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("work", [restore, restore_in_blocks])
def test_threads_share_a_restorer(restorer: Restorer, work) -> None:
    numbers = range(2 * THREADS)
    alone = [work(restorer, number) for number in numbers]
    with ThreadPoolExecutor(THREADS) as pool:
        check(list(pool.map(work, [restorer] * len(numbers), numbers)), alone)


def test_streams_in_turns(restorer: Restorer) -> None:
    """Many streams at once in one thread, a block of each at a time: none hears another."""
    numbers = range(8)
    alone = [restore_in_blocks(restorer, number) for number in numbers]
    streams = [restorer.stream(1 + number % 2, RATE_HZ, seed=number) for number in numbers]
    parts: list[list[np.ndarray]] = [[] for _ in numbers]
    longest = max(piece(number).shape[1] for number in numbers)
    for start in range(0, longest, 700):
        for number in numbers:
            parts[number].append(streams[number].process(piece(number)[:, start : start + 700]))
    check([np.concatenate([*parts[n], streams[n].flush()], axis=1) for n in numbers], alone)


def test_candidates_in_threads(restorer: Restorer) -> None:
    alone = restorer.candidates(piece(1), RATE_HZ, n=3)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(restorer.candidates, piece(1), RATE_HZ, 3) for _ in range(3)]
        for job in jobs:
            np.testing.assert_array_equal(job.result(), alone)


def test_tasks_of_asyncio(restorer: Restorer) -> None:
    """The event loop goes on turning while threads restore."""
    numbers = range(5)
    alone = [restore(restorer, number) for number in numbers]
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async def serve() -> list[np.ndarray]:
        turning = asyncio.create_task(turn())
        results = await asyncio.gather(*(asyncio.to_thread(restore, restorer, number) for number in numbers))
        turning.cancel()
        return results

    check(asyncio.run(serve()), alone)
    assert turns > 1


def test_a_stream_moves_between_threads(restorer: Restorer) -> None:
    """One thread at a time, but not always the same: a server awaits each block wherever a thread is free."""
    signal, stream = piece(3), restorer.stream(2, RATE_HZ, seed=3)

    async def serve() -> list[np.ndarray]:
        starts = range(0, signal.shape[1], 700)
        blocks = [await asyncio.to_thread(stream.process, signal[:, start : start + 700]) for start in starts]
        return [*blocks, await asyncio.to_thread(stream.flush)]

    check([np.concatenate(asyncio.run(serve()), axis=1)], [restore_in_blocks(restorer, 3)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_get_the_restorer(restorer: Restorer, method: str) -> None:
    """It is sent to a new process as the path of its model; a forked one has it, and computes on one thread."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    numbers = range(3)
    alone = [restore(restorer, number) for number in numbers]
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        check(list(pool.map(restore, [restorer] * len(numbers), numbers, timeout=120)), alone)
    check([restore(restorer, number) for number in numbers], alone)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fork is the habit of Linux alone")
def test_a_forked_child_inherits_it_while_threads_work(restorer: Restorer) -> None:
    alone = restore(restorer, 1)
    context = multiprocessing.get_context("fork")
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(restore, restorer, number) for number in range(8)]
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=lambda: sender.send(restore(restorer, 1)))
        child.start()
        assert receiver.poll(60)
        np.testing.assert_array_equal(receiver.recv(), alone)
        child.join(60)
        assert child.exitcode == 0
        for job in busy:
            job.result()


def test_a_pickled_restorer_names_its_model(tmp_path: Path) -> None:
    model = save_convolution(tmp_path / "toy.onnx", window=512, hop=128)
    data = pickle.dumps(Restorer(model, device="cpu", threads=1))
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.model_info == Restorer(model).model_info and again.device == "cpu"
    model.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        pickle.loads(data)
