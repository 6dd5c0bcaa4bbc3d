"""A small listening test for tests: two songs made by code, two toy models, and a reader of the page."""

import base64
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from click.testing import CliRunner, Result
from toy_model import save_convolution, save_identity

from restorer.synthesis import synthesize
from restorer.training.listening_test_command import listening_test

SECONDS = 1.5
SAMPLES = round(SECONDS * 44100)


def invoke(*args: Any) -> Result:
    return CliRunner().invoke(listening_test, [str(arg) for arg in args])


def build(music: Path, models: Sequence[Path], *args: Any) -> Result:
    settings = ("--excerpts", 2, "--seconds", SECONDS, "--seed", 3)
    named = [word for model in models for word in ("--model", model)]
    return invoke("build", "--music", music, *named, *settings, *args)


def save_models(folder: Path) -> tuple[Path, Path]:
    """A model with noise and one without, which gives the MP3 back."""
    return save_convolution(folder / "toy_sto.onnx"), save_identity(folder / "toy_det.onnx")


def save_music(folder: Path) -> Path:
    """Two songs of 5 s and a manifest that says they are of the test split."""
    folder.mkdir()
    for seed in range(2):
        soundfile.write(folder / f"song{seed}.flac", synthesize(5.0, seed=seed).T, 44100)
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "split"), ("song0.flac", "test"), ("song1.flac", "test")])
    return folder


def build_test(folder: Path) -> tuple[Path, str, dict[str, Any]]:
    """A test of two excerpts at 16 and 64 kbit/s: the page's path, its text, and the key."""
    music, page = save_music(folder / "music"), folder / "page.html"
    run = build(music, save_models(folder), "--kbps", 16, 64, page)
    assert run.exit_code == 0, run.output
    assert "14 excerpts of 1.5 s" in run.output and " MB" in run.output
    return page, page.read_text(), json.loads((folder / "page.key.json").read_text())


def read_test(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="test">(.*?)</script>', page)
    assert found
    test: dict[str, Any] = json.loads(found[1])
    return test


def decode(uri: str) -> np.ndarray:
    header, _, data = uri.partition(",")
    assert header == "data:audio/flac;base64"
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="int16")
    assert rate == 44100
    return np.asarray(audio)
