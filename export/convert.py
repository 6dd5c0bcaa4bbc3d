"""Checkpoint -> streaming ONNX: the core graph with every state as a named input and output.

The file carries the float32 weights of the checkpoint, arranged anew, or large layers of them in 8 bits, and one
JSON document of metadata, which is all that `restorer` reads about a model.
"""

import copy
import itertools
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from restorer.errors import ConfigError, ModelError
from restorer.export import integers
from restorer.export.arrange import ArrangedGenerator, balance, level
from restorer.export.brightness import synthesised_excerpts
from restorer.export.optimise import simplify
from restorer.model_checks import check_model, read_model
from restorer.model_file import ModelInfo
from restorer.training import checkpoint
from restorer.training.config import Config
from restorer.training.generator import Generator, without
from restorer.transform import Analysis
from restorer.whole_file import whole_file

FORMAT_VERSION = 1
WINDOW, HOP, SAMPLE_RATE = 2048, 512, 44100
OPSET = 18
CHORD_HZ = 6000  # where the chord of the checks ends, so that nearly all is missing and a restraint lets changes pass
TOLERANCE = 1e-4  # of full scale
QUANTISED_TOLERANCE = 2e-3  # the same for 8 bits, on a chord that lacks nothing: -54 dB
INVENTED_TOLERANCE = 1e-2  # and on the other: what is rounded there is most of what comes out
_MEASURED, _MEASURED_SECONDS, _SEED = 20, 3.0, 7  # excerpts that ranges of activations are measured on
WEIGHTS = ("float32", "int8")


class Core(nn.Module):
    """The generator as a pure function of frames, noise and states, in the order of the graph's inputs."""

    def __init__(self, generator: Generator, small_in_8_bits: bool = False):
        super().__init__()
        arranged = type(generator) is Generator
        self.generator = ArrangedGenerator(generator, small_in_8_bits) if arranged else generator

    def forward(self, frames: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        if self.generator.config.noise_size:
            return self.generator(frames, rest[0], *rest[1:])
        return self.generator(frames, None, *rest)


def silent_states(generator: Generator | ArrangedGenerator, batch: int) -> list[Tensor]:
    return [torch.zeros(batch, *shape) for shape in generator.state_shapes]


def build_graph(generator: Generator, small_in_8_bits: bool = False) -> onnx.ModelProto:
    """Trace the generator to ONNX with dynamic batch and number of frames, and check the graph.

    It is arranged for smaller layers in 8 bits, too, if it is said.
    """
    noise = generator.config.noise_size
    core = Core(generator.to(memory_format=torch.contiguous_format), small_in_8_bits).eval()
    count = len(core.generator.state_shapes)
    inputs = [torch.randn(2, 2, 5, WINDOW // 2 + 1)]
    names, outputs = ["frames"], ["restored"]
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    shapes: list[dict[int, Any]] = [{0: batch, 2: time}]
    if noise:
        inputs.append(torch.randn(2, noise))
        names.append("z")
        shapes.append({0: batch})
    inputs += silent_states(core.generator, 2)
    names += [f"state_{index}" for index in range(count)]
    outputs += [f"next_state_{index}" for index in range(count)]
    shapes += [{0: batch}] * count
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            core,
            tuple(inputs),
            dynamo=True,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=(shapes[0], tuple(shapes[1:])),
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:  # source file names and stack traces are of no use to users
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(simplify(model), strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the exported graph is invalid: {str(error).splitlines()[0]}") from error


def describe(generator: Generator, config: Any, card: dict[str, Any]) -> dict[str, Any]:
    """Everything that a host must know about the model."""
    lookahead = generator.config.lookahead_frames
    return {
        "format_version": FORMAT_VERSION,
        "name": config.name,
        "version": "1",
        "sample_rate": SAMPLE_RATE,
        "window_samples": WINDOW,
        "hop_samples": HOP,
        "lookahead_frames": lookahead,
        "latency_samples": WINDOW - 1 + lookahead * HOP,
        "warmup_frames": generator.context_frames,
        "memory_frames": generator.memory_frames,
        "noise_size": generator.config.noise_size,
        "trained_kbps": sorted({int(name[:-1]) for name in config.data.codings}),
        "training_data": [],
        "licence": "",
        "metrics": {},
        **card,
        "config": config.to_dict(),
    }


def redescribe(source: Path, target: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Write the exported model `source` to `target` with other metadata; the two may be one file.

    Returns
    -------
    All of the metadata.

    Raises
    ------
    ModelError
        `source` is no model of restorer, or would be none with the changes.
    """
    data = read_model(source)
    check_model(data, str(source))  # before onnx, which follows a path in it to other files
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelError(f"{source}: is no readable ONNX model: {str(error).splitlines()[0]}") from error
    entries = [entry for entry in model.metadata_props if entry.key == "restorer"]
    if not entries:
        raise ModelError(f"{source}: is an ONNX model, but not one that restorer's export made")
    description: dict[str, Any] = {**json.loads(entries[0].value), **changes}
    entries[0].value = json.dumps(description)
    ModelInfo.from_json(entries[0].value, str(source))
    with whole_file(target) as partial:
        partial.write_bytes(model.SerializeToString())
    return description


def parity(generator: Generator, path: Path, ends_hz: float, seconds: float = 1.5) -> float:
    """Run PyTorch without states, and ONNX Runtime in one call and frame by frame, on the same noisy chord.

    Parameters
    ----------
    ends_hz
        Where the chord ends.

    Returns
    -------
    The largest difference between any two of the three, in audio samples of full scale 1.
    """
    import onnxruntime

    from restorer.training.signal import analyse, synthesise

    generator = generator.to(memory_format=torch.contiguous_format)
    rng = np.random.default_rng(1)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * 220 * k * time[None] + rng.uniform(0, 6, (2, 1))) / k for k in range(1, 20))
    spectrum = np.fft.rfft(0.15 * chord + 0.02 * rng.standard_normal((2, len(time))))
    spectrum[:, int(ends_hz * seconds) :] = 0
    audio = np.fft.irfft(spectrum, len(time)).astype(np.float32)
    frames = analyse(torch.from_numpy(audio))
    silence = torch.zeros(2, 2, generator.context_frames, WINDOW // 2 + 1)
    after = torch.zeros(2, 2, generator.config.lookahead_frames, WINDOW // 2 + 1)
    whole = torch.cat([silence, frames, after], dim=2)
    noise = torch.randn(1, generator.config.noise_size, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    with torch.no_grad():
        (expected, *_) = generator(whole, noise if generator.config.noise_size else None)

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fixed = {"z": noise.numpy()} if generator.config.noise_size else {}

    def stream(step: int) -> np.ndarray:
        states = {
            node.name: np.zeros((2, *node.shape[1:]), np.uint8 if node.type == "tensor(uint8)" else np.float32)
            for node in session.get_inputs()
            if node.name.startswith("state_")
        }
        pieces = []
        for start in range(0, whole.shape[2], step):
            piece = whole[:, :, start : start + step].numpy()
            restored, *states_out = session.run(None, {"frames": piece, **fixed, **states})
            states = {f"state_{i}": s for i, s in enumerate(states_out)}
            pieces.append(restored)
        return np.concatenate(pieces, axis=2)[:, :, generator.context_frames :]

    sounds = [synthesise(torch.as_tensor(x)).numpy() for x in (expected, stream(whole.shape[2]), stream(1))]
    return max(float(np.abs(sounds[i] - sounds[j]).max()) for i, j in ((0, 1), (0, 2), (1, 2)))


def without_noise(generator: Generator, config: Config) -> tuple[Generator, Config]:
    """The same generator with z at 0, its mean, and the config that says so; it is named "deterministic".

    Raises
    ------
    ConfigError
        It is of another kind than `compact`, or has no noise.
    """
    if type(generator) is not Generator or not generator.config.noise_size:
        raise ConfigError("--deterministic is for generators of the kind compact that have noise")
    fixed = without(generator, "noise_size")
    return fixed, replace(config, name="deterministic", generator=fixed.config)


def export_checkpoint(
    source: Path, target: Path, card: dict[str, Any], weights: str = "float32", deterministic: bool = False
) -> dict[str, Any]:
    """Write `target` from the checkpoint `source`; nothing is left behind unless every check passes.

    Parameters
    ----------
    weights
        "float32", or "int8" for large matrix products and convolutions: a smaller file that needs half the time.
        See `integers`; needs lameenc.
    deterministic
        See `without_noise`.

    Raises
    ------
    ModelError
        The checkpoint is unusable, or PyTorch and ONNX differ by more than 1e-4 of full scale (in 8 bits 2e-3, or 1e-2
        where most is invented).
    ConfigError
        `weights` is something else, lameenc is missing, or there is no noise to leave out.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"weights must be one of {', '.join(WEIGHTS)} and not {weights!r}")
    generator, config, extra = checkpoint.load_generator(source)
    if deterministic:
        generator, config = without_noise(generator, config)
    description = describe(
        generator,
        config,
        {"training_seconds": extra.get("seconds"), "training_steps": extra.get("step"), "weights": weights, **card},
    )
    with whole_file(target) as partial:
        write = _write_floats if weights == "float32" else _write_integers
        difference = write(generator, json.dumps(description), partial)
    return {
        "difference": difference,
        "parameters": sum(p.numel() for p in generator.parameters()),
        **description,
    }


def _write_floats(generator: Generator, description: str, path: Path) -> float:
    """Write the generator as it is and return its difference from PyTorch."""
    return _write_checked(_describe_graph(generator, description), path, generator, {CHORD_HZ: TOLERANCE})


def _write_integers(generator: Generator, description: str, path: Path) -> float:
    """Write it in 8 bits and return its difference from PyTorch: smaller layers too where that passes the checks."""
    try:
        return _write_rounded(generator, description, path, small=True)
    except ModelError:
        return _write_rounded(generator, description, path, small=False)


def _write_rounded(generator: Generator, description: str, path: Path, small: bool) -> float:
    """Write it with `integers.SMALLEST` layers in 8 bits, or with the `integers.LARGE` ones alone."""
    smallest = integers.SMALLEST if small else integers.LARGE
    arranged = copy.deepcopy(generator)
    if isinstance(arranged, Generator):
        if small:  # among which are those that read the front's maps
            level(arranged, _coded_music())
        if arranged.config.aggregation_rank:
            balance(arranged, _coded_music())
    model = _describe_graph(arranged, description, small)
    _write_checked(model, path, generator, {CHORD_HZ: TOLERANCE})
    if integers.large_layers(model, smallest):
        ranges = integers.measure_ranges(model, _coded_music(), generator.config.noise_size, smallest)
        model = integers.quantise(model, ranges, smallest)
    tolerances = {CHORD_HZ: INVENTED_TOLERANCE, SAMPLE_RATE / 2: QUANTISED_TOLERANCE}
    return _write_checked(model, path, generator, tolerances)


def _describe_graph(generator: Generator, description: str, small_in_8_bits: bool = False) -> onnx.ModelProto:
    """The generator's graph with its description, JSON, in it."""
    model = build_graph(generator, small_in_8_bits)
    model.producer_name = "restorer"
    model.metadata_props.append(onnx.StringStringEntryProto(key="restorer", value=description))
    return model


@cache
def _coded_music() -> tuple[NDArray[np.float32], ...]:
    """Frames of music made by code at every bitrate, each (1, 2, frames, bins): 40 MB that take seconds to make."""
    excerpts = itertools.islice(synthesised_excerpts(round(_MEASURED_SECONDS * SAMPLE_RATE), _SEED), _MEASURED)
    return tuple(Analysis(1, WINDOW, HOP)(excerpt[None]) for excerpt in excerpts)


def _write_checked(
    model: onnx.ModelProto, path: Path, generator: Generator, tolerances: Mapping[float, float]
) -> float:
    """Write it, check it on chords that end at each of some frequencies, and return the last difference."""
    path.write_bytes(model.SerializeToString())
    for ends_hz, tolerance in tolerances.items():
        difference = parity(generator, path, ends_hz)
        if not difference <= tolerance:
            raise ModelError(
                f"ONNX differs from PyTorch by {difference:.2e} of full scale on a chord up to {ends_hz:g} Hz; "
                f"at most {tolerance} is allowed"
            )
    return difference
