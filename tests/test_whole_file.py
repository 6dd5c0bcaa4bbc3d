"""A file is there in full or not at all, whoever writes it at the same time and whatever ends them."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import restorer.whole_file
from restorer.whole_file import whole_file

ROUNDS = 150
WRITER = """
import sys
from pathlib import Path
from restorer.whole_file import whole_file
path, letter = Path(sys.argv[1]), sys.argv[2].encode()
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    with whole_file(path) as partial, partial.open("wb", buffering=0) as file:
        for _ in range(10):
            file.write(1000 * letter)
    found = path.read_bytes()
    assert len(found) == 10_000 and len(set(found)) == 1, (len(found), set(found))
"""


def write(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text)


def test_processes_that_write_the_same_target_at_once(tmp_path: Path) -> None:
    target = tmp_path / "file"
    command = [sys.executable, "-c", WRITER, str(target)]
    writers = [
        subprocess.Popen(
            [*command, letter, str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for letter in "abc"
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        assert writer.communicate(timeout=120)[1] == ""
        assert writer.returncode == 0
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("locks", [True, False])
def test_the_last_to_end_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    """Even where a library does not write the file that it is given, but renames one of its own to it."""
    if not locks:
        monkeypatch.setattr(restorer.whole_file, "fcntl", None)
    target = tmp_path / "file"
    with whole_file(target) as first:
        first.write_text("first")
        with whole_file(target) as second:
            assert second != first and second.name == first.name == "file"
            second.with_name("other").write_text("second")
            second.with_name("other").replace(second)
            write(target, "third")
            assert target.read_text() == "third"
        assert target.read_text() == "second"
    assert target.read_text() == "first" and os.listdir(tmp_path) == ["file"]


def test_threads(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write(target, f"{number}"), range(200)))
    assert target.read_text() in map(str, range(200)) and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    target = tmp_path / "file"
    target.write_text("old")
    code = (
        "import os, sys, signal; from pathlib import Path; from restorer.whole_file import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); (partial.parent / 'more').mkdir()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -signal.SIGKILL
        assert target.read_text() == "old" and len(os.listdir(tmp_path)) == 2
    write(target, "new")
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write(target, "old")
    with pytest.raises(ZeroDivisionError), whole_file(target) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), whole_file(target):
        pass  # nothing was written
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "file", "")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".file.partial").write_text("mine")
    write(tmp_path / "file", "new")
    assert (tmp_path / ".file.partial").read_text() == "mine" and (tmp_path / "file").read_text() == "new"
    assert len(os.listdir(tmp_path)) == 2
