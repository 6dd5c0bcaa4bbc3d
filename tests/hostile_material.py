"""Small intact audio files of every format, as bytes, and the surgery that mutations need: the same on every run."""

import functools
import io
import struct
import zlib

import numpy as np
import soundfile
from mutagen.ogg import OggPage

_MPEG_SAMPLES = 1152


def tone(channels: int, rate: int, seconds: float) -> np.ndarray:
    """Harmonics, two drum hits and hiss up to the top, ``(samples, channels)``, peaks near full scale."""
    samples = round(seconds * rate)
    time = np.arange(samples) / rate
    noise = np.random.default_rng(channels * rate).standard_normal((samples, channels))
    hits = np.exp(-30 * (time % 0.15))[:, None] * noise * 0.25
    notes = sum(0.25 / k * np.sin(2 * np.pi * 220 * k * time) for k in range(1, 12) if 220 * k < rate / 2)
    return np.clip(hits + np.asarray(notes)[:, None] + 0.01 * noise, -0.99, 0.99)


def encode(container: str, subtype: str, channels: int, rate: int, seconds: float, **settings: object) -> bytes:
    """A file of `tone` as libsndfile writes it."""
    file = io.BytesIO()
    soundfile.write(file, tone(channels, rate, seconds), rate, format=container, subtype=subtype, **settings)
    data = file.getvalue()
    return steady_ogg(data) if data[:4] == b"OggS" else data


def steady_ogg(data: bytes) -> bytes:
    """Replace the serial number, which libsndfile draws from the clock."""
    return b"".join(_with_serial(page) for page in ogg_pages(data))


def _with_serial(page: bytes) -> bytes:
    return with_ogg_sum(page[:14] + struct.pack("<I", 7) + page[18:])


def ogg_pages(data: bytes) -> list[bytes]:
    """The pages of an Ogg file, each with its header."""
    file, pages = io.BytesIO(data), []
    while file.tell() < len(data):
        start = file.tell()
        OggPage(file)
        pages.append(data[start : file.tell()])
    return pages


def with_ogg_sum(page: bytes) -> bytes:
    """A page with the check sum that belongs to it, so that decoders look further."""
    blank = page[:22] + bytes(4) + page[26:]
    reflected = zlib.crc32(bytes(_MIRROR[byte] for byte in blank), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return page[:22] + struct.pack("<I", int(f"{reflected:032b}"[::-1], 2)) + page[26:]


_MIRROR = [int(f"{byte:08b}"[::-1], 2) for byte in range(256)]


def mpeg_frames(data: bytes) -> list[int]:
    """Where the MPEG frames of an intact file without tags in front begin."""
    from restorer.mpeg_frames import frame_bytes

    starts, position = [], 0
    while position + 4 <= len(data) and (size := frame_bytes(int.from_bytes(data[position : position + 4], "big"))):
        starts.append(position)
        position += size
    return starts


def free_format(data: bytes, bitrate_known: bool = False) -> bytes:
    """The frames of an MP3 under headers that do not tell the bitrate; `bitrate_known` keeps every third."""
    free = bytearray(data)
    for index, start in enumerate(mpeg_frames(data)):
        if not bitrate_known or index % 3:
            free[start + 2] &= 0x0F
    return bytes(free)


def id3(*frames: tuple[bytes, bytes, int], version: int = 3, flags: int = 0, size: int | None = None) -> bytes:
    """An ID3v2 tag of frames (name, data, flags); `size` is what the header claims."""
    body = b"".join(
        name + (syncsafe(len(data)) if version == 4 else struct.pack(">I", len(data))) + struct.pack(">H", bits) + data
        for name, data, bits in frames
    )
    return b"ID3" + bytes([version, 0, flags]) + syncsafe(len(body) if size is None else size) + body


def syncsafe(size: int) -> bytes:
    """Four bytes of seven bits each."""
    return bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


def flac_blocks(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The metadata blocks of a FLAC file as (type, data), and its frames."""
    blocks, position, last = [], 4, False
    while not last:
        last, kind = bool(data[position] & 128), data[position] & 127
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        blocks.append((kind, data[position + 4 : position + 4 + size]))
        position += 4 + size
    return blocks, data[position:]


def join_flac(blocks: list[tuple[int, bytes]], frames: bytes) -> bytes:
    """A FLAC file of metadata blocks and frames."""
    parts = [b"fLaC"]
    for index, (kind, data) in enumerate(blocks):
        last = 128 if index == len(blocks) - 1 else 0
        parts.append(bytes([kind | last]) + (len(data) & 0xFFFFFF).to_bytes(3, "big") + data)
    return b"".join(parts) + frames


@functools.cache
def material(seconds: float = 0.4) -> dict[str, tuple[str, bytes]]:
    """Intact files by name: (extension, bytes)."""
    files = {
        "mp3": (
            ".mp3",
            encode("MP3", "MPEG_LAYER_III", 2, 44100, seconds, bitrate_mode="CONSTANT", compression_level=0.6),
        ),
        "mp3 mono": (
            ".mp3",
            encode("MP3", "MPEG_LAYER_III", 1, 44100, seconds, bitrate_mode="CONSTANT", compression_level=0.6),
        ),
        "mp3 vbr": (
            ".mp3",
            encode("MP3", "MPEG_LAYER_III", 2, 44100, seconds, bitrate_mode="VARIABLE", compression_level=0.5),
        ),
        "mp3 abr": (".mp3", encode("MP3", "MPEG_LAYER_III", 2, 48000, seconds, bitrate_mode="AVERAGE")),
        "mp3 mpeg2": (".mp3", encode("MP3", "MPEG_LAYER_III", 1, 22050, seconds, bitrate_mode="CONSTANT")),
        "mp3 mpeg2.5": (".mp3", encode("MP3", "MPEG_LAYER_III", 1, 11025, seconds, bitrate_mode="CONSTANT")),
        "mp3 mpeg2.5 8k": (".mp3", encode("MP3", "MPEG_LAYER_III", 2, 8000, seconds, bitrate_mode="CONSTANT")),
        "wav": (".wav", encode("WAV", "PCM_16", 2, 44100, seconds)),
        "wav 24": (".wav", encode("WAV", "PCM_24", 1, 48000, seconds)),
        "wav u8": (".wav", encode("WAV", "PCM_U8", 1, 8000, seconds)),
        "wav float": (".wav", encode("WAV", "FLOAT", 2, 32000, seconds)),
        "wav double": (".wav", encode("WAV", "DOUBLE", 1, 22050, seconds)),
        "wav ulaw": (".wav", encode("WAV", "ULAW", 1, 16000, seconds)),
        "wav adpcm": (".wav", encode("WAV", "MS_ADPCM", 2, 44100, seconds)),
        "wav ima": (".wav", encode("WAV", "IMA_ADPCM", 1, 44100, seconds)),
        "wav gsm": (".wav", encode("WAV", "GSM610", 1, 8000, seconds)),
        "wavex": (".wav", encode("WAVEX", "PCM_24", 8, 96000, seconds / 4)),
        "rf64": (".wav", encode("RF64", "PCM_16", 2, 44100, seconds)),
        "flac": (".flac", encode("FLAC", "PCM_16", 2, 44100, seconds)),
        "flac 24": (".flac", encode("FLAC", "PCM_24", 1, 96000, seconds / 2)),
        "flac 8 channels": (".flac", encode("FLAC", "PCM_16", 8, 48000, seconds / 2)),
        "vorbis": (".ogg", encode("OGG", "VORBIS", 2, 44100, seconds)),
        "vorbis 6 channels": (".ogg", encode("OGG", "VORBIS", 6, 48000, seconds / 2)),
        "opus": (".opus", encode("OGG", "OPUS", 2, 48000, seconds)),
        "opus 16k": (".opus", encode("OGG", "OPUS", 1, 16000, seconds)),
        "aiff": (".aiff", encode("AIFF", "PCM_16", 2, 44100, seconds)),
        "aiff 24": (".aiff", encode("AIFF", "PCM_24", 1, 22050, seconds)),
        "aifc float": (".aifc", encode("AIFF", "FLOAT", 2, 44100, seconds)),
        "aifc ima": (".aifc", encode("AIFF", "IMA_ADPCM", 1, 44100, seconds)),
    }
    for name in ("mp3", "mp3 vbr", "mp3 mpeg2"):
        data = files[name][1]
        files[f"{name}, no info"] = (".mp3", data[mpeg_frames(data)[1] :])
    cbr = files["mp3, no info"][1]
    files["mp3 free format"] = (".mp3", free_format(cbr))
    tags = id3((b"TIT2", b"\3Title", 0), (b"APIC", b"\0image/png\0\3\0\x89PNG\r\n\x1a\n" + bytes(3000), 0))
    files["mp3 tagged"] = (".mp3", tags + files["mp3"][1] + b"TAG" + b"Title".ljust(125, b"\0"))
    return files
