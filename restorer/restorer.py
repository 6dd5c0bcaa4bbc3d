"""`Restorer`: arrays, files and streams through one model. Offline, a `Stream` is fed in large blocks."""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import AudioReader, resampled_length
from restorer.audio_out import AudioWriter, check_target
from restorer.brightness import check_brightness, place_noise
from restorer.errors import ConfigError, RestorerError
from restorer.model_file import Model, ModelInfo, import_onnxruntime
from restorer.noise import check_seed
from restorer.stream import Stream, check_audio, check_format, check_mix
from restorer.streams import Streams
from restorer.transform import Float32

import_onnxruntime()  # whoever imports this module needs it; say so now and not in the middle of the work

_BLOCK_SAMPLES = 1 << 17
_MAX_CANDIDATES = 64
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RestoreReport:
    """What `restore_file` did.

    `samples` per channel and `seconds` are those of the output; `real_time_factor` is elapsed_seconds /
    seconds, decoding and encoding included. `peak_memory_bytes` is the largest the process has ever been
    (None where the system does not tell). `clipped_samples` had to be limited to full scale in the file.
    """

    target: Path
    samples: int
    seconds: float
    elapsed_seconds: float
    real_time_factor: float
    clipped_samples: int
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]


class Restorer:
    """Restores compressed music with one model, which is loaded once and shared by all streams and threads.

    Parameters
    ----------
    model
        Path of an ONNX model; None takes the bundled one.
    device
        "cpu", "cuda", or "auto": CUDA where it works, else the CPU.
    threads
        CPU threads per call; None takes one per available core, at most 8.

    Raises
    ------
    ModelError, DeviceError, ConfigError
        The model, the device or the number of threads cannot be used; the message says which and why.
    """

    def __init__(
        self, model: str | os.PathLike[str] | None = None, device: str = "auto", threads: int | None = None
    ) -> None:
        self._model = Model(model, device, threads)
        self._file = None if model is None else Path(model).absolute()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        revision: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> "Restorer":
        """A restorer with a model from a folder, a file, or a hub that speaks Hugging Face's HTTP.

        What was fetched once loads without a network. Only ONNX is loaded, never a pickle.

        Parameters
        ----------
        name
            An ONNX file, a folder that holds one, or "owner/name" on the hub (HF_ENDPOINT).
        revision
            Branch, tag or commit on the hub; None is its main branch.
        device, threads
            As for `Restorer`.

        Raises
        ------
        ModelError
            There is no such model, it holds no ONNX, is damaged, or cannot be reached.
        ConfigError
            huggingface_hub is not installed (``pip install "restorer[hub]"``), or as for `Restorer`.
        """
        from restorer.hub import find_model

        return cls(find_model(name, revision), device, threads)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write model.onnx, its card README.md and CREDITS.md into a folder, for `from_pretrained` or to share.

        Returns
        -------
        The path of model.onnx.

        Raises
        ------
        ModelError
            The folder cannot be written, or the model's file has changed since it was loaded.
        """
        from restorer.model_card import save_model

        return save_model(self.model_info, self._file, Path(folder))

    @property
    def model_info(self) -> ModelInfo:
        """What the model file says about itself."""
        return self._model.info

    @property
    def sample_rate(self) -> int:
        """Sample rate of everything that comes out, in Hz."""
        return self._model.info.sample_rate

    @property
    def latency_samples(self) -> int:
        """Samples by which a stream's output runs behind its input, at `sample_rate`."""
        return self._model.info.latency_samples

    @property
    def device(self) -> str:
        """Where the model really runs: "cpu" or "cuda"."""
        return self._model.device

    def __call__(
        self,
        audio: NDArray[np.floating[Any]],
        sample_rate: int,
        seed: int = 0,
        mix: float = 1.0,
        brightness: str | float | None = None,
    ) -> Float32:
        """Restore a whole signal.

        Parameters
        ----------
        audio
            float32 or float64, ``(channels, samples)`` or ``(samples,)``, in [-1, 1]; 1 to 8 channels.
        sample_rate
            Of `audio`, 8000 to 192000 Hz.
        seed
            Integer from 0; the same seed gives the same sound.
        mix
            0 is the input, 1 the restoration.
        brightness
            "dark", "neutral", "bright", or a number from -4 (dark) to 4 (bright) that counts standard
            deviations of random takes; None leaves it to the seed. See `restorer.brightness`.

        Returns
        -------
        float32 array of the same number of axes and the same duration at `Restorer.sample_rate`. Its peaks
        may pass 1.0: limit them before writing integers.

        Raises
        ------
        RestorerError
            Something about the arguments is impossible, or the audio holds NaN or infinity.
        """
        audio = self._check_whole(audio, sample_rate)
        restored = self._restore(audio, sample_rate, [check_seed(seed)], mix, brightness)[0]
        return restored[0] if audio.ndim == 1 else restored

    def candidates(
        self,
        audio: NDArray[np.floating[Any]],
        sample_rate: int,
        n: int = 5,
        seed: int = 0,
        mix: float = 1.0,
        brightness: str | float | None = None,
    ) -> Float32:
        """Several plausible originals of one signal, computed in one batch.

        Candidate i is the restoration with seed + i; arguments and errors are those of `__call__`.

        Returns
        -------
        float32 array ``(n, channels, samples)``, or ``(n, samples)`` for audio of one axis.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= _MAX_CANDIDATES:
            raise ConfigError(f"n must be an integer from 1 to {_MAX_CANDIDATES} and not {n!r}")
        audio = self._check_whole(audio, sample_rate)
        first = check_seed(seed)
        takes = self._restore(audio, sample_rate, range(first, first + int(n)), mix, brightness)
        return np.ascontiguousarray(takes[:, 0]) if audio.ndim == 1 else takes

    def stream(
        self,
        channels: int = 2,
        sample_rate: int = 44100,
        seed: int = 0,
        mix: float = 1.0,
        brightness: str | float | None = None,
    ) -> Stream:
        """Start a stream: `process` blocks of any length, then `flush`."""
        return Stream(self._model, channels, sample_rate, check_seed(seed), mix, brightness)

    def streams(
        self,
        n: int,
        channels: int = 2,
        sample_rate: int = 44100,
        seeds: int | Sequence[int] = 0,
        brightness: str | float | None = None,
    ) -> Streams:
        """Start n streams that advance together, in one batched call: for servers.

        ``process(blocks)`` takes one block of each, all of one length, and gives a list, as ``flush()`` does. Each
        signal comes out as from its own `stream` with its seed (`seeds`: one for each, or one for all).
        """
        return Streams(self._model, n, channels, sample_rate, seeds, brightness)

    def restore_file(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        seed: int = 0,
        mix: float = 1.0,
        overwrite: bool = False,
        subtype: str | None = None,
        progress: Progress | None = None,
        brightness: str | float | None = None,
    ) -> RestoreReport:
        """Restore an audio file of any length in bounded memory; tags and cover go along.

        Parameters
        ----------
        source, target
            The input is never touched. The output appears under its name only when it is complete.
        seed, mix, brightness
            As for `__call__`.
        overwrite
            Replace `target` if it exists.
        subtype
            "16", "24", "float", or a name as soundfile has it; None takes 24 bits where there is a choice.
        progress
            Called as ``progress(samples done, samples in all)``, both at the model's rate; the sum may be
            an estimate.

        Raises
        ------
        AudioFileError
            A file cannot be read or written, or `target` exists.
        ConfigError
            `seed`, `mix` or `brightness` is impossible, or the model carries no brightness direction.
        """
        seed, mix, brightness = check_seed(seed), check_mix(mix), self.check_brightness(brightness)
        check_target(source, target, overwrite, subtype)
        started = time.perf_counter()
        with AudioReader(source, self.sample_rate) as reader:
            stream = self.stream(reader.channels, self.sample_rate, seed, mix, brightness)
            with AudioWriter(
                target,
                reader.channels,
                self.sample_rate,
                subtype=subtype,
                overwrite=overwrite,
                tags_from=source,
            ) as writer:
                read = written = 0
                for block in reader.blocks(_BLOCK_SAMPLES):
                    read += block.shape[1]
                    written += _write(writer, stream.process(block))
                    if progress:
                        progress(min(written, reader.samples), max(reader.samples, read))
                written += _write(writer, stream.flush())
                if progress:
                    progress(written, written)
        warnings = [*reader.warnings, *writer.warnings]
        if stream.replaced_samples:
            warnings.append(f"{source}: {stream.replaced_samples} impossible samples were replaced by silence")
        elapsed = time.perf_counter() - started
        seconds = written / self.sample_rate
        _log.info("%s: %.1f s restored in %.1f s", target, seconds, elapsed)
        return RestoreReport(
            target=Path(target),
            samples=written,
            seconds=seconds,
            elapsed_seconds=elapsed,
            real_time_factor=elapsed / seconds if seconds else 0.0,
            clipped_samples=writer.clipped_samples,
            peak_memory_bytes=peak_memory_bytes(),
            warnings=tuple(warnings),
        )

    def check_brightness(self, brightness: str | float | None) -> float | None:
        """The number that a brightness stands for, if this model can do it.

        Raises
        ------
        ConfigError
            It is out of range, or the model has no noise or carries no brightness direction.
        """
        value, info = check_brightness(brightness), self._model.info
        place_noise(np.zeros((0, info.noise_size), np.float32), value, info.brightness, self._model.source)
        return value

    def _check_whole(self, audio: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[Any]:
        audio = check_audio(audio)
        channels = 1 if audio.ndim == 1 else audio.shape[0]
        if audio.ndim == 2 and channels > 8 >= audio.shape[1]:
            raise RestorerError(f"audio must have shape (channels, samples) and not {audio.shape}; pass audio.T")
        check_format(channels, sample_rate)
        bad = audio.size - int(np.count_nonzero(np.isfinite(audio)))
        if bad:
            raise RestorerError(
                f"audio holds {bad} samples that are NaN or infinite; replace them first (numpy.nan_to_num)"
            )
        return audio

    def _restore(
        self,
        audio: NDArray[Any],
        sample_rate: int,
        seeds: list[int] | range,
        mix: float,
        brightness: str | float | None,
    ) -> Float32:
        """Feed a stream block by block into one array, ``(seeds, channels, samples)``."""
        audio = audio.reshape(1, -1) if audio.ndim == 1 else audio
        channels, samples = audio.shape
        stream = Stream(self._model, channels, sample_rate, seeds, mix, brightness)
        total = resampled_length(samples, int(sample_rate), self.sample_rate)
        takes = np.empty((len(seeds), channels, total), np.float32)
        done = 0
        for start in range(0, samples, _BLOCK_SAMPLES):
            piece = stream.process(audio[:, start : start + _BLOCK_SAMPLES])
            takes[:, :, done : done + piece.shape[2]] = piece
            done += piece.shape[2]
        takes[:, :, done:] = stream.flush()
        return takes


def _write(writer: AudioWriter, block: Float32) -> int:
    if block.shape[1]:
        writer.write(block)
    return block.shape[1]


def peak_memory_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
