"""The ten rules of a pedalboard-compatible processor, and what else `RestorerPlugin` promises."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_model import make_music, save_convolution, save_identity

from restorer.errors import ConfigError, RestorerError
from restorer.plugins import RestorerPlugin
from restorer.restorer import Restorer

RATES = [8000, 16000, 22050, 32000, 44100, 48000, 96000, 192000]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_convolution(tmp_path_factory.mktemp("model") / "toy.onnx"), "cpu", 1)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    return Restorer(save_identity(tmp_path_factory.mktemp("model") / "identity.onnx"), "cpu", 1)


@pytest.fixture
def plugin(restorer: Restorer) -> RestorerPlugin:
    return RestorerPlugin(restorer)


def cuts(rule: int | str, total: int) -> Iterator[slice]:
    """Block boundaries: all of one length, or random, growing or shrinking ones."""
    random, start, size = np.random.default_rng(4), 0, {"growing": 1, "shrinking": 9000}.get(str(rule), 0)
    while start < total:
        if rule == "random":
            size = int(random.integers(0, 5000))
        elif rule == "growing":
            size = 2 * size + 1
        elif rule == "shrinking":
            size = max(1, size * 2 // 3)
        else:
            size = int(rule)
        yield slice(start, min(total, start + size))
        start += size


def stream(plugin: RestorerPlugin, audio: np.ndarray, rate: int, rule: int | str) -> np.ndarray:
    plugin.reset()
    pieces = [plugin.process(audio[..., cut], rate, reset=False) for cut in cuts(rule, audio.shape[-1])]
    return np.concatenate([*pieces, plugin.flush()], axis=-1)


def native_latency(samples: int) -> object:
    pytest.importorskip("pedalboard")
    from pedalboard_native._internal import AddLatency

    return AddLatency(samples)


# Rule 1


def test_signature_is_that_of_a_native_plugin(plugin: RestorerPlugin) -> None:
    audio = make_music(2, 3000)
    out = plugin.process(audio, 44100)
    np.testing.assert_array_equal(out, plugin(input_array=audio, sample_rate=44100.0, buffer_size=512, reset=True))
    assert plugin.is_effect is True and plugin.is_instrument is False
    assert plugin.reset() is None


@pytest.mark.parametrize("bad", [[0.0], None, np.zeros(4, np.int16), np.zeros(4, np.float16), np.float32(1)])
def test_other_types_raise_type_error(plugin: RestorerPlugin, bad: object) -> None:
    with pytest.raises(TypeError, match="must be") as caught:
        plugin(bad, 44100)  # type: ignore[arg-type]
    assert isinstance(caught.value, RestorerError)


def test_output_is_new_contiguous_float32(plugin: RestorerPlugin) -> None:
    for mix in (0.0, 1.0):
        plugin.mix = mix
        for audio in (make_music(2, 5000), make_music(2, 5000).T.astype(np.float64), make_music(1, 5000)[0]):
            out = plugin(audio, 44100)
            assert out.dtype == np.float32 and out.flags.c_contiguous and out.flags.owndata
            assert not np.shares_memory(out, audio)
    np.testing.assert_array_equal(plugin(make_music(2, 900).astype(">f4"), 44100), plugin(make_music(2, 900), 44100))


# Rules 2 and 3, and all of them against the native latency plug-in


def test_layouts(plugin: RestorerPlugin) -> None:
    audio = make_music(2, 4000)
    with pytest.raises(RuntimeError, match=r"shape \(2, 2\)"):
        plugin(audio[:, :2], 44100)
    wide = plugin(audio, 44100)
    np.testing.assert_array_equal(plugin(audio.T, 44100), wide.T)
    np.testing.assert_allclose(plugin(audio[0], 44100), wide[0], atol=TOLERANCE)
    plugin(audio, 44100)
    assert plugin(audio[:, :2], 44100).shape == (2, 2)
    two_channels = plugin(audio[:, :1], 44100)
    plugin.reset()
    two_samples = plugin(audio[:, :1], 44100)
    assert two_channels.shape == two_samples.shape == (2, 1)
    np.testing.assert_allclose(two_samples[:, 0], plugin(audio[:, 0], 44100), atol=TOLERANCE)
    assert np.abs(two_channels - two_samples).max() > 0.001
    plugin.reset()
    with pytest.raises(RuntimeError):
        plugin(audio[:, :2], 44100)
    with pytest.raises(RuntimeError):
        plugin(np.zeros((2, 2, 2), np.float32), 44100)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2)])
@pytest.mark.parametrize("reset", [True, False])
def test_empty_in_empty_out(plugin: RestorerPlugin, shape: tuple[int, ...], reset: bool) -> None:
    assert plugin(np.zeros(shape, np.float32), 44100, reset=reset).shape == shape


def test_hundreds_of_calls_as_the_native_latency_plugin(restorer: Restorer) -> None:
    """Random shapes, types, blocks and resets; the format changes only together with a reset (rule 8)."""
    random = np.random.default_rng(0)
    for _ in range(150):
        ours, native = RestorerPlugin(restorer, mix=0), native_latency(restorer.latency_samples)
        channels = int(random.integers(1, 5))
        for _ in range(int(random.integers(1, 6))):
            samples = int(random.choice([0, 1, 2, 3, channels, 9, 700, 3583, 3584, 6000]))
            shape = (samples,) if channels == 1 and random.random() < 0.5 else (channels, samples)
            audio = random.standard_normal(shape[:: int(random.choice([1, -1]))]) * 0.1
            audio = audio.astype(random.choice(["f4", "f8", ">f4", "i2"], p=[0.5, 0.4, 0.05, 0.05]))
            reset = bool(random.integers(2))
            block = 8192 if samples > 900 else int(random.choice([1, 7, 512, 8192, 100000]))
            if random.random() < 0.1:
                ours.reset()
                native.reset()  # type: ignore[attr-defined]
            results = []
            for process in (native.process, ours.process):  # type: ignore[attr-defined]
                try:
                    results.append(process(audio, 44100, block, reset))
                except (TypeError, RuntimeError) as error:
                    results.append(TypeError if isinstance(error, TypeError) else RuntimeError)
            expected, found = results
            if isinstance(expected, type):
                assert found is expected, shape
                ours.reset()
                native.reset()  # type: ignore[attr-defined]
                continue
            assert found.shape == expected.shape and found.dtype == expected.dtype
            if reset:
                np.testing.assert_array_equal(found, expected)
            if min(audio.shape, default=0) != channels and audio.ndim == 2 and samples > 0:
                break  # the layout was taken for another number of channels


# Rules 4, 5 and 6


@pytest.mark.parametrize("samples", [1, 100, 3583, 3584, 9000])
@pytest.mark.parametrize("rate", [44100, 48000])
def test_one_shot_is_stream_and_latency_of_silence(plugin: RestorerPlugin, samples: int, rate: int) -> None:
    audio = make_music(2, samples)
    latency = plugin.latency_samples_at(rate)
    plugin(audio[:, :0], rate)  # says which axis holds the channels
    whole = plugin(audio, rate)
    plugin.reset()
    plugin(audio[:, :0], rate)
    silence = np.zeros((2, latency), np.float32)
    pieces = [plugin(part, rate, reset=False) for part in (audio, silence)]
    assert whole.shape == audio.shape
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)


def test_after_one_shot_a_stream_has_a_gap(plugin: RestorerPlugin) -> None:
    audio = make_music(2, 9000)
    plugin(audio, 44100)
    silent = plugin(np.zeros((2, 9000), np.float32), 44100, reset=False)
    assert silent.shape == (2, 9000), "n samples and L zeros were provided before, so all are returned"
    plugin.reset()
    assert plugin(audio, 44100, reset=False).shape == (2, 9000 - plugin.latency_samples)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rule", [1, 7, 480, 4096, "random", "growing", "shrinking"])
def test_blocks_return_what_the_latency_leaves_and_equal_one_shot(
    restorer: Restorer, rate: int, rule: int | str
) -> None:
    plugin = RestorerPlugin(restorer, seed=3)
    latency = plugin.latency_samples_at(rate)
    audio = make_music(1, 2000 if rule == 1 else latency + 9000, rate)
    given, pieces = 0, []
    for cut in cuts(rule, audio.shape[1]):
        pieces.append(plugin.process(audio[:, cut], rate, reset=False))
        given = cut.stop
        assert pieces[-1].shape[1] == max(0, min(given - cut.start, given - latency))
    assert plugin.waiting_samples == min(given, latency)
    streamed = np.concatenate([*pieces, plugin.flush()], axis=1)
    whole = plugin(audio, rate)
    assert streamed.shape == audio.shape == whole.shape
    np.testing.assert_allclose(streamed, whole, atol=TOLERANCE)
    assert plugin.waiting_samples == 0


# Rule 7


@pytest.mark.parametrize("size", [0, -1, 1.5, None])
def test_buffer_size_must_be_positive(plugin: RestorerPlugin, size: object) -> None:
    with pytest.raises(ValueError, match="buffer_size must be an integer from 1 and not"):
        plugin(make_music(1, 10), 44100, buffer_size=size)  # type: ignore[arg-type]


def test_buffer_size_does_not_change_the_output(plugin: RestorerPlugin) -> None:
    audio = make_music(2, 5000)
    np.testing.assert_array_equal(plugin(audio, 44100, buffer_size=1), plugin(audio, 44100, buffer_size=99999))


# Rule 8


@pytest.mark.parametrize(("channels", "rate"), [(1, 44100), (2, 48000)])
def test_change_of_format_clears_state(plugin: RestorerPlugin, channels: int, rate: int) -> None:
    plugin(make_music(2, 6000), 44100, reset=False)
    audio = make_music(channels, 9000, rate)
    after = np.concatenate([plugin(audio, rate, reset=False), plugin.flush()], axis=1)
    np.testing.assert_array_equal(after, plugin(audio, rate))


@pytest.mark.parametrize("rate", [44100, 48000])
def test_damage_does_not_poison_the_state(restorer: Restorer, rate: int) -> None:
    audio = make_music(2, 30000)
    damaged, repaired = audio.astype(np.float64), audio.copy()
    damaged[0, 100], damaged[1, 2000], damaged[:, 3000] = np.nan, np.inf, 1e300
    repaired[0, 100] = repaired[1, 2000] = repaired[0, 3000] = repaired[1, 3000] = 0
    for mix in (0.0, 0.5, 1.0):
        plugin = RestorerPlugin(restorer, mix=mix)
        np.testing.assert_array_equal(plugin(damaged, rate), plugin(repaired, rate))


@pytest.mark.parametrize("rate", [44100, 48000])
def test_frames_that_wait_for_each_other_cost_latency_alone(restorer: Restorer, rate: int) -> None:
    audio = make_music(2, 30000, rate)
    plain, waiting = (RestorerPlugin(restorer, seed=3, frames_per_call=frames) for frames in (1, 4))
    assert RestorerPlugin(restorer).latency_samples_at(44100) == restorer.latency_samples
    assert waiting.latency_samples_at(44100) == plain.latency_samples_at(44100) + 3 * restorer.model_info.hop_samples
    np.testing.assert_allclose(waiting(audio, rate), plain(audio, rate), atol=TOLERANCE)
    with pytest.raises(ConfigError, match="frames_per_call"):
        RestorerPlugin(restorer, frames_per_call=0)


def test_impossible_formats_are_named(plugin: RestorerPlugin) -> None:
    for audio, rate, message in [
        (make_music(9, 100), 44100, "channels must be an integer from 1 to 8 and not 9"),
        (make_music(1, 100), 7999, "sample_rate must be an integer from 8000 to 192000 Hz and not 7999"),
        (make_music(1, 100), float("nan"), "sample_rate"),
    ]:
        with pytest.raises(ConfigError, match=message):
            plugin(audio, rate)


# Latency and host rates


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("rate", [*RATES, 11025, 88200, 47999])
def test_impulse_through_mix_zero_comes_out_after_the_latency(restorer: Restorer, rate: int, frames: int) -> None:
    plugin = RestorerPlugin(restorer, mix=0, frames_per_call=frames)
    latency = plugin.latency_samples_at(rate)
    audio = np.zeros((2, latency + 600), np.float32)
    audio[0, 17], audio[1, 444] = 1, -0.25
    plugin(audio, rate)
    plugin.reset()
    assert plugin.latency_samples == latency
    # A host that wants n samples for n puts the missing ones in front.
    heard = np.zeros_like(audio)
    for cut in cuts(250, audio.shape[1]):
        out = plugin(audio[:, cut], rate, reset=False)
        heard[:, cut.stop - out.shape[1] : cut.stop] = out
    assert np.flatnonzero(heard[0]).tolist() == [17 + latency]
    assert np.flatnonzero(heard[1]).tolist() == [444 + latency]
    assert heard[0, 17 + latency] == 1


@pytest.mark.parametrize("rate", RATES)
def test_restoration_is_aligned_with_the_input_at_every_rate(identity: Restorer, rate: int) -> None:
    """A model that changes nothing gives the input back, but for what no resampler keeps."""
    time = np.arange(4 * rate // 10) / rate
    tone = sum(np.sin(2 * np.pi * f * time + f) for f in (310.0, 1234.5, 2900.0)) * 0.2
    audio = (tone * np.hanning(len(tone))).astype(np.float32)
    out = RestorerPlugin(identity)(audio, rate)
    assert np.abs(out - audio).max() < 1e-4


def test_without_resampling_it_is_the_restorer(restorer: Restorer) -> None:
    audio = make_music(2, 9000)
    out = RestorerPlugin(restorer, seed=5, mix=0.4)(audio, 44100)
    np.testing.assert_allclose(out, restorer(audio, 44100, seed=5, mix=0.4), atol=TOLERANCE)
    assert RestorerPlugin(restorer).latency_samples == restorer.latency_samples


# Parameters


def test_parameters_are_checked_and_shown(restorer: Restorer) -> None:
    plugin = RestorerPlugin(restorer, mix=0.25, seed=9)
    plugin.bypass = True
    assert repr(plugin).startswith("<restorer.plugins.RestorerPlugin mix=0.25 seed=9 bypass=True model='toy' at 0x")
    for name, value in [("mix", 1.1), ("mix", None), ("seed", -1), ("seed", 1.5), ("bypass", 1)]:
        with pytest.raises(ConfigError, match=name):
            setattr(plugin, name, value)
        with pytest.raises(ConfigError, match=name):
            RestorerPlugin(restorer, **{name: value})
    assert (plugin.mix, plugin.seed, plugin.bypass) == (0.25, 9, True)


def largest_step(audio: np.ndarray) -> float:
    return float(np.abs(np.diff(audio)).max())


def change(plugin: RestorerPlugin, audio: np.ndarray, rate: int, changes: dict[int, tuple[str, object]]) -> np.ndarray:
    """A stream in blocks of 500 samples, with parameters set before some of them."""
    plugin.reset()
    pieces = []
    for cut in cuts(500, audio.shape[1]):
        if cut.start in changes:
            setattr(plugin, *changes[cut.start])
        pieces.append(plugin(audio[:, cut], rate, reset=False))
    return np.concatenate([*pieces, plugin.flush()], axis=1)


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize(("name", "there", "back"), [("mix", 0.0, 1.0), ("mix", 0.3, 1.0), ("bypass", True, False)])
def test_mix_and_bypass_ramp_and_keep_the_state(
    restorer: Restorer, rate: int, name: str, there: object, back: object
) -> None:
    time = np.arange(30000) / rate
    audio = (0.5 * np.sin(2 * np.pi * 110 * time))[None].astype(np.float32)
    plugin = RestorerPlugin(restorer)
    wet = plugin(audio, rate)
    ramp, latency = round(0.02 * rate), plugin.latency_samples
    out = change(plugin, audio, rate, {15000: (name, there), 22000: (name, back)})
    gone, again = 15000 - latency, 22000 - latency
    np.testing.assert_array_equal(out[:, :gone], wet[:, :gone])
    np.testing.assert_array_equal(out[:, again + ramp :], wet[:, again + ramp :])
    share = float(there) if name == "mix" else 0.0  # type: ignore[arg-type]
    settled = slice(gone + ramp, again)
    expected = share * wet + (1 - share) * audio
    np.testing.assert_allclose(out[:, settled], expected[:, settled], atol=TOLERANCE)
    if share == 0:
        np.testing.assert_array_equal(out[:, settled], audio[:, settled])
    for start in (gone, again):
        part = slice(start - 10, start + ramp + 10)
        slope = float(np.abs(wet - audio).max()) / ramp
        assert largest_step(out[:, part]) <= max(largest_step(wet[:, part]), largest_step(audio[:, part])) + slope


def test_ramps_do_not_depend_on_blocks_and_turn_round_without_a_jump(restorer: Restorer) -> None:
    audio = make_music(1, 20000)
    plugin = RestorerPlugin(restorer)
    outs = []
    for size in (10000, 100, 50):
        plugin.mix = 1.0
        plugin.reset()
        pieces = []
        for start, stop, mix in [(0, 10000, 1.0), (10000, 10400, 0.0), (10400, 10500, 0.9), (10500, 20000, 0.2)]:
            plugin.mix = mix
            part = audio[:, start:stop]
            pieces += [plugin(part[:, cut], 44100, reset=False) for cut in cuts(size, stop - start)]
        outs.append(np.concatenate([*pieces, plugin.flush()], axis=1))
    for out in outs[1:]:
        np.testing.assert_allclose(out, outs[0], atol=TOLERANCE)
    plugin.mix = 1.0
    wet = plugin(audio, 44100)
    # How much of the restoration is heard, where that can be told: it walks, by at most 1 / 882 per sample.
    apart = np.abs(wet - audio)[0] > 0.1
    share = ((outs[0] - audio) / np.where(apart, wet - audio, 1))[0]
    at = np.flatnonzero(apart)
    assert (np.abs(np.diff(share[at])) <= np.diff(at) / 882 + 1e-4).all()
    assert share[at].min() < 0.6 and share[at][-1] == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_seed_fades_over_and_then_sounds_as_from_the_start(restorer: Restorer, rate: int) -> None:
    time = np.arange(40000) / rate
    audio = (0.5 * np.sin(2 * np.pi * 220 * time))[None].astype(np.float32)
    first, second = (RestorerPlugin(restorer, seed=seed)(audio, rate) for seed in (1, 2))
    gap = np.abs(first - second).max()
    assert gap > 0.05
    out = change(RestorerPlugin(restorer, seed=1), audio, rate, {20000: ("seed", 2)})
    assert out.shape == audio.shape
    start = int(np.flatnonzero(np.abs(out - first)[0] > TOLERANCE)[0])
    end = int(np.flatnonzero(np.abs(out - second)[0] > TOLERANCE)[-1])
    assert 20000 - RestorerPlugin(restorer).latency_samples_at(rate) - 64 <= start < end < start + 6000
    fade = slice(start - 100, end + 100)
    assert largest_step(out[:, fade]) <= max(largest_step(first), largest_step(second))
    assert np.abs(out - first)[:, start : start + 64].max() < 0.02 * gap, "it starts as a fade, not as a switch"


def test_brightness_fades_over_and_then_sounds_as_from_the_start(tmp_path: Path) -> None:
    axis = {"direction": [0.0, 1.0, 0.0, 0.0, 0.0], "db_per_unit": 1.0}
    restorer = Restorer(save_convolution(tmp_path / "toy.onnx", brightness=axis), "cpu", 1)
    audio = (0.5 * np.sin(2 * np.pi * 220 * np.arange(40000) / 44100))[None].astype(np.float32)
    first, second = (RestorerPlugin(restorer, seed=3, brightness=name)(audio, 44100) for name in ("dark", "bright"))
    np.testing.assert_allclose(second, restorer(audio, 44100, seed=3, brightness=2), atol=TOLERANCE)
    gap = np.abs(first - second).max()
    assert gap > 0.01
    plugin = RestorerPlugin(restorer, seed=3, brightness="dark")
    assert "seed=3 brightness=-2 bypass" in repr(plugin)
    out = change(plugin, audio, 44100, {20000: ("brightness", "bright")})
    start = int(np.flatnonzero(np.abs(out - first)[0] > TOLERANCE)[0])
    end = int(np.flatnonzero(np.abs(out - second)[0] > TOLERANCE)[-1])
    assert 20000 - plugin.latency_samples - 64 <= start < end < start + 6000
    assert largest_step(out[:, start - 100 : end + 100]) <= 1.01 * max(largest_step(first), largest_step(second))
    with pytest.raises(ConfigError, match="brightness must be dark"):
        plugin.brightness = 9
    assert plugin.brightness == 2.0


def test_brightness_needs_a_model_with_a_direction(identity: Restorer, restorer: Restorer) -> None:
    with pytest.raises(ConfigError, match="has no noise"):
        RestorerPlugin(identity, brightness=0)
    plugin = RestorerPlugin(restorer)
    with pytest.raises(ConfigError, match="carries no brightness direction"):
        plugin.brightness = "dark"
    assert plugin.brightness is None


def test_parameters_set_before_the_signal_count_from_its_first_sample(restorer: Restorer) -> None:
    audio = make_music(1, 6000)
    expected = RestorerPlugin(restorer, mix=0.5, seed=8)(audio, 44100)
    plugin = RestorerPlugin(restorer)
    plugin(audio, 44100)
    plugin.mix, plugin.seed = 0.5, 8
    np.testing.assert_array_equal(plugin(audio, 44100), expected)
    np.testing.assert_array_equal(stream(plugin, audio, 44100, 6000), expected)


# Hosts


def test_threads_share_one_plugin_call_by_call(restorer: Restorer) -> None:
    audio = make_music(2, 6000)
    plugin = RestorerPlugin(restorer)
    expected = plugin(audio, 44100)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            plugin.mix, plugin.bypass = 1.0, False
            if not np.array_equal(plugin(audio, 44100), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("rate", [44100, 48000])
def test_audio_file_loop(restorer: Restorer, tmp_path: Path, rate: int) -> None:
    io = pytest.importorskip("pedalboard.io")
    audio = make_music(2, 20011, rate) * np.float32(0.3)
    with io.AudioFile(str(tmp_path / "in.wav"), "w", rate, 2, bit_depth=32) as target:
        target.write(audio)
    plugin = RestorerPlugin(restorer)
    with (
        io.AudioFile(str(tmp_path / "in.wav")) as source,
        io.AudioFile(str(tmp_path / "out.wav"), "w", source.samplerate, source.num_channels, bit_depth=32) as target,
    ):
        while source.tell() < source.frames:
            target.write(plugin(source.read(4096), source.samplerate, reset=False))
        target.write(plugin.flush())
    with io.AudioFile(str(tmp_path / "out.wav")) as result:
        np.testing.assert_allclose(result.read(result.frames), plugin(audio, rate), atol=TOLERANCE)


def test_works_without_pedalboard(restorer: Restorer, tmp_path: Path) -> None:
    """A chain too, until a native plug-in would be needed; the error is one line with the command."""
    save_convolution(tmp_path / "toy.onnx")
    code = (
        "import sys; sys.modules['pedalboard'] = None\n"
        "import numpy as np\n"
        "from restorer.plugins import Chain, RestorerPlugin\n"
        "plugin = RestorerPlugin('toy.onnx')\n"
        "audio = np.zeros((2, 5000), np.float32)\n"
        "assert Chain([plugin])(audio, 48000).shape == audio.shape\n"
        "try: Chain([object()])\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1 and 'pip install "restorer[pedalboard]"' in done.stdout
