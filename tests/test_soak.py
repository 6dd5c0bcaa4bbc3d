"""Minutes of what benchmarks/test_soak.py runs for hours, and proof that a soak sees what it looks for."""

import numpy as np
import pytest
from toy_model import RELEASED, save_convolution

from restorer import Restorer
from restorer.benchmark_soak import run_long, soak

FLAT_BYTES = 20e6  # a minute of stereo holds 21 MB; allocators alone were seen to move by 1 to 13 MB


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx"), device="cpu", threads=1)


@pytest.mark.skipif(not RELEASED.is_file(), reason="no released model yet")
def test_one_minute_stays_bounded_exact_and_small() -> None:
    report = soak(Restorer(device="cpu", threads=1), 1.0)
    assert report.seconds == 60
    assert report.all_finite and report.loudest < 16
    assert report.largest_difference < 1e-5
    assert report.compared_samples > 0.99 * 60 * 44100
    assert report.resets > 1 and report.longest_seconds > 20 and report.blocks > 1000
    assert report.replaced_samples == report.expected_replaced_samples > 0
    assert report.memory_growth_bytes is None or report.memory_growth_bytes < FLAT_BYTES


def test_same_seed_same_run(toy: Restorer) -> None:
    first, again, other = (soak(toy, 0.1, 1, seed) for seed in (1, 1, 2))
    assert (first.blocks, first.loudest) == (again.blocks, again.loudest)
    assert (first.blocks, first.loudest) != (other.blocks, other.loudest)


@pytest.mark.parametrize("fault", ["drift", "delay", "nan", "leak"])
def test_faults_are_seen(toy: Restorer, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A stream that goes wrong once it has run for 12 s; the one-shot restorations do not."""
    stream, kept = toy.stream(1), []
    right, taken = stream.process, 0

    def process(block: np.ndarray) -> np.ndarray:
        nonlocal taken
        before, taken = taken, taken + block.shape[1]
        out = right(block)
        if taken < 12 * 44100 or not out.size:
            return out
        if fault == "drift":
            return out * np.float32(1.001)
        if fault == "nan":
            return np.full_like(out, np.nan)
        if fault == "leak":
            if len(kept) < 3:  # 40 MB each: more than allocators keep for later, so it must be new memory
                kept.append(np.ones(5_000_000))
            return out
        return out[:, 1:] if before < 12 * 44100 else out

    monkeypatch.setattr(stream, "process", process)
    monkeypatch.setattr(toy, "stream", lambda *_: stream)
    report = soak(toy, 0.4, 1)
    if fault == "leak":
        assert report.memory_growth_bytes is None or report.memory_growth_bytes > FLAT_BYTES
    else:
        assert report.largest_difference > 1e-4
    assert report.all_finite == (fault != "nan")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    """A model of small windows and a low rate, for which minutes pass quickly."""
    model = save_convolution(tmp_path_factory.mktemp("small") / "toy.onnx", window=256, hop=128, sample_rate=8000)
    return Restorer(model, device="cpu", threads=1)


@pytest.mark.parametrize("sample_rate", [8000, 11025])
def test_a_minute_comes_out_the_same_however_late(small: Restorer, sample_rate: int) -> None:
    report = run_long(small, 0.1, 1, sample_rate)
    assert report.minutes == 6 and report.seconds == pytest.approx(360, rel=0.05)
    assert report.returned_samples == report.expected_samples
    assert report.compared_samples > 4 * 8000 * 60
    assert report.largest_difference == 0
    assert report.memory_growth_bytes is None or report.memory_growth_bytes < 5e6


@pytest.mark.parametrize("fault", ["drift", "delay", "leak"])
def test_faults_of_a_long_run_are_seen(small: Restorer, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """A stream that goes wrong in its fourth minute."""
    stream, kept = small.stream(1, 8000), []
    right, taken = stream.process, 0

    def process(block: np.ndarray) -> np.ndarray:
        nonlocal taken
        before, taken = taken, taken + block.shape[1]
        out = right(block)
        if taken < 3.5 * 60 * 8000:
            return out
        if fault == "drift":
            return out * np.float32(1.0001)
        if fault == "leak":
            kept.append(np.ones(5_000_000))  # 40 MB: more than allocators keep for later, so it must be new memory
            return out
        return out[:, 1:] if before < 3.5 * 60 * 8000 else out

    monkeypatch.setattr(stream, "process", process)
    monkeypatch.setattr(small, "stream", lambda *_: stream)
    report = run_long(small, 0.1, 1)
    if fault == "leak":
        assert report.memory_growth_bytes is None or report.memory_growth_bytes > 5e6
    else:
        assert report.largest_difference > 1e-6
