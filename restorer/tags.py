"""Text tags and cover art go from one audio file to another, across ID3 and Vorbis comments."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mutagen
from mutagen import id3
from mutagen.aiff import AIFF
from mutagen.flac import FLAC, Picture
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from restorer.errors import AudioFileError
from restorer.tag_file import TagFile, read_tagged

# ID3 text frame -> Vorbis comment field.
_NAMES = {
    "TIT1": "grouping",
    "TIT2": "title",
    "TIT3": "subtitle",
    "TPE1": "artist",
    "TPE2": "albumartist",
    "TPE3": "conductor",
    "TPE4": "remixer",
    "TALB": "album",
    "TSST": "discsubtitle",
    "TDRC": "date",
    "TDOR": "originaldate",
    "TCON": "genre",
    "TCOM": "composer",
    "TEXT": "lyricist",
    "TCOP": "copyright",
    "TPUB": "organization",
    "TBPM": "bpm",
    "TSRC": "isrc",
    "TKEY": "initialkey",
    "TLAN": "language",
    "TMED": "media",
    "TMOO": "mood",
    "TCMP": "compilation",
    "TSOP": "artistsort",
    "TSO2": "albumartistsort",
    "TSOA": "albumsort",
    "TSOT": "titlesort",
    "TSOC": "composersort",
}
_FRAMES = {name: frame for frame, name in _NAMES.items()}
# ID3 writes "3/12", Vorbis comments two fields.
_COUNTED = {"TRCK": ("tracknumber", "tracktotal"), "TPOS": ("discnumber", "disctotal")}
_SYNONYMS = {
    "totaltracks": "tracktotal",
    "totaldiscs": "disctotal",
    "album artist": "albumartist",
    "year": "date",
    "description": "comment",
    "unsyncedlyrics": "lyrics",
    "publisher": "organization",
    "label": "organization",
}
_LANGUAGE = "XXX"  # ID3 wants a language for comments and lyrics; this is its word for "unknown"
# What an earlier encoder said about itself or about its bytes is not true of the new file.
_NOT_CARRIED = {"encoder", "encodedby", "encoded-by", "encoding", "encodersettings", "metadata_block_picture"}
# More are no tag that anyone wrote; mutagen takes a time that grows with their square to write them.
_MAX_FIELDS, _MAX_VALUES = 1000, 1000
_MAX_FLAC_PICTURE_BYTES = (1 << 24) - 4096


@dataclass
class _Tags:
    """Tags of a file under their Vorbis names, values in order, and pictures as FLAC has them."""

    text: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, values: Iterable[Any]) -> None:
        name = _SYNONYMS.get(name.lower(), name.lower())
        if not name or name in _NOT_CARRIED or "=" in name or not all(" " <= char <= "}" for char in name):
            return
        kept = dict.fromkeys(self.text.get(name, []))
        for value in islice(values, _MAX_VALUES):
            if text := str(value).strip("\0"):
                kept[text] = None
        if kept:
            self.text[name] = list(kept)[:_MAX_VALUES]


def copy_tags(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> list[str]:
    """Carry text tags and cover art of `source` over to `target`, whose own are replaced.

    Parameters
    ----------
    source : MP3, WAV or AIFF (ID3), FLAC, Ogg Vorbis or Opus (Vorbis comments), any of them without tags.
    target : finished audio file ending in .mp3, .wav, .flac, .ogg or .opus.

    Returns
    -------
    One line for each thing that could not be carried over. Broken tags are never an error.

    Raises
    ------
    AudioFileError : the system refuses to write to `target`, such as when the disk is full.
    """
    try:
        tags = _read(Path(source))
    except Exception as error:  # mutagen lets many kinds through for a file that is broken on purpose
        return [f"{source}: the tags are damaged and were not carried over ({_reason(error)})"]
    warnings = [f"{source}: {line}" for line in tags.warnings]
    if not tags.text and not tags.pictures:
        return warnings
    try:
        _write(Path(target), tags)
    except Exception as error:
        system = next((e for e in (error, *error.args) if isinstance(e, OSError)), None)
        if system is not None:
            raise AudioFileError(f"cannot write tags to {target}: {system.strerror or system}") from error
        warnings.append(f"{source}: the tags could not be carried over ({_reason(error)})")
    return warnings


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _read(path: Path) -> _Tags:
    file = read_tagged(path, [FLAC, OggVorbis, OggOpus, WAVE, AIFF])
    tags = _Tags()
    if file is None:
        with suppress(id3.ID3NoHeaderError), TagFile(path) as stream:
            _read_id3(id3.ID3(stream), tags)
    elif file.tags is not None and isinstance(file, (WAVE, AIFF)):
        _read_id3(file.tags, tags)
    elif file.tags is not None:
        _read_comments(file.tags, tags)
    if isinstance(file, FLAC):
        tags.pictures += file.pictures
    return tags


def _read_id3(frames: Any, tags: _Tags) -> None:
    for frame in frames.values():
        identifier = frame.FrameID
        if identifier == "TCON":
            tags.add("genre", frame.genres)
        elif identifier in _NAMES:
            tags.add(_NAMES[identifier], frame.text)
        elif identifier in _COUNTED:
            for value in frame.text[:1]:
                for name, part in zip(_COUNTED[identifier], str(value).split("/", 1), strict=False):
                    tags.add(name, [part.strip()])
        elif identifier == "COMM":
            # Players hide their own data in described comments (iTunNORM and others).
            if not frame.desc or frame.desc.lower() in ("comment", "description"):
                tags.add("comment", frame.text)
        elif identifier == "USLT":
            tags.add("lyrics", [frame.text])
        elif identifier == "TXXX":
            tags.add(frame.desc, frame.text)
        elif identifier == "APIC":
            picture = Picture()
            picture.type, picture.mime, picture.desc = int(frame.type), frame.mime, frame.desc
            picture.data = frame.data
            _describe_image(picture)
            tags.pictures.append(picture)


def _read_comments(comments: Any, tags: _Tags) -> None:
    fields: dict[str, list[str]] = {}
    for key, value in comments:
        fields.setdefault(key.lower(), []).append(value)
    for name, values in islice(fields.items(), _MAX_FIELDS):
        if name == "metadata_block_picture":
            for value in values:
                try:
                    tags.pictures.append(Picture(base64.b64decode(value, validate=True)))
                except (ValueError, mutagen.MutagenError):
                    tags.warnings.append("a cover picture is damaged and was not carried over")
        elif name in ("tracknumber", "discnumber") and "/" in values[0]:
            number, total = values[0].split("/", 1)
            tags.add(name, [number.strip()])
            tags.add(name.replace("number", "total"), [total.strip()])
        else:
            tags.add(name, values)


def _write(path: Path, tags: _Tags) -> None:
    suffix = path.suffix.lower()
    if suffix == ".mp3":
        frames = id3.ID3()
        _fill_id3(frames, tags)
        frames.save(path)
    elif suffix == ".wav":
        wave = WAVE(path)
        if wave.tags is None:
            wave.add_tags()
        _fill_id3(wave.tags, tags)
        wave.save()
    else:
        file: Any = {".flac": FLAC, ".opus": OggOpus}.get(suffix, OggVorbis)(path)
        if file.tags is None:
            file.add_tags()
        for name, values in tags.text.items():
            file.tags[name] = values
        if isinstance(file, FLAC):
            file.clear_pictures()
            for picture in tags.pictures:
                if len(picture.data) > _MAX_FLAC_PICTURE_BYTES:
                    tags.warnings.append("a cover picture above 16 MB does not fit into FLAC and was left out")
                else:
                    file.add_picture(picture)
        elif tags.pictures:
            file.tags["metadata_block_picture"] = [
                base64.b64encode(picture.write()).decode("ascii") for picture in tags.pictures
            ]
        file.save()


def _fill_id3(frames: Any, tags: _Tags) -> None:
    text = dict(tags.text)
    for identifier, (number, total) in _COUNTED.items():
        parts = text.pop(number, [""])[0], text.pop(total, [""])[0]
        if any(parts):
            joined = "/".join(parts) if parts[1] else parts[0]
            frames.add(getattr(id3, identifier)(encoding=3, text=[joined]))
    for name, values in text.items():
        if name == "comment":
            frames.add(id3.COMM(encoding=3, lang=_LANGUAGE, desc="", text=values))
        elif name == "lyrics":
            frames.add(id3.USLT(encoding=3, lang=_LANGUAGE, desc="", text="\n".join(values)))
        elif name in _FRAMES:
            frames.add(getattr(id3, _FRAMES[name])(encoding=3, text=values))
        else:
            frames.add(id3.TXXX(encoding=3, desc=name, text=values))
    for index, picture in enumerate(tags.pictures):
        # ID3 tells pictures apart by their description: make sure that none replaces another.
        taken = any(other.desc == picture.desc for other in tags.pictures[:index])
        desc = f"{picture.desc} {index + 1}".strip() if taken else picture.desc
        frames.add(id3.APIC(encoding=3, mime=picture.mime, type=int(picture.type), desc=desc, data=picture.data))


def _describe_image(picture: Picture) -> None:
    """Fill in the size that FLAC wants and ID3 does not have; only PNG says it at a fixed place."""
    if picture.data[:8] == b"\x89PNG\r\n\x1a\n" and len(picture.data) >= 26:
        picture.width, picture.height, bits, colour = struct.unpack(">IIBB", picture.data[16:26])
        picture.depth = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
