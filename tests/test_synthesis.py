"""The built-in band: deterministic, loud, different per seed, and full-band like a mix of real music."""

import numpy as np
import pytest
from scipy import signal

from restorer import instruments
from restorer.errors import ConfigError
from restorer.pictures import spectrogram_db
from restorer.synthesis import Score, synthesize

OCTAVES_HZ = (31.5, 63, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)


def band_levels_db(audio, sample_rate, edges):
    power = np.mean(10 ** (spectrogram_db(audio) / 10), axis=1)
    hz = np.arange(len(power)) * sample_rate / 2048
    return [10 * np.log10(power[(hz >= low) & (hz < high)].sum() / power.sum()) for low, high in edges]


@pytest.fixture(scope="module")
def piece():
    return synthesize()


def test_shape_type_and_loudness(piece):
    assert piece.shape == (2, 12 * 44100)
    assert piece.dtype == np.float32
    assert 0.5 < np.abs(piece).max() <= 1.0
    assert 0.1 < np.sqrt(np.mean(piece**2)) < 0.4
    assert abs(piece.mean()) < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_every_octave_up_to_20_khz_has_energy(seed):
    audio = synthesize(6.0, seed=seed)
    edges = [(centre / 2**0.5, centre * 2**0.5) for centre in OCTAVES_HZ] + [(18000, 20000)]
    assert min(band_levels_db(audio, 44100, edges)) > -50


def test_same_seed_same_samples_whatever_the_global_generator_does():
    first = synthesize(2.0, seed=5)
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(first, synthesize(2.0, seed=5))


def test_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    synthesize(0.5)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_seeds_give_different_pieces():
    pieces = [synthesize(2.0, seed=seed, channels=1)[0] for seed in range(4)]
    for index, one in enumerate(pieces):
        for other in pieces[:index]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.5
    scores = {Score.write(np.random.default_rng(seed)) for seed in range(20)}
    assert len(scores) == 20
    assert len({score.pad for score in scores}) == 2


def test_stereo_has_width_and_mono_is_its_mean(piece):
    middle, side = piece.mean(axis=0), (piece[0] - piece[1]) / 2
    assert -30 < 10 * np.log10(np.mean(side**2) / np.mean(middle**2)) < -3
    assert np.allclose(synthesize(channels=1)[0], middle, atol=1e-6)


def test_drums_make_onsets_in_the_treble(piece):
    treble = signal.sosfilt(instruments.band(6000, 20000, 44100), piece.mean(axis=0))
    level = np.sqrt(np.mean(treble[: len(treble) // 441 * 441].reshape(-1, 441) ** 2, axis=1))
    rise_db = 20 * np.log10((level[1:] + 1e-6) / (level[:-1] + 1e-6))
    assert (rise_db > 6).sum() > 20


@pytest.mark.parametrize("seconds", [1 / 44100, 0.1, 0.5])
def test_short_pieces_sound_from_the_start(seconds):
    audio = synthesize(seconds)
    assert audio.shape == (2, round(seconds * 44100))
    assert np.isfinite(audio).all()
    if seconds >= 0.1:
        assert np.abs(audio).max() > 0.3


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 48000, 96000])
def test_other_sample_rates(sample_rate):
    audio = synthesize(2.0, sample_rate)
    assert audio.shape == (2, 2 * sample_rate)
    assert np.abs(audio).max() <= 1.0
    nyquist = sample_rate / 2
    assert band_levels_db(audio, sample_rate, [(0.5 * min(nyquist, 20000), nyquist)])[0] > -50


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", 0),
        ("seconds", -1),
        ("seconds", np.nan),
        ("sample_rate", 100),
        ("channels", 3),
        ("seed", -1),
    ],
)
def test_impossible_arguments_are_named(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be .* not {value}"):
        synthesize(**{name: value})


def test_notes_have_the_pitch_asked_for():
    rng = np.random.default_rng(0)
    for note in (instruments.plucked, instruments.bowed, instruments.organ):
        spectrum = np.abs(np.fft.rfft(note(rng, 44100, 220.0, 2.0, 0.5)))
        peaks = [np.argmax(spectrum[round(2 * (hz - 8)) : round(2 * (hz + 8))]) / 2 + hz - 8 for hz in (220, 440)]
        assert peaks == pytest.approx([220, 440], abs=3)


def test_wavetables_hold_no_partial_above_20_khz():
    phase = instruments.turns(np.full(44100, 441.0), 44100)
    table = instruments.wavetable(np.ones_like(instruments.partials(441.0, 44100)))
    spectrum = np.abs(np.fft.rfft(instruments.read_table(table, phase) * np.hanning(44100)))
    assert spectrum[20200:].max() < 0.05 * spectrum[:20000].max()


def test_cymbals_lose_their_top_first():
    hit = instruments.cymbal(np.random.default_rng(0), 44100, 1.0)
    low, high = (signal.sosfilt(instruments.band(*edges, 44100), hit) for edges in ((3000, 6000), (13000, 19000)))
    lasting = [np.sum(part[44100:] ** 2) / np.sum(part**2) for part in (low, high)]
    assert lasting[1] < 0.6 * lasting[0]


def test_the_voice_follows_its_vowels():
    rng = np.random.default_rng(0)
    pulses, _ = instruments.glottis(rng, 44100, 110.0, 2.0, 110.0)
    sung = {vowel: instruments.sing(pulses, [(0.0, vowel)], 44100) for vowel in "iu"}
    edges = [(1800, 2600)]
    bright, dark = (band_levels_db(sung[vowel][None], 44100, edges)[0] for vowel in "iu")
    assert bright > dark + 10
    assert sung["i"].shape == pulses.shape
