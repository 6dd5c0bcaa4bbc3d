"""Every Python example that the README marks runs as it stands, and makes the files that it is about."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("onnxruntime")
lameenc = pytest.importorskip("lameenc")

from restorer.lame import encode_mp3
from restorer.synthesis import synthesize

RATE_HZ = 44100
ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^<!-- example: (\w+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = {"pedalboard": ("pedalboard",), "training": ("torch", "onnxscript", "tensorboard")}
# What each makes, and the file that this is as long as.
MADE = {
    "pipeline": {"album/a.flac": "album/a.mp3"},
    "takes": dict.fromkeys(["take10.wav", "take11.wav", "take12.wav", "song.flac"], "song.mp3"),
    "streaming": {"loudspeaker.wav": "microphone.wav"},
    "pedalboard": {"song.wav": "song.mp3"},
    "training": {"song.toy.flac": "song.mp3"},
}


def examples() -> dict[str, str]:
    return dict(BLOCK.findall(README.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files whose names the examples use: an MP3, an album, a recording, music to train on."""
    folder = tmp_path_factory.mktemp("files")
    music = synthesize(3.0, RATE_HZ, 0, 2)
    (folder / "album").mkdir()
    (folder / "my_music").mkdir()
    for name, kbps in (("song.mp3", 32), ("album/a.mp3", 32), ("album/b.mp3", 320)):
        (folder / name).write_bytes(encode_mp3(music, RATE_HZ, kbps, quality=7))
    soundfile.write(folder / "microphone.wav", music.T, RATE_HZ)
    rows = ["file,split"]
    for seed, split in enumerate(("train", "valid", "test")):
        soundfile.write(folder / f"my_music/{seed}.flac", synthesize(3.0, RATE_HZ, seed, 1).T, RATE_HZ)
        rows.append(f"{seed}.flac,{split}")
    (folder / "my_music" / "MANIFEST.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_every_marked_example_is_found() -> None:
    """A marker without its block, or an example of which this test does not know what it makes."""
    marked = re.findall(r"<!-- example: (.*?) -->", README.read_text(encoding="utf-8"))
    assert marked == list(examples())
    assert {*marked} <= {*MADE}


@pytest.mark.parametrize("name", examples())
def test_example(name: str, files: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    script = tmp_path / "example.py"
    script.write_text(examples()[name], encoding="utf-8")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    for made, source in MADE[name].items():
        info = soundfile.info(tmp_path / made)
        assert info.samplerate == RATE_HZ, made
        assert info.duration == pytest.approx(soundfile.info(tmp_path / source).duration, abs=0.05), made
    if name == "pipeline":
        assert not (tmp_path / "album" / "b.flac").exists()  # at 320 kbit/s it lacks nothing
        assert "a.mp3 100%" in result.stderr
