"""The studio: what it gives for a song is what the command line writes; jobs queue, and files go with their browser."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("lameenc")
pytest.register_assert_rewrite("toy_studio")
from click.testing import CliRunner
from starlette.testclient import TestClient
from toy_studio import HEADERS, LIMITS, SCRIPT, URL, fetch_download, upload, wait

from restorer import Restorer
from restorer.audio_in import read_audio
from restorer.cli import main
from restorer.noise import draw_noise
from restorer.plugins.studio.application import COOKIE, make_application
from restorer.plugins.studio.jobs import Job
from restorer.plugins.studio.song import Song
from restorer.plugins.studio.track import make_track

pytest_plugins = ["toy_studio"]  # its fixtures: restorer, song, app, client, opened, gate


def test_a_song_is_played_drawn_and_downloaded_as_the_command_line_writes_it(client, song, tmp_path):
    answer = upload(client, song.read_bytes(), "A song.mp3")
    assert answer.status_code == 202
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and len(client.cookies[COOKIE]) >= 40
    state = wait(client)
    assert state["job"]["state"] == "done", state["job"]
    found = state["song"]
    assert found["name"] == "A song.mp3" and found["tags"] == {"title": "A title", "artist": SCRIPT}
    assert found["facts"]["codec"] == "MP3" and found["facts"]["kbps"] == pytest.approx(64, abs=4)

    decoded, rate = read_audio(song, 44100)
    original, (take,) = found["original"], found["takes"]
    for track, url in ((original, "original"), (take, take["name"])):
        assert (track["samples"], track["channels"], track["sample_rate"]) == (decoded.shape[1], 2, rate)
        peaks = np.array(client.get(f"/api/tracks/{url}/peaks").json())
        assert peaks.shape[0] == 2 and (peaks[0] >= peaks[1]).all() and np.abs(peaks).max() <= 1
        picture = client.get(f"/api/tracks/{url}/spectrogram").content
        assert len(picture) == track["rows"] * track["columns"]
    first, count = 30_000, 1000
    begin = original["data_offset"] + 4 * first
    part = client.get("/api/tracks/original/audio", headers={"range": f"bytes={begin}-{begin + 4 * count - 1}"})
    assert part.status_code == 206
    heard = np.frombuffer(part.content, "<i2").reshape(-1, 2).T / 32768
    assert np.abs(heard - decoded[:, first : first + count]).max() <= 0.51 / 32768 + 1e-6

    for name, settings, options in (
        ("a.flac", {}, []),
        ("b.mp3", {"mix": 0.35, "format": "mp3"}, ["--mix", "0.35"]),
    ):
        target = tmp_path / name
        arguments = ["restore", str(song), str(target), "--device", "cpu", "--threads", "1", *options]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        got = fetch_download(client, seed=0, **settings)
        assert got.headers["content-disposition"].startswith("attachment;")
        assert f"A%20song.restored{target.suffix}" in got.headers["content-disposition"]
        assert got.content == target.read_bytes(), name


def test_takes_differ_and_only_the_last_of_a_seed_is_kept(client, song):
    upload(client, song.read_bytes())
    first = wait(client)["song"]["takes"][0]
    assert client.post("/api/takes", json={"seed": 1}, headers=HEADERS).status_code == 202
    takes = wait(client)["song"]["takes"]
    assert [take["seed"] for take in takes] == [0, 1] and takes[0] == first
    sounds = [client.get(f"/api/tracks/{take['name']}/audio").content for take in takes]
    assert len(sounds[0]) == len(sounds[1]) and sounds[0] != sounds[1]
    named = client.get(f"/api/downloads/{takes[1]['name']}").headers["content-disposition"]
    assert named == 'attachment; filename="song.restored.take2.flac"'
    again = client.post("/api/takes", json={"seed": 1}, headers=HEADERS).json()
    assert again["job"]["state"] == "done" and again["song"]["takes"] == takes  # nothing is computed twice


def test_brightness_makes_another_take_where_the_model_knows_it(song, tmp_path):
    pytest.importorskip("onnx")
    from toy_model import save_convolution

    direction = [0.6, 0.0, -0.8, 0.0, 0.0]
    model = save_convolution(tmp_path / "model.onnx", brightness={"direction": direction, "db_per_unit": 1.0})
    with TestClient(make_application(Restorer(model, threads=1), LIMITS), base_url=URL) as client:
        upload(client, song.read_bytes())
        state = wait(client)
        drawn = state["song"]["takes"][0]
        assert state["brightness_limit"] == 4 and drawn["brightness"] is None
        assert drawn["drawn_brightness"] == pytest.approx(float(draw_noise(0, 5) @ np.array(direction)), abs=1e-5)
        before = client.get(f"/api/tracks/{drawn['name']}/audio").content
        too_much = client.post("/api/takes", json={"seed": 0, "brightness": 4.5}, headers=HEADERS)
        assert too_much.status_code == 422 and "4.5" in too_much.json()["error"]
        client.post("/api/takes", json={"seed": 0, "brightness": 2}, headers=HEADERS)
        (take,) = wait(client)["song"]["takes"]
        assert take["brightness"] == 2 and client.get(f"/api/tracks/{take['name']}/audio").content != before
        assert client.get(f"/api/tracks/{drawn['name']}/audio").status_code == 404
        target = tmp_path / "out.flac"
        arguments = ["restore", str(song), str(target), "--model", str(model), "--brightness", "2", "--threads", "1"]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        assert fetch_download(client, seed=0, brightness=2.0).content == target.read_bytes()


def test_level_counts_what_is_below_the_edge_alone(tmp_path):
    """Half as loud is 6.02 dB less, whatever has been added above the cut-off."""
    rate = 44100
    time_ = np.arange(2 * rate) / rate
    low, high = 0.3 * np.sin(2 * np.pi * 440 * time_), 0.3 * np.sin(2 * np.pi * 15000 * time_)
    tracks = []
    for name, audio in (("one", low), ("two", low / 2 + high)):
        soundfile.write(tmp_path / f"{name}.wav", audio, rate, "FLOAT")
        track = make_track(tmp_path / f"{name}.wav", tmp_path / f"{name}16.wav", rate, 10.0, lambda done, total: None)
        tracks.append(track)
    assert tracks[1].level_db(8000) - tracks[0].level_db(8000) == pytest.approx(-6.02, abs=0.05)
    loudest = tracks[0].spectrogram.mean(axis=1).argmax()
    assert loudest == pytest.approx(440 / (rate / 2) * 256, abs=1)


def test_sessions_see_nothing_of_each_other(client, opened):
    name = opened.get("/api/state").json()["song"]["takes"][0]["name"]
    for guess in ("", "x", opened.cookies[COOKIE][:-1], opened.cookies[COOKIE] + "x"):
        client.cookies.set(COOKIE, guess)
        assert client.get("/api/state").json()["song"] is None
        for path in (f"/api/tracks/{name}/audio", "/api/tracks/original/peaks", f"/api/downloads/{name}"):
            assert client.get(path).status_code == 404
        assert client.delete("/api/song", headers=HEADERS).status_code == 200
    assert opened.get("/api/state").json()["song"] is not None


def test_jobs_wait_in_a_queue_and_each_session_has_one(client, app, song, gate):
    other = TestClient(app, base_url=URL)
    assert [upload(each, song.read_bytes()).json()["job"]["ahead"] for each in (client, other)] == [1, 2]
    again = upload(client, song.read_bytes())
    assert again.status_code == 409 and "in work" in again.json()["error"]
    assert client.post("/api/takes", json={"seed": 1}, headers=HEADERS).status_code == 404
    cancelled = client.post("/api/cancel", headers=HEADERS).json()
    assert cancelled["job"]["state"] == "cancelled"
    assert other.get("/api/state").json()["job"]["ahead"] == 1
    gate.set()
    assert wait(other)["job"]["state"] == "done"
    other.delete("/api/song", headers=HEADERS)


def test_a_running_job_is_cancelled_on_request(client, app, song):
    upload(client, song.read_bytes())
    assert wait(client)["job"]["state"] == "done"

    def endless(song, job):
        while True:
            job.report(0, 1)
            time.sleep(0.002)

    sessions = app.state.sessions
    session = sessions.find(client.cookies[COOKIE])
    sessions.start(session, "take", endless)
    answer = client.post("/api/takes", json={"seed": 1}, headers=HEADERS)
    assert answer.status_code == 409 and "cancel" in answer.json()["error"]
    client.post("/api/cancel", headers=HEADERS)
    assert wait(client)["job"]["state"] == "cancelled"
    assert client.delete("/api/song", headers=HEADERS).json()["song"] is None
    assert not session.folder.exists() and sessions.find(session.token) is None


def test_a_job_cancelled_while_it_restores_leaves_no_half_file(restorer, song, tmp_path):
    class Impatient(Job):
        def report(self, done, total):
            if self.phase == "Restoring":
                self.cancel()
            super().report(done, total)

    source = tmp_path / "source.mp3"
    source.write_bytes(song.read_bytes())
    opened = Song(restorer, tmp_path, source, "song.mp3", LIMITS)
    job = Impatient("open", opened.open)
    job.run()
    assert (job.state, job.phase, opened.takes) == ("cancelled", "Restoring", {})
    assert {path.name for path in tmp_path.iterdir()} == {"source.mp3", "original.wav"}


def test_a_closed_browser_loses_its_job_and_later_its_files(restorer, song):
    limits = replace(LIMITS, absent_seconds=0.05, idle_seconds=0.3)
    app = make_application(restorer, limits)
    with TestClient(app, base_url=URL) as client:
        sessions = app.state.sessions
        opened = threading.Event()
        gate = Job("gate", lambda job: opened.wait(10))
        sessions._queue.add(gate)
        upload(client, song.read_bytes())
        session = sessions.find(client.cookies[COOKIE])
        time.sleep(0.1)
        sessions.sweep()
        assert session.job.state == "cancelled" and not session.folder.exists()
        assert client.get("/api/state").json()["song"] is None
        opened.set()
        upload(client, song.read_bytes())
        wait(client)
        folder = sessions.find(client.cookies[COOKIE]).folder
        time.sleep(0.1)
        sessions.sweep()
        assert folder.exists()  # a finished song is kept longer
        time.sleep(0.3)
        sessions.sweep()
        assert not list(sessions.folder.iterdir())


def test_a_full_studio_says_so_and_forgets_who_left(restorer, song):
    app = make_application(restorer, replace(LIMITS, sessions=2, absent_seconds=60.0))
    with TestClient(app, base_url=URL) as one:
        two, three = (TestClient(app, base_url=URL) for _ in range(2))
        for client in (one, two):
            assert upload(client, song.read_bytes()).status_code == 202
            wait(client)
        full = upload(three, song.read_bytes())
        assert full.status_code == 409 and "full" in full.json()["error"]
        app.state.sessions.find(one.cookies[COOKIE]).seen_seconds -= 90.0
        assert upload(three, song.read_bytes()).status_code == 202
        assert wait(three)["job"]["state"] == "done"
        assert one.get("/api/state").json()["song"] is None and two.get("/api/state").json()["song"]


def test_a_full_disk_is_said_before_the_work(restorer, song):
    app = make_application(restorer, replace(LIMITS, free_disk_bytes=1 << 60))
    with TestClient(app, base_url=URL) as client:
        answer = upload(client, song.read_bytes())
        assert answer.status_code == 507 and "disk space" in answer.json()["error"]
        assert not list(app.state.sessions.folder.iterdir())


def test_all_files_live_in_one_private_folder_and_go_with_the_studio(restorer, song, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"restorer-studio-{dead.pid}-x").mkdir()  # a studio that was killed
    (tmp_path / f"restorer-studio-{os.getpid()}-y").mkdir()  # one that lives
    with TestClient(make_application(restorer, LIMITS), base_url=URL) as client:
        upload(client, song.read_bytes())
        wait(client)
        folder = client.app.state.sessions.folder
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o077 == 0
        assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / f"restorer-studio-{os.getpid()}-y"])
    assert [path.name for path in tmp_path.iterdir()] == [f"restorer-studio-{os.getpid()}-y"]
