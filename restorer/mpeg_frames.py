"""MPEG layer III files are walked frame by frame, so that damage is found, named and cut out.

libsndfile's decoder gives up after 1024 foreign bytes, and guesses the length of files without an Info frame
(and then stops at the guess). Walking the frame headers takes a fraction of a second per hour of music and
answers both: the decoder gets a view of the file with whole frames only, led by an Info frame that tells how
many there are.
"""

from __future__ import annotations

import io
import re
import struct
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from restorer.errors import AudioFileError

# kbit/s by bitrate index, for MPEG 1 and for MPEG 2 and 2.5; index 0 is "free format", 15 is forbidden.
_BITRATES_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
RATES_HZ = {3: (44100, 48000, 32000, 0), 2: (22050, 24000, 16000, 0), 0: (11025, 12000, 8000, 0)}
_SAME_STREAM = 0xFFFE0C00  # sync, version, layer and sample rate: equal in all frames of a file
# What `frame_bytes` takes for a header, as far as its first three bytes tell.
_HEADER = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][%s]" % b"".join(b"\\x%x0-\\x%xb" % (h, h) for h in range(1, 15)))
_HEADER_BYTES = 3
_MOST_SEARCHED = 1 << 17  # headers that searches look at; noise has one in 16 kB
_MOST_LEADING_TAGS = 1000
_SHOWN_PLACES = 5  # of damage, each in a line of its own
_WINDOW_BYTES = 1 << 20
_WINDOW_PAST_BYTES = 4096  # that are kept: a search looks three frames ahead and comes back
_OTHER_CONTAINERS = (b"RIFF", b"RF64", b"RIFX", b"FORM", b"fLaC", b"OggS", b"caff", b".snd", b"riff")
_RESERVOIR_BYTES = 511  # how far back a frame's data may begin, at most
_DECODER_DELAY = 529  # samples that a decoder drops besides the encoder delay that a LAME tag tells
_LAME_DELAYS = 21  # where in a LAME tag the two delays of 12 bits each are


def frame_bytes(header: int) -> int:
    """Bytes of the MPEG layer III frame with these four header bytes; 0 if they are no such header."""
    version, rate_index = header >> 19 & 3, header >> 10 & 3
    if header >> 21 != 0x7FF or header >> 17 & 3 != 1 or version == 1 or rate_index == 3:
        return 0
    kbps = _BITRATES_KBPS[version == 3][header >> 12 & 15]
    if not kbps:
        return 0
    return (144_000 if version == 3 else 72_000) * kbps // RATES_HZ[version][rate_index] + (header >> 9 & 1)


def frame_samples(header: int) -> int:
    """Samples per channel of the layer III frame with this header."""
    return 1152 if header >> 19 & 3 == 3 else 576


def side_bytes(header: int) -> int:
    """Bytes of side information behind the header of a layer III frame without a checksum."""
    mono = header >> 6 & 3 == 3
    return (17 if mono else 32) if header >> 19 & 3 == 3 else (9 if mono else 17)


def info_frames(header: int, frames: int) -> bytes:
    """An Info frame and a silent one, to lead so many frames with this header: tells their number and trims nothing.

    A decoder that meets one drops its own delay, 529 samples, from the start. One silent frame, and an
    encoder delay that together with 529 makes one frame, keep the file's own samples untrimmed.
    """
    header = header & ~0x0000F200 | 0x0001E000  # no CRC, highest bitrate, no padding byte
    lead = header.to_bytes(4, "big") + bytes(side_bytes(header))
    delays = (frame_samples(header) - _DECODER_DELAY) << 12 | _DECODER_DELAY
    tag = b"Info" + struct.pack(">II", 1, frames + 1) + b"LAME".ljust(_LAME_DELAYS, b"\0") + delays.to_bytes(3, "big")
    size = frame_bytes(header)
    return (lead + tag).ljust(size, b"\0") + lead.ljust(size, b"\0")


@dataclass
class MpegView:
    """What the walk found. `stream` is None where the decoder may read the file itself."""

    stream: BinaryIO | None = None
    damage: list[str] = field(default_factory=list)


def open_mpeg(path: Path) -> MpegView:
    """Walk the frames of `path`; for a file that is not MPEG layer III the view is empty.

    Raises
    ------
    AudioFileError : an .mp3 file without a single frame.
    OSError : the file cannot be read.
    """
    with path.open("rb") as file:
        window = _Window(file)
        start = _skip_leading_tags(window)
        head = window.read(start, 4)
        if head in _OTHER_CONTAINERS:
            return MpegView()
        walk = _Walk(window, start, _find_end(window, start))
    if not walk.frames:
        # Layers I and II and free-format files are left to the decoder.
        if path.suffix.lower() == ".mp3" and (head[:1] != b"\xff" or walk.is_layer3(head)):
            raise AudioFileError(
                f"cannot read {path}: no MPEG audio frame in it, so it is no MP3 file, or all of it is lost"
            )
        return MpegView()
    damage = walk.damage
    told = walk.read_info_frame() if walk.starts_whole() else None
    if told == walk.frames - 1 and not damage:
        # Tags in front are kept from the decoder, which would load them as a whole and complain about odd ones.
        return MpegView(cast(BinaryIO, _View(path, walk.pieces)) if start else None)
    if told is None:
        walk.pieces.insert(0, info_frames(walk.reference, walk.frames))
    else:
        if walk.frames - 1 < told and not damage:
            walk.end_is_lost = True
            damage.append(f"the file is truncated: {walk.frames - 1} of {told} frames are there")
        elif walk.frames - 1 > told and not damage:
            damage.append(
                f"the file is damaged: its Info frame tells of {told} frames and {walk.frames - 1} are there, all of "
                "which were read"
            )
        walk.correct_info_frame()
    return MpegView(cast(BinaryIO, _View(path, walk.pieces)), damage)


class _Window:
    """Random access to a file through one buffer, so that a walk does not hold the file in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        self._start, self._buffer = 0, b""

    def read(self, position: int, count: int) -> bytes:
        self._fill(position, count)
        offset = position - self._start
        return self._buffer[offset : offset + count]

    def find_header(self, position: int, end: int) -> int:
        """Position of the next bytes before `end` that could be a frame's header, or -1."""
        while position + _HEADER_BYTES <= end:
            self._fill(position, _HEADER_BYTES)
            hit = _HEADER.search(self._buffer, position - self._start, end - self._start)
            if hit:
                return self._start + hit.start()
            reached = self._start + len(self._buffer)
            if reached < position + _HEADER_BYTES:  # the file has become shorter
                return -1
            position = reached - _HEADER_BYTES + 1  # a header may lie across the buffer's end
        return -1

    def _fill(self, position: int, count: int) -> None:
        """Have the buffer hold `count` bytes from `position`, if the file does."""
        if position < self._start or position + count > self._start + len(self._buffer):
            self._start = max(0, position - _WINDOW_PAST_BYTES)
            self._file.seek(self._start)
            self._buffer = self._file.read(position - self._start + max(count, _WINDOW_BYTES))


def _skip_leading_tags(window: _Window) -> int:
    position = 0
    for _ in range(_MOST_LEADING_TAGS):
        head = window.read(position, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        # A tag that claims more than the file has lies about its size; the search for frames finds its end.
        position += 10 + (0 if position + 10 + size > window.size else size) + (10 if head[5] & 0x10 else 0)
    return min(position, window.size)


def _find_end(window: _Window, start: int) -> int:
    """Where the audio ends: before ID3v1, Lyrics3 and APE tags; a tag that would leave none lies about its size."""
    end = window.size
    if end >= 128 and window.read(end - 128, 3) == b"TAG":
        end -= 128
    if end >= 15 and window.read(end - 9, 9) == b"LYRICS200" and window.read(end - 15, 6).isdigit():
        size = 15 + int(window.read(end - 15, 6))
        end -= size if end - size > start else 15
    if end >= 32 and window.read(end - 32, 8) == b"APETAGEX":
        size, _, flags = struct.unpack("<III", window.read(end - 20, 12))
        size += 32 if flags >> 31 else 0
        end -= size if end - size > start else 32
    return end


class _Walk:
    """Follows frame headers from `start` to `end`; whole frames become `pieces`, the rest becomes `damage`.

    A piece is bytes, or a (first, last + 1) range of the file.
    """

    def __init__(self, window: _Window, start: int, end: int) -> None:
        self._window, self._end = window, end
        self.frames = 0
        self.end_is_lost = False
        self._damage: list[str] = []
        self._places = self._searched = 0
        self.pieces: list[bytes | tuple[int, int]] = []
        self.reference = 0
        first = self._find_frame(start, depth=3)
        if first < 0:
            return
        self.reference = self._header(first)
        self.samples_per_frame = frame_samples(self.reference)
        self._rate_hz = RATES_HZ[self.reference >> 19 & 3][self.reference >> 10 & 3]
        self._side_bytes = side_bytes(self.reference)
        self._first_frame = window.read(first, self._size(self.reference))
        if any(window.read(start, min(first - start, 65536))):
            self._report(start, first)
        self._first = first
        self._follow(first if self.read_info_frame() is not None else self._mute_orphans(first))

    def _follow(self, position: int) -> None:
        run_start = position
        while position < self._end:
            header = self._header(position)
            size = self._size(header)
            following = position + size
            if size and following < self._end and self._size(self._header(following)):
                self.frames += 1
                position = following
                continue
            if size and following == self._end:
                self.frames += 1
                self._keep(run_start, following)
                return
            resumed = self._find_frame(position + 1, depth=2)
            if resumed >= 0:
                self._keep(run_start, position)
                self._report(position, resumed)
                run_start = position = self._mute_orphans(resumed)
                continue
            if size and following < self._end:  # the last frame is whole; what follows is no audio
                self.frames += 1
                position = following
            self._keep(run_start, position)
            if size and following > self._end:
                self.end_is_lost = True
                self._damage.append(
                    f"the file is truncated: it ends in the middle of a frame, {self._seconds():.2f} s can be decoded"
                )
            elif any(self._window.read(position, min(self._end - position, 65536))):
                self._report(position, self._end)
            return
        self._keep(run_start, position)

    def _mute_orphans(self, position: int) -> int:
        """Silence the frames whose data began in the part that was lost; return where the intact ones start.

        Decoded with the wrong data they would be loud noise.
        """
        available, mpeg1 = 0, self.samples_per_frame == 1152
        while position < self._end:
            header = self._header(position)
            size = self._size(header)
            side = position + (4 if header & 0x10000 else 6)
            reach = int.from_bytes(self._window.read(side, 2), "big") >> (7 if mpeg1 else 8)
            if not size or position + size > self._end or reach <= available:
                break
            # Only where the data begins is kept: the decoder keeps no more of the past than a frame asks for.
            begin = self._window.read(side, 2) if mpeg1 else self._window.read(side, 1)
            muted = bytes([begin[0], begin[1] & 0x80]) if mpeg1 else begin
            self.pieces.append(self._window.read(position, side - position) + muted.ljust(self._side_bytes, b"\0"))
            self._keep(side + self._side_bytes, position + size)
            self.frames += 1
            available = min(available + position + size - side - self._side_bytes, _RESERVOIR_BYTES)
            position += size
        return position

    def _find_frame(self, position: int, depth: int) -> int:
        """Position of the next frame that `depth` - 1 like it follow, or -1; a file made of false ones is given up."""
        while (position := self._window.find_header(position, self._end)) >= 0:
            self._searched += 1
            if self._searched > _MOST_SEARCHED:
                return -1
            header, at = self._header(position), position
            size = self._size(header)
            for _ in range(depth - 1):
                at += size
                if not size or at == self._end:
                    break
                following = self._header(at)
                size = self._size(following) if following & _SAME_STREAM == header & _SAME_STREAM else 0
            if size and at <= self._end:
                return position
            position += 1
        return -1

    def is_layer3(self, head: bytes) -> bool:
        """Whether these four bytes are a header this walk could have followed."""
        return self._size(int.from_bytes(head, "big")) > 0

    def _header(self, position: int) -> int:
        return int.from_bytes(self._window.read(position, 4), "big")

    def _size(self, header: int) -> int:
        """Bytes of the frame with this header; 0 if it is none, or not of the first frame's stream."""
        if self.reference and (
            header & _SAME_STREAM != self.reference & _SAME_STREAM
            or (header >> 6 & 3 == 3) != (self.reference >> 6 & 3 == 3)
        ):
            return 0
        return frame_bytes(header)

    def _keep(self, start: int, end: int) -> None:
        if end > start:
            self.pieces.append((start, end))

    def _report(self, start: int, end: int) -> None:
        self._places += 1
        if self._places <= _SHOWN_PLACES:
            self._damage.append(
                f"the file is damaged: {end - start} bytes at {self._seconds():.2f} s are not audio and were skipped"
            )

    @property
    def damage(self) -> list[str]:
        """One line for each of the first places, and one for the others."""
        more = self._places - _SHOWN_PLACES
        return self._damage + ([f"the file is damaged: and {more} more places"] if more > 0 else [])

    def _seconds(self) -> float:
        return self.frames * self.samples_per_frame / self._rate_hz

    def read_info_frame(self) -> int | None:
        """Number of frames that the Info (or Xing) frame at the start tells; None without one."""
        at = 4 + self._side_bytes
        tag = self._first_frame[at : at + 12]
        if len(tag) < 12 or tag[:4] not in (b"Xing", b"Info") or not tag[7] & 1:
            return None
        return int.from_bytes(tag[8:12], "big")

    def starts_whole(self) -> bool:
        """Whether the first frame is among the pieces, as it is in the file."""
        piece = self.pieces[0]
        return isinstance(piece, tuple) and piece[0] == self._first and piece[1] > self._first

    def correct_info_frame(self) -> None:
        """Make the Info frame tell what is there; where the end is lost, the end is not trimmed."""
        frame = bytearray(self._first_frame)
        at = 4 + self._side_bytes
        flags = frame[at + 7]
        struct.pack_into(">I", frame, at + 8, self.frames - 1)
        if flags & 2:
            size = sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self.pieces)
            struct.pack_into(">I", frame, at + 12, size)
        lame = at + 12 + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
        if self.end_is_lost and len(frame) >= lame + _LAME_DELAYS + 3 and frame[lame]:
            delays = int.from_bytes(frame[lame + _LAME_DELAYS : lame + _LAME_DELAYS + 3], "big")
            delays = delays & 0xFFF000 | _DECODER_DELAY
            frame[lame + _LAME_DELAYS : lame + _LAME_DELAYS + 3] = delays.to_bytes(3, "big")
        end = self.pieces[0][1]  # a range: it starts with this frame
        self.pieces[0:1] = [bytes(frame), (self._first + len(frame), end)]


class _View(io.RawIOBase):
    """A read-only file made of pieces of another file and of bytes."""

    def __init__(self, path: Path, pieces: list[bytes | tuple[int, int]]) -> None:
        self._pieces = pieces
        self._starts = [0]
        for piece in pieces:
            self._starts.append(self._starts[-1] + (len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]))
        self._position = 0
        self._file = path.open("rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._starts[-1])[whence])
        return self._position

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        done = 0
        while done < len(target) and self._position < self._starts[-1]:
            index = bisect_right(self._starts, self._position) - 1
            offset = self._position - self._starts[index]
            count = min(len(target) - done, self._starts[index + 1] - self._position)
            piece = self._pieces[index]
            if isinstance(piece, bytes):
                data = piece[offset : offset + count]
            else:
                self._file.seek(piece[0] + offset)
                data = self._file.read(count)
            if not data:
                break
            target[done : done + len(data)] = data
            done += len(data)
            self._position += len(data)
        return done

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
