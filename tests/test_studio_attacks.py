"""The studio's answers to files, names, wishes and sites that mean no good."""

import asyncio
import itertools
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("lameenc")
pytest.register_assert_rewrite("toy_studio")
from toy_studio import HEADERS, LIMITS, OCTETS, SCRIPT, URL, upload, wait

from restorer.errors import AudioFileError
from restorer.plugins.studio import application, trial
from restorer.plugins.studio.application import COOKIE
from restorer.plugins.studio.track import make_track
from restorer.plugins.studio.uploads import clean_name, source_name

pytest_plugins = ["toy_studio"]  # its fixtures: restorer, song, app, client, opened, gate


@pytest.mark.parametrize(
    "path, body",
    [
        ("takes", {"seed": 3}),
        ("takes", {"seed": -1}),
        ("takes", {"seed": True}),
        ("takes", {"seed": "0"}),
        ("takes", {"seed": 1e300}),
        ("takes", {"seeds": 1}),
        ("takes", {"seed": 0, "brightness": "loud"}),
        ("downloads", {"mix": 2}),
        ("downloads", {"mix": -0.1}),
        ("downloads", {"mix": None}),
        ("downloads", {"format": "../../x.flac"}),
        ("downloads", {"format": ["flac"]}),
        ("downloads", {"target": "/tmp/x.flac"}),
    ],
)
def test_impossible_wishes_are_named(opened, path, body):
    before = opened.get("/api/state").json()
    answer = opened.post(f"/api/{path}", json=body, headers=HEADERS)
    assert answer.status_code == 422 and list(body)[-1] in answer.json()["error"]
    assert opened.get("/api/state").json() == before


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"nul", b"\xff\xfe", b"[" * 4000, b"{" + b" " * 5000, b'{"mix": NaN}']
)
def test_broken_json_is_refused(opened, body):
    headers = {**HEADERS, "content-type": "application/json"}
    answer = opened.post("/api/downloads", content=body, headers=headers)
    assert answer.status_code in (400, 413, 422) and answer.json()["error"]
    assert opened.post("/api/downloads", content=b"{}", headers=OCTETS).status_code == 415


class TestUploads:
    def test_large_files_are_refused_by_their_head_and_by_what_comes(self, client):
        answer = upload(client, b"x" * (LIMITS.upload_bytes + 1))
        assert answer.status_code == 413 and "0.4 MB" in answer.json()["error"]
        chunks = itertools.repeat(b"x" * 50_000, 9)
        answer = client.put("/api/song", content=chunks, headers=OCTETS)  # without a length
        assert answer.status_code == 413 and client.get("/api/state").json()["song"] is None

    def test_long_songs_are_refused_in_clear_words(self, client, tmp_path):
        path = tmp_path / "long.flac"
        soundfile.write(path, np.zeros(round((LIMITS.audio_seconds + 1) * 44100), np.int16), 44100)
        answer = upload(client, path.read_bytes(), "long.flac")
        assert answer.status_code == 422
        assert "long.flac lasts 0.2 minutes" in answer.json()["error"] and "--max-minutes" in answer.json()["error"]

    def test_a_header_that_lies_about_the_length_changes_nothing(self, tmp_path):
        """What decodes counts, and not what the header claims: one second here, of three."""
        path = tmp_path / "lie.flac"
        soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 44100), 44100)
        data = bytearray(path.read_bytes())
        data[22:26] = (44100).to_bytes(4, "big")  # the lower bits of the number of samples in STREAMINFO
        path.write_bytes(data)
        try:
            made = make_track(path, tmp_path / "copy.wav", 44100, 2.0, lambda done, total: None)
            assert made.samples <= 2.0 * 44100
        except AudioFileError as error:
            assert "minutes" in str(error)
            assert not (tmp_path / "copy.wav").exists()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no audio at all",
            b"<html><script>alert(1)</script></html>" * 50,
            b"\0" * 5000,
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\xff\xff\0\0\0\0",
            b"fLaC\0\0\0\x22" + b"\xff" * 60,
            b"OggS" + b"\0" * 300,
            b"PK\x03\x04" + b"\0" * 100,
        ],
    )
    def test_no_audio_is_no_song(self, client, app, content):
        answer = upload(client, content, "../../etc/<b>x</b>.mp3")
        words = answer.json()["error"]
        assert 400 <= answer.status_code < 500 and words and str(app.state.sessions.folder) not in words
        assert client.get("/api/state").json()["song"] is None

    @pytest.mark.parametrize("kind", ["", "text/html", "multipart/form-data; boundary=x", "application/json"])
    def test_other_types_are_refused(self, client, song, kind):
        answer = upload(client, song.read_bytes(), **{"content-type": kind})
        assert answer.status_code == 415

    def test_broken_uploads_leave_nothing(self, client, app):
        before = set(app.state.sessions.folder.iterdir())
        for _ in range(30):
            assert upload(client, b"nothing").status_code == 422
        assert set(app.state.sessions.folder.iterdir()) == before and not client.cookies


def test_hostile_audio_is_played_or_refused_in_words(client, app, song):
    """What the command line survives, uploaded; then an intact song, as if nothing had been."""
    hostile = pytest.importorskip("hostile_mutations")
    folder, ends, most = str(app.state.sessions.folder), Counter(), 2 * LIMITS.upload_bytes
    for index in range(2 * len(hostile.KINDS)):
        case = hostile.make_case(7, index)
        pieces = (bytes(min(piece, most)) if isinstance(piece, int) else piece for piece in case.pieces)  # zeros
        answer = upload(client, b"".join(pieces)[:most], f"{case.kind}{case.suffix}")
        state = wait(client, 120.0)
        said = answer.json().get("error") or (state["job"] or {}).get("error") or ""
        assert answer.status_code in (202, 413, 422) and folder not in said and "Traceback" not in said, case
        assert "\n" not in said and (said or state["job"]["state"] == "done"), (case.kind, case.note, state)
        ends[answer.status_code, bool(said)] += 1
    assert ends[202, False] > 10 and ends[422, True] > 10
    assert upload(client, song.read_bytes()).status_code == 202 and wait(client)["job"]["state"] == "done"


@pytest.mark.parametrize(
    "ending, words",
    [
        ("os.abort()", "makes its decoder crash"),
        ("ctypes.string_at(0)", "makes its decoder crash"),
        ("time.sleep(60)", "takes more than 2 s to read"),
        ("trial._limit_memory(); bytearray(trial.LIMIT_BYTES)", "crash or run out of memory"),
    ],
)
def test_a_decoder_that_crashes_or_hangs_costs_one_upload(client, song, tmp_path, monkeypatch, ending, words):
    """The file is read in a process of its own first; the studio goes on."""
    imports = "import ctypes, os, time\nfrom restorer.plugins.studio import trial\n"
    (tmp_path / "bad_decoder.py").write_text(f"{imports}{ending}\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        patch.setattr(trial, "_MODULE", "bad_decoder")
        if "sleep" in ending:
            patch.setattr(trial, "LIMIT_SECONDS", 2.0)
        answer = upload(client, song.read_bytes(), "bad.mp3")
    assert answer.status_code == 422 and words in answer.json()["error"]
    assert answer.json()["error"].startswith("bad.mp3 ") and client.get("/api/state").json()["song"] is None
    assert upload(client, song.read_bytes()).status_code == 202


def test_the_trial_reads_no_more_than_the_limit_and_leaves_errors_to_others(song, tmp_path):
    (tmp_path / "none.mp3").write_bytes(b"no audio at all")
    for path in (song, tmp_path / "none.mp3", tmp_path / "missing.mp3"):
        trial.try_reading(path, 0.1)


NAMES = [
    "../../../../etc/passwd",
    "..\\..\\windows\\system32\\x.mp3",
    "/etc/passwd",
    "C:\\x.mp3",
    "..",
    "",
    "con\0trol\r\nSet-Cookie: a=b.mp3",
    "a" * 5000 + ".mp3",
    SCRIPT + ".mp3",
    "\u202egnp.3pm",
    "%2e%2e%2fx.mp3",
    "söng 歌.mp3",
    '";filename=x.html',
]


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_words(client, app, opened, gate, song, name):
    """A name is shown and offered again, and never becomes a path or a header."""
    assert upload(client, song.read_bytes(), name).status_code == 202
    shown = client.get("/api/state").json()["song"]["name"]
    assert 0 < len(shown) <= 120 and not set(shown) & set("/\\\0\r\n\u202e")
    session = app.state.sessions.find(client.cookies[COOKIE])
    assert [path.name.partition(".")[0] for path in session.folder.iterdir()] == ["source"]

    other = app.state.sessions.find(opened.cookies[COOKIE]).song
    before, other.name = other.name, shown
    got = opened.get("/api/downloads/take1")
    other.name = before
    assert got.status_code == 200 and "set-cookie" not in got.headers
    kind, _, filename = got.headers["content-disposition"].partition("; ")
    assert kind == "attachment" and filename.rstrip('"').endswith(".restored.flac") and '";' not in filename


def test_clean_names():
    assert clean_name("a/b\\c.mp3") == "c.mp3" and clean_name("../..") == "song" and clean_name("...") == "song"
    assert clean_name("x" * 300 + ".flac").endswith("x.flac") and len(clean_name("x" * 300 + ".flac")) == 120
    assert source_name("x.MP3") == "source.mp3" and source_name("x.php") == "source" and source_name("x") == "source"


CROSS = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "http://127.0.0.1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("extra", CROSS)
def test_other_sites_can_change_nothing(client, song, extra):
    for method, path in (
        ("PUT", "song"),
        ("DELETE", "song"),
        ("POST", "takes"),
        ("POST", "downloads"),
        ("POST", "cancel"),
    ):
        answer = client.request(method, f"/api/{path}", content=song.read_bytes(), headers={**OCTETS, **extra})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    ours = client.post("/api/cancel", headers={**HEADERS, "origin": URL, "sec-fetch-site": "same-origin"})
    assert ours.status_code == 200


def test_forms_and_preflights_of_other_sites_fail(client):
    assert client.post("/api/cancel").status_code == 403  # a form can send no header of its own
    answer = client.options(
        "/api/song", headers={"origin": "http://evil.example", "access-control-request-method": "PUT"}
    )
    assert answer.status_code in (403, 405) and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "localhost:x", "[::1"]
)
def test_foreign_names_of_this_address_are_refused(client, host):
    """A site whose name is made to point to this machine (DNS rebinding) reads and writes nothing."""
    for path in ("/", "/api/state", "/static/app.js"):
        assert client.get(path, headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "192.168.1.4:80"])
def test_own_names_are_accepted(client, host):
    assert client.get("/api/state", headers={"host": host}).status_code == 200


def test_every_answer_forbids_guessing_framing_and_foreign_content(client):
    for path in ("/", "/static/app.js", "/api/state", "/nowhere", "/api/tracks/original/audio"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http:" not in policy and "*" not in policy
    nonces = {client.get("/").text.split('nonce="')[1].split('"')[0] for _ in range(3)}
    assert len(nonces) == 3 and all(len(nonce) >= 16 for nonce in nonces)


def test_page_names_no_other_address():
    page = Path(sys.modules["restorer.plugins.studio.application"].__file__).parent / "page"
    for path in page.iterdir():
        text = path.read_text("utf-8")
        if path.suffix in (".html", ".css", ".js") and path.name not in ("wavesurfer.js", "timeline.js"):
            assert "http://" not in text and "https://" not in text and "//cdn" not in text
    assert "BSD 3-Clause" in (page / "wavesurfer-8.0.1-LICENSE.txt").read_text("utf-8")


PATHS = [
    "/static/../application.py",
    "/static/..%2fapplication.py",
    "/static/%2e%2e/%2e%2e/processor.py",
    "/static//etc/passwd",
    "/static/index.html",
    "/api/tracks/..%2f..%2f..%2fetc%2fpasswd/audio",
    "/api/tracks/source/audio",
    "/api/downloads/..%2fsource.mp3",
    "/api/downloads/%2fetc%2fpasswd",
    "/api/downloads/source.mp3",
    "/api/downloads/__class__",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(opened, path):
    assert opened.get(path).status_code == 404


def test_a_sweep_that_fails_is_logged_and_not_the_last(monkeypatch, caplog):
    """Whatever stands in its way, such as a folder that the system refuses to list."""
    swept = []

    class Refusing:
        def sweep(self):
            swept.append(1)
            if len(swept) < 3:
                raise PermissionError("no")

    async def some_sweeps():
        sweeper = asyncio.create_task(application._sweep(Refusing()))
        while len(swept) < 4:
            await asyncio.sleep(0.001)
            assert not sweeper.done()
        sweeper.cancel()

    monkeypatch.setattr(application, "_SWEEP_SECONDS", 0.001)
    asyncio.run(asyncio.wait_for(some_sweeps(), 30))
    assert [record.message for record in caplog.records] == ["the studio could not remove what nobody uses"] * 2
