"""A batch on a Ray cluster: actors hold the model and take files one by one, wherever they run."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restorer import __version__
from restorer.batch import Outcome, Progress, Settings, StoppedError, failed, restore_job
from restorer.batch_plan import Job
from restorer.batch_queue import ATTEMPTS, WorkerLostError
from restorer.errors import ConfigError, DeviceError, RestorerError
from restorer.object_store import Location, parse_location

if TYPE_CHECKING:
    from restorer.restorer import Restorer

_POLL_SECONDS = 0.3
_STOP_SECONDS = 10.0
_KNOCK_SECONDS = 10.0
_NOTICE_SECONDS = 30.0
_STEPS = 1000
_STOPPED, _EMPTY = "stopped", "empty"


@dataclass(frozen=True)
class Cluster:
    """Which cluster, how many actors on it, and what each of them holds.

    `address` is Ray's: "host:port", "ray://host:port", "auto", "local" for a Ray of this process alone, or ""
    for Ray's own choice (RAY_ADDRESS, else one that runs on this machine, else "local"). `actors` None takes
    as many as there is room for.
    """

    address: str
    actors: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.address and self.address not in ("auto", "local") and ":" not in self.address:
            raise ConfigError(
                f"--ray takes auto, local, HOST:PORT or ray://HOST:PORT and not {self.address!r}; "
                "without an address write it last, after OUTPUT"
            )
        if self.cpus < 0 or self.gpus < 0 or not self.cpus + self.gpus:
            raise ConfigError(
                f"an actor needs a part of a CPU or GPU and not --ray-cpus {self.cpus:g} --ray-gpus {self.gpus:g}"
            )

    def choose_device(self, device: str) -> str:
        """The device of each actor: "auto" is the GPU where an actor holds a part of one, else the CPU."""
        if device == "cuda" and not self.gpus:
            raise ConfigError("--device cuda with --ray needs --ray-gpus, such as --ray-gpus 1")
        return ("cuda" if self.gpus else "cpu") if device == "auto" else device


@contextmanager
def ray_workers(
    cluster: Cluster,
    model: bytes,
    device: str,
    threads: int | None,
    most: int,
    tell: Callable[[str], None],
) -> Iterator[list[RayWorker]]:
    """Actors that hold the model, ended after the block; so is a Ray that was started for it.

    Parameters
    ----------
    model : the bytes of the ONNX file, which travel to the actors.
    threads : CPU threads of each actor; None takes as many as it holds CPUs.
    most : as many files as there are; more actors would have nothing to do.
    tell : says a line on what is waited for.

    Raises
    ------
    ConfigError, RestorerError : Ray is not installed, cannot be reached, or has no room for one actor.
    """
    ray = _import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, cluster.address)
    actors: list[RayWorker] = []
    try:
        count = min(most, cluster.actors or _count_places(ray, cluster))
        setup = (ray.put(model), device, threads or max(1, int(cluster.cpus)), __version__)
        make = ray.remote(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=-1, max_task_retries=0, max_concurrency=2
        )(RestoreActor)
        tell(f"Ray: {count} actors on {_describe(ray)}")
        for _ in range(count):
            actors.append(RayWorker(ray, make.remote(), setup, tell))
        yield actors
    finally:
        for worker in actors:
            worker.end()
        if ours:
            ray.shutdown()


class RestoreActor:
    """Runs in a process of the cluster: one model, one file at a time.

    Raises nothing by itself: whatever is wrong is an answer, since an actor that fails is started again.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._share = 0.0
        self._restorer: Restorer | None = None

    def load(self, model: bytes, device: str, threads: int, version: str) -> tuple[int, str]:
        """Load the model; the process's number, and what is wrong with this worker, if anything."""
        try:
            self._restorer = self._restorer or _load(model, device, threads, version)
        except RestorerError as error:
            return os.getpid(), str(error)
        return os.getpid(), ""

    def restore(
        self, source: str, target: str, name: str, seed: int, settings: Settings, overwrite: bool
    ) -> Outcome | str:
        """As `restore_job`; _STOPPED after `stop`, and _EMPTY if Ray started this process again since `load`."""
        if self._restorer is None:
            return _EMPTY
        self._share = 0.0

        def progress(done: int, total: int) -> None:
            if self._stop.is_set():
                raise StoppedError
            self._share = done / max(total, 1)

        job = Job(parse_location(source), parse_location(target), name, seed)
        try:
            return restore_job(self._restorer, job, settings, overwrite, progress)
        except StoppedError:
            return _STOPPED

    def progress(self) -> float:
        """The share of the file in work that is done, from 0 to 1."""
        return self._share

    def stop(self) -> None:
        """Give up the file in work, and take no other."""
        self._stop.set()


class RayWorker:
    """One actor, seen from here; `pid` is the number of its process on its machine, 0 before it runs."""

    def __init__(self, ray: types.ModuleType, actor: Any, setup: tuple[Any, ...], tell: Callable[[str], None]) -> None:
        self.pid = 0
        self._ray = ray
        self._actor = actor
        self._setup = setup
        self._tell = tell
        self._ready = False

    def wait(self, stop: threading.Event) -> bool:
        """Wait until the actor has a place and its model; a lost one is started again by Ray."""
        if self._ready:
            return not stop.is_set()
        started, told, failures = time.monotonic(), False, 0
        answer = self._actor.load.remote(*self._setup)
        while not stop.is_set():
            done, _ = self._ray.wait([answer], timeout=_POLL_SECONDS)
            if done:
                try:
                    self.pid, problem = self._ray.get(answer)
                except self._ray.exceptions.RayError as error:
                    failures += 1
                    if failures == ATTEMPTS:
                        raise DeviceError(f"a worker of the cluster does not start: {_last_line(error)}") from error
                    stop.wait(_POLL_SECONDS)  # lost while it started
                    answer = self._actor.load.remote(*self._setup)
                    continue
                if problem:
                    raise DeviceError(f"a worker of the cluster cannot restore: {problem}")
                self._ready = True
                return True
            if not told and time.monotonic() - started > _NOTICE_SECONDS:
                told = True
                self._tell("Ray: waiting for room for an actor; `ray status` tells what is in use")
        return False

    def restore(self, job: Job, settings: Settings, overwrite: bool, progress: Progress) -> Outcome:
        """As `restore_job`, over there."""
        exceptions = self._ray.exceptions
        source, target = _absolute(job.source), _absolute(job.target)
        answer = self._actor.restore.remote(source, target, job.name, job.seed, settings, overwrite)
        try:
            while not self._ray.wait([answer], timeout=_POLL_SECONDS)[0]:
                share = self._ray.get(self._actor.progress.remote())
                progress(round(share * _STEPS), _STEPS)
            outcome = self._ray.get(answer)
        except StoppedError:
            with suppress(exceptions.RayError):
                self._actor.stop.remote()
                self._ray.wait([answer], timeout=_STOP_SECONDS)
            raise
        except exceptions.RayTaskError as error:
            return failed(job, error)
        except exceptions.RayError as error:
            self._ready = False
            raise WorkerLostError(f"the worker was lost ({type(error).__name__})") from error
        if outcome == _STOPPED:
            raise StoppedError
        if outcome == _EMPTY:
            self._ready = False
            raise WorkerLostError("the worker was lost while it waited")
        return replace(outcome, source=str(job.source), target=str(job.target))

    def end(self) -> None:
        """End the actor's process."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)


def _import_ray() -> types.ModuleType:
    # No word to Ray's makers; and no warning that actors without a GPU are going to see all GPUs: they use none.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A Ray that is started here works as hard as a run without it, where Ray would step behind all else.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError('--ray needs Ray, which is not installed; run: pip install "restorer[cluster]"') from error
    return ray


def _connect(ray: types.ModuleType, address: str) -> None:
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        quiet["include_dashboard"] = False
    _knock(address)
    try:
        ray.init(address=address or None, **quiet)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError ... by the kind of address
        text = " ".join(str(error).split())
        raise RestorerError(
            f"cannot reach Ray at {address or 'its own choice'}: {text}; is it there, of the same version, and does it "
            "want its token (RAY_AUTH_MODE=token)?"
        ) from error


def _knock(address: str) -> None:
    """See that somebody listens at a HOST:PORT, since Ray would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise RestorerError(
            f"cannot reach Ray at {address}: {error}; give the address that `ray start` told"
        ) from error


def _count_places(ray: types.ModuleType, cluster: Cluster) -> int:
    """Actors that the machines of the cluster, as they are now, have room for."""
    places = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            rooms = [has.get(kind, 0) / each for kind, each in (("CPU", cluster.cpus), ("GPU", cluster.gpus)) if each]
            places += int(min(rooms))
    if not places:
        total = ray.cluster_resources()
        raise ConfigError(
            f"no machine of the cluster has room for an actor of {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs "
            f"(there are {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs in all); lower --ray-cpus or "
            "--ray-gpus, or give --jobs to wait for machines that are yet to come"
        )
    return places


def _describe(ray: types.ModuleType) -> str:
    alive = [node for node in ray.nodes() if node["Alive"]]
    return f"{len(alive)} machine{'s' if len(alive) != 1 else ''}"


def _load(model: bytes, device: str, threads: int, version: str) -> Restorer:
    if version != __version__:
        raise ConfigError(f"it has restorer {__version__} and the batch was started by {version}; install the same")
    from restorer import Restorer

    with tempfile.TemporaryDirectory(prefix="restorer-") as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(model)
        return Restorer(file, device=device, threads=threads)


def _last_line(error: Exception) -> str:
    """Of a message that may hold a traceback."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _absolute(location: Location) -> str:
    """The name for a process that may work in another folder."""
    return str(location.absolute()) if isinstance(location, Path) else location.url
