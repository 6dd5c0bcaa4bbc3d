"""The heart of the project: a stream's output depends on the signal and the seed, and on nothing else."""

import gc
import os
import threading
import tracemalloc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from toy_model import MODELS, make_model, make_music, save_identity

from restorer.errors import ConfigError, RestorerError
from restorer.model_file import BoundRun, Model
from restorer.stream import Stream

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(request.param, tmp_path_factory.mktemp("model")), "cpu", 1)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model("convolution", tmp_path_factory.mktemp("model")), "cpu", 1)


def sizes_of(rule: int | str, total: int) -> Iterator[int]:
    random = np.random.default_rng(4)
    left = total
    while left > 0:
        size = int(random.integers(0, 5000)) if rule == "random" else total if rule == "whole" else int(rule)
        yield min(size, left)
        left -= size


def feed(stream: Stream, audio: np.ndarray, rule: int | str = "whole") -> np.ndarray:
    """The whole output of a signal cut by a rule."""
    pieces, start = [], 0
    for size in sizes_of(rule, audio.shape[-1]):
        pieces.append(stream.process(audio[..., start : start + size]))
        start += size
    return np.concatenate([*pieces, stream.flush()], axis=-1)


@cache
def reference(model: Model, channels: int, sample_rate: int) -> np.ndarray:
    return feed(Stream(model, channels, sample_rate, 7), make_music(channels, 13001, sample_rate))


@pytest.mark.parametrize("sample_rate", [44100, 16000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rule", [1, 7, 128, 480, 512, 4096, "random"])
def test_block_size_does_not_change_the_output(model: Model, rule: int | str, channels: int, sample_rate: int) -> None:
    audio = make_music(channels, 13001, sample_rate)
    whole = reference(model, channels, sample_rate)
    if rule == 1:  # one call per sample: a part of the signal is enough, and a shorter end checks flush as well
        audio = audio[:, :4001]
        whole = feed(Stream(model, channels, sample_rate, 7), audio)
    cut = feed(Stream(model, channels, sample_rate, 7), audio, rule)
    assert cut.shape == whole.shape
    assert np.abs(cut - whole).max() < TOLERANCE


@pytest.mark.parametrize("rule", [1, 512, "random", "whole"])
@pytest.mark.parametrize("frames", [2, 5, 16])
def test_frames_that_wait_for_each_other_sound_the_same(model: Model, frames: int, rule: int | str) -> None:
    rate, hop = model.info.sample_rate, model.info.hop_samples
    audio, whole = make_music(2, 13001, rate), reference(model, 2, rate)
    if rule == 1:
        audio = audio[:, :4001]
        whole = feed(Stream(model, 2, rate, 7), audio)
    stream = Stream(model, 2, rate, 7, frames_per_call=frames)
    for _ in range(2):
        assert np.abs(feed(stream, audio, rule) - whole).max() < TOLERANCE
        stream.reset()
    assert stream.latency_samples == model.info.latency_samples + (frames - 1) * hop
    given = got = 0
    for size in sizes_of("random", audio.shape[1]):
        got += stream.process(audio[:, given : given + size]).shape[1]
        given += size
        assert got == max(0, given - stream.latency_samples)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each call of the generator was given."""
    found, run = [], BoundRun.__call__
    monkeypatch.setattr(BoundRun, "__call__", lambda bound, frames: found.append(frames.shape[2]) or run(bound, frames))
    return found


def test_a_call_restores_as_many_frames_as_were_asked_for(model: Model, calls: list[int]) -> None:
    stream = Stream(model, 2, model.info.sample_rate, 7, frames_per_call=4)
    calls.clear()
    for _ in range(40):
        stream.process(make_music(2, model.info.hop_samples))
    assert len(calls) >= 8 and set(calls) == {4}


@pytest.mark.parametrize("frames", [2, 16])
@pytest.mark.parametrize(("rate", "part"), [(44100, 8), (48000, 8), (44100, 4), (44100, 1)])
def test_a_block_does_little_more_than_its_share(
    toy: Model, frames: int, rate: int, part: int, calls: list[int]
) -> None:
    """A block of 1/8 hop restores one frame at a time, one of 1/4 too, a hop at most four: none is late by waiting."""
    most = max(1, 4 // part)
    stream = Stream(toy, 1, rate, 7, frames_per_call=frames)
    audio = make_music(1, 60 * toy.info.hop_samples, rate)
    size = toy.info.hop_samples // part
    calls.clear()
    for start in range(0, audio.shape[1], size):
        before = len(calls)
        stream.process(audio[:, start : start + size])
        assert len(calls) <= before + 1 and sum(calls[before:]) <= most
    assert sum(calls) >= 44 and max(calls) == min(most, frames)


def test_blocks_may_grow_and_shrink_while_frames_wait(model: Model) -> None:
    rate, hop, latency = model.info.sample_rate, model.info.hop_samples, model.info.latency_of(5)
    audio = make_music(1, 40 * hop)
    whole, stream = feed(Stream(model, 1, rate, 7), audio), Stream(model, 1, rate, 7, frames_per_call=5)
    pieces, given = [], 0
    for size in [hop, hop, hop, 7, 7, hop // 8, 5 * hop, hop, hop // 8, hop // 8, hop, 9 * hop, 3, hop // 2, hop // 2]:
        pieces.append(stream.process(audio[:, given : given + size]))
        given += size
        assert sum(piece.shape[1] for piece in pieces) == max(0, given - latency)
    pieces += [stream.process(audio[:, given:]), stream.flush()]
    assert np.abs(np.concatenate(pieces, axis=1) - whole).max() < TOLERANCE


def test_two_frames_wait_where_the_model_looks_ahead(tmp_path: Path) -> None:
    for lookahead, frames in ((0, 1), (4, 2)):
        folder = tmp_path / str(lookahead)
        folder.mkdir()
        model = Model(save_identity(folder / "toy.onnx", lookahead=lookahead), "cpu", 1)
        assert model.info.frames_per_call == frames
        assert Stream(model, 1, 44100, 0).latency_samples == model.info.latency_samples + (frames - 1) * 512
        assert Stream(model, 1, 44100, 0, frames_per_call=1).latency_samples == model.info.latency_samples


@pytest.mark.parametrize("frames", [0, 17, 1.5, True, "2"])
def test_impossible_frames_per_call_are_refused(model: Model, frames: object) -> None:
    with pytest.raises(ConfigError, match="frames_per_call must be an integer from 1 to 16"):
        Stream(model, 1, 44100, 0, frames_per_call=frames)  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [0, 1, 511, 512, 2047, 5000, 70001])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 192000])
def test_output_is_as_long_as_the_input(toy: Model, samples: int, sample_rate: int) -> None:
    out = feed(Stream(toy, 1, sample_rate, 0), make_music(1, samples, sample_rate), 4096)
    assert out.shape == (1, round(samples * 44100 / sample_rate))


def test_timing_follows_from_latency_alone(model: Model) -> None:
    rate, latency = model.info.sample_rate, model.info.latency_of()
    audio = make_music(1, latency + 3000)
    stream = Stream(model, 1, rate, 0)
    assert stream.latency_samples == latency
    given = got = start = 0
    for size in [0, 1, 511, 512, 7, *sizes_of("random", audio.shape[1] - 1031)]:
        got += stream.process(audio[:, start : start + size]).shape[1]
        start += size
        given += size
        assert got == max(0, given - latency)
    assert stream.flush().shape == (1, given - got)
    assert stream.flush().shape == (1, 0)


def test_latency_covers_all_that_an_output_sample_needs(model: Model) -> None:
    """Changing sample n + latency may change output n, and no output before it."""
    latency = model.info.latency_samples
    n = model.info.hop_samples * 3
    audio = make_music(1, n + latency + 4000)
    changed = audio.copy()
    changed[:, n + latency :] += 0.3
    rate = model.info.sample_rate
    first, second = (feed(Stream(model, 1, rate, 1), signal) for signal in (audio, changed))
    assert np.abs(first - second)[:, :n].max() < TOLERANCE


def test_identity_model_gives_the_input_back_in_time(tmp_path: Path) -> None:
    for lookahead in (0, 4):
        folder = tmp_path / str(lookahead)
        folder.mkdir()
        model = Model(save_identity(folder / "a.onnx", lookahead=lookahead, warmup_frames=9), "cpu", 1)
        impulse = np.zeros((2, 9000), np.float32)
        impulse[0, 0] = impulse[1, 4321] = impulse[1, 8999] = 1
        out = feed(Stream(model, 2, 44100, 0), impulse, 1000)
        assert np.abs(out - impulse).max() < TOLERANCE
        music = make_music(2, 9000)
        assert np.abs(feed(Stream(model, 2, 44100, 0, mix=0.4), music, 777) - music).max() < TOLERANCE


@pytest.mark.parametrize("rule", [333, "whole"])
def test_mix_zero_is_the_input_bit_by_bit(model: Model, rule: int | str) -> None:
    audio = make_music(2, 9000)
    out = feed(Stream(model, 2, model.info.sample_rate, 0, mix=0.0), audio, rule)
    np.testing.assert_array_equal(out, audio)
    assert not np.shares_memory(out, audio)


def test_mix_is_aligned_and_may_change_between_blocks(model: Model) -> None:
    rate, latency = model.info.sample_rate, model.info.latency_of()
    audio = make_music(1, latency + 6000)
    wet = feed(Stream(model, 1, rate, 3), audio)
    stream = Stream(model, 1, rate, 3, mix=0.25)
    first = stream.process(audio[:, : latency + 2000])
    stream.mix = 0.0
    second = stream.process(audio[:, latency + 2000 :])
    np.testing.assert_allclose(first, 0.25 * wet[:, :2000] + 0.75 * audio[:, :2000], atol=TOLERANCE)
    np.testing.assert_array_equal(second, audio[:, 2000:6000])


def test_before_the_first_sample_there_is_silence(model: Model) -> None:
    """Silence put in front changes nothing but the time: it is the context of the start, not padding."""
    audio = make_music(1, 5000)
    silence = np.zeros((1, 40 * model.info.hop_samples), np.float32)
    rate = model.info.sample_rate
    late = feed(Stream(model, 1, rate, 2), np.concatenate([silence, audio], axis=1))
    now = feed(Stream(model, 1, rate, 2), audio)
    assert np.abs(late[:, silence.shape[1] :] - now).max() < TOLERANCE


def test_equal_channels_stay_equal(model: Model) -> None:
    mono = make_music(1, 9000)
    rate = model.info.sample_rate
    out = feed(Stream(model, 2, rate, 5), np.repeat(mono, 2, axis=0), 700)
    np.testing.assert_allclose(out[0], out[1], atol=1e-6)
    np.testing.assert_allclose(out[:1], feed(Stream(model, 1, rate, 5), mono, 900), atol=TOLERANCE)


def test_seed_decides_the_sound(model: Model) -> None:
    audio, rate = make_music(1, 9000), model.info.sample_rate
    first, again, other = (feed(Stream(model, 1, rate, seed), audio) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).max() > 1e-4) == (model.info.noise_size > 0)


def test_several_seeds_in_one_batch_are_the_single_ones(model: Model) -> None:
    audio, rate = make_music(2, 7000), model.info.sample_rate
    takes = feed(Stream(model, 2, rate, [4, 5, 6]), audio, 3000)
    assert takes.shape == (3, 2, 7000)
    for take, seed in zip(takes, (4, 5, 6), strict=True):
        assert np.abs(take - feed(Stream(model, 2, rate, seed), audio)).max() < TOLERANCE
    dry = feed(Stream(model, 2, rate, [4, 5], mix=0.0), audio, 3000)
    np.testing.assert_array_equal(dry, [audio, audio])


def test_reset_starts_over(model: Model) -> None:
    audio, rate = make_music(2, 6000), model.info.sample_rate
    stream = Stream(model, 2, rate, 0)
    first = feed(stream, audio)
    with pytest.raises(RestorerError, match="call reset"):
        stream.process(audio)
    stream.reset()
    stream.process(audio[:, :1234])
    stream.reset()
    np.testing.assert_array_equal(feed(stream, audio), first)


def test_silence_in_gives_bounded_out(model: Model) -> None:
    out = feed(Stream(model, 1, model.info.sample_rate, 0), np.zeros((1, 20000), np.float32))
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 0.05


def test_damaged_samples_never_poison_the_states(model: Model) -> None:
    audio, rate = make_music(1, 9000), model.info.sample_rate
    damaged, repaired = audio.astype(np.float64), audio.copy()
    for at, value in [(100, np.nan), (2000, np.inf), (2001, -np.inf), (5000, 1e30), (8999, np.nan)]:
        damaged[0, at], repaired[0, at] = value, 0
    stream = Stream(model, 1, rate, 0)
    np.testing.assert_array_equal(feed(stream, damaged), feed(Stream(model, 1, rate, 0), repaired))
    assert stream.replaced_samples == 5


def resident_bytes() -> int:
    """Memory of this process now; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def test_memory_does_not_grow_with_length(toy: Model) -> None:
    stream = Stream(toy, 2, 48000, 0)
    block = make_music(2, 480)

    def used_after(calls: int) -> tuple[int, int]:
        for _ in range(calls):
            stream.process(block)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], resident_bytes()

    tracemalloc.start()
    try:
        traced, resident = used_after(500)
        traced_later, resident_later = used_after(2500)  # 9 MB of audio go through
    finally:
        tracemalloc.stop()
    assert traced_later - traced < 200_000
    assert resident_later - resident < 4_000_000


def test_two_threads_share_one_model(model: Model) -> None:
    audio, rate = make_music(2, 12000), model.info.sample_rate
    alone = {seed: feed(Stream(model, 2, rate, seed), audio, 512) for seed in (1, 2)}
    together: dict[int, np.ndarray] = {}

    def work(seed: int) -> None:
        together[seed] = feed(Stream(model, 2, rate, seed), audio, 512)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, expected in alone.items():
        np.testing.assert_array_equal(together[seed], expected)


def test_blocks_keep_their_kind(toy: Model) -> None:
    flat, deep = Stream(toy, 1, 44100, 0), Stream(toy, 1, 44100, 0)
    audio = make_music(1, 6000)
    out = flat.process(audio[0].astype(np.float64))
    assert out.dtype == np.float32 and out.flags.c_contiguous
    np.testing.assert_array_equal(np.concatenate([out, flat.flush()]), feed(deep, audio)[0])


def test_wrong_blocks_are_named(toy: Model) -> None:
    stream = Stream(toy, 2, 44100, 0)
    for block, message in [
        (np.zeros((1, 5), np.float32), r"shape \(2, samples\)"),
        (np.zeros(5, np.float32), r"shape \(2, samples\)"),
        (np.zeros((2, 5), np.int16), "float32 or float64 .* not int16"),
        (np.zeros((1, 2, 5), np.float32), "channels, samples"),
        ([0.0, 1.0], "numpy array and not list"),
    ]:
        with pytest.raises(RestorerError, match=message):
            stream.process(block)  # type: ignore[arg-type]


def test_wrong_settings_are_named(toy: Model) -> None:
    for channels, rate, seed, mix, message in [
        (0, 44100, 0, 1.0, "channels must be an integer from 1 to 8 and not 0"),
        (9, 44100, 0, 1.0, "channels"),
        (2.5, 44100, 0, 1.0, "channels"),
        (2, 7999, 0, 1.0, "sample_rate"),
        (2, float("nan"), 0, 1.0, "sample_rate"),
        (2, float("inf"), 0, 1.0, "sample_rate"),
        (2, "44100", 0, 1.0, "sample_rate"),
        (2, 44100, -1, 1.0, "seed"),
        (2, 44100, 0, 1.1, "mix must be a number from 0"),
        (2, 44100, 0, float("nan"), "mix"),
        (2, 44100, 0, None, "mix"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Stream(toy, channels, rate, seed, mix)  # type: ignore[arg-type]
