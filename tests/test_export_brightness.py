"""Export finds the direction of brightness that a model has, and says how far it can be trusted."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from click.testing import CliRunner, Result
from toy_bright import DB_PER_UNIT, DIRECTION, save_bright
from toy_model import save_convolution, save_identity

from restorer import Restorer
from restorer.errors import ConfigError, ModelError
from restorer.export.brightness import Search, excerpt_samples, find_brightness, synthesised_excerpts
from restorer.export.export_command import export
from restorer.model_file import Model


def dark_noise(samples: int) -> Iterator[np.ndarray]:
    """Noise cut at 8 or 10 kHz; every third excerpt is silent, every fourth reaches to the top."""
    for index in range(10_000):
        spectrum = np.fft.rfft(np.random.default_rng(index).standard_normal(samples))
        edge_hz = 22050 if index % 4 == 3 else (8000, 10000)[index % 2]
        spectrum[round(edge_hz * samples / 44100) :] = 0
        yield (0.0 if index % 3 == 2 else 0.1) * np.fft.irfft(spectrum, samples).astype(np.float32)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(export, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_direction_of_a_known_model_is_found(tmp_path: Path) -> None:
    model = Model(save_bright(tmp_path / "toy.onnx", known=False), "cpu", 1)
    steps: list[tuple[int, int]] = []
    found = find_brightness(
        model, dark_noise(excerpt_samples(model)), Search(24), lambda done, total: steps.append((done, total))
    )
    assert np.array(found["direction"]) @ DIRECTION > 0.99
    assert found["db_per_unit"] == pytest.approx(DB_PER_UNIT, rel=0.02)
    assert found["monotonic"] == 1.0 and found["checked"] == 4
    assert steps == [(done, 28) for done in range(1, 29)]


def test_context_before_an_excerpt_is_not_measured(tmp_path: Path) -> None:
    short, long = (
        Model(save_convolution(tmp_path / f"{frames}.onnx", warmup_frames=frames), "cpu", 1) for frames in (6, 50)
    )
    assert excerpt_samples(long) - excerpt_samples(short) == 44 * 512


def test_models_that_cannot_be_brightened_are_told(tmp_path: Path) -> None:
    identity = Model(save_identity(tmp_path / "identity.onnx"), "cpu", 1)
    with pytest.raises(ConfigError, match="has no noise"):
        find_brightness(identity, dark_noise(20000), Search(2))
    deaf = Model(save_bright(tmp_path / "deaf.onnx", known=False, deaf=True), "cpu", 1)
    with pytest.raises(ModelError, match="noise does not change"):
        find_brightness(deaf, dark_noise(30000), Search(2))
    with pytest.raises(ConfigError, match="ends at 0 of 3 excerpts"):
        find_brightness(deaf, (np.zeros(9000, np.float32) for _ in range(9)), Search(2))


def test_synthesised_excerpts_differ_and_are_cut() -> None:
    pytest.importorskip("lameenc")
    excerpts = synthesised_excerpts(9000, 0)
    first, second = next(excerpts), next(excerpts)
    assert first.shape == second.shape == (9000,) and np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(next(synthesised_excerpts(9000, 0)), first)
    assert np.abs(next(synthesised_excerpts(9000, 1)) - first).max() > 0.1


def test_an_exported_model_gets_its_direction_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("lameenc")
    before, after = save_bright(tmp_path / "before.onnx", known=False), tmp_path / "after.onnx"
    result = run(before, after, "--brightness", "--brightness-excerpts", 3, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "dB per standard deviation" in result.output
    restorer = Restorer(after, "cpu", 1)
    axis = restorer.model_info.brightness
    assert axis is not None and axis["found_on"] == "synthesised"
    assert np.array(axis["direction"]) @ DIRECTION > 0.9
    audio = next(dark_noise(20000))[None]
    dark, bright = (restorer(audio, 44100, brightness=name) for name in ("dark", "bright"))
    assert np.square(bright).mean() > np.square(dark).mean()
    old, new = (onnx.load(path) for path in (before, after))
    assert old.graph == new.graph
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.onnx", "before.onnx"]


def test_the_card_of_an_exported_model_can_be_changed_in_place(tmp_path: Path) -> None:
    path, card = save_bright(tmp_path / "toy.onnx"), tmp_path / "card.json"
    card.write_text(json.dumps({"version": "7", "licence": "CC0-1.0"}))
    assert run(path, path, "--card", card, "--overwrite").exit_code == 0
    info = Restorer(path, "cpu", 1).model_info
    assert (info.version, info.licence) == ("7", "CC0-1.0") and info.brightness is not None
    card.write_text(json.dumps({"noise_size": "many"}))
    data = path.read_bytes()
    with pytest.raises(ModelError, match="noise_size must be of type int"):
        run(path, path, "--card", card, "--overwrite")
    assert path.read_bytes() == data


def test_what_cannot_be_done_is_said_first(tmp_path: Path) -> None:
    path, other = save_bright(tmp_path / "toy.onnx"), tmp_path / "other.onnx"
    with pytest.raises(ConfigError, match="exported already; give --card, --results or --brightness"):
        run(path, other)
    with pytest.raises(Exception, match="no pairs folder at"):
        run(path, other, "--brightness-pairs", tmp_path / "none")
    (tmp_path / "noise.onnx").write_bytes(b"no model" * 99)
    with pytest.raises(ModelError, match=r"noise\.onnx: is no readable ONNX model"):
        run(tmp_path / "noise.onnx", other, "--brightness")
    assert not other.exists()
