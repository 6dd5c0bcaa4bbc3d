"""A real disk that is soon full."""

import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB of its own, where this user may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=200k", "none", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield folder
    finally:
        gc.collect()  # of checkpoints that are still mapped
        subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    """Change a mounted disk: "size=50m", "ro", "rw"."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)
