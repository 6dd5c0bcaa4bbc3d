"""The synthesiser: nothing folds back, drums sound when they are hit, the same seed sounds the same."""

import numpy as np
import pytest
import soundfile
from scipy.signal.windows import blackmanharris

pytest.importorskip("mido")
pytest.importorskip("pedalboard")

from restorer.training.rendering.drum_patterns import Hit
from restorer.training.rendering.drums import LEVELS, OneShots, duck, play_hits, synthesise_drum
from restorer.training.rendering.notes import Note
from restorer.training.rendering.oscillator import CUTOFFS_HZ, SHAPES, TOP_HZ, Oscillator
from restorer.training.rendering.songs import ROLES
from restorer.training.rendering.synthesiser import play_track

RATE_HZ = 44100
OPEN = float(len(CUTOFFS_HZ) - 1)


def rng(seed=0):
    return np.random.default_rng(seed)


def power(tone):
    return np.abs(np.fft.rfft(tone * blackmanharris(len(tone)))) ** 2


def level_db(part, whole):
    return 10 * np.log10(part.sum() / whole.sum() + 1e-20)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pitch", [33, 60.3, 84, 101.7, 115])
def test_nothing_folds_back_or_is_above_the_top(shape, pitch):
    hz = 440 * 2 ** ((pitch - 69) / 12)
    tone = Oscillator(shape, rng(3)).note(hz, np.full(RATE_HZ, OPEN, np.float32), 0.3)
    found = power(tone)
    bins = np.arange(len(found))
    near = np.abs(bins / hz - np.round(bins / hz)) * hz < 6
    between_db = -58 if pitch > 80 else -44  # places in a table are whole numbers: that is all that is there
    assert tone.dtype == np.float32 and level_db(found[~near], found) < between_db
    assert level_db(found[bins > TOP_HZ + 6], found) < between_db - 10
    assert level_db(found[np.abs(bins - hz) < 6], found) > -25 or shape in ("organ", "random")


def test_the_cutoff_moves_within_a_note():
    cutoffs = np.linspace(0, OPEN, RATE_HZ, dtype=np.float32)
    tone = Oscillator("saw", rng()).note(110, cutoffs, 0)
    first, last = power(tone[:8192]), power(tone[-8192:])
    assert level_db(first[400:], first) < level_db(last[400:], last) - 20


@pytest.mark.parametrize("role", ROLES)
def test_a_track_sounds_from_its_first_note_and_the_same_each_time(role):
    notes = [Note(0.5 + 0.3 * step, 0.25, 48 + 7 * step, 100) for step in range(4)]
    for seed in range(6):
        track = play_track(notes, role, rng(seed), 3 * RATE_HZ, 100)
        assert track.shape == (2, 3 * RATE_HZ) and track.dtype == np.float32 and np.isfinite(track).all()
        assert not track[:, : RATE_HZ // 2].any() and np.abs(track).max() > 0.01
        assert np.array_equal(track, play_track(notes, role, rng(seed), 3 * RATE_HZ, 100))


def test_frequency_modulation_stays_below_the_top_at_high_pitches():
    found = []
    for seed in range(40):
        track = play_track([Note(0, 1, 108, 100)], "arpeggio", rng(seed), RATE_HZ, 100)
        found.append(level_db(power(track[0])[21500:], power(track[0])))
    assert max(found) < -30


def test_a_small_budget_leaves_notes_out():
    notes = [Note(step * 0.1, 0.5, 60, 100) for step in range(40)]
    full, less = (play_track(notes, "lead", rng(1), 5 * RATE_HZ, budget) for budget in (1e6, 6))
    assert 0 < (less**2).sum() < 0.8 * (full**2).sum()


@pytest.mark.parametrize("sound", LEVELS)
def test_drum_sounds_begin_at_once_and_die_away(sound):
    for seed in range(4):
        drum = synthesise_drum(sound, rng(seed))
        assert drum.dtype == np.float32 and np.abs(drum).max() == pytest.approx(1)
        assert np.abs(drum[: RATE_HZ // 20]).max() > 0.3
        assert np.abs(drum[-200:]).max() < 0.15


def test_hits_sound_where_they_are():
    hits = [Hit(0.5, "kick", 1.0), Hit(1.5, "snare", 0.8), Hit(-1.0, "kick", 1.0), Hit(9.0, "hat", 1.0)]
    drums = play_hits(hits, rng(), 2 * RATE_HZ, OneShots())
    assert drums.shape == (2, 2 * RATE_HZ) and drums.dtype == np.float32
    energy = (drums**2).sum(axis=0)
    assert not energy[: RATE_HZ // 2].any()
    for seconds in (0.5, 1.5):
        start = int(seconds * RATE_HZ)
        assert energy[start : start + 4000].sum() > 20 * energy[start - 4000 : start].sum()


def test_single_sounds_are_found_by_name_and_damaged_ones_passed_over(tmp_path):
    tone = np.sin(np.arange(30000) * 0.05) / 3
    for name in ("my_kick_1.wav", "HiHat-Open.flac", "choir.wav"):
        soundfile.write(tmp_path / name, tone, 48000)
    (tmp_path / "snare.wav").write_bytes(bytes(100))
    shots = OneShots(sorted(tmp_path.iterdir()))
    assert shots and not OneShots()
    kick = shots.draw("kick", rng())
    assert kick.ndim == 1 and np.abs(kick).max() == pytest.approx(1) and abs(kick[-1]) < 1e-3
    assert shots.draw("open hat", rng()) is not None
    assert shots.draw("clap", rng()) is None and shots.draw("snare", rng()) is None
    assert np.isfinite(play_hits([Hit(0.1, "snare", 1.0)], rng(2), RATE_HZ, shots)).all()


def test_a_side_chain_dips_after_each_kick_and_comes_back():
    curve = duck(RATE_HZ * 2, [0.5, 1.0, 5.0], 0.7, 0.08)
    assert curve.shape == (2 * RATE_HZ,) and curve.min() == pytest.approx(0.3, abs=0.03) and curve.max() == 1
    assert (curve[: RATE_HZ // 2] == 1).all() and curve[RATE_HZ // 2 + 100] < 0.35 and curve[-1] > 0.99
