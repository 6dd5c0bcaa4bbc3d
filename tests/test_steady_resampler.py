"""Resampling at a steady pace: the same samples, never later than said, and never many at once."""

import numpy as np
import pytest
from toy_model import make_music

from restorer.audio_in import StreamResampler
from restorer.steady_resampler import SteadyResampler, resampler_delay

RATES = [(48000, 44100), (44100, 8000), (44100, 96000), (8000, 44100), (47999, 44100)]


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_resampler_is_never_later_than_its_bound(source: int, target: int) -> None:
    resampler, given, got, worst = StreamResampler(1, source, target), 0, 0, 0.0
    for _ in range(30000):
        given += 29
        worst = max(worst, given * target / source - got)
        got += resampler.process(np.zeros((1, 29), np.float32)).shape[1]
    assert worst <= resampler_delay(source, target) < worst + 20 * max(1, target / source)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_blocks_come_evenly_and_are_those_of_soxr(source: int, target: int) -> None:
    audio = make_music(2, 40000, source)
    plain, steady = StreamResampler(2, source, target), SteadyResampler(2, source, target)
    expected = np.concatenate([plain.process(audio), plain.flush()], axis=1)
    for _ in range(2):
        pieces, got = [], 0
        for start in range(0, audio.shape[1], 64):
            pieces.append(steady.process(audio[:, start : start + 64]))
            got += pieces[-1].shape[1]
            given = min(start + 64, audio.shape[1]) * target / source
            assert max(0, given - resampler_delay(source, target)) <= got <= given
            assert pieces[-1].shape[1] <= np.ceil(64 * target / source) + 1
        pieces.append(steady.flush())
        assert np.array_equal(np.concatenate(pieces, axis=1), expected)


def test_equal_rates_wait_for_nothing() -> None:
    audio = make_music(1, 100)
    resampler = SteadyResampler(1, 44100, 44100)
    assert np.array_equal(resampler.process(audio), audio) and resampler.flush().shape == (1, 0)
