"""Distances, alignment, the choice of metrics, and the command."""

import json
import math
import re
import sys

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from click.testing import CliRunner

from restorer.errors import ConfigError, RestorerError
from restorer.metrics import DEFAULT_METRICS, align, lsd, measure, mse, peaq, si_snr, snr, visqol
from restorer.metrics.command import measure_each, metrics

RATE = 44100


def noise(seed: int, shape: int | tuple[int, ...] = 2 * RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(shape)


def test_equal_signals_are_at_zero_distance():
    x = noise(0)
    assert lsd(x, x) == 0
    assert mse(x, x) == 0
    assert snr(x, x) == math.inf
    assert si_snr(x, x) > 250


def test_lsd_of_a_gain_is_the_gain():
    x = 10 * noise(0)
    assert lsd(x, x / 2) == pytest.approx(20 * math.log10(2), abs=0.01)
    assert lsd(x, -x) == 0


def test_lsd_of_silence_shows_the_floor():
    """Against silence every bin is 10 log10((P + 1e-3) / 1e-3); an impulse has P = 1."""
    impulse = np.zeros(2048)
    impulse[1024] = 1.0
    assert lsd(impulse, np.zeros(2048)) == pytest.approx(10 * math.log10(1001), abs=1e-6)


def test_lsd_and_mse_follow_the_equations():
    one, other = noise(0, 2048 + 3 * 512), noise(1, 2048 + 3 * 512)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    distances, errors = [], []
    for start in range(0, 4 * 512, 512):
        p, q = (np.abs(np.fft.rfft(window * x[start : start + 2048])) ** 2 for x in (one, other))
        distances.append(np.sqrt(np.mean((10 * np.log10((p + 1e-3) / (q + 1e-3))) ** 2)))
        errors.append(np.mean((np.sqrt(p) - np.sqrt(q)) ** 2))
    assert lsd(one, other) == pytest.approx(np.mean(distances))
    assert mse(one, other) == pytest.approx(np.mean(errors))


def test_mse_of_a_gain_is_quadratic():
    x = noise(0)
    assert mse(x, 0.8 * x) == pytest.approx(4 * mse(x, 0.9 * x))


@pytest.mark.parametrize("level_db", [-60, -20, 0, 10])
def test_snr_is_the_level_of_the_error(level_db):
    x, error = noise(0), noise(1)
    error *= 10 ** (level_db / 20) * np.linalg.norm(x) / np.linalg.norm(error)
    assert snr(x, x + error) == pytest.approx(-level_db)


def test_si_snr_ignores_gain_and_offset():
    x = noise(0)
    y = x + 0.1 * noise(1)
    assert si_snr(x, 0.3 * y + 0.2) == pytest.approx(si_snr(x, y))
    assert si_snr(x, y) == pytest.approx(20, abs=0.2)


def test_silence_has_a_defined_value():
    x, silence = noise(0), np.zeros(2 * RATE)
    assert snr(x, silence) == pytest.approx(0)
    assert snr(silence, x) == -math.inf
    assert si_snr(x, silence) == -math.inf
    assert si_snr(silence, x) == -math.inf


@pytest.mark.parametrize("metric", [lsd, mse, snr, si_snr])
def test_channels_are_averaged(metric):
    one, other = noise(0, (2, 9000)), noise(1, (2, 9000))
    one[1] *= 3
    alone = [metric(a, b) for a, b in zip(one, other, strict=True)]
    assert metric(one, other) == pytest.approx(np.mean(alone))
    assert metric(one.astype(np.float32), other.astype(np.float32)) == pytest.approx(np.mean(alone), rel=1e-4)


@pytest.mark.parametrize(
    ("reference", "test", "message"),
    [
        (np.zeros(10), np.zeros(11), r"\(10,\).*\(11,\).*align"),
        (np.zeros((2, 10)), np.zeros(10), r"\(2, 10\).*\(10,\)"),
        (np.zeros(10, np.int16), np.zeros(10), "int16.*floats"),
        (np.zeros(10), np.full(10, np.nan), "test contains NaN"),
        (np.zeros(0), np.zeros(0), "non-empty"),
        (np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), r"\(1, 2, 3\)"),
    ],
)
def test_a_wrong_pair_is_refused(reference, test, message):
    for metric in (lsd, mse, snr, si_snr):
        with pytest.raises(RestorerError, match=message):
            metric(reference, test)


@pytest.mark.parametrize("lag", [-3000, -1, 0, 1, 1105, 6091])
def test_align_finds_the_lag_of_a_dull_noisy_copy(lag):
    source = noise(0, (2, RATE + 20000))
    reference = source[:, 10000 : 10000 + RATE]
    dull = scipy.signal.sosfiltfilt(scipy.signal.butter(6, 5500, fs=RATE, output="sos"), source)
    test = 0.95 * dull[:, 10000 - lag : 10000 - lag + RATE] + 0.1 * noise(1, (2, RATE))
    found = align(reference, test, RATE)
    assert found.lag_samples == lag
    assert found.reference.shape == found.test.shape == (2, RATE - abs(lag))
    assert snr(found.reference, found.test) > align(reference, test, RATE, max_lag_seconds=0)[0]


def test_align_cuts_different_lengths_and_keeps_dimensions():
    x = noise(0)
    lag, one, other = align(x, np.concatenate([np.zeros(700), x[:50000]]), RATE)
    assert lag == 700
    assert one.shape == (50000,)
    np.testing.assert_array_equal(one, other)


def test_align_uses_the_middle_of_a_long_recording():
    x = noise(0, 40 * 8000)
    assert align(x, np.roll(x, 321), 8000).lag_samples == 321


def test_align_leaves_silence_and_refuses_different_channels():
    assert align(np.zeros(1000), np.zeros(900), RATE).lag_samples == 0
    with pytest.raises(RestorerError, match="channels must be equal"):
        align(noise(0, (2, 1000)), noise(0, 1000), RATE)


def test_measure_returns_what_was_asked_for():
    x, y = noise(0), noise(0) + 0.1 * noise(1)
    assert tuple(measure(x, y, RATE)) == DEFAULT_METRICS
    values = measure(x, y, RATE, which=("snr", "odg"))
    assert list(values) == ["snr", "odg"]
    assert values["snr"] == snr(x, y)
    assert values["odg"] == peaq(x, y, RATE).odg
    with pytest.raises(ConfigError, match="'pesq'; allowed are odg, di"):
        measure(x, y, RATE, which=("pesq",))


def test_visqol_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "visqol.api", None)
    sys.modules["restorer.metrics.visqol"]._judge.cache_clear()
    with pytest.raises(RestorerError, match=r"pip install 'restorer\[visqol\]'"):
        visqol(noise(0), noise(0), RATE)


def test_visqol_judges_like_a_listener():
    pytest.importorskip("visqol")
    x = noise(0, RATE)
    assert visqol(x, x, RATE) == pytest.approx(4.73, abs=0.01)
    assert visqol(x, x + noise(1, RATE), RATE) < 4.5
    with pytest.raises(RestorerError, match=r"0\.50 s; ViSQOL needs at least 1 s"):
        visqol(x[: RATE // 2], x[: RATE // 2], RATE)


@pytest.fixture
def files(tmp_path):
    """A reference at 44.1 kHz and a late, noisier copy of it at 48 kHz, both stereo."""
    low_pass = scipy.signal.butter(8, 15000, fs=RATE, output="sos")
    x, error = (scipy.signal.sosfilt(low_pass, noise(seed, (RATE, 2)), axis=0) for seed in (0, 1))
    late = np.concatenate([np.zeros((441, 2)), x + 0.01 * error])
    soundfile.write(tmp_path / "reference.wav", x, RATE, subtype="FLOAT")
    late = soxr.resample(late, RATE, 48000, quality="VHQ")
    soundfile.write(tmp_path / "test.wav", late, 48000, subtype="FLOAT")
    return tmp_path / "reference.wav", tmp_path / "test.wav"


@pytest.fixture
def without_visqol(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("without_visqol")
def test_command_resamples_aligns_and_prints_json(files):
    result = CliRunner().invoke(metrics, [*map(str, files), "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["lag_samples"] == 441
    assert record["channels"] == 2
    assert set(DEFAULT_METRICS) <= set(record)
    assert record["snr"] == pytest.approx(40, abs=0.5)


@pytest.mark.usefixtures("without_visqol")
def test_command_prints_one_line_per_metric(files):
    result = CliRunner().invoke(metrics, [str(files[0]), str(files[0])])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["ODG", "DI", "LSD", "MSE", "SNR", "SI-SNR"]
    assert "inf" in lines[6]


@pytest.mark.usefixtures("without_visqol")
def test_command_writes_null_for_infinity_and_mixes_unequal_channels(files, tmp_path):
    x, _ = soundfile.read(files[0])
    soundfile.write(tmp_path / "mono.wav", x.mean(axis=1), RATE, subtype="FLOAT")
    same = CliRunner().invoke(metrics, [str(files[0]), str(files[0]), "--json"])
    assert json.loads(same.stdout)["snr"] is None
    mixed = CliRunner().invoke(metrics, [str(files[0]), str(tmp_path / "mono.wav"), "--json"])
    assert json.loads(mixed.stdout)["channels"] == 1
    assert "mono" in mixed.stderr


@pytest.mark.usefixtures("without_visqol")
@pytest.mark.parametrize(
    ("samples", "gain", "reason"),
    [(RATE // 2, 1.0, r"0\.\d+ s of sound; PEAQ needs"), (RATE, 0.0, "a reference that is not silent")],
)
def test_command_says_why_there_is_no_grade_and_goes_on(tmp_path, samples, gain, reason):
    paths = [tmp_path / "reference.wav", tmp_path / "test.wav"]
    for path, audio in zip(
        paths, (gain * noise(0, samples), gain * noise(0, samples) + 0.01 * noise(1, samples)), strict=True
    ):
        soundfile.write(path, audio, RATE, subtype="FLOAT")
    result = CliRunner().invoke(metrics, [*map(str, paths)])
    assert result.exit_code == 0, result.output
    for label in ("ODG", "DI"):
        assert re.search(rf"^{label} +n/a +.*{reason}", result.stdout, re.MULTILINE)
    assert re.search(r"^LSD +\d+\.\d+ dB", result.stdout, re.MULTILINE)
    record = json.loads(CliRunner().invoke(metrics, [*map(str, paths), "--json"]).stdout)
    assert record["odg"] is record["di"] is None and record["lsd"] > 0
    assert set(record["not_measured"]) == {"odg", "di"}
    assert (record["snr"] is None) == (gain == 0)


def test_command_says_why_there_is_no_visqol(files, monkeypatch):
    """ViSQOL judges nothing under a second; here it judges nothing at all."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "visqol.api", None)
    sys.modules["restorer.metrics.visqol"]._judge.cache_clear()
    result = CliRunner().invoke(metrics, [*map(str, files)])
    assert result.exit_code == 0 and re.search(r"^ViSQOL +n/a +ViSQOL is not available", result.stdout, re.MULTILINE)
    assert re.search(r"^SNR +\d", result.stdout, re.MULTILINE)
    values, reasons = measure_each(noise(0, RATE // 2), noise(0, RATE // 2), ("visqol", "snr"))
    assert values == {"snr": math.inf} and reasons["visqol"].startswith("audio lasts 0.50 s")
