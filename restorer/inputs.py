"""What `Restorer` takes as audio: arrays, tensors, paths, and files that pedalboard has opened."""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import AudioReader
from restorer.errors import AudioFileError, ConfigError, RestorerError
from restorer.stream import check_audio, check_format

_BLOCK_SAMPLES = 1 << 17
_log = logging.getLogger(__name__)


@runtime_checkable
class TensorLike(Protocol):
    """A torch tensor, told by how it becomes an array: torch itself is never imported."""

    def detach(self) -> Any: ...
    def cpu(self) -> Any: ...
    def numpy(self) -> NDArray[Any]: ...


@runtime_checkable
class ReadableFile(Protocol):
    """pedalboard's AudioFile opened for reading, told by its methods: pedalboard is never imported."""

    @property
    def samplerate(self) -> float: ...
    @property
    def num_channels(self) -> int: ...  # what a soundfile.SoundFile, whose arrays lie the other way, calls channels
    def read(self, num_frames: int = ..., /) -> NDArray[np.float32]: ...


AudioInput: TypeAlias = NDArray[np.floating[Any]] | str | os.PathLike[str] | TensorLike | ReadableFile


def read_input(audio: AudioInput, sample_rate: int | None, file_rate: int) -> tuple[NDArray[Any], int]:
    """An array ``(channels, samples)`` or ``(samples,)`` that can be restored, and its sample rate in Hz.

    Parameters
    ----------
    audio
        A float32 or float64 array; a torch tensor of any floating type, on any device; the path of a file; or an
        open AudioFile of pedalboard, which is read from where it stands to its end.
    sample_rate
        Of an array or a tensor, in Hz. A file knows its own; None, or the same, goes with it.
    file_rate
        The sample rate in Hz at which a path is read.

    Raises
    ------
    RestorerError
        It is none of these, or has a shape or samples that cannot be restored.
    ConfigError
        `sample_rate` or the number of channels is missing or impossible.
    AudioFileError
        The file cannot be read.
    """
    if isinstance(audio, (str, os.PathLike)):
        return _read_path(audio, sample_rate, file_rate)
    if not isinstance(audio, (np.ndarray, TensorLike)):
        return _read_open(audio, sample_rate)
    if sample_rate is None:
        raise ConfigError("sample_rate is missing; give that of the audio, in Hz: only a file knows its own")
    array = audio if isinstance(audio, np.ndarray) else _to_array(audio)
    return _check_whole(array, sample_rate), int(sample_rate)


def _check_whole(audio: object, sample_rate: int) -> NDArray[Any]:
    array = check_audio(audio)
    channels = 1 if array.ndim == 1 else array.shape[0]
    if array.ndim == 2 and channels > 8 >= array.shape[1]:
        raise RestorerError(f"audio must have shape (channels, samples) and not {array.shape}; pass audio.T")
    check_format(channels, sample_rate)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise RestorerError(
            f"audio holds {bad} samples that are NaN or infinite; replace them first (numpy.nan_to_num)"
        )
    return array


def name_input(audio: AudioInput) -> str:
    """A few words for a progress bar."""
    if isinstance(audio, (str, os.PathLike)):
        return os.path.basename(os.fsdecode(audio))
    return "restoring"


def _read_path(path: str | os.PathLike[str], sample_rate: int | None, file_rate: int) -> tuple[NDArray[Any], int]:
    with AudioReader(path, file_rate) as reader:
        _check_rate(os.fspath(path), sample_rate, reader.source_rate)
        blocks = [np.zeros((reader.channels, 0), np.float32), *reader.blocks(_BLOCK_SAMPLES)]
        for warning in reader.warnings:
            _log.warning("%s", warning)
    return np.concatenate(blocks, axis=1), file_rate


def _read_open(file: ReadableFile, sample_rate: int | None) -> tuple[NDArray[Any], int]:
    # In blocks, since the length of an MP3 may be an estimate.
    try:
        if not isinstance(file, ReadableFile):
            raise RestorerError(
                "audio must be a numpy array, a torch tensor, the path of a file, or pedalboard's AudioFile "
                f"opened for reading, and not {type(file).__name__}"
            )
        channels, rate = check_format(file.num_channels, file.samplerate)
        _check_rate("the file", sample_rate, rate)
        blocks = [np.zeros((channels, 0), np.float32)]
        while (block := file.read(_BLOCK_SAMPLES)).shape[-1]:
            blocks.append(block)
    except (OSError, RuntimeError, ValueError) as error:  # it was closed, or is damaged
        raise AudioFileError(f"cannot read the open file: {' '.join(str(error).split())}") from error
    return _check_whole(np.concatenate(blocks, axis=1), rate), rate


def _check_rate(name: str, given: int | None, rate: int) -> None:
    if given is not None and given != rate:
        raise ConfigError(f"{name} has a sample rate of {rate} Hz and not {given!r}; leave sample_rate out for a file")


def _to_array(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    if getattr(tensor.dtype, "is_floating_point", False):
        tensor = tensor.float()  # numpy has no bfloat16
    return tensor.numpy()
