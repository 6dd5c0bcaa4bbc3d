"""One run in many processes: who this process is, sums over all of them, and their start on one machine.

Each process computes on its share of every global batch, gradients are summed, and every process makes the same
update. The processes are described by torchrun's environment variables (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT); `launch` sets the same ones for the processes of one machine.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed

from restorer.errors import ConfigError

BUCKET_BYTES = 64 << 20  # gradients travel in pieces of about this size
PATIENCE = timedelta(hours=2)  # the others wait while the first process validates
GRACE_SECONDS = 30.0  # for the other processes to end once one of them has failed


@dataclass(frozen=True)
class World:
    """The processes of a run: `rank` is this one's number, 0 to size - 1, and `device` where it computes."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def current(cls) -> "World":
        """The world that `join` entered, or one process alone; on a CUDA device where there is one."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size(), device)
        return cls(0, 1, device)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, validates and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor, which has the same shape in every process, over all processes."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate a tensor of every process along its first axis, in the order of ranks."""
        if self.size == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def of_first(self, value: float) -> float:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        return float(self.sum(torch.tensor(value if self.first else 0.0, dtype=torch.float64, device=self.device)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.size == 1:
            return
        pending, bucket, held = [], [], 0
        parameters = list(parameters)
        for index, parameter in enumerate(parameters):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            held += parameter.grad.nbytes
            if held >= BUCKET_BYTES or index == len(parameters) - 1:
                flat = torch.cat([gradient.flatten() for gradient in bucket])
                pending.append((distributed.all_reduce(flat, async_op=True), flat, bucket))
                bucket, held = [], 0
        for work, flat, gradients in pending:
            work.wait()
            for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(piece.view(gradient.shape))


def joining(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or `launch` started this process as one of several."""
    return int(environment.get("WORLD_SIZE", "1")) > 1


@contextmanager
def join() -> Iterator[World]:
    """Enter the world that the environment describes: NCCL between CUDA devices, gloo between CPUs.

    Raises
    ------
    ConfigError
        This machine has fewer CUDA devices than processes.
    """
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine finds no CUDA device of its own, there are "
                f"{torch.cuda.device_count()}; start as many processes as devices"
            )
        torch.cuda.set_device(local)
    if not joining():
        yield World.current()
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield World.current()
    finally:
        distributed.destroy_process_group()


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command once per rank on this machine, as torchrun would; returns the first failing exit status or 0.

    SIGINT and SIGTERM are passed on as SIGTERM. When a process fails, the others are told to stop, and ended if they do
    not: they may wait for it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    running = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]

    def tell(number: int) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    status, deadline = 0, float("inf")
    try:
        with Stop(lambda: tell(signal.SIGTERM)):
            while any([process.poll() is None for process in running]) and time.monotonic() < deadline:
                status = status or next((process.returncode for process in running if process.returncode), 0)
                if status and deadline == float("inf"):
                    deadline = time.monotonic() + GRACE_SECONDS
                    tell(signal.SIGTERM)
                time.sleep(0.1)
    finally:
        tell(signal.SIGKILL)
    return status or next((process.returncode for process in running if process.returncode), 0)


class Stop:
    """SIGINT and SIGTERM as a wish that is looked at between steps: `with Stop() as stop: ... if stop.wanted`.

    A second SIGINT raises KeyboardInterrupt at once. `then` is called on every signal. Only the main thread can
    receive signals; in others nothing is changed.
    """

    def __init__(self, then: Callable[[], Any] = lambda: None):
        self.wanted = False
        self._then = then
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: shells hide it from background jobs
            try:
                self._before[number] = signal.signal(number, self._receive)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        again, self.wanted = self.wanted, True
        self._then()
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
