"""One NVIDIA GPU: speed, streams per GPU, and how far from its limits. Run: pytest benchmarks/test_cuda.py -s

Skipped where ONNX Runtime finds no GPU. The paper's model, untrained, comes in where PyTorch can export it. The limits
are measured beside the models: a copy of half a gigabyte, and a large matrix product in float32. A call takes at least
as long as its multiply-adds at the one speed, and as its weights and states at the other.
"""

import collections
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restorer import Restorer
from restorer.benchmark_blocks import looped_music
from restorer.benchmark_graph import count_multiply_adds
from restorer.bundled import bundled_models
from restorer.errors import DeviceError
from restorer.model_file import import_onnxruntime
from restorer.streams import MAX_STREAMS

RATE_HZ = 44100
SECONDS = 60.0
BLOCKS = (512, 2048)  # samples
COUNTS = (1, 8, 64, 256)  # of streams
THREADS = (1, 4, 8, 16)  # for the transforms, on the CPU
HOP = 512
CHECKPOINTS = Path(__file__).parents[1] / "training" / "checkpoints"


@pytest.fixture(scope="module")
def onnxruntime() -> Any:
    if Restorer(device="auto").device != "cuda":
        pytest.skip("no GPU that ONNX Runtime can use")
    return import_onnxruntime()


@pytest.fixture(scope="module", params=["compact", "compact-float32", "paper"])
def file(request: pytest.FixtureRequest, onnxruntime: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "compact":
        return bundled_models()["compact"]
    pytest.importorskip("torch")
    if request.param == "paper":
        from test_paper_model import export_untrained

        return export_untrained(tmp_path_factory.mktemp("paper"))[0]
    from restorer.export.convert import export_checkpoint

    target = tmp_path_factory.mktemp("float") / "compact-float32.onnx"
    export_checkpoint(CHECKPOINTS / "compact.safetensors", target, {})
    return target


@pytest.fixture(scope="module")
def limits(onnxruntime: Any) -> tuple[float, float]:
    """Multiply-adds per second, and bytes per second read and written."""
    size, numbers = 4096, 1 << 27
    product = _on_gpu(onnxruntime, "MatMul", [(size, size), (size, size)])
    copied = _on_gpu(onnxruntime, "Neg", [(numbers,)])
    found = size**3 / _best(product), 2 * 4 * numbers / _best(copied)
    print(f"\nlimits: {found[0] / 1e12:.2f} T multiply-adds/s in float32, {found[1] / 1e9:.0f} GB/s")
    return found


def test_all_nodes_run_on_cuda(onnxruntime: Any, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All but arithmetic on shapes, which ONNX Runtime leaves to the CPU on purpose: that moves int64 alone."""
    made = onnxruntime.SessionOptions

    def profiled() -> Any:
        options = made()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        return options

    monkeypatch.setattr(onnxruntime, "SessionOptions", profiled)
    session = Restorer(file, device="cuda")._model._session  # which has restored a few frames
    places: dict[str, set[str]] = {}
    elsewhere: set[str] = set()
    for event in json.loads(Path(session.end_profiling()).read_text()):
        arguments = event.get("args", {})
        if not (provider := arguments.get("provider")):
            continue
        name = f"{arguments.get('op_name')} {event['name']}"
        places.setdefault(provider, set()).add(name)
        types = {
            kind
            for key in ("input_type_shape", "output_type_shape")
            for value in arguments.get(key, [])
            for kind in value
        }
        if provider != "CUDAExecutionProvider" and types & {"float", "uint8", "int8", "int32"}:
            elsewhere.add(name)
    print(f"\n{file.name}: " + ", ".join(f"{len(names)} nodes on {name}" for name, names in places.items()))
    for provider, names in places.items():
        kinds = collections.Counter(name.split()[0] for name in names)
        print(f"  {provider}: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    assert places and not elsewhere


def test_whole_signal(benchmark: Any, file: Path, limits: tuple[float, float]) -> None:
    """A stereo signal in memory."""
    audio = looped_music(SECONDS, RATE_HZ, 2)
    restorer = Restorer(file, device="cuda")
    benchmark.pedantic(restorer, args=(audio, RATE_HZ), rounds=3, iterations=1, warmup_rounds=1)
    factor = benchmark.stats.stats.min / SECONDS
    frames = 2 * SECONDS * RATE_HZ / HOP
    share = count_multiply_adds(file) * frames / (factor * SECONDS) / limits[0]
    benchmark.extra_info.update(real_time_factor=factor, share_of_arithmetic=share)
    print(f"\n{file.name}, whole: real-time factor {factor:.5f}, {100 * share:.1f} % of the arithmetic limit")


@pytest.mark.parametrize("samples", BLOCKS)
def test_streams_per_gpu(benchmark: Any, file: Path, limits: tuple[float, float], samples: int) -> None:
    """Stereo streams in lock-step: how many one GPU carries in real time, their CPU work included."""
    restorer, work = Restorer(file, device="cuda"), count_multiply_adds(file, 1)
    most = 0.0
    for n in (n for n in COUNTS if n <= MAX_STREAMS):
        try:
            seconds = _block_seconds(restorer, n, samples)
        except DeviceError as error:
            print(f"{n} streams: {error}")
            break
        frames = samples / HOP
        least = max(2 * n * frames * work / limits[0], _bytes_per_call(restorer, file, 2 * n) / limits[1])
        factor = seconds * RATE_HZ / samples
        most = max(most, n / factor)
        print(
            f"\n{file.name}, {n} streams in blocks of {samples}: {1000 * seconds:.2f} ms a block, real-time factor "
            f"{factor / n:.5f} each, at most {n / factor:.0f} in real time; the limits allow {1000 * least:.3f} ms"
        )
        benchmark.extra_info[f"{n} streams"] = {"block_seconds": seconds, "least_seconds": least}
    benchmark.extra_info["streams_per_gpu"] = math.floor(most)
    benchmark.pedantic(_block_seconds, args=(restorer, 1, samples), rounds=1, iterations=1)
    assert most >= 1


@pytest.mark.parametrize("samples", BLOCKS)
@pytest.mark.parametrize("threads", THREADS)
def test_transforms_by_threads(benchmark: Any, onnxruntime: Any, threads: int, samples: int) -> None:
    """`compact`: how many streams one process carries when threads share out the transforms."""
    restorer = Restorer(device="cuda", threads=threads)
    for n in COUNTS[-2:]:
        seconds = _block_seconds(restorer, n, samples)
        factor = seconds * RATE_HZ / samples
        print(
            f"\n{threads} threads, {n} streams in blocks of {samples}: {1000 * seconds:.2f} ms a block, "
            f"at most {n / factor:.0f} in real time"
        )
        benchmark.extra_info[f"{n} streams"] = {"block_seconds": seconds}
    benchmark.pedantic(_block_seconds, args=(restorer, 1, samples), rounds=1, iterations=1)


def _block_seconds(restorer: Restorer, n: int, samples: int, blocks: int = 60) -> float:
    """Seconds that a block of n streams takes in the mean, once memory is planned."""
    audio = looped_music((blocks + 10) * samples / RATE_HZ, RATE_HZ, 2)
    streams = restorer.streams(n)
    started = 0.0
    for index in range(blocks + 10):
        if index == 10:
            started = time.perf_counter()
        streams.process([audio[:, index * samples : (index + 1) * samples]] * n)
    return (time.perf_counter() - started) / blocks


def _bytes_per_call(restorer: Restorer, file: Path, batch: int) -> float:
    """What a call must move at least: the weights as the file has them, and every state in and out."""
    return file.stat().st_size + 2 * sum(state.nbytes for state in restorer._model.zero_states(batch))


def _on_gpu(onnxruntime: Any, kind: str, shapes: list[tuple[int, ...]]) -> Callable[[], None]:
    """A call of one operator whose inputs and output lie on the GPU."""
    from onnx import TensorProto, helper

    names = [f"input_{index}" for index in range(len(shapes))]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in zip(names, shapes, strict=True)
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, shapes[0])
    graph = helper.make_graph([helper.make_node(kind, names, ["output"])], kind, inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    providers = [("CUDAExecutionProvider", {"use_tf32": "0"})]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    binding = session.io_binding()
    for name, shape in zip(names, shapes, strict=True):
        values = np.random.default_rng(0).standard_normal(shape, np.float32)
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(values, "cuda", 0))
    result = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shapes[0], np.float32), "cuda", 0)
    binding.bind_ortvalue_output("output", result)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


def _best(call: Callable[[], None]) -> float:
    """Seconds of the fastest of ten calls, after one that does not count."""
    call()
    times = []
    for _ in range(10):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
