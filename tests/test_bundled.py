"""Names of bundled models, and paths that mean what they say."""

import pytest

from restorer import Restorer
from restorer.bundled import DEFAULT, bundled_models, find_model
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
