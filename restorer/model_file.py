"""A model is one ONNX file that says what it is; this module loads it, checks it and runs it.

The graph is a pure function ``(frames, z, state_0 .. state_k) -> (restored, next_state_0 .. next_state_k)``
and the metadata key `restorer` holds the JSON object of `ModelInfo`. Nothing about a model is known from
anywhere else.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.bound_run import BoundRun, State
from restorer.bundled import find_model, is_bundled
from restorer.checksums import check_data
from restorer.errors import ConfigError, ModelError
from restorer.model_checks import check_model, read_model, shown
from restorer.model_values import Value, declared_values
from restorer.session import RuntimeMissingError, device_of, import_onnxruntime, one_line, open_session

__all__ = ["DEVICES", "Model", "ModelInfo", "RuntimeMissingError", "States", "import_onnxruntime"]

FORMAT_VERSION = 1
DEVICES = ("auto", "cpu", "cuda")
States = tuple[Any, ...]


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says about itself.

    `latency_samples` is exact and minimal: sample n of the output needs the input up to n +
    latency_samples, which is window_samples - 1 + lookahead_frames x hop_samples. `warmup_frames` of
    silence bring the states to rest before the first sample; a frame depends on no more than `memory_frames` before
    it. `metrics` were measured on the test split when the file was made. `brightness`, where export has measured it,
    holds the unit vector "direction" of `noise_size` numbers along which z gains energy above the cut-off, and
    "db_per_unit", by how much.
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
    memory_frames: int
    brightness: Mapping[str, Any] | None = None

    @property
    def bins(self) -> int:
        """Frequency bins of one frame."""
        return self.window_samples // 2 + 1

    @property
    def frames_per_call(self) -> int:
        """How many frames of a stream wait for each other unless its maker says otherwise.

        Two where the model looks ahead, and a hop more matters little; one where latency is what counts.
        """
        return 2 if self.lookahead_frames else 1

    def latency_of(self, frames_per_call: int | None = None) -> int:
        """Samples by which a stream is behind whose frames wait for each other; None: its own `frames_per_call`."""
        frames = self.frames_per_call if frames_per_call is None else frames_per_call
        return self.latency_samples + (frames - 1) * self.hop_samples

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
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{source}: the metadata key 'restorer' is no JSON: {one_line(error)}") from error
        if not isinstance(values, dict):
            raise ModelError(f"{source}: the metadata key 'restorer' must hold a JSON object")
        if _CONTROL.search(json.dumps(values, ensure_ascii=False)):
            raise ModelError(f"{source}: the metadata holds control characters, which could steer a terminal")
        version: Any = values.get("format_version")
        if not _is_integer(version) or version < 1:
            raise ModelError(f"{source}: format_version must be an integer from 1 and not {shown(version)}")
        if version > FORMAT_VERSION:
            raise ModelError(
                f"{source}: has format version {shown(version)} and this restorer reads up to {FORMAT_VERSION}; "
                "run: pip install --upgrade restorer"
            )
        values.setdefault("brightness", None)
        values.setdefault("memory_frames", values.get("warmup_frames"))
        missing = [name for name in cls.__dataclass_fields__ if name not in values]
        if missing:
            raise ModelError(f"{source}: the metadata misses {', '.join(missing)}; export the model again")
        for name, (kind, smallest, largest) in _RULES.items():
            value = values[name]
            if not (_is_integer(value) if kind is int else isinstance(value, kind)):
                raise ModelError(f"{source}: metadata {name} must be of type {kind.__name__} and not {shown(value)}")
            if kind is int and value < smallest:
                raise ModelError(f"{source}: metadata {name} must be at least {smallest} and not {shown(value)}")
            if kind is int and value > largest:
                raise ModelError(f"{source}: metadata {name} must be at most {largest} and not {shown(value)}")
            if kind is str and (len(value) > largest or not value.isprintable()):
                raise ModelError(f"{source}: metadata {name} must be one line of text and not {shown(value)}")
        if not all(_is_number(kbps) for kbps in values["trained_kbps"]):
            raise ModelError(f"{source}: metadata trained_kbps must be numbers and not {shown(values['trained_kbps'])}")
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
        if info.brightness is not None:
            _check_brightness(info.brightness, info.noise_size, source)
        return info


# Type, smallest and largest value (of a text: length). A model needs memory and time in proportion to these numbers.
_RULES: dict[str, tuple[type, int, int]] = {
    "name": (str, 0, 200),
    "version": (str, 0, 200),
    "config": (dict, 0, 0),
    "sample_rate": (int, 8000, 192_000),
    "window_samples": (int, 4, 1 << 16),
    "hop_samples": (int, 1, 1 << 15),
    "lookahead_frames": (int, 0, 10_000),
    "latency_samples": (int, 0, 1 << 30),
    "noise_size": (int, 0, 1 << 16),
    "warmup_frames": (int, 0, 100_000),
    "memory_frames": (int, 0, 100_000),
    "trained_kbps": (list, 0, 0),
    "training_data": (list, 0, 0),
    "licence": (str, 0, 2000),
    "metrics": (dict, 0, 0),
}
# Control characters as json.dumps writes them; line breaks and tabs are harmless.
_CONTROL = re.compile(r"(?<!\\)\\(?:u00[01][0-9a-f]|[bf])|[\x7f-\x9f]")
_STATE_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
_MOST_STATE_NUMBERS = 1 << 26  # of one channel in all states: 256 MiB


def _check_brightness(brightness: object, noise_size: int, source: str) -> None:
    try:
        direction = np.array(brightness["direction"], np.float64)  # type: ignore[index]
        scale = float(brightness["db_per_unit"])  # type: ignore[index]
    except (KeyError, OverflowError, TypeError, ValueError):
        direction, scale = np.zeros(0), 0.0
    if direction.shape != (noise_size,) or not abs(np.linalg.norm(direction) - 1) < 1e-3 or not np.isfinite(scale):
        raise ModelError(
            f"{source}: metadata brightness must hold a unit vector 'direction' of {noise_size} numbers and a "
            "number 'db_per_unit'; export the model again"
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and bool(np.isfinite(value)))


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
        The file is missing, damaged, not made by this project, or contradicts itself; or it is a bundled one and
        has another checksum than SHA256SUMS says.
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
        self._made_from = (None if path is None else Path(path).absolute(), device, threads)
        data, self.source = _read(path)
        metadata = check_model(data, self.source)
        if "restorer" not in metadata:
            raise ModelError(f"{self.source}: is an ONNX model, but not one that restorer's export made")
        self.info = ModelInfo.from_json(metadata["restorer"], self.source)
        _check_contract(*_declared(data, self.source), self.info, self.source)  # before states of any size are made
        self.threads = threads or _default_threads()
        self._session = open_session(data, self.source, device, self.threads)
        self.device = device_of(self._session)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.states = _check_contract(inputs, outputs, self.info, self.source)
        self._state_names = [f"state_{i}" for i in range(len(self.states))]
        self._outputs = ["restored", *(f"next_{name}" for name in self._state_names)]
        self._probe()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the file itself: what is sent to it is where the file is."""
        return Model, self._made_from

    def zero_states(self, batch: int) -> States:
        """States of all zeros, each ``(batch, ...)``."""
        return tuple(state.zeros(batch) for state in self.states)

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

    def bind(self, batch: int) -> BoundRun:
        """Start a batch of signals whose states stay on the device: what a stream calls instead of `run`."""
        return BoundRun(self._session, self.states, self.info.noise_size, batch)

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
            raise ModelError(f"{self.source}: does not run: {one_line(error)}") from error
        if restored.shape != frames.shape:
            raise ModelError(f"{self.source}: restored has shape {restored.shape} for frames of {frames.shape}")
        for name, known, state in zip(self._state_names, self.states, states, strict=True):
            if state.shape != (wanted := (batch, *known.shape)):
                raise ModelError(f"{self.source}: next_{name} has shape {state.shape} and must have {wanted}")


def _read(path: str | os.PathLike[str] | None) -> tuple[bytes, str]:
    file = find_model(path)
    data = read_model(file)
    if is_bundled(file):
        check_data(data, file)
    return data, file.name if path is None else str(file)


def _default_threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def _declared(data: bytes, source: str) -> tuple[list[Value], list[Value]]:
    try:
        return declared_values(data)
    except ValueError as error:
        raise ModelError(f"{source}: is no readable ONNX model: {error}") from error


def _check_contract(
    all_inputs: Sequence[Any], all_outputs: Sequence[Any], info: ModelInfo, source: str
) -> tuple[State, ...]:
    """Compare the graph with the contract; give what it says about its states."""
    inputs = {node.name: node for node in all_inputs}
    outputs = {node.name: node for node in all_outputs}
    states = sum(name.startswith("state_") for name in inputs)
    names = [f"state_{i}" for i in range(states)]
    _compare("input", {"frames", *names, *(["z"] if info.noise_size else [])}, set(inputs), source)
    _compare("output", {"restored", *(f"next_{name}" for name in names)}, set(outputs), source)
    for node in [*inputs.values(), *outputs.values()]:
        state = node.name.removeprefix("next_")
        if state in names and node.type in _STATE_TYPES:
            if node.type != inputs[state].type:
                raise ModelError(f"{source}: {node.name} is {node.type} and must be {inputs[state].type} as {state} is")
        elif node.type != "tensor(float)":
            allowed = "float32 or uint8" if state in names else "float32"
            raise ModelError(f"{source}: {node.name} must be {allowed} and not {node.type}")

    expected: list[tuple[Any, list[int | None]]] = [(inputs["frames"], [None, 2, None, info.bins])]
    if info.noise_size:
        expected.append((inputs["z"], [None, info.noise_size]))
    for node, dims in expected:
        if len(node.shape) != len(dims) or any(
            isinstance(got, int) != (want is not None) or (want is not None and got != want)
            for got, want in zip(node.shape, dims, strict=True)
        ):
            wanted = ", ".join("dynamic" if want is None else str(want) for want in dims)
            raise ModelError(f"{source}: {node.name} has shape {shown(node.shape)} and must have ({wanted})")
    found = []
    for name in names:
        batch, *rest = inputs[name].shape or [0]
        if isinstance(batch, int) or not all(isinstance(size, int) for size in rest):
            raise ModelError(
                f"{source}: {name} has shape {shown(inputs[name].shape)} and may be dynamic in batch alone"
            )
        found.append(State(tuple(rest), _STATE_TYPES[inputs[name].type]))
    numbers = sum(math.prod(state.shape) for state in found)
    if numbers > _MOST_STATE_NUMBERS or any(size < 0 for state in found for size in state.shape):
        raise ModelError(
            f"{source}: the states hold {numbers} numbers for a channel and may hold {_MOST_STATE_NUMBERS}; "
            "export the model again"
        )
    return tuple(found)


def _compare(kind: str, wanted: set[str], found: set[str], source: str) -> None:
    if missing := sorted(wanted - found):
        raise ModelError(f"{source}: the graph misses the {kind} {', '.join(missing)}; export the model again")
    if extra := sorted(found - wanted):
        raise ModelError(f"{source}: the graph has an unknown {kind} {_names(extra)}; export the model again")


def _names(names: list[str]) -> str:
    return ", ".join(shown(name).strip("'") for name in names)
