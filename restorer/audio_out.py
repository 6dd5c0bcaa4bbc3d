"""Float32 blocks become an audio file, which appears under its name only when it is complete."""

from __future__ import annotations

import io
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile

from restorer.audio_in import SequentialFile, StreamResampler
from restorer.errors import AudioFileError
from restorer.tags import copy_tags
from restorer.whole_file import place_new

# Extension -> libsndfile format, and the sample formats by their short names; the first is the default. A
# restored song was never on a 16-bit grid, so 24 bits are the default: no rounding noise, no need for dither.
_FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    ".wav": ("WAV", {"24": "PCM_24", "16": "PCM_16", "float": "FLOAT"}),
    ".flac": ("FLAC", {"24": "PCM_24", "16": "PCM_16"}),
    ".ogg": ("OGG", {"vorbis": "VORBIS"}),
    ".mp3": ("MP3", {"mp3": "MPEG_LAYER_III"}),
    ".opus": ("OGG", {"opus": "OPUS"}),
}
EXTENSIONS = tuple(_FORMATS)
# Best quality: MP3 at 320 kbit/s, Vorbis at quality 9 (about 320 kbit/s; quality 10 is larger and no better),
# Opus at about 128 kbit/s and channel.
_ENCODER: dict[str, dict[str, Any]] = {
    "MPEG_LAYER_III": {"bitrate_mode": "CONSTANT", "compression_level": 0.0},
    "VORBIS": {"compression_level": 0.1},
    "OPUS": {"compression_level": 0.5},
}
_OPUS_RATE_HZ = 48000  # what Opus works at; 44.1 kHz is not among its rates
_MAX_CHANNELS = {"MP3": 2}
_WAV_LIMIT_BYTES = (1 << 32) - (1 << 20)  # sizes in a WAV header have 32 bits; leave room for tags
_BYTES_PER_SAMPLE = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}


def check_target(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    overwrite: bool = False,
    subtype: str | None = None,
    channels: int | None = None,
) -> None:
    """Make sure that `target` can be written, before slow work starts; nothing is left behind.

    Raises
    ------
    AudioFileError : the extension, the sample format or (where given) the number of channels is impossible,
        `target` is a folder, is `source`, or exists without `overwrite`, or its folder is missing or
        cannot be written.
    """
    target = Path(target)
    name, _ = choose_format(target, subtype)
    if channels is not None:
        _check_channels(target, name, channels)
    if target.is_dir():
        raise AudioFileError(f"{target} is a folder; name the file to write")
    if target.exists() and Path(source).exists() and os.path.samefile(source, target):
        raise AudioFileError(f"{target} is the input itself; choose another name, the input is never changed")
    check_free(target, overwrite)
    if not target.parent.is_dir():
        raise AudioFileError(f"cannot write {target}: the folder {target.parent} does not exist; make it first")
    try:
        # Where the system can, a file without a name: an interruption has nothing to leave behind.
        with tempfile.TemporaryFile(prefix=".restorer-", dir=target.parent):
            pass
    except OSError as error:
        raise write_error(target, error) from error


def choose_format(target: Path, subtype: str | None) -> tuple[str, str]:
    """Return libsndfile's names of the format and the sample format for this target.

    `subtype` is "16", "24", "float", or a name as soundfile has it; None takes the default of the format.
    """
    suffix = target.suffix.lower()
    if suffix not in _FORMATS:
        raise AudioFileError(
            f"cannot write {target}: unsupported extension {suffix or '(none)'!r}; allowed are {', '.join(_FORMATS)}"
        )
    name, subtypes = _FORMATS[suffix]
    if subtype is None:
        return name, next(iter(subtypes.values()))
    chosen = subtypes.get(subtype.lower(), subtype.upper())
    if chosen not in subtypes.values():
        bits = [short for short in subtypes if short in ("16", "24", "float")]
        allowed = f"allowed are {', '.join(bits)}" if bits else "this format has none to choose"
        raise AudioFileError(f"cannot write {target} with sample format {subtype!r}; {allowed}")
    return name, chosen


class AudioWriter:
    """Writes blocks of ``(channels, n)`` float32 to an audio file; used as a context manager.

    The file grows under a temporary name in the same folder. At the end of the ``with`` block it gets the
    tags of `tags_from`, is checked, and is renamed to `path`; after an exception it is removed. The level is
    never changed: full scale is 1.0 = 2^15 or 2^23, so 16-bit audio comes back bit for bit.

    Parameters
    ----------
    path : target; its extension picks the format: .wav, .flac, .ogg (Vorbis), .mp3 or .opus.
    channels, sample_rate : of all blocks; sample_rate in Hz. An Opus file has 48 kHz, whatever the blocks have.
    subtype : "16", "24", "float" or a name as soundfile has it; None is 24 bits for .wav and .flac.
    overwrite : replace an existing file.
    tags_from : an audio file whose tags and cover art are carried over.

    Attributes
    ----------
    clipped_samples : how many samples passed full scale and were limited to it; always 0 for float WAV.
    samples : samples per channel written so far.
    warnings : one line for each tag that could not be carried over; complete after the ``with`` block.

    Raises
    ------
    AudioFileError : the target cannot be written, the disk is full, or a sample is NaN or infinite.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        channels: int,
        sample_rate: int = 44100,
        subtype: str | None = None,
        overwrite: bool = False,
        tags_from: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.channels = channels
        self.sample_rate = sample_rate
        self.clipped_samples = 0
        self.samples = 0
        self.warnings: list[str] = []
        self._overwrite = overwrite
        self._tags_from = tags_from
        self._format, self._subtype = choose_format(self.path, subtype)
        _check_channels(self.path, self._format, channels)
        check_free(self.path, overwrite)
        file_rate = _OPUS_RATE_HZ if self._subtype == "OPUS" else sample_rate
        self._resampler = StreamResampler(channels, sample_rate, file_rate)
        self._file_samples = 0
        self._temporary = temporary_path(self.path)
        try:
            self._open(file_rate)
        except BaseException:  # an interruption too
            self._discard()
            raise

    def _open(self, file_rate: int) -> None:
        try:
            self._sink = _Sink(self._temporary)
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            self._file = SequentialFile(
                self._sink,
                "w",
                file_rate,
                self.channels,
                self._subtype,
                format=self._format,
                **_ENCODER.get(self._subtype, {}),
            )
        except soundfile.LibsndfileError as error:
            raise self._failure(
                error, f"{self.sample_rate} Hz with {self.channels} channels is not possible"
            ) from error

    def write(self, block: np.ndarray) -> None:
        """Append a block, ``(channels, n)`` float32."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"block must have shape ({self.channels}, samples) and not {block.shape}")
        if not np.isfinite(block).all():
            raise AudioFileError(f"cannot write {self.path}: a sample after {self._seconds()} is NaN or infinite")
        if self._format == "WAV" and self._end_bytes(block.shape[1]) > _WAV_LIMIT_BYTES:
            raise AudioFileError(f"cannot write {self.path}: a WAV file ends at 4 GiB; write .flac")
        self._encode(self._resampler.process(block))
        self.samples += block.shape[1]

    def _encode(self, block: np.ndarray) -> None:
        try:
            self._file.write(self._to_file_samples(block))
        except (soundfile.LibsndfileError, AssertionError) as error:  # soundfile asserts that all was written
            raise self._failure(error, "the encoder failed") from error
        if self._sink.error:
            raise self._failure(self._sink.error, "the encoder failed")
        self._file_samples += block.shape[1]

    def __enter__(self) -> AudioWriter:
        return self

    def __del__(self) -> None:
        """Interrupted before the ``with`` block, or while it was left, the file goes with the writer."""
        if hasattr(self, "_temporary"):
            self._discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        rest = self._resampler.flush()
        if rest.shape[1]:
            self._encode(rest)
        try:
            self._file.close()
            self._sink.close()
            if self._sink.error:
                raise self._sink.error
            if self._tags_from is not None:
                self.warnings += copy_tags(self._tags_from, self._temporary)
            found = soundfile.info(str(self._temporary)).frames
            if found != self._file_samples and self._format != "MP3":
                raise self._failure(None, f"only {found} of {self._file_samples} samples arrived in the file")
            place(self._temporary, self.path, self._overwrite)
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._failure(error, "the finished file cannot be read back") from error

    def _discard(self) -> None:
        """Close whatever is open and remove the temporary file, if it is still there."""
        try:
            if hasattr(self, "_file") and not self._file.closed:
                self._file.close()
            if hasattr(self, "_sink"):
                self._sink.close()
        finally:
            with suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def _to_file_samples(self, block: np.ndarray) -> np.ndarray:
        """Limit to full scale and count; integers are made here, as libsndfile's scale is one step off."""
        samples = block.T
        if self._subtype == "FLOAT":
            return np.ascontiguousarray(samples, dtype=np.float32)
        self.clipped_samples += int(np.count_nonzero(np.abs(samples) > 1.0))
        if self._subtype == "PCM_16":
            return np.clip(np.rint(samples * np.float32(1 << 15)), -(1 << 15), (1 << 15) - 1).astype(np.int16)
        if self._subtype == "PCM_24":
            steps = np.clip(np.rint(samples * np.float32(1 << 23)), -(1 << 23), (1 << 23) - 1)
            return steps.astype(np.int32) << 8  # soundfile takes 24 bits as the upper ones of 32
        return np.ascontiguousarray(np.clip(samples, -1.0, 1.0), dtype=np.float32)

    def _end_bytes(self, more: int) -> int:
        return (self.samples + more) * self.channels * _BYTES_PER_SAMPLE[self._subtype]

    def _seconds(self) -> str:
        return f"{self.samples / self.sample_rate:.3f} s"

    def _failure(self, error: BaseException | None, otherwise: str) -> AudioFileError:
        """Name the reason: the system's, where there is one."""
        system = self._sink.error or (error if isinstance(error, OSError) else None)
        return write_error(self.path, system) if system else AudioFileError(f"cannot write {self.path}: {otherwise}")


class _Sink(io.RawIOBase):
    """A new file for libsndfile that remembers the system's error, which libsndfile would swallow."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file = path.open("x+b", buffering=0)

    def write(self, data: Any) -> int:
        view, done = memoryview(data), 0
        try:
            while self.error is None and done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        return done

    def readinto(self, target: Any) -> int:
        return self._file.readinto(target) or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error
        super().close()


def _check_channels(target: Path, name: str, channels: int) -> None:
    allowed = _MAX_CHANNELS.get(name, 8)
    if channels > allowed:
        raise AudioFileError(
            f"cannot write {target}: {name} holds at most {allowed} channels and the audio has {channels}; "
            "write .flac or .wav"
        )


def check_free(target: Path, overwrite: bool) -> None:
    """An AudioFileError where `target` exists and may not be replaced."""
    if target.exists() and not overwrite:
        raise _taken(target)


def place(made: Path, target: Path, overwrite: bool) -> None:
    """Give a finished file its name; what came under that name meanwhile is replaced only with `overwrite`.

    Raises
    ------
    AudioFileError : it exists and may not be replaced.
    OSError : the system refuses.
    """
    if overwrite:
        os.replace(made, target)
        return
    try:
        place_new(made, target)
    except FileExistsError:
        raise _taken(target) from None


def _taken(target: Path) -> AudioFileError:
    return AudioFileError(f"{target} exists; choose another name or pass --overwrite (overwrite=True)")


def temporary_path(target: Path) -> Path:
    """A hidden name beside `target`, with its extension, for the file that is being written."""
    return target.with_name(f".restorer-{secrets.token_hex(6)}{target.suffix.lower()}")


def write_error(target: Path, error: OSError) -> AudioFileError:
    """The system's error as the one line of ours."""
    return AudioFileError(f"cannot write {target}: {error.strerror or error}")
