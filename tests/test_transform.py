"""The signal path around the generator: analytic truths and perfect reconstruction."""

import numpy as np
import pytest
import scipy.signal

from restorer.transform import Analysis, Synthesis, hann_window, signed_sqrt, signed_square, synthesis_window


def there_and_back(audio: np.ndarray, window: int, hop: int, blocks: list[int]) -> np.ndarray:
    analysis, synthesis = Analysis(len(audio), window, hop), Synthesis(len(audio), window, hop)
    padded = np.pad(audio, ((0, 0), (0, window)))
    pieces, start, turn = [], 0, 0
    while start < padded.shape[1]:
        size = blocks[turn % len(blocks)]
        pieces.append(synthesis(analysis(padded[:, start : start + size])))
        start, turn = start + size, turn + 1
    return np.concatenate(pieces, axis=1)[:, window - hop :][:, : audio.shape[1]]


def test_signed_square_undoes_signed_sqrt() -> None:
    values = np.array([-100.0, -1.0, -1e-6, 0.0, 0.25, 4.0], np.float32)
    np.testing.assert_allclose(signed_sqrt(values)[[0, 4, 5]], [-10, 0.5, 2])
    np.testing.assert_allclose(signed_square(signed_sqrt(values)), values, rtol=1e-6)


def test_window_is_the_periodic_hann() -> None:
    np.testing.assert_allclose(hann_window(2048), scipy.signal.get_window("hann", 2048), atol=1e-7)


def test_overlapping_windows_sum_to_one_and_a_half() -> None:
    np.testing.assert_allclose(synthesis_window(2048, 512) * 1.5, hann_window(2048), atol=1e-7)


def test_frames_are_the_unnormalised_stft() -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 5000)).astype(np.float32)
    frames = Analysis(2, 2048, 512)(audio)
    assert frames.shape == (2, 2, 5000 // 512, 1025) and frames.dtype == np.float32
    first_sample = 5 * 512 - 1536
    expected = np.fft.rfft(audio[1, first_sample : first_sample + 2048] * scipy.signal.get_window("hann", 2048))
    np.testing.assert_allclose(signed_square(frames[1, 0, 5]), expected.real, atol=1e-3)
    np.testing.assert_allclose(signed_square(frames[1, 1, 5]), expected.imag, atol=1e-3)


def test_full_scale_sine_has_its_analytic_peak() -> None:
    sine = np.sin(2 * np.pi * 100 * np.arange(4096) / 2048)[None].astype(np.float32)
    last = Analysis(1, 2048, 512)(sine)[0, :, -1]
    magnitude = np.hypot(*signed_square(last))
    assert magnitude.argmax() == 100
    assert magnitude[100] == pytest.approx(2048 / 4, rel=1e-4)


@pytest.mark.parametrize(("window", "hop"), [(2048, 512), (1024, 256), (512, 171), (600, 130), (64, 32)])
def test_reconstruction_is_perfect(window: int, hop: int) -> None:
    audio = np.random.default_rng(1).uniform(-1, 1, (2, 9001)).astype(np.float32)
    back = there_and_back(audio, window, hop, [10**6])
    assert np.abs(back - audio).max() < 1e-5


@pytest.mark.parametrize("blocks", [[1], [7], [512], [511, 513], [4096], [0, 3, 2000, 0, 1]])
def test_block_size_changes_no_bit(blocks: list[int]) -> None:
    audio = np.random.default_rng(2).uniform(-1, 1, (1, 6000)).astype(np.float32)
    np.testing.assert_array_equal(there_and_back(audio, 2048, 512, blocks), there_and_back(audio, 2048, 512, [10**6]))


def test_reset_forgets() -> None:
    audio = np.random.default_rng(3).uniform(-1, 1, (1, 3000)).astype(np.float32)
    analysis, synthesis = Analysis(1, 512, 128), Synthesis(1, 512, 128)
    first = synthesis(analysis(audio))
    analysis.reset()
    synthesis.reset()
    np.testing.assert_array_equal(synthesis(analysis(audio)), first)
