"""`Restorer`: arrays, files and streams through one model. Offline, a `Stream` is fed in large blocks."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from restorer.audio_in import AudioReader, resampled_length
from restorer.audio_out import AudioWriter, check_target
from restorer.brightness import check_brightness, place_noise
from restorer.bundled import find_model
from restorer.errors import ConfigError
from restorer.inputs import AudioInput, name_input, read_input
from restorer.model_file import Model, ModelInfo, import_onnxruntime
from restorer.noise import check_seed
from restorer.progress import Progress, following
from restorer.quiet import gain_for_quiet
from restorer.restore_report import RestoreReport
from restorer.stream import Stream, check_mix
from restorer.streams import Streams
from restorer.transform import Float32

import_onnxruntime()  # whoever imports this module needs it; say so now and not in the middle of the work

_BLOCK_SAMPLES = 1 << 17
_MAX_CANDIDATES = 64
_log = logging.getLogger(__name__)


class Restorer:
    """Restores compressed music with one model, which is loaded once and shared by all streams and threads.

    Audio is float32 ``(channels, samples)``, and comes out at `sample_rate`, the model's. A seed chooses one of
    the many originals that could have become the same MP3. What is wrong raises a `RestorerError` of one line.

    Examples
    --------
    >>> from restorer import Restorer
    >>> restorer = Restorer()  # loads the bundled model
    >>> restored = restorer("song.mp3")  # (channels, samples) at restorer.sample_rate
    >>> restored = restorer(audio, 44100, seed=3)  # arrays and tensors need their rate
    >>> takes = restorer.candidates("song.mp3", n=3)  # (3, channels, samples): seeds 0, 1, 2
    >>> report = restorer.restore_file("song.mp3", "song.flac", verbose=True)  # any length; tags are kept

    Live audio goes through a stream, `latency_samples` late:

    >>> stream = restorer.stream(channels=2, sample_rate=44100)
    >>> blocks = [stream.process(audio[:, i : i + 512]) for i in range(0, audio.shape[1], 512)]
    >>> blocks.append(stream.flush())

    Parameters
    ----------
    model
        Path of an ONNX model or name of a bundled one ("compact", "deterministic", "live"); None takes
        "compact".
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
        self._file = find_model(model).absolute()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        revision: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> Restorer:
        """A restorer with a model from a folder, a file, or a hub that speaks Hugging Face's HTTP.

        What was fetched once loads without a network. Only ONNX is loaded, never a pickle.

        Parameters
        ----------
        name
            An ONNX file, a folder that holds one, "owner/name" or "owner/name@revision" on the hub
            (HF_ENDPOINT).
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
        """Samples, at `sample_rate`, by which the output of a `stream` runs behind its input.

        With ``frames_per_call=1`` it is ``model_info.latency_samples``, the least that the model allows.
        """
        return self._model.info.latency_of()

    @property
    def device(self) -> str:
        """Where the model really runs: "cpu" or "cuda"."""
        return self._model.device

    def __call__(
        self,
        audio: AudioInput,
        sample_rate: int | None = None,
        seed: int = 0,
        mix: float = 1.0,
        brightness: str | float | None = None,
        progress: Progress | None = None,
        verbose: bool = False,
    ) -> Float32:
        """Restore a whole signal.

        Parameters
        ----------
        audio
            A float32 or float64 array, ``(channels, samples)`` or ``(samples,)``, in [-1, 1]; 1 to 8 channels. A
            torch tensor of that shape, on any device. The path of a file. Or an AudioFile that pedalboard has
            opened; it is read from where it stands to its end.
        sample_rate
            Of an array or tensor, 8000 to 192000 Hz; leave it out for a file.
        seed
            Integer from 0; the same seed gives the same sound.
        mix
            0 is the input, 1 the restoration.
        brightness
            "dark", "neutral", "bright", or a number from -4 (dark) to 4 (bright) that counts standard
            deviations of random takes; None leaves it to the seed. See `restorer.brightness`.
        progress
            Called as ``progress(samples done, samples in all)``, both at the model's rate.
        verbose
            Show a bar on stderr.

        Returns
        -------
        float32 numpy array, whatever came in (``torch.from_numpy`` makes it a tensor without a copy), of the
        same number of axes and the same duration at `Restorer.sample_rate`; of files ``(channels, samples)``.
        Its peaks may pass 1.0: limit them before writing integers.

        Raises
        ------
        RestorerError
            Something about the arguments is impossible, or the audio holds NaN or infinity.
        AudioFileError
            A file cannot be read. One that is damaged is restored as far as it decodes, and a warning logged.
        """
        return self._restore(audio, sample_rate, [check_seed(seed)], mix, brightness, progress, verbose)[0]

    def candidates(
        self,
        audio: AudioInput,
        sample_rate: int | None = None,
        n: int = 5,
        seed: int = 0,
        mix: float = 1.0,
        brightness: str | float | None = None,
        progress: Progress | None = None,
        verbose: bool = False,
    ) -> Float32:
        """Several plausible originals of one signal, computed in one batch.

        Candidate i is the restoration with seed + i; arguments and errors are those of `__call__`.

        Returns
        -------
        float32 array ``(n, channels, samples)``, or ``(n, samples)`` for audio of one axis.
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= _MAX_CANDIDATES:
            raise ConfigError(f"n must be an integer from 1 to {_MAX_CANDIDATES} and not {n!r}")
        first = check_seed(seed)
        seeds = range(first, first + int(n))
        return self._restore(audio, sample_rate, seeds, mix, brightness, progress, verbose)

    def stream(
        self,
        channels: int = 2,
        sample_rate: int = 44100,
        seed: int = 0,
        mix: float = 1.0,
        brightness: str | float | None = None,
        frames_per_call: int | None = None,
    ) -> Stream:
        """Start a stream: `process` blocks of any length, then `flush`; see `Stream`.

        Parameters
        ----------
        channels, sample_rate
            Of the blocks, 1 to 8 and 8000 to 192000 Hz.
        seed, mix, brightness
            As for `__call__`; mix and brightness may be changed on the way, and the seed with `change_seed`.
        frames_per_call
            1 to 16. Each above 1 is 512 samples more latency (with the bundled models), and less processor time. None
            takes what the model does best: 2 where it looks ahead, 1 for least latency (`live`).
        """
        return Stream(self._model, channels, sample_rate, check_seed(seed), mix, brightness, frames_per_call)

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
        verbose: bool = False,
        turn_up: bool = False,
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
        verbose
            Show a bar on stderr.
        turn_up
            Restore a quiet file as if it were loud, and give back its own level: models hold back where music is
            quieter than what they learnt from. Peaks of 0.25 and more are left as they are; a quiet file is read twice.

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
        gain = gain_for_quiet(source) if turn_up else np.float32(1)
        with AudioReader(source, self.sample_rate) as reader:
            stream = self.stream(reader.channels, self.sample_rate, seed, mix, brightness, frames_per_call=1)
            with (
                AudioWriter(
                    target,
                    reader.channels,
                    self.sample_rate,
                    subtype=subtype,
                    overwrite=overwrite,
                    tags_from=source,
                ) as writer,
                following(progress, verbose, Path(target).name) as tell,
            ):
                read = written = 0
                for block in reader.blocks(_BLOCK_SAMPLES):
                    read += block.shape[1]
                    written += _write(writer, stream.process(block * gain) / gain)
                    tell(min(written, reader.samples), max(reader.samples, read))
                written += _write(writer, stream.flush() / gain)
                tell(written, written)
        warnings = [*reader.warnings, *writer.warnings]
        if stream.replaced_samples:
            warnings.append(f"{source}: {stream.replaced_samples} impossible samples were replaced by silence")
        report = RestoreReport.since(started, Path(target), written, self.sample_rate, writer.clipped_samples, warnings)
        _log.info("%s: %.1f s restored in %.1f s", target, report.seconds, report.elapsed_seconds)
        return report

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

    def check_takes(self, n: int) -> None:
        """Refuse to make n takes that would all be the same.

        Raises
        ------
        ConfigError
            n is more than one and the model has no noise.
        """
        if n > 1 and not self._model.info.noise_size:
            raise ConfigError(
                f"model {self._model.info.name} has no noise: all {n} takes would be the same; choose another model"
            )

    def _restore(
        self,
        source: AudioInput,
        sample_rate: int | None,
        seeds: list[int] | range,
        mix: float,
        brightness: str | float | None,
        progress: Progress | None,
        verbose: bool,
    ) -> Float32:
        """Feed a stream block by block into one array, ``(seeds, channels, samples)`` or ``(seeds, samples)``."""
        mix, brightness = check_mix(mix), self.check_brightness(brightness)
        audio, rate = read_input(source, sample_rate, self.sample_rate)
        flat = audio.ndim == 1
        audio = audio.reshape(1, -1) if flat else audio
        channels, samples = audio.shape
        stream = Stream(self._model, channels, rate, seeds, mix, brightness, frames_per_call=1)
        total = resampled_length(samples, rate, self.sample_rate)
        takes = np.empty((len(seeds), channels, total), np.float32)
        done = 0
        with following(progress, verbose, name_input(source)) as tell:
            for start in range(0, samples, _BLOCK_SAMPLES):
                piece = stream.process(audio[:, start : start + _BLOCK_SAMPLES])
                takes[:, :, done : done + piece.shape[2]] = piece
                done += piece.shape[2]
                tell(done, total)
            takes[:, :, done:] = stream.flush()
            tell(total, total)
        return np.ascontiguousarray(takes[:, 0]) if flat else takes


def _write(writer: AudioWriter, block: Float32) -> int:
    if block.shape[1]:
        writer.write(block)
    return block.shape[1]
