"""A model is one ONNX file that says what it is; this module loads it, checks it and runs it.

The graph is a pure function ``(frames, z, state_0 .. state_k) -> (restored, next_state_0 .. next_state_k)``
and the metadata key `restorer` holds the JSON object of `ModelInfo`. Nothing about a model is known from
anywhere else.
"""

import contextlib
import importlib.resources
import io
import json
import logging
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.errors import ConfigError, DeviceError, ModelError

FORMAT_VERSION = 1
DEVICES = ("auto", "cpu", "cuda")
States = tuple[Any, ...]

_FATAL_ONLY = 4
_DEFAULT_SEVERITY = 2
_log = logging.getLogger(__name__)


class RuntimeMissingError(DeviceError, ImportError):
    """ONNX Runtime is not installed: an ImportError, and a RestorerError for whoever prints those."""


def import_onnxruntime() -> types.ModuleType:
    """ONNX Runtime, or the error that names the two commands which install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissingError(_missing(f"cannot be imported ({error})")) from error
    # Removing one of the two wheels after both were installed leaves an empty package behind.
    if not hasattr(onnxruntime, "InferenceSession"):
        raise RuntimeMissingError(_missing("is damaged, so uninstall onnxruntime and onnxruntime-gpu first"))
    return onnxruntime


def _missing(problem: str) -> str:
    return (
        f'ONNX Runtime {problem}; run one of: pip install "restorer[cpu]" (any machine) or '
        'pip install "restorer[gpu]" (NVIDIA, CUDA)'
    )


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says about itself.

    `latency_samples` is exact and minimal: sample n of the output needs the input up to n +
    latency_samples, which is window_samples - 1 + lookahead_frames x hop_samples. `warmup_frames` of
    silence bring the states to rest before the first sample. `metrics` were measured on the test split when
    the file was made.
    """

    format_version: int
    name: str
    version: str
    config: Mapping[str, Any]
    sample_rate: int
    window_samples: int
    hop_samples: int
    lookahead_frames: int
    latency_samples: int
    noise_size: int
    warmup_frames: int
    trained_kbps: tuple[float, ...]
    training_data: tuple[Any, ...]
    licence: str
    metrics: Mapping[str, Any]

    @property
    def bins(self) -> int:
        """Frequency bins of one frame."""
        return self.window_samples // 2 + 1

    @classmethod
    def from_json(cls, text: str, source: str) -> "ModelInfo":
        """Read the metadata of the model file `source`.

        Raises
        ------
        ModelError
            It is no JSON object, misses a key, holds an impossible value, or was made for a newer version.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelError(f"{source}: the metadata key 'restorer' is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{source}: the metadata key 'restorer' must hold a JSON object")
        version: Any = values.get("format_version")
        if not _is_integer(version) or version < 1:
            raise ModelError(f"{source}: format_version must be an integer from 1 and not {version!r}")
        if version > FORMAT_VERSION:
            raise ModelError(
                f"{source}: has format version {version} and this restorer reads up to {FORMAT_VERSION}; "
                "run: pip install --upgrade restorer"
            )
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise ModelError(f"{source}: the metadata misses {', '.join(missing)}; export the model again")
        for name, (kind, smallest) in _RULES.items():
            value = values[name]
            if not (_is_integer(value) if kind is int else isinstance(value, kind)):
                raise ModelError(f"{source}: metadata {name} must be of type {kind.__name__} and not {value!r}")
            if kind is int and value < smallest:
                raise ModelError(f"{source}: metadata {name} must be at least {smallest} and not {value!r}")
        known = {name: values[name] for name in cls.__dataclass_fields__}
        for name in ("trained_kbps", "training_data"):
            known[name] = tuple(known[name])
        info = cls(**known)
        if info.window_samples % 2 or info.window_samples < 2 * info.hop_samples:
            raise ModelError(
                f"{source}: window_samples must be even and at least twice hop_samples, "
                f"and not {info.window_samples} with hop_samples {info.hop_samples}"
            )
        latency = info.window_samples - 1 + info.lookahead_frames * info.hop_samples
        if info.latency_samples != latency:
            raise ModelError(f"{source}: latency_samples is {info.latency_samples} and must be {latency}")
        return info


_RULES: dict[str, tuple[type, int]] = {
    "name": (str, 0),
    "version": (str, 0),
    "config": (dict, 0),
    "sample_rate": (int, 8000),
    "window_samples": (int, 4),
    "hop_samples": (int, 1),
    "lookahead_frames": (int, 0),
    "latency_samples": (int, 0),
    "noise_size": (int, 0),
    "warmup_frames": (int, 0),
    "trained_kbps": (list, 0),
    "training_data": (list, 0),
    "licence": (str, 0),
    "metrics": (dict, 0),
}


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Model:
    """A checked model and its session. It never changes, so any number of streams and threads share one.

    Parameters
    ----------
    path
        The ONNX file; None takes the bundled one.
    device
        "cpu", "cuda", or "auto": CUDA where it works, else the CPU.
    threads
        CPU threads for one call; None takes one per available core, at most 8.

    Raises
    ------
    ModelError
        The file is missing, damaged, not made by this project, or contradicts itself.
    DeviceError
        "cuda" was asked for and does not work here.
    ConfigError
        An unknown device name or an impossible number of threads.
    """

    def __init__(self, path: str | os.PathLike[str] | None, device: str, threads: int | None) -> None:
        if device not in DEVICES:
            raise ConfigError(f"device must be one of {', '.join(DEVICES)} and not {device!r}")
        if threads is not None and (not _is_integer(threads) or threads < 1):
            raise ConfigError(f"threads must be an integer from 1, or None, and not {threads!r}")
        data, self.source = _read(path)
        self._session = _open_session(data, self.source, device, threads or _default_threads())
        self.device = _device_of(self._session)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if "restorer" not in metadata:
            raise ModelError(f"{self.source}: is an ONNX model, but not one that restorer's export made")
        self.info = ModelInfo.from_json(metadata["restorer"], self.source)
        self.state_shapes = _check_graph(self._session, self.info, self.source)
        self._state_names = [f"state_{i}" for i in range(len(self.state_shapes))]
        self._outputs = ["restored", *(f"next_{name}" for name in self._state_names)]
        self._probe()

    def zero_states(self, batch: int) -> States:
        """States of all zeros, each ``(batch, ...)``."""
        return tuple(np.zeros((batch, *shape), np.float32) for shape in self.state_shapes)

    def run(
        self, frames: NDArray[np.float32], z: NDArray[np.float32], states: States
    ) -> tuple[NDArray[np.float32], States]:
        """Restore some frames and give the states for the next call; `states` stays as it is.

        Shape
        -----
        `frames` and the result: ``(batch, 2, time, bins)``; `z`: ``(batch, noise_size)``. Frame t of the
        result restores frame t - lookahead_frames.
        """
        feed = {"frames": frames, **dict(zip(self._state_names, states, strict=True))}
        if self.info.noise_size:
            feed["z"] = z
        restored, *states_after = self._session.run(self._outputs, feed)
        return restored, tuple(states_after)

    def repeat_states(self, states: States, times: int) -> States:
        """States of a batch in which every entry stands `times` times in a row."""
        return tuple(np.repeat(state, times, axis=0) for state in states)

    def _probe(self) -> None:
        """Run a short batch, because shapes that the graph leaves open show only then."""
        info, batch, time = self.info, 2, 3
        frames = np.zeros((batch, 2, time, info.bins), np.float32)
        try:
            restored, states = self.run(frames, np.zeros((batch, info.noise_size), np.float32), self.zero_states(batch))
        except Exception as error:
            raise ModelError(f"{self.source}: does not run: {_one_line(error)}") from error
        if restored.shape != frames.shape:
            raise ModelError(f"{self.source}: restored has shape {restored.shape} for frames of {frames.shape}")
        for name, shape, state in zip(self._state_names, self.state_shapes, states, strict=True):
            if state.shape != (batch, *shape):
                raise ModelError(f"{self.source}: next_{name} has shape {state.shape} and must have {(batch, *shape)}")


def _read(path: str | os.PathLike[str] | None) -> tuple[bytes, str]:
    if path is None:
        bundled = importlib.resources.files("restorer") / "weights" / "compact.onnx"
        if not bundled.is_file():
            raise ModelError("the bundled model weights/compact.onnx is missing; reinstall restorer or give a model")
        return bundled.read_bytes(), "compact.onnx"
    file = Path(path)
    if not file.is_file():
        problem = "is no file" if file.exists() else "does not exist"
        raise ModelError(f"model {file}: {problem}; give the path of an ONNX model, or none for the bundled one")
    try:
        return file.read_bytes(), str(file)
    except OSError as error:
        raise ModelError(f"model {file}: cannot be read: {error.strerror}") from error


def _default_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def _open_session(data: bytes, source: str, device: str, threads: int) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    # Denormals stay as they are: that option would change the floating-point mode of the calling thread,
    # and fading or tiny input costs no more time (measured down to 1e-39).
    # Idle threads sleep: a plug-in shares its cores with the rest of a host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    if device != "cpu":
        session = _open_cuda(onnxruntime, data, options)
        if session is not None:
            return session
        if device == "cuda":
            raise DeviceError(
                "device 'cuda' does not work here: it needs an NVIDIA GPU, its driver and "
                'pip install "restorer[gpu]" (instead of onnxruntime); or use device="cpu"'
            )
        _log.info("CUDA is not available: running on the CPU")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{source}: is no readable ONNX model: {_one_line(error)}") from error


def _open_cuda(onnxruntime: types.ModuleType, data: bytes, options: Any) -> Any | None:
    """A session that really runs on CUDA, or None; the runtime's own complaints become log lines."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return None
    printed = io.StringIO()
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        with contextlib.redirect_stdout(printed):
            if hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()
            session = onnxruntime.InferenceSession(
                data, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
            )
    except Exception as error:
        _log.info("CUDA failed: %s", _one_line(error))
        return None
    finally:
        onnxruntime.set_default_logger_severity(_DEFAULT_SEVERITY)
        for line in filter(None, printed.getvalue().splitlines()):
            _log.debug("ONNX Runtime: %s", line)
    return session if _device_of(session) == "cuda" else None


def _device_of(session: Any) -> str:
    return "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"


def _check_graph(session: Any, info: ModelInfo, source: str) -> tuple[tuple[int, ...], ...]:
    """Compare the graph with the contract; give the shapes of the states without their batch axis."""
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    states = sum(name.startswith("state_") for name in inputs)
    names = [f"state_{i}" for i in range(states)]
    _compare("input", {"frames", *names, *(["z"] if info.noise_size else [])}, set(inputs), source)
    _compare("output", {"restored", *(f"next_{name}" for name in names)}, set(outputs), source)
    for node in [*inputs.values(), *outputs.values()]:
        if node.type != "tensor(float)":
            raise ModelError(f"{source}: {node.name} must be float32 and not {node.type}")

    expected: list[tuple[Any, list[int | None]]] = [(inputs["frames"], [None, 2, None, info.bins])]
    if info.noise_size:
        expected.append((inputs["z"], [None, info.noise_size]))
    for node, dims in expected:
        if len(node.shape) != len(dims) or any(
            isinstance(got, int) != (want is not None) or (want is not None and got != want)
            for got, want in zip(node.shape, dims, strict=True)
        ):
            wanted = ", ".join("dynamic" if want is None else str(want) for want in dims)
            raise ModelError(f"{source}: {node.name} has shape {node.shape} and must have ({wanted})")
    shapes = []
    for name in names:
        batch, *rest = inputs[name].shape or [0]
        if isinstance(batch, int) or not all(isinstance(size, int) for size in rest):
            raise ModelError(f"{source}: {name} has shape {inputs[name].shape} and may be dynamic in batch alone")
        shapes.append(tuple(rest))
    return tuple(shapes)


def _compare(kind: str, wanted: set[str], found: set[str], source: str) -> None:
    if missing := sorted(wanted - found):
        raise ModelError(f"{source}: the graph misses the {kind} {', '.join(missing)}; export the model again")
    if extra := sorted(found - wanted):
        raise ModelError(f"{source}: the graph has an unknown {kind} {', '.join(extra)}; export the model again")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
