"""A studio on a short song, and who uses it: fixtures and helpers of all its tests."""

import threading
import time
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from restorer import Restorer
from restorer.lame import encode_mp3
from restorer.plugins.studio.application import make_application
from restorer.plugins.studio.command import bind
from restorer.plugins.studio.jobs import Job
from restorer.plugins.studio.limits import Limits
from restorer.plugins.studio.server import make_server
from restorer.synthesis import synthesize

SECONDS = 1.5
HEADERS = {"x-restorer-studio": "1"}
OCTETS = {**HEADERS, "content-type": "application/octet-stream"}
URL = "http://127.0.0.1:8080"
LIMITS = Limits(upload_bytes=400_000, audio_seconds=10.0, takes=3, free_disk_bytes=0)
SCRIPT = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)</script>"


def make_song(path, seconds=SECONDS, kbps=64, **tags):
    """An MP3 with ID3 tags by frame name, such as TIT2."""
    from mutagen import id3

    path.write_bytes(encode_mp3(synthesize(seconds, 44100, 1), 44100, kbps))
    frames = id3.ID3()
    for name, text in tags.items():
        frames.add(getattr(id3, name)(encoding=3, text=text))
    frames.save(path)
    return path


def upload(client, content, name="song.mp3", **headers):
    """The answer to an upload."""
    return client.put("/api/song", params={"name": name}, content=content, headers={**OCTETS, **headers})


def wait(client, seconds=30.0):
    """The state once no job is in work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = client.get("/api/state").json()
        if not state["job"] or state["job"]["state"] not in ("waiting", "running"):
            return state
        time.sleep(0.02)
    raise AssertionError(f"still in work: {state['job']}")


def fetch_download(client, **settings):
    """The finished file with these settings, as a response."""
    for _ in range(2):
        answer = client.post("/api/downloads", json=settings, headers=HEADERS)
        assert answer.status_code == 202, answer.text
        if name := answer.json()["download"]:
            return client.get(f"/api/downloads/{name}")
        assert wait(client)["job"]["state"] == "done"
    raise AssertionError("no download appeared")


@contextmanager
def running(restorer, limits):
    """A studio on a free port of this machine; gives its server and the port."""
    listener = bind("127.0.0.1", 0)
    server = make_server(restorer, limits, "127.0.0.1")
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def restorer():
    return Restorer(device="cpu", threads=1)


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    return make_song(tmp_path_factory.mktemp("song") / "song.mp3", TIT2="A title", TPE1=SCRIPT)


@pytest.fixture(scope="module")
def app(restorer):
    app = make_application(restorer, LIMITS)
    with TestClient(app, base_url=URL):
        yield app


@pytest.fixture
def client(app):
    """A browser of its own in the studio of this module."""
    client = TestClient(app, base_url=URL)
    yield client
    client.delete("/api/song", headers=HEADERS)


@pytest.fixture(scope="module")
def opened(app, song):
    """A browser in which the song is open; tests look at it and leave it as it is."""
    client = TestClient(app, base_url=URL)
    assert upload(client, song.read_bytes(), "A song.mp3").status_code == 202
    assert wait(client)["job"]["state"] == "done"
    return client


@pytest.fixture
def gate(app):
    """A job that keeps the worker busy until it is opened."""
    opened = threading.Event()

    def work(job):
        while not opened.wait(0.005):
            job.report(0, 1)

    job = Job("gate", work)
    app.state.sessions._queue.add(job)
    yield opened
    opened.set()
    assert job.wait(5)
