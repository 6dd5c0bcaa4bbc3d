"""The studio on a real socket, attacked as a stranger would: afterwards it still answers, and nothing leaked."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
pytest.importorskip("lameenc")
pytest.register_assert_rewrite("toy_studio")
from toy_studio import HEADERS, make_song, running, upload, wait

from restorer.plugins.studio.limits import Limits

LIMITS = Limits(
    upload_bytes=400_000,
    uploads=2,
    connections=40,
    stall_seconds=0.4,
    upload_seconds=1.5,
    head_seconds=0.5,
    free_disk_bytes=0,
)


pytest_plugins = ["toy_studio"]  # its fixture restorer


@pytest.fixture(scope="module")
def studio(restorer):
    with running(restorer, LIMITS) as (server, port):
        yield server, port


@pytest.fixture
def client(studio):
    with httpx.Client(base_url=f"http://127.0.0.1:{studio[1]}") as client:
        yield client


@pytest.fixture(autouse=True)
def still_answers(request, studio):
    """After every attack the page comes, and all uploads are over."""
    yield
    server, port = studio
    end = time.monotonic() + 5
    while True:
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
            if server.config.app.state.sessions.uploads == 0:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, "the studio does not answer any more"
        time.sleep(0.05)


def speak(port, data, seconds=5.0):
    """Send bytes as they are and give all that comes back until the studio closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
            if b"\r\n\r\n" in answer and b"connection: close" not in data.lower():
                break
        return answer


def head(port, line, *extra):
    return "\r\n".join([line, f"Host: 127.0.0.1:{port}", *extra, "", ""]).encode()


PUT = ("PUT /api/song?name=a.mp3 HTTP/1.1", "Content-Type: application/octet-stream", "X-Restorer-Studio: 1")


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/static/../../processor.py",
        "/static/..%2f..%2fprocessor.py",
        "/static/%2e%2e%2f%2e%2e%2fprocessor.py",
        "/static/..\\..\\processor.py",
        "//etc/passwd",
        "/static/app.js/../../../x",
        "/api/tracks/%00/audio",
        "file:///etc/passwd",
        "http://evil.example/",
    ],
)
def test_raw_paths_lead_nowhere(studio, path):
    answer = speak(studio[1], head(studio[1], f"GET {path} HTTP/1.1", "Connection: close"))
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400", b"HTTP/1.1 403")), answer[:200]
    assert b"root:" not in answer and b"import" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT /api/song HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"PUT /api/song HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz",
    ],
)
def test_what_is_no_request_gets_no_page(studio, data):
    try:
        answer = speak(studio[1], data)
    except ConnectionError:
        return
    assert not answer or answer.split(b" ")[1] in (b"400", b"403", b"431"), answer[:200]


def test_a_connection_that_says_nothing_is_closed(studio):
    """So are one that sends its head byte by byte, and one that falls silent after an answer."""
    port = studio[1]
    started = time.monotonic()
    connections = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(3)]
    connections[1].sendall(b"GET / HT")
    connections[2].sendall(head(port, "GET /api/state HTTP/1.1"))
    assert connections[2].recv(65536).startswith(b"HTTP/1.1 200")
    connections[2].sendall(b"GET / HT")
    for connection in connections:
        while connection.recv(65536):
            pass
        connection.close()
    assert time.monotonic() - started < 4 * LIMITS.head_seconds + 1


def test_a_client_that_never_reads_is_given_up(studio):
    port = studio[1]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head(port, "GET /static/wavesurfer.js HTTP/1.1") * 200)  # 10 MB of answers
        connections = studio[0].server_state.connections
        end = time.monotonic() + 10 * LIMITS.head_seconds + 3
        while connections and time.monotonic() < end:
            time.sleep(0.05)
        assert not connections


def test_ranges_that_multiply_are_no_way_to_keep_it_busy(studio, client, tmp_path):
    upload(client, make_song(tmp_path / "song.mp3").read_bytes())
    wait(client)
    started = time.monotonic()
    answer = client.get("/api/tracks/original/audio", headers={"range": "bytes=" + "0-0," * 10_000 + "0-0"})
    assert answer.status_code in (200, 206, 400, 416) and len(answer.content) < 1_000_000
    assert time.monotonic() - started < 2.0
    client.delete("/api/song", headers=HEADERS)


def test_an_upload_that_stalls_is_given_up(studio):
    port = studio[1]
    answer = speak(port, head(port, *PUT[:1], *PUT[1:], "Content-Length: 100000", "Connection: close") + b"x" * 10)
    assert answer.startswith(b"HTTP/1.1 408") and b"too slow" in answer


def test_an_upload_that_drips_is_given_up(studio):
    """Never pausing for long does not help: the whole has a limit too."""
    port = studio[1]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head(port, *PUT, "Content-Length: 100000"))
        started = time.monotonic()
        try:
            while time.monotonic() - started < 4:
                connection.sendall(b"x")
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert time.monotonic() - started < LIMITS.upload_seconds + 1.5


def test_an_announced_giant_is_refused_unread(studio):
    port = studio[1]
    started = time.monotonic()
    answer = speak(port, head(port, *PUT, "Content-Length: 99999999999999", "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 413") and time.monotonic() - started < LIMITS.stall_seconds


def bytes_in(folder):
    """Bytes of all files below a folder, from which some may vanish meanwhile."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(where, name)).st_size
    return total


def test_an_unannounced_giant_is_cut_off(studio):
    port, sent = studio[1], 0
    folder = studio[0].config.app.state.sessions.folder
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head(port, *PUT, "Transfer-Encoding: chunked"))
        try:
            while sent < 50_000_000:
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
                assert bytes_in(folder) <= LIMITS.upload_bytes
        except (ConnectionError, TimeoutError):
            pass
    assert sent < 50_000_000  # the connection was closed on us


def test_broken_uploads_leave_no_file_and_no_session(studio):
    sessions = studio[0].config.app.state.sessions
    before = set(sessions.folder.iterdir())
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", studio[1]), timeout=5) as connection:
            connection.sendall(head(studio[1], *PUT, "Content-Length: 100000") + b"x" * 5000)
    end = time.monotonic() + 90  # on a busy machine broken connections are noticed late
    while (set(sessions.folder.iterdir()) != before or sessions.uploads) and time.monotonic() < end:
        time.sleep(0.02)
    assert set(sessions.folder.iterdir()) == before and not sessions.uploads


def test_thousands_of_requests_and_a_song_among_them(studio, client, tmp_path):
    """Two thousand on ten connections are all answered; of 300 connections at once some are told to come later."""
    song = make_song(tmp_path / "song.mp3")
    assert upload(client, song.read_bytes()).status_code == 202

    async def ask(paths):
        """One connection that asks for path after path; the statuses of the answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        seen = []
        for path in paths:
            writer.write(head(port, f"GET {path} HTTP/1.1"))
            lines = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", lines)[1]))
            seen.append(int(lines.split()[1]))
        writer.close()
        return seen

    async def flood():
        paths = ("/", "/api/state", "/static/app.js", "/api/tracks/x/audio")
        patient = await asyncio.gather(*(ask(paths * 50) for _ in range(10)))
        crowd = await asyncio.gather(*(ask(paths[:1]) for _ in range(300)), return_exceptions=True)
        return patient, crowd

    port = studio[1]
    patient, crowd = asyncio.run(flood())
    assert all(seen == [200, 200, 200, 404] * 50 for seen in patient)
    answered = [seen[0] for seen in crowd if isinstance(seen, list)]
    assert set(answered) <= {200, 503}
    assert wait(client)["job"]["state"] == "done"
    client.delete("/api/song", headers=HEADERS)


def test_many_at_once_are_served_one_after_another(restorer, tmp_path):
    """Ten browsers upload together; two sessions fit: the rest is told so, and each file is its own."""
    song = make_song(tmp_path / "song.mp3").read_bytes()
    with running(restorer, replace(LIMITS, sessions=3, uploads=10)) as (server, port):

        def visit(number):
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                answer = upload(client, song, f"{number}.mp3")
                if answer.status_code != 202:
                    return answer.json()["error"]
                state = wait(client)
                return state["job"]["state"], state["song"]["name"] == f"{number}.mp3"

        with ThreadPoolExecutor(10) as pool:
            results = list(pool.map(visit, range(10)))
        folder = server.config.app.state.sessions.folder
        assert len(list(folder.iterdir())) == 3
    assert results.count(("done", True)) == 3 and sum("full" in str(result) for result in results) == 7
    assert not folder.exists()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command, running in a temporary folder of its own; gives the process, its address and that folder."""
    folder = tmp_path_factory.mktemp("tmp")
    arguments = [sys.executable, "-m", "restorer", "studio", "--port", "0", "--no-open", "--max-mb", "1"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/", line)
    yield process, address[0] if address else line, folder
    if process.poll() is None:
        process.kill()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks Linux who listens")
def test_the_command_serves_this_machine_alone_and_ends_cleanly(command, tmp_path):
    process, address, folder = command
    port = int(address.rstrip("/").rpartition(":")[2])
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = httpx.get(f"{address}api/state").json()
            break
        except httpx.TransportError:
            time.sleep(0.05)
    assert state["limits"]["upload"] == "1 MB"
    listening = {line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"}
    assert f"0100007F:{port:04X}" in listening and f"00000000:{port:04X}" not in listening

    taken = subprocess.run(
        [sys.executable, "-m", "restorer", "studio", "--port", str(port), "--no-open"], capture_output=True, text=True
    )
    assert taken.returncode == 2 and "--port" in taken.stderr and taken.stderr.count("\n") == 1

    with httpx.Client(base_url=address) as client:  # a job in work when the signal comes
        upload(client, make_song(tmp_path / "song.mp3", seconds=10.0).read_bytes())
        assert list(folder.glob("restorer-studio-*/*/source.mp3"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in err, err
    assert not list(folder.glob("restorer-studio-*"))


@pytest.mark.parametrize("host", ["256.256.256.256", "198.51.100.7", "no such host", ""])
def test_impossible_hosts_take_one_line(host):
    from restorer.errors import ConfigError
    from restorer.plugins.studio.command import bind

    with pytest.raises(ConfigError, match=r"--host|cannot listen"):
        bind(host, 0)
