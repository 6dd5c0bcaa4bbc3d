"""PEAQ basic against two independent implementations, and what a quality measure must do."""

import numpy as np
import pytest
import scipy.signal
import soxr

from restorer.errors import RestorerError
from restorer.metrics import peaq
from restorer.metrics.peaq_ear import BANDS, CENTRE_HZ, FRAME, LOWER_HZ, UPPER_HZ, frame_window
from restorer.metrics.peaq_movs import _NETWORK
from restorer.metrics.peaq_patterns import spread, spread_unscaled

RATE = 48000
SAMPLES = 480000

# ODG and DI of peaqb-fast and of GstPEAQ, on 16-bit mono at 48 kHz; None: no value for an exact copy.
REFERENCE_VALUES = {
    "noise identity": ((0.141, 3.956), None),
    "noise low-passed at 16000 Hz": ((-0.137, 2.377), (-0.137, 2.377)),
    "noise low-passed at 12000 Hz": ((-0.431, 1.696), (-0.433, 1.691)),
    "noise low-passed at 8000 Hz": ((-1.059, 0.826), (-1.067, 0.817)),
    "tone plus noise at -40 dB": ((-2.784, -0.922), (-2.735, -0.865)),
    "tone plus noise at -55 dB": ((-2.284, -0.390), (-2.278, -0.384)),
    "tone plus noise at -70 dB": ((-1.087, 0.795), (-1.088, 0.794)),
    "bursts at 6 bits": ((0.008, 2.934), (-0.236, 2.105)),
    "bursts low-passed at 12000 Hz": ((-0.560, 1.479), (-0.415, 1.725)),
}


def sixteen_bits(signal: np.ndarray) -> np.ndarray:
    return np.round(np.clip(signal, -1, 1) * 32768) / 32768


def low_passed(signal: np.ndarray, cutoff_hz: float, rate: int = RATE) -> np.ndarray:
    return scipy.signal.sosfiltfilt(scipy.signal.butter(8, cutoff_hz, fs=rate, output="sos"), signal)


def gauss(seed: int, samples: int = SAMPLES) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples)


@pytest.fixture(scope="module")
def items() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    noise = sixteen_bits(0.1 * gauss(0))
    seconds = np.arange(SAMPLES) / RATE
    harmonics = sum(np.sin(2 * np.pi * 220 * k * seconds) / k for k in range(1, 41))
    tone = sixteen_bits(0.1 * (1 + 0.5 * np.sin(2 * np.pi * 4 * seconds)) * harmonics)
    clicks = np.zeros(SAMPLES)
    clicks[::12000] = 0.9
    decay = np.exp(-np.arange(4000) / 600) * gauss(2, 4000)
    bursts = sixteen_bits(0.15 * scipy.signal.oaconvolve(clicks, decay)[:SAMPLES])
    pairs = {
        "noise identity": (noise, noise),
        "bursts at 6 bits": (bursts, np.round(bursts * 32) / 32),
        "bursts low-passed at 12000 Hz": (bursts, low_passed(bursts, 12000)),
    }
    for cutoff in (16000, 12000, 8000):
        pairs[f"noise low-passed at {cutoff} Hz"] = (noise, low_passed(noise, cutoff))
    for level_db in (-40, -55, -70):
        pairs[f"tone plus noise at {level_db} dB"] = (tone, tone + 10 ** (level_db / 20) * gauss(1))
    return {name: (one, sixteen_bits(other)) for name, (one, other) in pairs.items()}


@pytest.mark.parametrize("name", REFERENCE_VALUES)
def test_agrees_with_the_nearer_of_two_implementations(name, items):
    result = peaq(*items[name], RATE)
    nearest = min((v for v in REFERENCE_VALUES[name] if v), key=lambda v: abs(v[0] - result.odg))
    assert result.odg == pytest.approx(nearest[0], abs=0.01)
    assert result.di == pytest.approx(nearest[1], abs=0.01)


@pytest.mark.parametrize("name", [n for n, (a, b) in REFERENCE_VALUES.items() if b and abs(a[0] - b[0]) <= 0.05])
def test_lies_within_0_05_where_they_agree(name, items):
    """Of the nearer one: at -40 dB of noise they lie 0.05 apart themselves, and 0.06 in DI."""
    result = peaq(*items[name], RATE)
    assert min(abs(result.odg - odg) for odg, _ in REFERENCE_VALUES[name]) <= 0.05
    assert min(abs(result.di - di) for _, di in REFERENCE_VALUES[name]) <= 0.05


def test_bands_are_those_of_the_standard():
    assert BANDS == 109
    assert LOWER_HZ[0] == pytest.approx(80)
    assert UPPER_HZ[-1] == pytest.approx(18000)
    assert CENTRE_HZ[[0, 1, 108]] == pytest.approx([91.708, 115.216, 17690.045], abs=0.01)


def test_full_scale_sine_is_92_db():
    sine = np.sin(2 * np.pi * 1019.5 / RATE * np.arange(FRAME))
    assert 20 * np.log10(np.abs(np.fft.rfft(sine * frame_window())).max()) == pytest.approx(92, abs=0.01)


def test_spreading_keeps_a_flat_pattern_at_0_db():
    assert spread(np.ones((1, BANDS))) == pytest.approx(1)


@pytest.mark.parametrize("level_db", [40, 60, 80])
def test_spreading_slopes_are_those_of_the_standard(level_db):
    pattern = np.full((1, BANDS), 1e-12)
    pattern[0, 50] = 10 ** (level_db / 10)
    row = 10 * np.log10(spread(pattern)[0] * spread_unscaled(np.ones((1, BANDS)))[0])
    up_db_per_bark = -24 - 230 / CENTRE_HZ[50] + 0.2 * level_db
    assert row[58] - row[50] == pytest.approx(2 * up_db_per_bark, abs=0.1)
    assert row[42] - row[50] == pytest.approx(2 * -27, abs=0.1)


def test_reports_the_eleven_variables(items):
    movs = peaq(*items["noise low-passed at 12000 Hz"], RATE).movs
    assert set(movs) == set(_NETWORK)
    assert movs["BandwidthTestB"] < movs["BandwidthRefB"] <= 921


def test_more_noise_is_worse(items):
    reference = items["tone plus noise at -40 dB"][0]
    odg = [peaq(reference, reference + 10 ** (db / 20) * gauss(3), RATE).odg for db in (-80, -70, -60, -50)]
    assert odg == sorted(odg, reverse=True)


@pytest.mark.parametrize("rate", [32000, 44100, 96000])
def test_grade_hardly_depends_on_the_sample_rate(rate, items):
    one, other = items["noise low-passed at 8000 Hz"]
    one = low_passed(one, 12000)
    at_48k = peaq(one, other, RATE)
    resampled = [soxr.resample(x, RATE, rate, quality="VHQ") for x in (one, other)]
    assert peaq(*resampled, rate).odg == pytest.approx(at_48k.odg, abs=0.03)


def test_inaudible_residue_is_not_bandwidth(items):
    """Floating-point audio holds residue far below 16 bits; it must not make a dull signal full-band."""
    one, other = items["noise low-passed at 8000 Hz"]
    one, other = low_passed(one, 20000), low_passed(other, 8000)
    residue = low_passed(1e-8 * gauss(4), 18000)
    with_residue, without = peaq(one, other + residue, RATE), peaq(one, other, RATE)
    assert with_residue.movs["BandwidthTestB"] == pytest.approx(without.movs["BandwidthTestB"], abs=1)
    assert with_residue.odg == pytest.approx(without.odg, abs=0.005)


def test_equal_channels_are_judged_like_one(items):
    one, other = items["tone plus noise at -55 dB"]
    mono = peaq(one, other, RATE)
    stereo = peaq(np.stack([one, one]), np.stack([other, other]), RATE)
    assert stereo.movs == pytest.approx(mono.movs)


def test_damage_in_one_ear_is_heard(items):
    one, other = items["tone plus noise at -55 dB"]
    half = peaq(np.stack([one, one]), np.stack([one, other]), RATE)
    mono = peaq(one, other, RATE)
    assert half.movs["MFPDB"] == pytest.approx(mono.movs["MFPDB"])
    assert mono.odg < half.odg < peaq(one, one, RATE).odg


def test_silence_around_the_signal_hardly_matters(items):
    one, other = (np.pad(x, (3 * 1024, 5 * 1024)) for x in items["tone plus noise at -70 dB"])
    plain = peaq(*items["tone plus noise at -70 dB"], RATE)
    assert peaq(one, other, RATE).odg == pytest.approx(plain.odg, abs=0.02)


def test_a_silent_test_is_bad_and_finite(items):
    reference = items["noise identity"][0]
    result = peaq(reference, np.zeros_like(reference), RATE)
    assert all(np.isfinite([result.odg, result.di, *result.movs.values()]))
    assert result.odg < -1


def test_needs_sound():
    with pytest.raises(RestorerError, match=r"not silent, of at least 0\.6 s"):
        peaq(np.zeros(RATE), np.zeros(RATE), RATE)
    with pytest.raises(RestorerError, match=r"0\.\d+ s of sound"):
        peaq(gauss(0, 20000), gauss(0, 20000), RATE)
    with pytest.raises(RestorerError, match="sample_rate is 0 Hz"):
        peaq(gauss(0), gauss(0), 0)
