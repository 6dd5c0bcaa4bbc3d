"""A program's own lines reach standard error, those of C libraries do not; a replaced stream stays as it is."""

import subprocess
import sys

import pytest

from restorer.own_stderr import own_stderr

PROGRAM = """
import os, sys
from restorer.own_stderr import own_stderr
if len(sys.argv) > 1:
    own_stderr()
os.write(2, b"[libmpg123] error: dequantization failed!\\n")  # as C code does
print("our own line", file=sys.stderr)
print("data")
raise SystemExit("the end")
"""


def test_only_our_own_lines_are_seen() -> None:
    seen = [
        subprocess.run([sys.executable, "-c", PROGRAM, *quiet], capture_output=True, text=True)
        for quiet in ([], ["quiet"])
    ]
    assert "libmpg123" in seen[0].stderr
    assert seen[1].stderr == "our own line\nthe end\n"
    assert seen[1].stdout == "data\n"


def test_a_replaced_stream_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stderr
    own_stderr()
    assert sys.stderr is stream
