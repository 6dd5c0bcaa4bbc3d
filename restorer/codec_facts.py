"""What an audio file says about its own coding: codec, bitrate, stereo mode, encoder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutagen import id3
from mutagen.aiff import AIFF
from mutagen.flac import FLAC
from mutagen.mp3 import MP3, BitrateMode
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from restorer.tag_file import read_tagged

_KINDS = (MP3, FLAC, OggVorbis, OggOpus, WAVE, AIFF)
_NAMES = {MP3: "MP3", FLAC: "FLAC", OggVorbis: "Vorbis", OggOpus: "Opus", WAVE: "WAV", AIFF: "AIFF"}
_MP3_MODES = ("stereo", "joint stereo", "dual channel", "mono")
_SIGNATURE_BYTES = 1 << 16
LOSSY = ("MP3", "Vorbis", "Opus")


@dataclass(frozen=True)
class CodecFacts:
    """`kbps` is the mean over the file; `vbr_quality` is LAME's -V (0 best, 9 smallest) where the file tells."""

    codec: str
    kbps: float
    stereo_mode: str
    encoder: str
    vbr_quality: int | None = None

    @property
    def lossy(self) -> bool:
        """Whether the codec discards anything."""
        return self.codec in LOSSY


def read_codec_facts(path: Path, container: str, channels: int, seconds: float) -> CodecFacts:
    """Read the headers and tags of an audio file that has been opened before; odd tags are never an error.

    Parameters
    ----------
    container : libsndfile's name of the format, for files whose headers mutagen cannot read.
    channels, seconds : as decoded.
    """
    try:
        file = read_tagged(path, list(_KINDS))
    except Exception:  # mutagen lets many kinds through for a file that is broken on purpose
        file = None
    size_kbps = path.stat().st_size * 8e-3 / max(seconds, 1e-3)
    mode = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    if file is None or (kind := next((k for k in _KINDS if isinstance(file, k)), None)) is None:
        return CodecFacts(container, size_kbps, mode, "")
    kbps = size_kbps - _attached_bytes(file) * 8e-3 / max(seconds, 1e-3)
    if not isinstance(file, MP3):
        return CodecFacts(_NAMES[kind], kbps, mode, _vendor(file))
    info: Any = file.info
    told = info.bitrate / 1000
    # Without an Info frame the told bitrate is that of the first frame; the size tells when that is not all. It also
    # tells when an Info frame lies.
    sure = info.bitrate_mode != BitrateMode.UNKNOWN and 0.5 * kbps < told < 2 * kbps
    if sure or abs(told - kbps) < 0.1 * kbps:
        kbps = told
    settings = getattr(info, "encoder_settings", "") or ""
    quality = re.search(r"-V ?(\d)", settings)
    encoder = " ".join(filter(None, [info.encoder_info, settings])) or _vendor(file) or _signature(path)
    return CodecFacts("MP3", kbps, _MP3_MODES[info.mode], encoder, int(quality[1]) if quality else None)


def _signature(path: Path) -> str:
    """What LAME writes into the padding of its frames, near the start or the end; "" if there is nothing."""
    with path.open("rb") as stream:
        start = stream.read(_SIGNATURE_BYTES)
        stream.seek(max(0, path.stat().st_size - _SIGNATURE_BYTES))
        found = re.search(rb"LAME ?(\d\.\d+)", start + stream.read())
    return f"LAME {found[1].decode()}" if found else ""


def _vendor(file: Any) -> str:
    tags = file.tags
    if tags is None:
        return ""
    if isinstance(tags, id3.ID3):
        frame = tags.get("TSSE") or tags.get("TENC")
        return " ".join(str(frame).split()) if frame else ""
    named = tags.get("encoder") if hasattr(tags, "get") else None
    return " ".join(str(getattr(tags, "vendor", "") or (named[0] if named else "")).split())


def _attached_bytes(file: Any) -> int:
    """Bytes of tags and pictures, as far as they make a difference to the bitrate."""
    tags = file.tags
    if isinstance(tags, id3.ID3):
        return int(getattr(tags, "size", 0) or sum(len(frame.data) for frame in tags.getall("APIC")))
    pictures = sum(len(picture.data) for picture in getattr(file, "pictures", []))
    values = (tags.get("metadata_block_picture") if tags is not None else None) or []
    return pictures + sum(len(value) for value in values)
