"""`Chain` is native with native plug-ins, bit for bit, and takes ours and nested chains between them."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import make_music, save_convolution, save_identity

from restorer.errors import ConfigError, RestorerError
from restorer.plugins import Chain, RestorerPlugin
from restorer.restorer import Restorer

pedalboard = pytest.importorskip("pedalboard")

RATE = 44100
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx"), "cpu", 1)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_identity(tmp_path_factory.mktemp("model") / "identity.onnx"), "cpu", 1)


def add_latency(samples: int) -> Any:
    from pedalboard_native._internal import AddLatency

    return AddLatency(samples)


def everyday() -> list[Any]:
    return [
        pedalboard.HighpassFilter(80),
        pedalboard.Compressor(-20, 3),
        pedalboard.Chorus(),
        pedalboard.Phaser(),
        pedalboard.Delay(0.05, 0.3, 0.4),
        pedalboard.Reverb(),
        pedalboard.Limiter(),
    ]


def with_latency() -> list[Any]:
    return [pedalboard.Gain(-3), add_latency(700), pedalboard.Reverb(), add_latency(50), pedalboard.Distortion(9)]


def nested() -> list[Any]:
    return [
        pedalboard.Gain(2),
        None,
        pedalboard.Chain([pedalboard.LadderFilter(), pedalboard.Pedalboard([pedalboard.Reverb(), add_latency(31)])]),
        pedalboard.Mix([pedalboard.Invert(), pedalboard.HighShelfFilter()]),
    ]


BOARDS = [everyday, with_latency, nested]


def cuts(rule: int | str, total: int) -> Iterator[slice]:
    random, start, size = np.random.default_rng(5), 0, {"growing": 1, "shrinking": 20000}.get(str(rule), 0)
    while start < total:
        if rule == "random":
            size = int(random.integers(0, 3000))
        elif rule == "growing":
            size = 3 * size + 1
        elif rule == "shrinking":
            size = max(1, size // 2)
        else:
            size = int(rule)
        yield slice(start, min(total, start + size))
        start += size


def stream(board: Any, audio: np.ndarray, rule: int | str, block: int = 8192) -> np.ndarray:
    """What comes of a stream, without its end; the empty call says which axis holds the channels."""
    board.process(audio[:, :0], RATE)
    pieces = [board.process(audio[:, cut], RATE, block, reset=False) for cut in cuts(rule, audio.shape[1])]
    return np.concatenate(pieces, axis=1)


# Native plug-ins only


@pytest.mark.parametrize("make", BOARDS)
@pytest.mark.parametrize("block", [1, 7, 512, 8192, 65536])
def test_one_shot_is_native_bit_for_bit(make: Callable[[], list[Any]], block: int) -> None:
    audio = make_music(2, 3000 if block == 1 else 20000)
    chain, board = Chain(make()), pedalboard.Pedalboard(make())
    for signal in (audio, audio[:, ::-1], audio.T.astype(np.float64), audio[:, :100]):
        expected = board(signal, RATE, block)
        found = chain(signal, RATE, block)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32 and found.flags.c_contiguous


RULES = [1, 7, 480, 4096, 65536, "random", "shrinking", "growing"]
LONGEST = 65536  # the buffer_size of streams: one block of that rule, and no other is cut


def length_of(rule: int | str) -> int:
    """Samples of a stream: what makes several blocks, in little time."""
    return {1: 2000, LONGEST: 2 * LONGEST + 20000}.get(rule, 20000) if isinstance(rule, int) else 20000


def first_block(rule: int | str, total: int) -> int:
    """The length that no native plug-in's block exceeds later on.

    A native board whose blocks grow loses its state, so the reference gets blocks that do not.
    """
    return min(LONGEST, next(cut.stop for cut in cuts(rule, total) if cut.stop))


@pytest.mark.parametrize("make", BOARDS)
@pytest.mark.parametrize("rule", RULES)
def test_stream_is_native_bit_for_bit(make: Callable[[], list[Any]], rule: int | str) -> None:
    audio = make_music(2, length_of(rule))
    expected = stream(pedalboard.Pedalboard(make()), audio, rule, first_block(rule, audio.shape[1]))
    chain = Chain(make())
    found = stream(chain, audio, rule, LONGEST)
    np.testing.assert_array_equal(found, expected)
    whole = np.concatenate([found, chain.flush()], axis=1)
    np.testing.assert_array_equal(whole, pedalboard.Pedalboard(make())(audio, RATE))


def test_growing_blocks_cost_a_native_board_its_state_but_not_a_chain() -> None:
    """The native trait that a chain works round; should pedalboard change it, the rule can go."""
    audio = make_music(2, 20000)
    whole = pedalboard.Reverb()(audio, RATE)
    assert np.abs(stream(pedalboard.Pedalboard([pedalboard.Reverb()]), audio, "growing") - whole).max() > 0.01
    np.testing.assert_array_equal(stream(Chain([pedalboard.Reverb()]), audio, "growing"), whole)


def test_reset_and_change_of_format_are_native() -> None:
    chain, board = Chain(everyday()), pedalboard.Pedalboard(everyday())
    for channels, rate, fresh in [(2, 44100, False), (2, 44100, True), (2, 48000, True), (1, 48000, True)]:
        for effect in (chain, board):
            if fresh:
                effect.reset()
        audio = make_music(channels, 5000, rate)
        for cut in (slice(0, 3000), slice(3000, 5000)):
            parts = [effect.process(audio[:, cut], rate, reset=False) for effect in (chain, board)]
            np.testing.assert_array_equal(*parts)


@pytest.mark.parametrize(
    ("channels", "rate"), [(9, 44100), (2, 4000), (2, 384000), (2, 44100.5), (1, np.float32(11025.25))]
)
def test_formats_are_those_of_native_plugins(restorer: Restorer, channels: int, rate: float) -> None:
    audio = np.tile(make_music(1, 5000), (channels, 1))
    chain, board = Chain(everyday()), pedalboard.Pedalboard(everyday())
    np.testing.assert_array_equal(chain(audio, rate), board(audio, rate))
    np.testing.assert_array_equal(Chain()(audio, rate), audio)
    chain.append(RestorerPlugin(restorer))
    with pytest.raises(ConfigError, match=r"(channels|sample_rate) must be"):
        chain(audio, rate)


@pytest.mark.parametrize("rate", [0, -44100, 100, float("nan"), float("inf"), None, "44100"])
def test_rates_at_which_native_plugins_crash_are_refused(rate: Any) -> None:
    with pytest.raises(ConfigError, match="sample_rate must be a number from 1000 Hz and not"):
        Chain([pedalboard.Reverb()])(make_music(2, 100), rate)


def test_pitch_shift_never_returns_from_a_stream() -> None:
    """Rule 10, a trait of pedalboard (its issue 415): should it change, the docstring of `Chain` can, too."""
    audio = make_music(2, 20000)
    chain, board = Chain([pedalboard.PitchShift(2)]), pedalboard.Pedalboard([pedalboard.PitchShift(2)])
    np.testing.assert_array_equal(chain(audio, RATE), board(audio, RATE))
    for effect in (chain, board):
        effect.reset()
        assert stream(effect, audio, 4096).shape == (2, 0)


VST3 = os.environ.get("RESTORER_VST3")


@pytest.mark.skipif(not VST3, reason="RESTORER_VST3 names no VST3 effect for stereo")
def test_a_vst3_is_native_bit_for_bit(restorer: Restorer) -> None:
    """RESTORER_VST3=/path/to/Effect.vst3 names the bundle; it must answer equal calls equally."""
    audio = make_music(2, 30000)
    chain, board = Chain([pedalboard.load_plugin(VST3)]), pedalboard.Pedalboard([pedalboard.load_plugin(VST3)])
    whole = board(audio, RATE)
    np.testing.assert_array_equal(chain(audio, RATE), whole)
    for rule in (480, "random", "growing"):
        for effect in (chain, board):
            effect.reset()
        expected = stream(board, audio, rule, first_block(rule, audio.shape[1]))
        found = stream(chain, audio, rule, LONGEST)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(np.concatenate([found, chain.flush()], axis=1), whole, atol=TOLERANCE)
    mixed = Chain([pedalboard.load_plugin(VST3), RestorerPlugin(restorer, mix=0), pedalboard.Gain(0)])
    np.testing.assert_allclose(mixed(audio, RATE), whole, atol=TOLERANCE)


def test_empty_chain_gives_a_copy() -> None:
    audio = make_music(2, 500)
    out = Chain()(audio, RATE)
    np.testing.assert_array_equal(out, audio)
    assert not np.shares_memory(out, audio)


# Ours among them


@pytest.mark.parametrize("rule", RULES)
def test_ours_stands_in_a_chain_as_a_native_latency_plugin_does(restorer: Restorer, rule: int | str) -> None:
    """At mix=0 the restorer is a delay, and there is a native one to compare with, bit for bit."""
    latency = restorer.latency_samples
    audio = make_music(2, 6000 if rule == 1 else length_of(rule))
    board = pedalboard.Pedalboard(
        [pedalboard.Chorus(), pedalboard.Reverb(), add_latency(latency), pedalboard.Limiter(), pedalboard.Phaser()]
    )
    inner = Chain([pedalboard.Reverb(), RestorerPlugin(restorer, mix=0)])
    chain = Chain([pedalboard.Chorus(), inner, pedalboard.Pedalboard([pedalboard.Limiter()]), pedalboard.Phaser()])
    np.testing.assert_array_equal(chain(audio, RATE), board(audio, RATE))
    for effect in (board, chain):
        effect.reset()
    expected = stream(board, audio, rule, first_block(rule, audio.shape[1]))
    found = stream(chain, audio, rule, LONGEST)
    np.testing.assert_array_equal(found, expected)
    assert chain.waiting_samples == min(latency, audio.shape[1])
    np.testing.assert_array_equal(np.concatenate([found, chain.flush()], axis=1), board(audio, RATE))


@pytest.mark.parametrize("rate", [44100, 48000, 22050])
def test_chain_is_its_effects_one_after_the_other(restorer: Restorer, rate: int) -> None:
    audio = make_music(2, 15000, rate)
    chain = Chain([pedalboard.HighpassFilter(), RestorerPlugin(restorer, seed=4), pedalboard.Reverb()])
    # What follows the end is not silence but the filter's ringing.
    by_hand = np.pad(audio, ((0, 0), (0, 9000)))
    for effect in (pedalboard.HighpassFilter(), RestorerPlugin(restorer, seed=4), pedalboard.Reverb()):
        by_hand = effect(by_hand, rate)
    out = chain(audio, rate)
    np.testing.assert_allclose(out, by_hand[:, :15000], atol=TOLERANCE)
    assert chain(audio[:, :50], rate).shape == (2, 50), "shorter than the latency"
    assert chain(audio.T, rate).shape == (15000, 2)


def test_an_impulse_keeps_its_place(identity: Restorer) -> None:
    audio = np.zeros((1, 9000), np.float32)
    audio[0, 1234] = 0.5
    chain = Chain([RestorerPlugin(identity), add_latency(99), Chain([RestorerPlugin(identity)]), pedalboard.Gain(0)])
    np.testing.assert_allclose(chain(audio, RATE), audio, atol=TOLERANCE)
    np.testing.assert_allclose(np.concatenate([stream(chain, audio, 333), chain.flush()], 1), audio, atol=TOLERANCE)


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf, 1e30])
def test_damage_passes_and_leaves_no_trace(restorer: Restorer, damage: float) -> None:
    """A native plug-in in front of ours would stay silent for ever; alone it is left as it is."""
    audio = make_music(2, 20000)
    broken, repaired = audio.copy(), audio.copy()
    broken[0, 3000], repaired[0, 3000] = damage, 0
    for mix in (0, 1):
        outer = Chain([Chain([pedalboard.Reverb()]), pedalboard.Delay(0.01), RestorerPlugin(restorer, mix=mix)])
        expected = outer(repaired, RATE)
        np.testing.assert_array_equal(outer(broken, RATE), expected)
        assert np.abs(expected[:, 15000:]).max() > 0.05
        outer.reset()
        streamed = np.concatenate([stream(outer, broken, 480), outer.flush()], axis=1)
        np.testing.assert_allclose(streamed, expected, atol=TOLERANCE)
    chain, board = Chain([pedalboard.Gain(-3)]), pedalboard.Pedalboard([pedalboard.Gain(-3)])
    np.testing.assert_array_equal(chain(broken, RATE), board(broken, RATE))


# A list


def test_list_operations() -> None:
    a, b, c, d = (pedalboard.Gain(gain) for gain in range(4))
    chain = Chain([a])
    chain.append(c)
    chain.insert(1, b)
    chain += [d]
    assert list(chain) == [a, b, c, d] and len(chain) == 4
    assert chain[0] is a and chain[-1] is d and b in chain and chain.index(c) == 2
    part = chain[1:3]
    assert isinstance(part, Chain) and list(part) == [b, c]
    chain[1:3] = [c]
    del chain[0]
    assert list(chain) == [c, d]
    chain[0] = a
    chain.remove(d)
    assert list(chain) == [a] and chain.pop() is a and not chain
    chain.extend([a, b, c])
    chain[:] = chain[::-1]
    assert list(chain) == [c, b, a] == list(reversed(list(reversed(chain))))
    del chain[::2]
    assert list(chain) == [b]
    with pytest.raises(IndexError):
        chain[1]
    with pytest.raises(ValueError):
        chain.remove(a)


def test_only_effects_are_taken(restorer: Restorer) -> None:
    chain = Chain()
    for bad in (3, "Reverb", pedalboard.Reverb, lambda audio: audio):
        for put in (chain.append, lambda value: chain.insert(0, value), lambda value: Chain([value])):
            with pytest.raises(TypeError, match="a chain takes pedalboard plug-ins, RestorerPlugin, Chain or None"):
                put(bad)
    with pytest.raises(TypeError):
        pedalboard.Pedalboard([RestorerPlugin(restorer)])
    assert len(chain) == 0


def test_the_same_plugin_twice_is_an_error(restorer: Restorer) -> None:
    audio, reverb, ours = make_music(1, 100), pedalboard.Reverb(), RestorerPlugin(restorer)
    for plugins in (
        [reverb, reverb],
        [ours, pedalboard.Gain(), ours],
        [reverb, Chain([pedalboard.Chain([reverb])])],
        [pedalboard.Mix([pedalboard.Gain(), reverb]), ours, reverb],
    ):
        with pytest.raises(RuntimeError, match="is in the chain twice; make a second instance") as caught:
            Chain(plugins)(audio, RATE)
        assert isinstance(caught.value, RestorerError)
    chain = Chain([ours])
    chain.append(chain)
    with pytest.raises(RuntimeError, match="cannot contain itself"):
        chain(audio, RATE)
    assert "..." in repr(chain)
    chain.pop()
    assert chain(audio, RATE).shape == audio.shape


def test_repr_shows_plugins_and_parameters(restorer: Restorer) -> None:
    text = repr(Chain([pedalboard.Gain(3), RestorerPlugin(restorer, mix=0.5)]))
    assert text.startswith("<restorer.plugins.Chain with 2 plugins: [<pedalboard.Gain gain_db=3 at 0x")
    assert "<restorer.plugins.RestorerPlugin mix=0.5 seed=0 bypass=False model='toy' at 0x" in text
    assert repr(Chain([None])) == "<restorer.plugins.Chain with 1 plugin: [None]>"


def test_the_list_may_change_in_mid_stream() -> None:
    audio = make_music(2, 9000)
    chain, board = Chain([pedalboard.Reverb()]), pedalboard.Pedalboard([pedalboard.Reverb()])
    for effect in (chain, board):
        effect.append(pedalboard.Delay(0.01))
    pieces: list[list[np.ndarray]] = [[], []]
    for cut in cuts(1000, 9000):
        for effect, out in zip((chain, board), pieces, strict=True):
            if cut.start == 4000:
                effect.append(pedalboard.Chorus())
            if cut.start == 7000:
                del effect[1]
            out.append(effect.process(audio[:, cut], RATE, reset=False))
    np.testing.assert_array_equal(*(np.concatenate(out, axis=1) for out in pieces))


# Hosts


def test_parameters_of_any_part_change_in_the_stream(restorer: Restorer) -> None:
    audio = make_music(2, 12000)
    ours, gain = RestorerPlugin(restorer), pedalboard.Gain(0)
    chain = Chain([ours, gain])
    chain.process(audio[:, :6000], RATE, reset=False)
    ours.bypass, gain.gain_db = True, -6.0
    later = chain.process(audio[:, 6000:], RATE, reset=False)
    start = 6000 - restorer.latency_samples
    expected = audio[:, start : start + 6000] * np.float32(10 ** (-6 / 20))
    np.testing.assert_allclose(later[:, 3000:], expected[:, 3000:], atol=TOLERANCE)


def test_audio_file_loop(restorer: Restorer, tmp_path: Path) -> None:
    from pedalboard.io import AudioFile

    audio = make_music(2, 30011, 48000) * np.float32(0.3)
    chain = Chain([pedalboard.HighpassFilter(60), RestorerPlugin(restorer), pedalboard.Gain(-2)])
    with AudioFile(str(tmp_path / "in.wav"), "w", 48000, 2, bit_depth=32) as target:
        target.write(audio)
    with (
        AudioFile(str(tmp_path / "in.wav")) as source,
        AudioFile(str(tmp_path / "out.wav"), "w", source.samplerate, source.num_channels, bit_depth=32) as target,
    ):
        while source.tell() < source.frames:
            target.write(chain(source.read(4096), source.samplerate, reset=False))
        target.write(chain.flush())
    with AudioFile(str(tmp_path / "out.wav")) as result:
        np.testing.assert_allclose(result.read(result.frames), chain(audio, 48000), atol=TOLERANCE)


def test_audio_callback(restorer: Restorer) -> None:
    """A sound card's thread calls with blocks of one length and takes as many samples at once."""
    chain = Chain([pedalboard.Gain(-1), RestorerPlugin(restorer), pedalboard.Reverb()])
    audio = make_music(2, 20480)
    played = np.zeros_like(audio)
    chain.reset()

    def callback(start: int) -> None:
        out = chain.process(audio[:, start : start + 256], RATE, reset=False)
        played[:, start + 256 - out.shape[1] : start + 256] = out

    card = threading.Thread(target=lambda: [callback(start) for start in range(0, 20480, 256)])
    card.start()
    card.join()
    latency = restorer.latency_samples
    assert not played[:, :latency].any()
    np.testing.assert_allclose(played[:, latency:], chain(audio, RATE)[:, :-latency], atol=TOLERANCE)


def test_threads_with_plugins_in_common_wait_for_each_other(restorer: Restorer) -> None:
    audio = make_music(2, 5000)
    ours, reverb, gain = RestorerPlugin(restorer), pedalboard.Reverb(), pedalboard.Gain(-3)
    chains = [Chain([ours, reverb]), Chain([reverb, gain, ours]), Chain([Chain([gain]), ours]), Chain([reverb])]
    expected = [chain(audio, RATE) for chain in chains]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(4):
            if not np.array_equal(chains[index](audio, RATE), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index % 4,), daemon=True) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads) and not wrong
