"""The hearing loss sees what PEAQ sees, and its gradient leads to better grades."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from restorer.metrics import peaq, peaq_movs, peaq_patterns
from restorer.synthesis import synthesize
from restorer.training import hearing
from restorer.training.hearing import hearing_loss, listen

RATE_HZ = 44100
FULL_HZ = torch.tensor([22050.0])


def lowpass(audio, cutoff_hz):
    spectrum = np.fft.rfft(audio)
    spectrum[np.fft.rfftfreq(len(audio), 1 / RATE_HZ) > cutoff_hz] = 0
    return np.fft.irfft(spectrum, len(audio))


@pytest.fixture(scope="module")
def music():
    return synthesize(seconds=3, seed=3, channels=1)[0]


@pytest.fixture(scope="module")
def noisy(music):
    return music + 0.003 * np.random.default_rng(0).standard_normal(len(music))


def tensors(*signals):
    return (torch.from_numpy(np.asarray(signal, dtype=np.float32))[None] for signal in signals)


def test_variables_are_those_of_peaq(music, noisy):
    movs = peaq(music, noisy, RATE_HZ).movs
    heard = [listen(signal) for signal in tensors(music, noisy)]
    every = torch.ones(1, 1, heard[0].spread.shape[2])
    modulation = hearing._modulation_difference(*(h.spread for h in heard), every, torch.ones(1))
    assert float(modulation) == pytest.approx(movs["AvgModDiff1B"], rel=0.15)
    assert float(hearing._harmonic_error(*(h.powers for h in heard))) == pytest.approx(movs["EHSB"], rel=0.5)


def test_spreads_as_peaq_does(music):
    c = hearing._constants(torch.device("cpu"))
    (signal,) = tensors(music)
    bands = (hearing._powers(signal) * c["weights"]) @ c["grouping"] + c["internal_noise"]
    expected = peaq_patterns.spread(bands[0].double().numpy())
    np.testing.assert_allclose(hearing._spread(bands)[0].numpy(), expected, rtol=2e-3)


def test_level_steps_are_those_of_peaq():
    levels = np.random.default_rng(1).uniform(-20, 90, (2, 50, 109))
    expected = peaq_movs.level_steps_db(*levels)
    got = hearing._level_steps_db(*(torch.from_numpy(level) for level in levels))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


def test_ranks_as_peaq_does(music, noisy):
    candidates = [music, music + (noisy - music) / 4, noisy, lowpass(noisy, 6000)]
    original, *others = tensors(music, *candidates)
    losses = [float(hearing_loss(listen(other), listen(original), FULL_HZ)) for other in others]
    assert losses == sorted(losses)
    assert losses[0] < 0.5 * losses[1]


def test_what_is_above_the_bandwidth_of_the_original_does_not_count(music):
    original, with_hiss = tensors(
        lowpass(music, 8000),
        lowpass(music, 8000) + 0.01 * (music - lowpass(music, 12000)),
    )
    narrow, full = (
        float(hearing_loss(listen(with_hiss), listen(original), torch.tensor([hz]))) for hz in (8000.0, 22050.0)
    )
    assert narrow < 0.6 * full


@pytest.mark.parametrize("level", [0.0, 1e-9, 1.0, 100.0])
def test_gradient_is_finite_at_any_level(music, level):
    original, restored = tensors(music * level, lowpass(music, 5000) * level)
    restored.requires_grad_()
    hearing_loss(listen(restored), listen(original), FULL_HZ).mean().backward()
    assert torch.isfinite(restored.grad).all()


def test_descent_raises_the_distortion_index(music, noisy):
    original, restored = tensors(music, noisy)
    restored.requires_grad_()
    optimiser = torch.optim.Adam([restored], lr=1e-4)
    for _ in range(10):
        optimiser.zero_grad()
        hearing_loss(listen(restored), listen(original), FULL_HZ).mean().backward()
        optimiser.step()
    after = peaq(music, restored.detach()[0].numpy(), RATE_HZ)
    assert after.di > peaq(music, noisy, RATE_HZ).di + 0.1
