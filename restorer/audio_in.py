"""Audio files become float32 blocks at one sample rate, in bounded memory."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from restorer.errors import AudioFileError
from restorer.mpeg_frames import open_mpeg

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 8
READABLE = "MP3, WAV, FLAC, Ogg Vorbis, Ogg Opus or AIFF"
# Small reads, so that damage in the middle of a file costs little of what was intact before it.
_READ_SAMPLES = 4096
# Damaged MP3 frames decode to anything, up to 10^5 times full scale; intact ones stay well below four times.
_IMPOSSIBLE_LEVEL = 4.0
_FRAME_SAMPLES = 1152
_RESAMPLED_AT_ONCE = 4096
_HEADERLESS = (".raw", ".vox", ".fap", ".gsm", ".au", ".snd")  # names under which any bytes pass as audio
_UNKNOWN_BYTES = 0x7FFF0000  # programs that write to a pipe put such a length into the header


def resampled_length(samples: int, source_rate: int, target_rate: int) -> int:
    """Number of samples that last as long at `target_rate` as `samples` do at `source_rate`, rounded."""
    return round(Fraction(samples * target_rate, source_rate))


class StreamResampler:
    """soxr's VHQ resampler, fed in blocks, whose total output length is exact.

    All blocks together give ``round(samples in * target_rate / source_rate)`` samples. The result, and how much of it
    has been returned after so many samples, do not depend on how the signal is cut into blocks. When the rates are
    equal, blocks pass through unchanged.

    Parameters
    ----------
    channels : number of channels of every block.
    source_rate, target_rate : sample rates in Hz.
    """

    def __init__(self, channels: int, source_rate: int, target_rate: int) -> None:
        self.channels = channels
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._stream: soxr.ResampleStream | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the signal so far; the next block starts a new one."""
        self._received = 0
        self._returned = 0
        if self.source_rate != self.target_rate:
            self._stream = soxr.ResampleStream(
                self.source_rate, self.target_rate, self.channels, dtype="float32", quality="VHQ"
            )

    def process(self, block: np.ndarray) -> np.ndarray:
        """Resample the next block; what is still inside the filter comes with later calls.

        Shape
        -----
        block: ``(channels, n)`` float32; returns ``(channels, m)`` float32, C-contiguous; m may be 0.
        """
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"block must have shape ({self.channels}, samples) and not {block.shape}")
        self._received += block.shape[1]
        if self._stream is None:
            self._returned += block.shape[1]
            return np.ascontiguousarray(block, dtype=np.float32)
        if block.shape[1] == 0:
            return np.zeros((self.channels, 0), np.float32)
        # Of more at a time soxr may hold samples back, and then how many it has returned depends on how it was fed.
        pieces = [
            self._resample(self._stream, block[:, start : start + _RESAMPLED_AT_ONCE], last=False)
            for start in range(0, block.shape[1], _RESAMPLED_AT_ONCE)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)

    def flush(self) -> np.ndarray:
        """Return the rest, ``(channels, m)`` float32, and start over."""
        rest = np.zeros((self.channels, 0), np.float32)
        if self._stream is not None and self._received:
            # Zeros are what soxr assumes after the end; a few more make sure it never stops one sample short.
            margin = math.ceil(2 * self.source_rate / self.target_rate) + 1
            due = resampled_length(self._received, self.source_rate, self.target_rate) - self._returned
            rest = np.ascontiguousarray(
                self._resample(self._stream, np.zeros((self.channels, margin), np.float32), last=True)[:, :due]
            )
        self.reset()
        return rest

    def _resample(self, stream: soxr.ResampleStream, block: np.ndarray, last: bool) -> np.ndarray:
        out = stream.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32), last=last)
        self._returned += len(out)
        return np.ascontiguousarray(out.reshape(-1, self.channels).T)


class SequentialFile(soundfile.SoundFile):
    """A `soundfile.SoundFile` that is read or written in order, and never seeks by itself.

    SoundFile seeks after every read and write. libsndfile's MP3 decoder then loses its bit reservoir: a file
    read in blocks differs from the same file read at once, by up to 0.4 of full scale at low bitrates.
    """

    def seekable(self) -> bool:
        return False


class AudioReader:
    """An audio file, read in blocks of ``(channels, n)`` float32 at `sample_rate`.

    The encoder delay of MP3 files is trimmed by libsndfile where a LAME tag gives it, and never otherwise.

    Parameters
    ----------
    path : MP3, WAV, FLAC, Ogg Vorbis, Ogg Opus or AIFF; 8 to 192 kHz, 1 to 8 channels. The content
        decides, not the extension.
    sample_rate : rate of the blocks in Hz; None keeps the file's own.

    Attributes
    ----------
    channels, source_rate : as in the file.
    source_samples : samples per channel in the file; until reading ends what it claims, then what decoded.
    samples : the same at `sample_rate`.
    warnings : one line for each thing that is wrong with the file but did not stop the reading.

    Raises
    ------
    AudioFileError : the file is missing, no audio, empty, out of range, or holds NaN or infinity.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int | None = 44100) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        self._source: BinaryIO | None = None
        self._moved = False
        self._check_path()
        try:
            view = open_mpeg(self.path)
            self._source = view.stream or self._nameless()
            self._file = SequentialFile(str(self.path) if self._source is None else self._source)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            self._close_source()
            reason = error.strerror if isinstance(error, OSError) else f"it is not {READABLE}, or is damaged"
            raise AudioFileError(f"cannot read {self.path}: {reason}") from error
        self.warnings += [f"{self.path}: {line}" for line in view.damage]
        promised, there = _chunk_bytes(self._file.extra_info)
        if promised > there + 1:
            self.warnings.append(f"{self.path}: the file is truncated; {there} of {promised} bytes of audio are there")
        self.channels: int = self._file.channels
        self.source_rate: int = self._file.samplerate
        self.sample_rate = sample_rate or self.source_rate
        self.source_samples: int = self._file.frames
        try:
            self._check_header()
        except AudioFileError:
            self.close()
            raise

    @property
    def container(self) -> str:
        """libsndfile's name of the file format, such as MP3, FLAC, WAV or OGG."""
        return str(self._file.format)

    @property
    def subtype(self) -> str:
        """libsndfile's name of the sample format, such as PCM_16, VORBIS or OPUS."""
        return str(self._file.subtype)

    @property
    def samples(self) -> int:
        """Length of the output in samples per channel; exact once reading has ended."""
        return resampled_length(self.source_samples, self.source_rate, self.sample_rate)

    def blocks(self, block_samples: int) -> Iterator[np.ndarray]:
        """Yield the signal from its start, C-contiguous ``(channels, block_samples)``; the last is shorter.

        Raises
        ------
        AudioFileError : NaN or infinity, or nothing decodes at all.
        """
        if block_samples < 1:
            raise ValueError(f"block_samples must be at least 1 and not {block_samples}")
        resampler = StreamResampler(self.channels, self.source_rate, self.sample_rate)
        pending: list[np.ndarray] = []
        waiting = 0
        for piece in self._resampled(resampler):
            pending.append(piece)
            waiting += piece.shape[1]
            if waiting < block_samples:
                continue
            joined = np.concatenate(pending, axis=1)
            whole = waiting - waiting % block_samples
            for start in range(0, whole, block_samples):
                yield np.ascontiguousarray(joined[:, start : start + block_samples])
            pending, waiting = [joined[:, whole:].copy()], waiting - whole
        if waiting:
            yield np.concatenate(pending, axis=1)

    def excerpts(self, count: int, samples: int) -> Iterator[np.ndarray]:
        """Yield up to `count` stretches of `samples`, evenly spread, at the file's own rate; all of a short file.

        They are for measuring: what is not finite or impossibly loud is 0, and an MP3 is approximate. Use
        another reader for `blocks`.
        """
        skip = 4 * _FRAME_SAMPLES if self._file.format == "MP3" else 0  # until its bit reservoir is complete
        total = self.source_samples
        found = 0
        if total > count * (samples + skip):
            for index in range(count):
                block = self._read_at((total - samples - skip) * index // max(1, count - 1), samples + skip)
                if len(block) > skip:
                    found += 1
                    yield _for_measuring(block[skip:])
        # A short file; or one that is shorter than it claims, or cannot seek: then its start has to do.
        if found < count // 2:
            block = self._read_at(0, samples)
            while len(block) and found < count:
                found += 1
                yield _for_measuring(block)
                block = self._read_at(None, samples)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._close_source()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_at(self, position: int | None, samples: int) -> np.ndarray:
        """Up to `samples` from `position`, or from where the last read ended, ``(n, channels)``; none after damage."""
        try:
            if position is not None:
                self._rewind(position)
            self._moved = True
            return np.asarray(self._file.read(samples, dtype="float32", always_2d=True))
        except (soundfile.LibsndfileError, RuntimeError):
            return np.zeros((0, self.channels), np.float32)

    def _rewind(self, position: int) -> None:
        """Seek, unless the file is there already: some formats cannot."""
        if position or self._moved:
            self._moved = True
            self._file.seek(position)

    def _resampled(self, resampler: StreamResampler) -> Iterator[np.ndarray]:
        for block in self._decoded():
            yield resampler.process(block)
        yield resampler.flush()

    def _decoded(self) -> Iterator[np.ndarray]:
        """Yield what decodes at the file's own rate; afterwards `source_samples` is exact."""
        expected, done, bursts = self.source_samples, 0, 0
        problem = ""
        try:
            self._rewind(0)
        except soundfile.LibsndfileError as error:
            raise AudioFileError(f"{self.path} can be read once only; open it again") from error
        self._moved = True
        while not problem:
            try:
                block = self._file.read(_READ_SAMPLES, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError):
                problem = "is damaged"
                break
            if not len(block):
                problem = "is truncated" if done < expected else ""
                break
            if self._file.format == "MP3":
                bursts += _silence_bursts(block)
            if not np.isfinite(block).all():
                at = (done + int(np.argmin(np.isfinite(block).all(axis=1)))) / self.source_rate
                raise AudioFileError(
                    f"{self.path} holds NaN or infinity at {at:.3f} s; only finite samples can be restored"
                )
            done += len(block)
            yield np.ascontiguousarray(block.T)
        self.source_samples = done
        if bursts:
            self.warnings.append(
                f"{self.path}: the file is damaged; {bursts / self.source_rate:.2f} s of it decode to noise "
                "far above full scale and were silenced"
            )
        if not done:
            raise AudioFileError(f"cannot read {self.path}: no audio in it can be decoded")
        if problem and not self.warnings:
            self.warnings.append(
                f"{self.path}: the file {problem}; {done / self.source_rate:.2f} of "
                f"{expected / self.source_rate:.2f} s could be decoded"
            )

    def _nameless(self) -> BinaryIO | None:
        """A stream without a name, where libsndfile would take the extension's word for what is in the file."""
        if self.path.suffix.lower() not in _HEADERLESS:
            return None
        return open(os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb")

    def _check_path(self) -> None:
        if self.path.is_dir():
            raise AudioFileError(f"{self.path} is a folder; name one audio file ({READABLE})")
        if not self.path.exists():
            raise AudioFileError(f"{self.path} does not exist; name an audio file ({READABLE})")
        if self.path.is_file() and self.path.stat().st_size == 0:
            raise AudioFileError(f"{self.path} is empty (0 bytes); name an audio file ({READABLE})")

    def _check_header(self) -> None:
        if self.source_samples <= 0:
            raise AudioFileError(f"{self.path} holds no audio: its length is 0 samples")
        if not MIN_RATE_HZ <= self.source_rate <= MAX_RATE_HZ:
            raise AudioFileError(
                f"{self.path} has a sample rate of {self.source_rate} Hz; allowed are {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
            )
        if self.channels > MAX_CHANNELS:
            raise AudioFileError(f"{self.path} has {self.channels} channels; allowed are 1 to {MAX_CHANNELS}")

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()


def _chunk_bytes(log: str) -> tuple[int, int]:
    """Bytes of audio that a WAV or AIFF header promises, and those there, as libsndfile's log tells."""
    found = re.search(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if not found or int(found[1]) >= _UNKNOWN_BYTES:
        return 0, 0
    return int(found[1]), int(found[2])


def _for_measuring(block: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.where(np.abs(block) <= _IMPOSSIBLE_LEVEL, block, 0).T)


def _silence_bursts(block: np.ndarray) -> int:
    """Zero what is impossibly loud, and a frame on either side; return the number of samples zeroed."""
    loud = np.flatnonzero(~(np.abs(block) <= _IMPOSSIBLE_LEVEL).all(axis=1))
    if not len(loud):
        return 0
    start, end = max(0, loud[0] - _FRAME_SAMPLES), min(len(block), loud[-1] + _FRAME_SAMPLES)
    block[start:end] = 0
    return int(end - start)


def read_audio(path: str | os.PathLike[str], sample_rate: int | None = 44100) -> tuple[np.ndarray, int]:
    """Read a whole file: ``(channels, samples)`` float32 and its sample rate in Hz.

    For files of any length use `AudioReader`. Raises AudioFileError as it does.
    """
    with AudioReader(path, sample_rate) as reader:
        blocks = list(reader.blocks(1 << 16))
        if not blocks:
            return np.zeros((reader.channels, 0), np.float32), reader.sample_rate
        return np.concatenate(blocks, axis=1), reader.sample_rate
