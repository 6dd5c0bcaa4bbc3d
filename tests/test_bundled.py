"""Names of bundled models, and paths that mean what they say."""

import os
import shutil
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")

from toy_model import save_convolution

import restorer.bundled
from restorer import Restorer, checksums
from restorer.bundled import DEFAULT, bundled_models, find_model, weights_folder
from restorer.errors import ModelError


def test_default_comes_first_and_every_name_loads():
    models = bundled_models()
    assert next(iter(models)) == DEFAULT and find_model(None) == models[DEFAULT]
    for name, file in models.items():
        assert find_model(name) == file
        assert Restorer(name, device="cpu", threads=1).model_info.name == name


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).write_bytes(b"mine")
    assert find_model(DEFAULT).read_bytes() == b"mine"


def test_unknown_name_lists_the_known(tmp_path):
    with pytest.raises(ModelError, match="'compact'"):
        find_model("loud")
    with pytest.raises(ModelError, match="is no file"):
        find_model(tmp_path)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one small model in the place of the package's own."""
    folder = tmp_path / "weights"
    folder.mkdir()
    save_convolution(folder / "compact.onnx")
    checksums.write_sums(folder)
    monkeypatch.setattr(restorer.bundled, "weights_folder", lambda: folder)
    return folder


def flip_a_weight(file: Path) -> None:
    """One bit of a number, so that the model still runs and only its checksum can tell."""
    model = onnx.load(str(file))
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    file.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("named", ["default", "name", "path", "relative path", "link"])
def test_a_changed_bundled_model_is_refused(weights, named, tmp_path, monkeypatch):
    model = {"default": None, "name": "compact", "path": weights / "compact.onnx", "relative path": "compact.onnx"}
    if named == "relative path":
        monkeypatch.chdir(weights)
    if named == "link":
        (tmp_path / "link").symlink_to(weights)
    given = model.get(named, tmp_path / "link" / "compact.onnx")
    Restorer(given, device="cpu", threads=1)
    flip_a_weight(weights / "compact.onnx")
    with pytest.raises(ModelError, match=r"compact.onnx: is not the file whose checksum SHA256SUMS holds") as raised:
        Restorer(given, device="cpu", threads=1)
    assert "\n" not in str(raised.value) and "reinstall restorer" in str(raised.value)


def test_the_same_bytes_elsewhere_are_anybodys_model(weights, tmp_path):
    flip_a_weight(weights / "compact.onnx")
    shutil.copy(weights / "compact.onnx", tmp_path)
    Restorer(tmp_path / "compact.onnx", device="cpu", threads=1)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"one two three\n", b"0  compact.onnx\n"])
def test_a_list_that_is_none_refuses_in_one_line(weights, content):
    os.unlink(weights / checksums.NAME)
    if content is not None:
        (weights / checksums.NAME).write_bytes(content)
    with pytest.raises(ModelError, match="reinstall restorer") as raised:
        Restorer(device="cpu", threads=1)
    assert "\n" not in str(raised.value)


def test_the_package_itself_is_checked():
    assert set(bundled_models().values()) == set(weights_folder().glob("*.onnx"))
    checksums.check_sums(weights_folder())


def test_an_export_into_the_package_brings_the_checksums_along(weights, tmp_path):
    pytest.importorskip("torch")
    from click.testing import CliRunner

    from restorer.cli import main

    (tmp_path / "card.json").write_text('{"name": "new"}')
    file = str(weights / "compact.onnx")
    result = CliRunner().invoke(main, ["export", file, file, "--card", str(tmp_path / "card.json"), "--overwrite"])
    assert result.exit_code == 0, result.output
    assert Restorer(device="cpu", threads=1).model_info.name == "new"
    assert sorted(os.listdir(weights)) == [checksums.NAME, "compact.onnx"]
