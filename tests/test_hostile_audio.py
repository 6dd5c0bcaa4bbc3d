"""Broken audio files are restored or refused in one line, within limits of time and memory; 300 of them, by seed 0.

`python benchmarks/hostile_audio.py --count 3000 --seed 0 --out DIR` tries ten times as many.
"""

import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("resource")

from hostile_guard import Result, run_cases
from hostile_material import flac_blocks, id3, join_flac, material, mpeg_frames
from hostile_mpeg import LONG_RUN
from hostile_mutations import KINDS, make_case
from toy_model import save_convolution

from restorer.audio_in import read_audio
from restorer.codec_facts import read_codec_facts
from restorer.errors import AudioFileError
from restorer.inspection import inspect_file
from restorer.mpeg_frames import _HEADER, frame_bytes, open_mpeg
from restorer.restoring import copy_unprocessed
from restorer.tag_file import BUDGET_BYTES
from restorer.tags import copy_tags

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured and limited as Linux does it")
COUNT = 300


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    folder = tmp_path_factory.mktemp("hostile")
    model = save_convolution(folder / "toy.onnx", window=256, hop=128)
    (folder / "files").mkdir()
    return list(run_cases(model, folder / "files", 0, range(COUNT)))


def test_each_is_restored_or_refused_in_one_line(results: list[Result]) -> None:
    failed = [f"{r.index} {r.case.kind} ({r.case.note}): {r.line}" for r in results if r.outcome == "failed"]
    assert not failed, "\n".join(failed)
    assert len(results) == COUNT


def test_what_is_intact_is_restored_and_what_is_no_audio_is_not(results: list[Result]) -> None:
    outcomes = {kind: Counter(r.outcome for r in results if r.case.kind == kind) for kind in KINDS}
    assert set(outcomes["intact"]) == {"restored"}
    # An MP3 of six channels is impossible, so a few intact sounds are refused.
    assert outcomes["bombs"]["restored"] > 0
    for kind in ("tiny", "only_tags"):
        assert set(outcomes[kind]) == {"refused"}, kind
    assert sum(count["restored"] for count in outcomes.values()) > COUNT // 3


def test_cases_are_the_same_each_time() -> None:
    for index in range(0, 60, 7):
        assert make_case(3, index) == make_case(3, index)
    assert make_case(3, 1) != make_case(4, 1)


def test_a_crash_and_a_hang_are_failures_of_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hostile_guard

    model = save_convolution(tmp_path / "toy.onnx", window=256, hop=128)
    (tmp_path / "files").mkdir()
    worker = tmp_path / "hostile_worker.py"
    worker.write_text(
        "import os, sys, time, json\n"
        "for line in sys.stdin:\n"
        "    index = int(line.split()[1])\n"
        "    if index == 0: os.abort()\n"
        "    if index == 1: time.sleep(100)\n"
        "    print(json.dumps({'outcome': 'restored', 'line': '', 'elapsed_seconds': 0.1}), flush=True)\n"
    )
    monkeypatch.setattr(hostile_guard, "__file__", str(worker))
    monkeypatch.setattr(hostile_guard, "LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(hostile_guard, "_START_SECONDS", 1.0)
    died, hung, fine = run_cases(model, tmp_path / "files", 0, range(3))
    assert died.outcome == "failed" and "died with status -6" in died.line
    assert hung.outcome == "failed" and "hangs" in hung.line
    assert fine.outcome == "restored"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def squeezed(megabytes: int) -> bytes:
    inflated = zlib.compressobj(1)
    return b"".join(inflated.compress(bytes(1 << 20)) for _ in range(megabytes)) + inflated.flush()


def test_tags_that_grow_are_left_behind(tmp_path: Path) -> None:
    intact = material()["mp3"][1]
    target = written(tmp_path / "out.wav", material()["wav"][1])
    bomb = (b"APIC", struct.pack(">I", 1 << 20) + squeezed((BUDGET_BYTES >> 20) + 2), 0x80)
    source = written(tmp_path / "bomb.mp3", id3((b"TIT2", b"\3Title", 0), bomb) + intact)
    (line,) = copy_tags(source, target)
    assert "not carried over" in line and "inflate to more than" in line
    assert read_codec_facts(source, "MP3", 2, 0.4).codec == "MP3"

    small = id3((b"TIT2", struct.pack(">I", 6) + zlib.compress(b"\3Title"), 0x80))
    assert copy_tags(written(tmp_path / "small.mp3", small + intact), target) == []

    huge = tmp_path / "huge.mp3"
    with huge.open("wb") as file:
        file.write(id3((b"APIC", b"", 0), size=BUDGET_BYTES + 10))
        file.seek(BUDGET_BYTES + 20)
        file.write(intact)
    (line,) = copy_tags(huge, target)
    assert "more than 32 MiB" in line


def test_a_hundred_thousand_comments_take_no_quadratic_time(tmp_path: Path) -> None:
    comments = b"".join(struct.pack("<I", 8) + b"%06x=x" % number for number in range(100_000))
    blocks, frames = flac_blocks(material()["flac"][1])
    data = join_flac([blocks[0], (4, struct.pack("<II", 0, 100_000) + comments)], frames)
    assert copy_tags(written(tmp_path / "in.flac", data), written(tmp_path / "out.wav", material()["wav"][1])) == []


def test_a_million_texts_in_one_frame_are_left_behind(tmp_path: Path) -> None:
    text = b"\3" + b"".join(b"%x\0" % number for number in range(1 << 20))
    source = written(tmp_path / "in.mp3", id3((b"TXXX", text, 0)) + material()["mp3"][1])
    (line,) = copy_tags(source, written(tmp_path / "out.wav", material()["wav"][1]))
    assert "too many texts in one frame" in line
    few = id3((b"TXXX", b"\3NAME\0" + b"\0".join(b"%d" % number for number in range(2000)), 0))
    source.write_bytes(few + material()["mp3"][1])
    assert copy_tags(source, tmp_path / "out.wav") == []


@pytest.mark.parametrize("run", [b"\xff", b"\xff\xfb\x90\x64", id3(version=4)], ids=["ones", "headers", "tags"])
@pytest.mark.parametrize("where", ["alone", "before", "within", "after"])
def test_runs_in_which_a_frame_could_begin_anywhere_take_no_time(tmp_path: Path, run: bytes, where: str) -> None:
    intact = material()["mp3"][1]
    run *= LONG_RUN // len(run)
    at = {"alone": 0, "before": 0, "within": len(intact) // 2, "after": len(intact)}[where]
    data = run if where == "alone" else intact[:at] + run + intact[at:]
    started = time.process_time()
    try:
        damage = open_mpeg(written(tmp_path / "in.mp3", data)).damage
    except AudioFileError as error:  # so many false frames that the search for one was given up
        assert "no MPEG audio frame" in str(error) and where in ("alone", "before")
    else:
        (line,) = damage or ["left to the decoder"]
        assert "not audio and were skipped" in line or where == "alone"
    assert time.process_time() - started < 3.0  # walked byte by byte it was 50 s and more


@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("edge", [1 << 20, (1 << 20) - 4096])
def test_a_frame_is_found_where_the_window_ends(tmp_path: Path, edge: int, before: int) -> None:
    intact = material()["mp3, no info"][1]
    path = written(tmp_path / "in.mp3", b"\xff" * (edge - before) + intact)
    view = open_mpeg(path)
    assert view.damage == [f"the file is damaged: {edge - before} bytes at 0.00 s are not audio and were skipped"]


def test_the_search_stops_at_whatever_is_a_header() -> None:
    """The pattern and `frame_bytes` agree about every header."""
    for word in range(1 << 16):
        header = bytes([0xFF, word >> 8, word & 0xFF, 0])
        assert bool(_HEADER.match(header)) == (frame_bytes(int.from_bytes(header, "big")) > 0), header.hex()


def test_of_many_gaps_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    data = material()["mp3, no info"][1]
    starts = mpeg_frames(data)
    few, many = (
        open_mpeg(written(tmp_path / "in.mp3", (data[: starts[3]] + b"gap") * (gaps + 1) + data)).damage
        for gaps in (4, 500)
    )
    assert len(few) == 5 and all("bytes at" in line for line in few)
    assert len(many) == 6 and many[-1] == "the file is damaged: and 496 more places"
    report = copy_unprocessed(tmp_path / "in.mp3", tmp_path / "out.mp3", 44100)
    assert sum("more places" in line for line in report.warnings) == 1 and len(report.warnings) < 10


@pytest.mark.parametrize("size", [1 << 20, (1 << 28) - 1])
def test_a_tag_that_lies_about_its_size_costs_no_audio(tmp_path: Path, size: int) -> None:
    intact = material()["mp3"][1]
    expected, _ = read_audio(written(tmp_path / "in.mp3", intact), None)
    audio, _ = read_audio(written(tmp_path / "lie.mp3", id3((b"TIT2", b"\3Title", 0), size=size) + intact), None)
    assert audio.shape == expected.shape
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 1 << 31, 1, 0) + bytes(8)
    audio, _ = read_audio(written(tmp_path / "ape.mp3", intact + ape), None)
    assert audio.shape == expected.shape


def test_a_format_that_cannot_seek_is_read_and_inspected(tmp_path: Path) -> None:
    path = written(tmp_path / "in.wav", material()["wav gsm"][1])
    audio, rate = read_audio(path, None)
    assert rate == 8000 and audio.shape[1] >= 3200
    assert inspect_file(path).verdict == "restore"


@pytest.mark.parametrize("suffix", [".raw", ".vox", ".gsm", ".au", ".snd"])
def test_a_name_does_not_make_audio_of_text(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(AudioFileError, match="it is not MP3"):
        read_audio(written(tmp_path / f"text{suffix}", b"This is no audio.\n" * 300))
    audio, _ = read_audio(written(tmp_path / f"audio{suffix}", material()["wav"][1]))
    assert audio.shape[0] == 2


def test_a_flac_that_claims_years_is_measured_by_what_is_there(tmp_path: Path) -> None:
    blocks, frames = flac_blocks(material(0.4)["flac"][1])
    info = int.from_bytes(blocks[0][1], "big") | ((1 << 36) - 1) << 128
    path = written(tmp_path / "in.flac", join_flac([(0, info.to_bytes(34, "big")), *blocks[1:]], frames))
    found = inspect_file(path)
    assert found.seconds == pytest.approx(0.4) and found.bandwidth_hz > 15_000


def test_free_format_is_read_by_the_decoder(tmp_path: Path) -> None:
    assert len(mpeg_frames(material()["mp3, no info"][1])) > 10
    audio, _ = read_audio(written(tmp_path / "free.mp3", material()["mp3 free format"][1]), None)
    assert audio.shape[1] > 10_000


def test_an_info_frame_that_lies_is_named_and_the_file_is_not_copied_with_it(tmp_path: Path) -> None:
    data = bytearray(material()["mp3"][1])
    at = data.index(b"Info") + 8
    expected, _ = read_audio(written(tmp_path / "in.mp3", bytes(data)), None)
    honest = inspect_file(tmp_path / "in.mp3")
    data[at : at + 4] = struct.pack(">I", 1)
    source = written(tmp_path / "lie.mp3", bytes(data))
    found = inspect_file(source)
    assert found.kbps == pytest.approx(honest.kbps, rel=0.3)
    assert "tells of 1 frames" in found.warnings[0]
    report = copy_unprocessed(source, tmp_path / "out.mp3", 44100)
    assert "tells of 1 frames" in report.warnings[0]
    assert abs(read_audio(tmp_path / "out.mp3", None)[0].shape[1] - expected.shape[1]) < 2000
