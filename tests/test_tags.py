"""Tags and covers survive every way from ID3 to Vorbis comments and back."""

import base64
import os
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen import id3
from mutagen.aiff import AIFF
from mutagen.flac import FLAC, Picture
from mutagen.oggopus import OggOpus
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from restorer.audio_in import read_audio
from restorer.audio_out import AudioWriter
from restorer.errors import AudioFileError
from restorer.tags import copy_tags

TEXT = {
    "title": ["Élan 夜"],
    "artist": ["First", "Second"],
    "album": ["The Album"],
    "albumartist": ["Various"],
    "tracknumber": ["3"],
    "tracktotal": ["12"],
    "discnumber": ["1"],
    "disctotal": ["2"],
    "date": ["1999-05-01"],
    "genre": ["Jazz"],
    "composer": ["Somebody"],
    "comment": ["A comment; with = and :"],
    "lyrics": ["line one\nline two"],
    "copyright": ["1999 Label"],
    "isrc": ["USRC17607839"],
    "musicbrainz_albumid": ["8a1c"],
}
COVER = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x40\x00\x00\x00\xf0\x08\x02\x00\x00\x00" + bytes(range(256)) * 40
)
SOURCES = [".mp3", ".wav", ".aiff", ".flac", ".ogg", ".opus"]
TARGETS = [".mp3", ".wav", ".flac", ".ogg"]


def make_file(path: Path) -> Path:
    audio = 0.1 * np.random.default_rng(0).standard_normal((9000, 2))
    if path.suffix == ".opus":
        soundfile.write(path, audio, 48000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, audio, 44100)
    return path


def make_picture(kind: int = 3, data: bytes = COVER) -> Picture:
    picture = Picture()
    picture.type, picture.mime, picture.desc, picture.data = kind, "image/png", "", data
    picture.width, picture.height, picture.depth = 320, 240, 24
    return picture


def make_id3() -> list[id3.Frame]:
    return [
        id3.TIT2(text=TEXT["title"]),
        id3.TPE1(text=TEXT["artist"]),
        id3.TALB(text=TEXT["album"]),
        id3.TPE2(text=TEXT["albumartist"]),
        id3.TRCK(text=["3/12"]),
        id3.TPOS(text=["1/2"]),
        id3.TDRC(text=TEXT["date"]),
        id3.TCON(text=["(8)"]),
        id3.TCOM(text=TEXT["composer"]),
        id3.COMM(lang="eng", desc="", text=TEXT["comment"]),
        id3.COMM(lang="eng", desc="iTunNORM", text=["000003E8"]),
        id3.USLT(lang="eng", desc="", text=TEXT["lyrics"][0]),
        id3.TCOP(text=TEXT["copyright"]),
        id3.TSRC(text=TEXT["isrc"]),
        id3.TXXX(desc="MUSICBRAINZ_ALBUMID", text=TEXT["musicbrainz_albumid"]),
        id3.TSSE(text=["LAME 3.100"]),
        id3.APIC(mime="image/png", type=3, desc="", data=COVER),
        id3.APIC(mime="image/png", type=4, desc="", data=COVER[:999]),
    ]


def tag(path: Path) -> Path:
    """Write TEXT and two pictures the way the format has them."""
    if path.suffix == ".mp3":
        tags = id3.ID3()
        for frame in make_id3():
            tags.add(frame) if not (frame.FrameID == "APIC" and frame.type == 4) else tags.add(
                id3.APIC(mime="image/png", type=4, desc="back", data=COVER[:999])
            )
        tags.save(path)
        return path
    if path.suffix in (".wav", ".aiff"):
        file: Any = WAVE(path) if path.suffix == ".wav" else AIFF(path)
        file.add_tags()
        for frame in make_id3()[:-1]:
            file.tags.add(frame)
        file.tags.add(id3.APIC(mime="image/png", type=4, desc="back", data=COVER[:999]))
        file.save()
        return path
    file = {".flac": FLAC, ".ogg": OggVorbis, ".opus": OggOpus}[path.suffix](path)
    if file.tags is None:
        file.add_tags()
    for name, values in TEXT.items():
        file.tags[name.upper()] = values
    file.tags["ENCODER"] = ["Lavf"]
    pictures = [make_picture(), make_picture(4, COVER[:999])]
    if path.suffix == ".flac":
        for picture in pictures:
            file.add_picture(picture)
    else:
        file.tags["METADATA_BLOCK_PICTURE"] = [base64.b64encode(p.write()).decode() for p in pictures]
    file.save()
    return path


def read_pictures(path: Path) -> list[tuple[int, str, bytes]]:
    file = mutagen.File(path)
    if path.suffix == ".flac":
        pictures = file.pictures
    elif path.suffix == ".ogg":
        pictures = [Picture(base64.b64decode(v)) for v in file.tags.get("metadata_block_picture", [])]
    else:
        pictures = file.tags.getall("APIC")
    return sorted((int(p.type), p.mime, p.data) for p in pictures)


def check_tags(path: Path) -> None:
    """What a player sees, read with the names of the format itself."""
    tags = mutagen.File(path).tags
    if path.suffix in (".flac", ".ogg"):
        found = {name.lower(): tags[name] for name in {key.lower() for key, _ in tags}}
        found.pop("metadata_block_picture", None)
        found.pop("encoder", None)  # libsndfile's own
        assert found == TEXT
        return
    for frame, name in [("TIT2", "title"), ("TPE1", "artist"), ("TALB", "album"), ("TPE2", "albumartist")]:
        assert list(tags[frame].text) == TEXT[name]
    for frame, name in [("TCON", "genre"), ("TCOM", "composer"), ("TCOP", "copyright"), ("TSRC", "isrc")]:
        assert list(tags[frame].text) == TEXT[name]
    assert str(tags["TDRC"]) == TEXT["date"][0]
    assert tags["TRCK"].text == ["3/12"]
    assert tags["TPOS"].text == ["1/2"]
    assert [frame.text for frame in tags.getall("COMM")] == [TEXT["comment"]]
    assert [frame.text for frame in tags.getall("USLT")] == TEXT["lyrics"]
    assert [frame.text for frame in tags.getall("TXXX")] == [TEXT["musicbrainz_albumid"]]
    assert "TSSE" not in tags


@pytest.mark.parametrize("target_suffix", TARGETS)
@pytest.mark.parametrize("source_suffix", SOURCES)
def test_everything_is_carried_over(tmp_path: Path, source_suffix: str, target_suffix: str) -> None:
    source = tag(make_file(tmp_path / f"in{source_suffix}"))
    target = make_file(tmp_path / f"out{target_suffix}")
    before, original = read_audio(target)[0], source.read_bytes()
    assert copy_tags(source, target) == []
    check_tags(target)
    assert read_pictures(target) == [(3, "image/png", COVER), (4, "image/png", COVER[:999])]
    assert np.array_equal(read_audio(target)[0], before)
    assert source.read_bytes() == original


def test_a_flac_cover_gets_the_size_id3_does_not_tell(tmp_path: Path) -> None:
    source, target = tag(make_file(tmp_path / "in.mp3")), make_file(tmp_path / "out.flac")
    copy_tags(source, target)
    cover = FLAC(target).pictures[0]
    assert (cover.width, cover.height, cover.depth) == (320, 240, 24)


def test_two_pictures_without_names_stay_two(tmp_path: Path) -> None:
    source = make_file(tmp_path / "in.flac")
    file = FLAC(source)
    for data in (COVER, COVER[:500], COVER[:700]):
        file.add_picture(make_picture(0, data))
    file.save()
    copy_tags(source, make_file(tmp_path / "out.mp3"))
    assert len(read_pictures(tmp_path / "out.mp3")) == 3


@pytest.mark.parametrize("target_suffix", TARGETS)
@pytest.mark.parametrize("source_suffix", SOURCES)
def test_no_tags_are_no_problem(tmp_path: Path, source_suffix: str, target_suffix: str) -> None:
    source, target = make_file(tmp_path / f"in{source_suffix}"), make_file(tmp_path / f"out{target_suffix}")
    assert copy_tags(source, target) == []
    assert read_audio(target)[0].shape[1] >= 9000


def test_the_tags_of_a_damaged_mp3_are_read(tmp_path: Path) -> None:
    source, target = tag(make_file(tmp_path / "in.mp3")), make_file(tmp_path / "out.flac")
    data = source.read_bytes()
    start = len(data) - 3000
    source.write_bytes(data[:start] + bytes(3000))
    assert copy_tags(source, target) == []
    check_tags(target)


def test_an_old_id3v1_tag_is_read(tmp_path: Path) -> None:
    source, target = make_file(tmp_path / "in.mp3"), make_file(tmp_path / "out.flac")
    old = b"TAG" + b"Old title".ljust(30, b"\0") + b"Old artist".ljust(30, b"\0") + bytes(64) + b"\x08"
    source.write_bytes(source.read_bytes() + old)
    assert copy_tags(source, target) == []
    assert FLAC(target)["title"] == ["Old title"]
    assert FLAC(target)["genre"] == ["Jazz"]


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg", ".wav"])
def test_broken_tags_are_a_warning_at_most(tmp_path: Path, suffix: str) -> None:
    source, target = tag(make_file(tmp_path / f"in{suffix}")), make_file(tmp_path / "out.flac")
    data, random = source.read_bytes(), np.random.default_rng(0)
    for _ in range(30):
        broken = bytearray(data)
        for position in random.integers(0, len(data) if suffix == ".wav" else 900, 20):
            broken[position] = random.integers(256)
        source.write_bytes(broken)
        warnings = copy_tags(source, target)
        assert all("\n" not in line and source.name in line for line in warnings)
        assert soundfile.info(target).frames == 9000


def test_a_broken_cover_is_named_and_the_text_is_kept(tmp_path: Path) -> None:
    source, target = tag(make_file(tmp_path / "in.ogg")), make_file(tmp_path / "out.mp3")
    file = OggVorbis(source)
    file["metadata_block_picture"] = ["no picture at all"]
    file.save()
    warnings = copy_tags(source, target)
    assert len(warnings) == 1
    assert "cover picture is damaged" in warnings[0]
    check_tags(target)


@pytest.mark.parametrize("suffix", TARGETS)
def test_the_writer_carries_tags_over_before_the_file_appears(tmp_path: Path, suffix: str) -> None:
    source = tag(make_file(tmp_path / "in.mp3"))
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, 20000)).astype(np.float32)
    with AudioWriter(tmp_path / f"out{suffix}", 2, tags_from=source) as writer:
        writer.write(audio)
    assert writer.warnings == []
    check_tags(tmp_path / f"out{suffix}")
    assert read_audio(tmp_path / f"out{suffix}")[0].shape == audio.shape
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("suffix", TARGETS)
def test_a_disk_that_fills_up_with_the_cover(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    source = make_file(tmp_path / "in.flac")
    file = FLAC(source)
    file.add_picture(make_picture(data=COVER * 50))
    file.save()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(AudioFileError), AudioWriter(tmp_path / f"out{suffix}", 2, tags_from=source) as writer:
        writer.write(np.zeros((2, 9000), np.float32))
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
            writer.__exit__(None, None, None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["in.flac"]
