"""How fast a model restores on this machine: offline, streaming, loading, memory, and beside PyTorch.

Every function measures one thing; `run` measures all of them in less than two minutes, shortening what a
slow machine or a large model would need more time for.
"""

import dataclasses
import functools
import importlib
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from restorer import __version__
from restorer.audio_in import read_audio
from restorer.audio_out import AudioWriter
from restorer.benchmark_blocks import BLOCKS_SAMPLES, RATES_HZ, looped_music, measure_blocks, measure_latency, music
from restorer.benchmark_graph import count_multiply_adds, count_parameters
from restorer.benchmark_machine import available_cores, describe_machine, matrix_product_peak, one_core, run_python
from restorer.bundled import find_model
from restorer.errors import RestorerError
from restorer.info_command import split_latency
from restorer.model_file import Model, ModelInfo
from restorer.restorer import Restorer

RATE_HZ = 44100
_FRAMES_PER_CALL = (1, 16)  # what small blocks of a stream give the generator, and what files give it on one core
_COMPARED_BLOCK_SAMPLES, _COMPARED_FRAMES = 512, (1, 2, 4)  # streams whose frames wait for each other, or do not

_LOAD = """
import time
start = time.perf_counter()
import json, sys
import numpy as np
from restorer import Restorer
stream = Restorer(sys.argv[1], device="cpu", threads=1).stream(channels=2)
stream.process(np.zeros((2, 512), np.float32))
print(json.dumps(time.perf_counter() - start))
"""
# The peak of a fresh process: getrusage would count the process that started it, too.
_MEMORY = """
import json, sys
from pathlib import Path
from restorer import Restorer
report = Restorer(sys.argv[1], device="cpu").restore_file(sys.argv[2], sys.argv[3], overwrite=True)
peak, status = report.peak_memory_bytes, Path("/proc/self/status")
for line in status.read_text().splitlines() if status.is_file() else []:
    if line.startswith("VmHWM:"):
        peak = 1024 * int(line.split()[1])
print(json.dumps([peak, report.real_time_factor]))
"""


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds of audio, and seconds of time after which a measurement ends."""

    offline_seconds: float = 10.0
    offline_limit_seconds: float = 5.0
    rounds: int = 5
    stream_seconds: float = 4.0
    stream_limit_seconds: float = 2.0
    loads: int = 3
    memory_seconds: float = 60.0
    memory_limit_seconds: float = 15.0
    peak_seconds: float = 1.0
    runtime_limit_seconds: float = 1.5


FULL = Effort()
QUICK = Effort(2.0, 0.5, 1, 0.5, 0.2, 1, 5.0, 2.0, 0.2, 0.2)


def run(
    models: list[Path | None], effort: Effort = FULL, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measure everything for every model (None is the bundled one); the result is ready for JSON.

    `say` gets a line before each step.
    """
    for path in models:  # all that can be wrong with them shows before the slow work
        Model(path, "cpu", 1)
    say("matrix product")
    machine = describe_machine()
    before = matrix_product_peak(effort.peak_seconds)
    measured = [measure_model(path, effort, say) for path in models]
    peak = max(before, matrix_product_peak(effort.peak_seconds)) / 1e9
    machine["peak_giga_multiply_adds_per_second"] = round(peak, 2)
    for model in measured:
        model["share_of_peak"] = round(model["giga_multiply_adds_per_second"] / peak, 3)
    return {"restorer": __version__, "machine": machine, "models": measured}


def measure_model(path: Path | None, effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything about one model that does not need the machine's peak."""
    file = find_model(path)
    with one_core():
        one = Restorer(file, device="cpu", threads=1)
        probe = looped_music(1.0, RATE_HZ, 2)
        one(probe, RATE_HZ)
        started = time.perf_counter()
        one(probe, RATE_HZ)
        factor = time.perf_counter() - started
    info = one.model_info
    seconds = min(effort.offline_seconds, max(1.0, effort.offline_limit_seconds / effort.rounds / factor))

    say(f"{info.name}: whole signals and a file")
    offline = []
    for threads in thread_counts():
        offline.append(measure_array(file, "cpu", threads, seconds, effort.rounds))
    offline.append(measure_file(file, seconds, effort.rounds))
    offline += measure_codec(seconds, effort.rounds)
    if Restorer(file, device="auto").device == "cuda":
        offline.append(measure_array(file, "cuda", None, seconds, effort.rounds))

    streaming = []
    for rate_hz in RATES_HZ:
        for channels in (1, 2):
            say(f"{info.name}: streams at {rate_hz} Hz, {'stereo' if channels == 2 else 'mono'}")
            cases = [(block, info.frames_per_call) for block in BLOCKS_SAMPLES]
            if (rate_hz, channels) == (RATE_HZ, 2):
                cases += [(_COMPARED_BLOCK_SAMPLES, n) for n in _COMPARED_FRAMES if n != info.frames_per_call]
            for block, frames in cases:
                with one_core():
                    times = measure_blocks(
                        one, rate_hz, channels, block, effort.stream_seconds, effort.stream_limit_seconds, frames
                    )
                streaming.append(dataclasses.asdict(times))

    say(f"{info.name}: loading, memory, runtimes")
    latency = split_latency(info)
    memory_seconds = min(effort.memory_seconds, max(2.0, effort.memory_limit_seconds / factor))
    runtimes = measure_runtimes(file, effort.runtime_limit_seconds)
    work = count_multiply_adds(file)
    reached = max(work / r["seconds_per_frame"] for r in runtimes if r["runtime"] == "ONNX Runtime") / 1e9
    return {
        "name": info.name,
        "version": info.version,
        "file": file.name,
        "size_bytes": file.stat().st_size,
        "parameters": count_parameters(file),
        "frames_per_call": info.frames_per_call,
        "latency": latency,
        "measured_latency_ms": {str(rate): round(1000 * measure_latency(one, rate), 2) for rate in RATES_HZ},
        "offline": offline,
        "streaming": streaming,
        "load_seconds": round(measure_load(file, effort.loads), 3),
        "memory": [measure_memory(file, memory_seconds / 60)],
        "runtimes": runtimes,
        "multiply_adds_per_frame": round(work),
        "giga_multiply_adds_per_second": round(reached, 2),
    }


def thread_counts() -> list[int]:
    """1, 2, 4 ... and the number of cores, at most 8 as in `Restorer`."""
    most = min(8, available_cores())
    return sorted({most, *(1 << k for k in range(most.bit_length()) if 1 << k <= most)})


def measure_array(file: Path, device: str, threads: int | None, seconds: float, rounds: int) -> dict[str, Any]:
    """Real-time factor of a stereo signal in memory, the best of some rounds; one thread stays on one core."""
    audio = looped_music(seconds, RATE_HZ, 2)

    def measure() -> float:
        restorer = Restorer(file, device=device, threads=threads)
        restorer(audio[:, :RATE_HZ], RATE_HZ)
        return _best(lambda: restorer(audio, RATE_HZ), rounds) / seconds

    if threads == 1:
        with one_core():
            factor = measure()
    else:
        factor = measure()
    return {"what": "array", "device": device, "threads": threads, "real_time_factor": round(factor, 4)}


def measure_file(file: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Real-time factor of `restore_file` from a stereo MP3 to FLAC, decoding and encoding included, on one core."""
    with tempfile.TemporaryDirectory() as folder, one_core():
        source, target = _write_mp3(Path(folder), seconds), Path(folder) / "restored.flac"
        restorer = Restorer(file, device="cpu", threads=1)
        factor = _best(lambda: restorer.restore_file(source, target, overwrite=True), rounds) / seconds
    return {"what": "MP3 to FLAC", "device": "cpu", "threads": 1, "real_time_factor": round(factor, 4)}


def measure_codec(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """What decoding a stereo MP3 and encoding FLAC alone take of `measure_file`, as real-time factors on one core."""
    audio = looped_music(seconds, RATE_HZ, 2)
    with tempfile.TemporaryDirectory() as folder, one_core():
        source, target = _write_mp3(Path(folder), seconds), Path(folder) / "song.flac"

        def encode() -> None:
            with AudioWriter(target, 2, RATE_HZ, overwrite=True) as writer:
                writer.write(audio)

        times = {
            "decoding MP3": _best(lambda: read_audio(source, RATE_HZ), rounds),
            "encoding FLAC": _best(encode, rounds),
        }
    return [
        {"what": what, "device": "cpu", "threads": 1, "real_time_factor": round(taken / seconds, 4)}
        for what, taken in times.items()
    ]


def _write_mp3(folder: Path, seconds: float) -> Path:
    file = folder / "song.mp3"
    soundfile.write(file, looped_music(seconds, RATE_HZ, 2).T, RATE_HZ, format="MP3", bitrate_mode="CONSTANT")
    return file


def measure_load(file: Path, rounds: int) -> float:
    """Seconds from `import restorer` to a stream's first block, in a fresh Python: the middle of some rounds.

    The start of Python itself does not count.
    """
    return float(np.median([run_python(_LOAD, str(file.resolve())) for _ in range(rounds)]))


def measure_memory(file: Path, minutes: float, rate_hz: int = RATE_HZ) -> dict[str, Any]:
    """Peak resident memory of a fresh process that restores a stereo WAV of some minutes to FLAC, and its speed."""
    piece = music(rate_hz, 2).T
    samples = left = round(60 * minutes * rate_hz)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "song.wav", Path(folder) / "restored.flac"
        with soundfile.SoundFile(source, "w", rate_hz, 2, "PCM_16") as song:
            while left > 0:
                song.write(piece[:left])
                left -= len(piece)
        peak, factor = run_python(_MEMORY, str(file.resolve()), str(source), str(target))
        restored = soundfile.info(target)
    if restored.frames != round(samples * restored.samplerate / rate_hz):
        raise RestorerError(f"{minutes:g} minutes came back as {restored.duration / 60:g}; please report this bug")
    return {
        "minutes": round(minutes, 3),
        "peak_mb": round(peak / 1e6, 1) if peak else None,
        "real_time_factor": round(factor, 4),
    }


def measure_runtimes(file: Path, limit_seconds: float) -> list[dict[str, Any]]:
    """The generator alone in ONNX Runtime and, where it is installed, in PyTorch eager: stereo, one thread, one core.

    `seconds_per_frame` is per frame and channel; the real-time factor is that of stereo.
    """
    with one_core():
        model = Model(file, "cpu", 1)
        rows = [
            _runtime_row("ONNX Runtime", model.info, frames, _onnx_call(model, frames), limit_seconds)
            for frames in _FRAMES_PER_CALL
        ]
        return rows + _measure_torch(model, limit_seconds)


def _measure_torch(model: Model, limit_seconds: float) -> list[dict[str, Any]]:
    """The generator that the model's config describes, with new weights: speed does not depend on them.

    torch is found by name, since nothing that runs a model needs it; without it, or for a model that was not
    trained here, the list is empty.
    """
    try:
        torch = importlib.import_module("torch")
        config = importlib.import_module("restorer.training.config")
        build = importlib.import_module("restorer.training.models").build_generator
        settings = config.from_dict(config.Config, dict(model.info.config), model.source)
    except (ImportError, RestorerError):
        return []
    generator = build(settings.generator).eval()
    states = [torch.zeros(2, *shape) for shape in generator.state_shapes]
    rows = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for frames in _FRAMES_PER_CALL:
            spectrum, noise = (torch.from_numpy(values) for values in _inputs(model, frames))
            arguments = (spectrum, noise if model.info.noise_size else None, *states)
            with torch.inference_mode():
                call = functools.partial(generator, *arguments)
                rows.append(_runtime_row("PyTorch eager", model.info, frames, call, limit_seconds))
    finally:
        torch.set_num_threads(threads)
    return rows


def _runtime_row(name: str, info: ModelInfo, frames: int, call: Callable[[], object], limit: float) -> dict[str, Any]:
    call()
    times: list[float] = []
    end = time.perf_counter() + limit
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    middle = float(np.median(times))
    return {
        "runtime": name,
        "frames_per_call": frames,
        "seconds_per_frame": middle / frames / 2,
        "real_time_factor": round(middle / frames / (info.hop_samples / info.sample_rate), 4),
    }


def _inputs(model: Model, frames: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    spectrum = 2 * random.standard_normal((2, 2, frames, model.info.bins))
    return spectrum.astype(np.float32), random.standard_normal((2, model.info.noise_size)).astype(np.float32)


def _onnx_call(model: Model, frames: int) -> Callable[[], object]:
    spectrum, noise = _inputs(model, frames)
    states = model.zero_states(2)
    return lambda: model.run(spectrum, noise, states)


def _best(call: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of some calls: the one that the rest of the machine disturbed least."""
    best = math.inf
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
