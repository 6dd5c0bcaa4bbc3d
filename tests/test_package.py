"""The wheel holds one top-level name and restores a file in an environment that has no torch."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", minversion="77")


def requirements(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of all installed distributions that `name` needs at run time."""
    found = {name}
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}
        )
        if wanted and requirement.name not in found:
            found |= requirements(requirement.name, frozenset(requirement.extras))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: setuptools leaves a build folder where it works
    tracked = ["pyproject.toml", "README.md", "LICENSE", "restorer", "training", "export", "plugins"]
    source.mkdir()
    subprocess.run(["cp", "-r", *tracked, str(source)], cwd=ROOT, check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ".",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        ".",
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(source.glob("restorer-*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """Python of a new virtual environment with the wheel and what restorer[cpu] requires, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", command], text=True).strip())
    needed = requirements("restorer", frozenset({"", "cpu"})) - {"restorer"}
    assert {"numpy", "onnxruntime", "soxr"} <= needed and "torch" not in needed
    for name in needed:
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(file.locate()).parents[len(file.parts) - 1] / top)
    with zipfile.ZipFile(wheel) as archive:  # a wheel of pure Python is installed by unpacking it
        archive.extractall(site)
    return python


def test_wheel_has_one_top_level_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not re.fullmatch(r"restorer-[\d.]+\.dist-info", top)} == {"restorer"}
    for needed in (
        "py.typed",
        "weights/compact.onnx",
        "data/demo_32k.mp3",
        "training/configs/compact.toml",
        "plugins/studio/page/index.html",
    ):
        assert f"restorer/{needed}" in names
    assert wheel.stat().st_size < 20e6


def test_restores_a_file_without_torch(clean_python, tmp_path):
    source, target = ROOT / "restorer" / "data" / "demo_32k.mp3", tmp_path / "out.flac"
    assert subprocess.run([clean_python, "-c", "import torch"], capture_output=True).returncode != 0
    command = [clean_python, "-m", "restorer", "restore", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "real-time factor" in done.stderr and target.stat().st_size > 1000


def test_commands_name_what_is_missing(clean_python, tmp_path):
    for command, extra in (("train", "train"), ("prepare", "train"), ("render", "render"), ("export", "export")):
        done = subprocess.run(
            [clean_python, "-m", "restorer", command, "--help"], capture_output=True, text=True, cwd=tmp_path
        )
        if done.returncode:  # prepare needs nothing to show its help
            assert done.returncode == 2 and f"restorer[{extra}]" in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
