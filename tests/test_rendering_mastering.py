"""Channel strips and mastering keep to their bounds: peaks, loudness, finite, centred, silence stays silence."""

import numpy as np
import pytest

pytest.importorskip("mido")
pytest.importorskip("pedalboard")

from restorer.synthesis import synthesize
from restorer.training.rendering.channel import amp, excite, strip
from restorer.training.rendering.levels import at_level, rms, saturate
from restorer.training.rendering.mastering import CEILING, limit, loud, master, treble_db

RATE_HZ = 44100


def rng(seed=0):
    return np.random.default_rng(seed)


def db(value):
    return 20 * np.log10(max(float(value), 1e-9))


@pytest.fixture(scope="module")
def mix():
    return synthesize(4.0, RATE_HZ, 1, 2).astype(np.float32) / 4


@pytest.mark.parametrize("seed", range(5))
def test_the_limiter_never_passes_its_threshold_and_leaves_quiet_audio_alone(seed):
    draws = rng(seed)
    audio = (draws.standard_normal((2, 20000)) * draws.uniform(0.1, 3)).astype(np.float32)
    audio[:, ::1777] *= 9
    threshold, lookahead = draws.uniform(0.2, 1.2), int(draws.integers(2, 900))
    limited = limit(audio, threshold, lookahead)
    assert np.abs(limited).max() <= threshold * (1 + 1e-6) and limited.dtype == np.float32
    quiet = audio * (0.99 * threshold / np.abs(audio).max())
    assert limit(quiet, threshold, lookahead) is quiet


def test_far_from_a_peak_the_limiter_does_nothing():
    audio = np.full((2, 9000), 0.1, np.float32)
    audio[:, 4500] = 2.0
    limited = limit(audio, 0.5, 300)
    np.testing.assert_allclose(limited[:, :3800], 0.1, rtol=1e-5)
    assert limited[0, 4499] < 0.03


@pytest.mark.parametrize("seed", range(10))
def test_a_master_is_full_finite_and_centred(mix, seed):
    out = master(mix, rng(seed))
    assert out.shape == mix.shape and out.dtype == np.float32 and np.isfinite(out).all()
    assert 10 ** (-6.2 / 20) < np.abs(out).max() <= CEILING * (1 + 1e-6)
    assert abs(out.mean()) < 0.01
    assert np.array_equal(out, master(mix, rng(seed)))


@pytest.mark.parametrize("seed", range(6))
def test_what_is_loud_reaches_the_level_of_modern_masters(mix, seed):
    out = loud(at_level(mix, 0.1), rng(seed))
    assert -2.01 <= db(np.abs(out).max()) <= -0.04
    assert -18 < db(rms(out)) < -4


def test_silence_becomes_no_more_than_a_noise_floor():
    for seed in range(4):
        out = master(np.zeros((2, RATE_HZ), np.float32), rng(seed))
        assert np.isfinite(out).all() and db(np.abs(out).max()) < -50


def test_treble_is_measured():
    time = np.arange(RATE_HZ) / RATE_HZ
    low, high = (np.repeat(np.sin(2 * np.pi * hz * time)[None].astype(np.float32), 2, axis=0) for hz in (500, 12000))
    assert treble_db(high) == pytest.approx(0, abs=0.01) and treble_db(low) < -60
    assert treble_db(low + high) == pytest.approx(-3, abs=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_strips_keep_shape_and_are_finite(mix, seed):
    for out in (amp(mix, rng(seed)), excite(mix, rng(seed)), *(strip(mix, rng(seed), r) for r in ("drums", "lead"))):
        assert out.shape == mix.shape and out.dtype == np.float32 and np.isfinite(out).all() and rms(out) > 0.01
    silence = np.zeros_like(mix)
    for out in (amp(silence, rng(seed)), excite(silence, rng(seed)), strip(silence, rng(seed), "pad")):
        assert np.abs(out).max() < 1e-3


def test_an_exciter_adds_treble(mix):
    dull = saturate(mix)  # bent a little, else as it is
    assert np.abs(dull).max() < 1
    assert treble_db(excite(mix, rng(4))) > treble_db(mix)


def test_levels():
    audio = np.zeros((2, RATE_HZ), np.float32)
    assert rms(audio) == 0 and rms(audio[:, :100]) == 0
    audio[:, :22528] = 0.5  # pauses do not count
    assert rms(audio) == pytest.approx(0.5) and rms(at_level(audio, 0.2)) == pytest.approx(0.2)
