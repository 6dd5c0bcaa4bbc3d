"""WAV streams through pipes: read without seeking, written with a header of unknown length, in bounded memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from restorer.errors import AudioFileError

NAME = "standard input"
_UNKNOWN = 0xFFFFFFFF
_UNKNOWN_FROM = 0x7FFF0000  # programs that write to a pipe put such a length, or 0, into the header
_LARGEST_HEADER = 1 << 24  # bytes of chunks before the audio; a cover picture fits
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# (format tag, bits) -> how the bytes become numbers, and full scale.
_DECODERS = {
    (_PCM, 8): ("u1", 1 << 7),
    (_PCM, 16): ("<i2", 1 << 15),
    (_PCM, 24): ("", 1 << 23),
    (_PCM, 32): ("<i4", 1 << 31),
    (_FLOAT, 32): ("<f4", 1),
    (_FLOAT, 64): ("<f8", 1),
}
_BITS = {"16": 16, "24": 24, "float": 32}


class WavStreamReader:
    """A WAV (or RF64) stream, read in order; the length in its header is believed only where it is real.

    Parameters
    ----------
    stream : binary, only `read` is called.

    Attributes
    ----------
    channels, sample_rate : as in the header, in Hz.
    samples : per channel, as the header tells; None where it does not know.
    warnings : one line if the stream ends early.

    Raises
    ------
    AudioFileError : it is no WAV stream, or of a kind that is not supported.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.warnings: list[str] = []
        head = self._take(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            what = "is empty" if not head else "is no WAV stream"
            raise AudioFileError(f"{NAME} {what}; pipe WAV into it, such as: ffmpeg -i FILE -f wav - | restorer ...")
        self.channels, self.sample_rate = 0, 0
        self._format = (_PCM, 0)
        size = self._find_data()
        if not self.channels:
            raise AudioFileError(f"{NAME} is a damaged WAV stream: there is no format before its audio")
        self._frame_bytes = self.channels * self._format[1] // 8
        self._bytes_left = size
        self.samples = None if size is None else size // self._frame_bytes

    def blocks(self, block_samples: int) -> Iterator[NDArray[np.float32]]:
        """Yield ``(channels, block_samples)`` float32 in [-1, 1], C-contiguous; the last is shorter.

        Raises
        ------
        AudioFileError : there is no audio at all.
        """
        done = 0
        while True:
            wanted = block_samples * self._frame_bytes
            if self._bytes_left is not None:
                wanted = min(wanted, self._bytes_left)
            data = self._take(wanted)
            whole = len(data) // self._frame_bytes
            done += whole
            if self._bytes_left is not None:
                self._bytes_left -= len(data)
            if whole:
                yield self._decode(data[: whole * self._frame_bytes])
            if len(data) < wanted or not wanted:
                break
        if not done:
            raise AudioFileError(f"{NAME} holds no audio: its length is 0 samples")
        if self._bytes_left:
            self.warnings.append(f"{NAME} is truncated; {done} of {self.samples} samples arrived")
        while self._stream.read(1 << 16):  # what follows the audio; the program that writes must not fail
            pass

    def _find_data(self) -> int | None:
        """Read chunks up to the audio; return its length in bytes, None where the header does not know."""
        passed, long_size = 0, 0
        while True:
            head = self._take(8)
            if len(head) < 8:
                raise AudioFileError(f"{NAME} is a damaged WAV stream: it ends before its audio begins")
            name, size = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"data":
                if size == _UNKNOWN and long_size:
                    return long_size
                return None if size == 0 or size >= _UNKNOWN_FROM else size
            passed += size
            if passed > _LARGEST_HEADER:
                raise AudioFileError(f"{NAME} is a damaged WAV stream: more than 16 MB come before its audio")
            chunk = self._take(size + size % 2)
            if name == b"fmt ":
                self._read_format(chunk)
            elif name == b"ds64" and len(chunk) >= 16:
                long_size = struct.unpack("<Q", chunk[8:16])[0]
                long_size = long_size if long_size < 1 << 62 else 0

    def _read_format(self, chunk: bytes) -> None:
        if len(chunk) < 16:
            raise AudioFileError(f"{NAME} is a damaged WAV stream: its format has {len(chunk)} bytes and not 16")
        tag, self.channels, self.sample_rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
        if tag == _EXTENSIBLE and len(chunk) >= 26:
            tag = struct.unpack("<H", chunk[24:26])[0]
        if (tag, bits) not in _DECODERS:
            raise AudioFileError(
                f"{NAME} has WAV format {tag} with {bits} bits; "
                "allowed are PCM of 8, 16, 24 or 32 bits and float of 32 or 64"
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise AudioFileError(f"{NAME} has {self.channels} channels; allowed are 1 to {MAX_CHANNELS}")
        if not MIN_RATE_HZ <= self.sample_rate <= MAX_RATE_HZ:
            raise AudioFileError(
                f"{NAME} has a sample rate of {self.sample_rate} Hz; allowed are {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
            )
        self._format = tag, bits

    def _decode(self, data: bytes) -> NDArray[np.float32]:
        kind, full_scale = _DECODERS[self._format]
        if kind:
            numbers = np.frombuffer(data, kind)
        else:  # 24 bits: the upper three bytes of four
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            numbers = wide.view("<i4")[:, 0] >> 8
        if kind == "u1":
            numbers = numbers.astype(np.int16) - full_scale
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and the stream replaces it
            audio = (numbers / full_scale if full_scale > 1 else numbers).astype(np.float32)
        return np.ascontiguousarray(audio.reshape(-1, self.channels).T)

    def _take(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end of the stream; a pipe may give them in pieces."""
        pieces = []
        while count > 0 and (piece := self._stream.read(min(count, 1 << 20))):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


class WavStreamWriter:
    """Writes a WAV stream whose header says that its length is unknown, as ffmpeg does to a pipe.

    Parameters
    ----------
    stream : binary, only `write` and `flush` are called.
    channels, sample_rate : of all blocks; sample_rate in Hz.
    subtype : "16", "24" or "float"; None is 24 bits.

    Attributes
    ----------
    clipped_samples : how many samples passed full scale and were limited to it; always 0 for float.
    """

    def __init__(self, stream: BinaryIO, channels: int, sample_rate: int, subtype: str | None = None) -> None:
        self._stream = stream
        self._bits = _BITS[subtype or "24"]
        self.channels = channels
        self.clipped_samples = 0
        tag = _FLOAT if self._bits == 32 else _PCM
        frame_bytes = channels * self._bits // 8
        stream.write(
            struct.pack("<4sI4s4sI", b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16)
            + struct.pack("<HHIIHH", tag, channels, sample_rate, sample_rate * frame_bytes, frame_bytes, self._bits)
            + struct.pack("<4sI", b"data", _UNKNOWN)
        )

    def write(self, block: NDArray[np.float32]) -> None:
        """Append a block, ``(channels, n)`` float32, and pass it on at once."""
        samples = block.T
        if self._bits == 32:
            self._stream.write(np.ascontiguousarray(samples, dtype="<f4").tobytes())
        else:
            self.clipped_samples += int(np.count_nonzero(np.abs(samples) > 1.0))
            top = 1 << (self._bits - 1)
            steps = np.clip(np.rint(samples * np.float64(top)), -top, top - 1)
            if self._bits == 16:
                self._stream.write(np.ascontiguousarray(steps, dtype="<i2").tobytes())
            else:
                whole = np.ascontiguousarray(steps, dtype="<i4").reshape(-1, 1)
                self._stream.write(whole.view(np.uint8)[:, :3].tobytes())
        self._stream.flush()
