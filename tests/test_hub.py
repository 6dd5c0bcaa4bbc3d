"""Models by name: folders, files, and a stand-in for the hub; offline, damaged, and refused in one line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("huggingface_hub")

from toy_hub import ToyHub, serve_hub
from toy_model import RELEASED, make_music, save_convolution, save_identity

import restorer
from restorer import ModelError, Restorer
from restorer.bundled import bundled_models
from restorer.errors import ConfigError
from restorer.hub import check_sum, find_model

ROOT = Path(restorer.__file__).parents[1]
# Loads all names that it is given, one after another, and says what came of each.
LOAD = """
import json, sys
from restorer import Restorer, RestorerError
for entry in json.loads(sys.argv[1]):
    try:
        loaded = Restorer.from_pretrained(*entry, device="cpu", threads=1)
        if len(sys.argv) > 2:
            loaded.save_pretrained(sys.argv[2])
        print(json.dumps(loaded.model_info.name + " " + loaded.model_info.version))
    except RestorerError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyHub]:
    folder = tmp_path_factory.mktemp("models")
    first = save_convolution(folder / "first.onnx", name="first").read_bytes()
    second = save_convolution(folder / "second.onnx", name="second", version="2").read_bytes()
    card = b"---\nlibrary_name: restorer\n---\n# Mine\n"
    with serve_hub() as hub:
        hub.repositories = {
            "me/model": {
                "main": {"first.onnx": first, "README.md": card, "CREDITS.md": b"Everybody\n", "notes.bin": b"no"},
                "v2": {"model.onnx": second, "small.onnx": first},
                "latest": {"model.onnx": second, "small.onnx": first},
            },
            "me/pickles": {"main": {"pytorch_model.bin": b"evil", "weights.ckpt": b"evil"}},
            "me/checkpoint": {"main": {"best.safetensors": b"tensors", "a.pt": b"evil"}},
            "me/empty": {"main": {"README.md": b"soon"}},
            "me/many": {"main": {"a.onnx": first, "b.onnx": second}},
            "me/foreign": {"main": {"model.onnx": b"no model" * 400}},
        }
        yield hub


def python(*arguments: str, cache: Path, url: str, **environment: str) -> str:
    """Run Python with the hub's settings, which its package reads when it is imported."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(cache), "PYTHONPATH": paths, "NO_PROXY": "127.0.0.1", **environment}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**kept, **settings})
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(*entries: list, cache: Path, url: str, save: Path | None = None, **environment: str) -> list[str]:
    arguments = ["-c", LOAD, json.dumps(entries), *([str(save)] if save else [])]
    lines = python(*arguments, cache=cache, url=url, **environment).splitlines()
    assert len(lines) == len(entries)
    return [json.loads(line) for line in lines]


def test_fetched_kept_and_loaded_offline(hub: ToyHub, tmp_path: Path) -> None:
    cache, commit = tmp_path / "cache", hub.commit("me/model", "v2")
    wanted = ["first 0", "second 2", "second 2"]
    names = [["me/model"], ["me/model", "v2"], ["me/model", commit]]
    assert load(*names, cache=cache, url=hub.url) == wanted
    assert not any("notes.bin" in request for request in hub.requests)

    hub.requests.clear()
    assert load(["me/model", commit], cache=cache, url=hub.url) == ["second 2"]
    assert hub.requests == []  # a commit cannot change
    assert load(["me/model"], cache=cache, url=hub.url) == ["first 0"]
    assert hub.requests and not any(request.startswith("GET /me/") for request in hub.requests)
    # Nobody answers on port 9 (discard); and HF_HUB_OFFLINE does not even try.
    assert load(*names, cache=cache, url="http://127.0.0.1:9") == wanted
    hub.requests.clear()
    assert load(*names, cache=cache, url=hub.url, HF_HUB_OFFLINE="1") == wanted
    assert hub.requests == []

    listed = json.loads(python("-m", "restorer", "models", "--json", cache=cache, url=hub.url))
    rows = {entry["name"]: entry["model"] for entry in listed}
    assert rows.pop("me/model@main") == "first 0"
    assert rows.pop("me/model@v2") == "second 2"
    assert list(rows) == list(bundled_models())

    saved = tmp_path / "saved"
    assert load(["me/model"], cache=cache, url=hub.url, save=saved) == ["first 0"]
    assert (saved / "model.onnx").read_bytes() == hub.repositories["me/model"]["main"]["first.onnx"]
    assert (saved / "CREDITS.md").read_text() == "Everybody\n" and "# Mine" in (saved / "README.md").read_text()


def test_every_name_that_is_listed_loads(hub: ToyHub, tmp_path: Path) -> None:
    cache, commit = tmp_path / "cache", hub.commit("me/model", "v2")
    names = ["me/model@main", "me/model@v2", "me/model@latest", f"me/model@{commit}"]
    wanted = ["first 0", "second 2", "second 2", "second 2"]
    assert load(*([name] for name in names), cache=cache, url=hub.url) == wanted
    listed = json.loads(python("-m", "restorer", "models", "--json", cache=cache, url=hub.url))
    found = [entry["name"] for entry in listed if entry["name"] not in bundled_models()]
    assert sorted({*found, names[3]}) == sorted(names)
    assert load(*([name] for name in names), cache=cache, url="http://127.0.0.1:9") == wanted
    for name in bundled_models():
        with pytest.raises(ConfigError, match=f"'v1' is for models on the hub and {name} is bundled; leave it out"):
            Restorer.from_pretrained(name, revision="v1")
        with pytest.raises(ConfigError, match="is bundled"):
            find_model(f"{name}@v1")
    with pytest.raises(ConfigError, match="me/model@v1 names its revision and 'v2' is given too; give it once"):
        find_model("me/model@v1", "v2")
    with pytest.raises(ModelError, match=r"named owner/name\[@revision\]"):
        find_model("me/model@")


def test_what_is_refused(hub: ToyHub, tmp_path: Path) -> None:
    cases = {
        ("me/nothing",): "none of this name",
        ("me/model", "v9"): "no branch, tag or commit 'v9'",
        ("me/pickles",): "pickles only (pytorch_model.bin, weights.ckpt), which can run code",
        ("me/checkpoint",): "restorer export best.safetensors",
        ("me/empty",): "holds no ONNX model",
        ("me/many",): "a.onnx, b.onnx",
        ("me/foreign",): "no readable ONNX model",
        ("me/mo..del",): "me/mo..del",
    }
    cache = tmp_path / "cache"
    found = load(*map(list, cases), cache=cache, url=hub.url)
    for (name, *_), words, said in zip(cases, cases.values(), found, strict=True):
        assert said.startswith("ModelError: ") and words in said and "\n" not in said, (name, said)
    hub.requests.clear()
    for settings in ({"url": "http://127.0.0.1:9"}, {"url": hub.url, "HF_HUB_OFFLINE": "1"}):
        (said,) = load(["me/model"], cache=tmp_path / "other", **settings)
        assert "not in the cache" in said and "cannot be reached" in said and "\n" not in said
    assert hub.requests == []


def test_damage_is_noticed(hub: ToyHub, tmp_path: Path) -> None:
    hub.corrupt = True  # of the right length, which is all that the hub's package compares
    try:
        (said,) = load(["me/model"], cache=tmp_path / "one", url=hub.url)
    finally:
        hub.corrupt = False
    assert "damaged" in said
    assert load(["me/model"], cache=tmp_path / "two", url=hub.url) == ["first 0"]
    (blob,) = [file for file in (tmp_path / "two").rglob("*") if file.parent.name == "blobs" and len(file.name) == 64]
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    (said,) = load(["me/model"], cache=tmp_path / "two", url=hub.url, HF_HUB_OFFLINE="1")
    assert "damaged" in said and f"delete {blob}" in said


def test_damage_is_noticed_in_a_cache_without_links(hub: ToyHub, tmp_path: Path) -> None:
    cache, settings = tmp_path / "cache", {"url": hub.url, "HF_HUB_DISABLE_SYMLINKS": "1"}
    for name, said in ((["me/model"], "first 0"), (["me/model@v2"], "second 2")):
        assert load(name, cache=cache, **settings) == [said]
    files = [file for file in cache.rglob("*.onnx") if not file.is_symlink()]
    assert {file.name for file in files} == {"first.onnx", "model.onnx"}
    hub.requests.clear()
    assert load(["me/model"], cache=cache, **settings) == ["first 0"]
    assert not any(request.startswith("GET /me/") for request in hub.requests)
    for file in files:
        file.write_bytes(file.read_bytes()[:-1] + b"\0")
    for offline in ("0", "1"):
        (said,) = load(["me/model@v2"], cache=cache, HF_HUB_OFFLINE=offline, **settings)
        assert "damaged" in said and "load it again" in said


def test_a_checksum_that_is_missing_is_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = save_identity(tmp_path / "model.onnx")
    check_sum(file)
    assert f"model {file}: not checked for damage, the cache holds no checksum of it" in caplog.text


def test_folders_and_files(tmp_path: Path) -> None:
    file = save_convolution(tmp_path / "mine.onnx", name="mine", licence="CC-BY-4.0", training_data=["My songs"])
    original = Restorer(file, device="cpu", threads=1)
    saved = original.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["CREDITS.md", "README.md", "model.onnx"]
    card = (saved.parent / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\nlibrary_name: restorer\n") and "# mine 0" in card
    assert "My songs" in (saved.parent / "CREDITS.md").read_text()
    audio = make_music(2, 9000)
    for name in (saved.parent, str(saved), file):
        again = Restorer.from_pretrained(name, device="cpu", threads=1)
        assert again.model_info == original.model_info
        np.testing.assert_array_equal(again(audio, 44100, seed=3), original(audio, 44100, seed=3))
    # Saving goes on from what was saved, onto itself too.
    (saved.parent / "README.md").write_text(card + "More.\n")
    copy = Restorer.from_pretrained(saved.parent, device="cpu", threads=1)
    copy.save_pretrained(saved.parent)
    copy.save_pretrained(tmp_path / "third")
    assert (tmp_path / "third" / "README.md").read_text() == card + "More.\n"
    assert (tmp_path / "third" / "model.onnx").read_bytes() == file.read_bytes()

    save_identity(file, name="other")
    with pytest.raises(ModelError, match="has changed since it was loaded"):
        original.save_pretrained(tmp_path / "fourth")
    assert not (tmp_path / "fourth" / "model.onnx").exists()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ModelError, match="cannot save"):
        copy.save_pretrained(tmp_path / "taken")


def test_local_names_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"evil")
    (tmp_path / "README.md").write_text("# Some other project\n")
    for name, words in (
        (tmp_path, "pickles only"),
        (tmp_path / "model.pt", "pickles only"),
        (tmp_path / "missing", "no such file"),
        ("missing.onnx", "no such file"),
        ("folder/missing.onnx", "no such file"),
    ):
        with pytest.raises(ModelError, match=words):
            find_model(name)
    with pytest.raises(ConfigError, match="revision"):
        find_model(tmp_path, "v1")


@pytest.mark.skipif(not RELEASED.is_file(), reason="no released model yet")
def test_the_bundled_model_takes_its_card_and_credits_along(tmp_path: Path) -> None:
    saved = Restorer(device="cpu", threads=1).save_pretrained(tmp_path)
    weights = RELEASED.parent
    assert saved.read_bytes() == RELEASED.read_bytes()
    assert (tmp_path / "README.md").read_text().endswith((weights / "MODEL_CARD.md").read_text())
    assert (tmp_path / "README.md").read_text().startswith("---\nlicense: ")
    assert (tmp_path / "CREDITS.md").read_text() == (weights / "CREDITS.md").read_text()
