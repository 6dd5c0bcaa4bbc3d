"""Configs, manifests and song descriptions that are no such thing are refused in one line that names the place."""

from pathlib import Path

import pytest

from restorer.errors import ConfigError, RestorerError

pytest.importorskip("torch")
pytest.importorskip("lameenc")

from restorer.training.config import Config
from restorer.training.manifest import read_manifest
from restorer.training.pairs import Song


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe\x00", "no CSV file in UTF-8"),
        (b"", "needs the columns file, split; has None"),
        (b"name\na.flac\n", "needs the columns file, split"),
        (b"file,split\na.flac\n", "line 2: has more or fewer fields"),
        (b"file,split\na.flac,test,more\n", "line 2: has more or fewer fields"),
        (b"file,split\n,test\n", "line 2: the file is named ''"),
        (b'file,split\n"a\x1b[2Jb",test\n', "line 2: the file is named"),
        (b'file,split\n"a.flac,test\n', "no CSV file"),
        (b"file,split,bandwidth_hz\na.flac,test,wide\n", "bandwidth_hz must be a frequency"),
        (b"file,split,bandwidth_hz\na.flac,test,nan\n", "bandwidth_hz must be a frequency"),
        (b"x" * 300_000, "no CSV file|needs the columns"),
    ],
)
def test_manifests(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "MANIFEST.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as raised:
        read_manifest(path)
    assert str(raised.value).isprintable() and len(str(raised.value)) < len(str(path)) + 300


def test_a_manifest_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = tmp_path / "MANIFEST.csv"
    path.write_bytes(b"\xef\xbb\xbffile,split\r\na.flac,test\r\n")
    assert read_manifest(path) == {"a.flac": {"file": "a.flac", "split": "test"}}
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_manifest(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 20_000, "not valid TOML"),
        ("\0", "not valid TOML"),
        ("[schedule]\nlearning_rate = nan", "'learning_rate' must be float and not nan"),
        ("[schedule]\nlearning_rate = inf", "'learning_rate' must be float"),
        ("[schedule]\nsteps = 1.5", "'steps' must be int"),
        ("schedule = 3", "'schedule' must be a table"),
        ('[generator]\nkind = ["paper"]', "'kind' must be one of|unknown key"),
        ('"\\u001b[2J" = 1', "unknown key"),
        ("[data]\ncodings = [1]", "'codings' must be tuple"),
    ],
)
def test_configs(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        Config.load(path)
    assert str(raised.value).isprintable()


def test_configs_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Config.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        Config.load(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 5000, '{"codings": 3}', '{"codings": ["16m"], "id": 3}', "null"]
)
def test_song_descriptions(tmp_path: Path, text: str) -> None:
    (tmp_path / "song.json").write_text(text)
    with pytest.raises(RestorerError, match=r"song\.json' is damaged .*delete its folder") as raised:
        Song.read(tmp_path)
    assert str(raised.value).isprintable()
