"""A `Stream` restores audio block by block; restoring a whole file is the same with larger blocks.

Nothing is cross-faded and nothing depends on block size: the generator's states carry all context from call
to call, and the number of samples a call returns follows from the number given so far and the model's
latency alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from restorer.brightness import check_brightness, place_noise
from restorer.errors import ConfigError, RestorerError
from restorer.line import Line
from restorer.model_file import Model
from restorer.noise import draw_noise
from restorer.steady_resampler import SteadyResampler
from restorer.transform import Float32

MAX_FRAMES_PER_CALL = 16
# Full scale is 1; beyond this (120 dB above) a sample is damage, and its square would overflow.
_LARGEST_SAMPLE = 1e6


def check_mix(mix: object) -> float:
    """A number from 0 (input) to 1 (restored); anything else is a ConfigError."""
    try:
        value = float(mix)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"mix must be a number from 0 (input) to 1 (restored) and not {mix!r}")
    return value


def check_frames_per_call(frames: object) -> int:
    """An integer from 1 to 16; anything else is a ConfigError."""
    if not _is_whole(frames) or not 1 <= int(frames) <= MAX_FRAMES_PER_CALL:  # type: ignore[call-overload]
        raise ConfigError(f"frames_per_call must be an integer from 1 to {MAX_FRAMES_PER_CALL} and not {frames!r}")
    return int(frames)  # type: ignore[call-overload]


def check_format(channels: object, sample_rate: object) -> tuple[int, int]:
    """A channel count and a sample rate in Hz that can be restored, as integers; else a ConfigError."""
    if not _is_whole(channels) or not 1 <= int(channels) <= MAX_CHANNELS:  # type: ignore[call-overload]
        raise ConfigError(f"channels must be an integer from 1 to {MAX_CHANNELS} and not {channels!r}")
    if not _is_whole(sample_rate) or not MIN_RATE_HZ <= int(sample_rate) <= MAX_RATE_HZ:  # type: ignore[call-overload]
        raise ConfigError(
            f"sample_rate must be an integer from {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz and not {sample_rate!r}"
        )
    return int(channels), int(sample_rate)  # type: ignore[call-overload]


def _is_whole(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, np.integer)) or (
        isinstance(value, (float, np.floating)) and float(value).is_integer()
    )


def check_audio(audio: object) -> NDArray[Any]:
    """A float32 or float64 array with one or two axes; else a RestorerError."""
    if not isinstance(audio, np.ndarray):
        raise RestorerError(f"audio must be a numpy array and not {type(audio).__name__}")
    if audio.dtype not in (np.float32, np.float64):
        raise RestorerError(
            f"audio must be float32 or float64 in [-1, 1] and not {audio.dtype}; scale integers to that"
        )
    if audio.ndim not in (1, 2):
        raise RestorerError(f"audio must have shape (channels, samples) or (samples,) and not {audio.shape}")
    return audio


def replace_damage(block: NDArray[Any]) -> tuple[Float32, int]:
    """The samples as float32, with 0 for each that is NaN, infinite or beyond 120 dB over full scale.

    Returns the samples and how many were replaced.
    """
    # Never with a NaN, which `max` and `min` pass on.
    if not block.size or (block.max() <= _LARGEST_SAMPLE and block.min() >= -_LARGEST_SAMPLE):
        return block.astype(np.float32, copy=False), 0
    bad = ~(np.abs(block) <= _LARGEST_SAMPLE)
    return np.where(bad, 0, block).astype(np.float32), int(np.count_nonzero(bad))


class Stream:
    """Restores one signal in blocks of any length.

    `Restorer.stream` makes it. `mix` may be set between blocks and counts from the next sample returned;
    `brightness` too, and counts from the next frame on, as a change of seed does. A
    sample that is NaN, infinite or beyond 120 dB over full scale is replaced by 0, so that it never enters
    the states; `replaced_samples` counts them. A stream belongs to one thread at a time.

    Parameters
    ----------
    model
        The model; any number of streams share one.
    channels
        1 to 8; each is restored by itself with the same noise.
    sample_rate
        Of the input, in Hz; the output has the model's.
    seeds
        One seed, or several to get as many restorations of the same input in one batch.
    mix
        0 gives the input (bit-exact at the model's sample rate), 1 the restoration, between them both,
        time-aligned.
    brightness
        "dark", "neutral", "bright" or a number from -4 to 4; None leaves it to the seed.
    frames_per_call
        1 is the least latency. Each further frame, 16 in all at most, is a hop more of it (11.6 ms), and a call of the
        generator restores up to so many at once, for less processor time; the sound is the same. A short block does no
        more than four times its share, so that it is not late. None: 2 for a model that looks ahead, else 1.
    """

    def __init__(
        self,
        model: Model,
        channels: int,
        sample_rate: int,
        seeds: int | Sequence[int],
        mix: float = 1.0,
        brightness: str | float | None = None,
        frames_per_call: int | None = None,
    ) -> None:
        self.channels, self.sample_rate = check_format(channels, sample_rate)
        self.mix = mix
        self._model = model
        self._one_take = not isinstance(seeds, Sequence)
        seeds = seeds if isinstance(seeds, Sequence) else [seeds]
        self._takes = len(seeds)
        frames = model.info.frames_per_call if frames_per_call is None else check_frames_per_call(frames_per_call)
        self._line = Line(model, self._takes, self.channels, frames_per_call=frames)
        self._brightness = check_brightness(brightness)
        self._set_noise(seeds)
        rate = model.info.sample_rate
        same = self.sample_rate == rate
        self._resampler = None if same else SteadyResampler(self.channels, self.sample_rate, rate)
        self.reset()

    @property
    def latency_samples(self) -> int:
        """Samples, at the output's rate, by which it runs behind; `flush` gives the last of them.

        Input at another rate waits in the resampler besides.
        """
        return self._line.latency_samples

    @property
    def mix(self) -> float:
        """0 is the input, 1 the restoration."""
        return self._mix

    @mix.setter
    def mix(self, mix: float) -> None:
        self._mix = check_mix(mix)

    def change_seed(self, seed: int) -> None:
        """Go on with another seed (of a stream that has one), from the next frame on.

        The windows of the frames overlap, so this is a fade as long as a window and no click; once the
        generator's context has passed, the output is that of a stream with this seed from its start.
        """
        self._check_one_take()
        self._set_noise([seed])

    def rest(self, seed: int, brightness: str | float | None = None) -> None:
        """Compute what `reset` needs once the stream has this take; the sound of now stays.

        A start with a take that is new to the stream costs some tens of milliseconds, as the generator comes to
        rest on silence. A live program has them here before a change, in any thread, while another one processes.
        """
        self._check_one_take()
        drawn = draw_noise(seed, self._model.info.noise_size)[None]
        value = check_brightness(brightness)
        self._line.rest(place_noise(drawn, value, self._model.info.brightness, self._model.source))

    @property
    def brightness(self) -> float | None:
        """Standard deviations of z along the model's brightness direction; None: as the seed has it."""
        return self._brightness

    @brightness.setter
    def brightness(self, brightness: str | float | None) -> None:
        value = check_brightness(brightness)
        if value != self._brightness:
            self._place_noise(value)

    def reset(self) -> None:
        """Forget the signal; the next block starts a new one with the same seed."""
        if self._resampler:
            self._resampler.reset()
        self._line.reset()
        self._flushed = False
        self._flat = False
        self.replaced_samples = 0

    def process(self, block: NDArray[Any]) -> Float32:
        """Take any number of samples and return those that are ready.

        After n samples at the model's rate, max(0, n - latency_samples) have been returned in all.

        Shape
        -----
        Input: float32 or float64 ``(channels, n)``, or ``(n,)`` for one channel. Output: float32 of the
        same kind, C-contiguous; with several seeds ``(seeds, channels, m)`` or ``(seeds, m)``.

        Raises
        ------
        RestorerError
            Another type, shape or number of channels, or the stream was flushed and not reset.
        """
        if self._flushed:
            raise RestorerError("the stream has been flushed; call reset() before the next signal")
        block = check_audio(block)
        flat = block.ndim == 1
        if (1 if flat else block.shape[0]) != self.channels:
            raise RestorerError(
                f"block must have shape ({self.channels}, samples) for this stream and not {block.shape}"
            )
        self._flat = flat
        block, replaced = replace_damage(block.reshape(self.channels, -1))
        self.replaced_samples += replaced
        if self._resampler:
            block = self._resampler.process(block)
        return self._shaped(self._advance(block))

    def flush(self) -> Float32:
        """Return everything still missing, so that the output is as long as the input; then `reset` to go on.

        The total is round(samples in x model rate / input rate). A second flush returns no samples.
        """
        pieces = []
        if not self._flushed:
            self._flushed = True
            if self._resampler:
                pieces.append(self._advance(self._resampler.flush()))
            if self._line.received_samples:
                pieces.append(self._advance(np.zeros((self.channels, self.latency_samples), np.float32)))
        empty = np.zeros((self._takes, self.channels, 0), np.float32)
        return self._shaped(np.concatenate([empty, *pieces], axis=2))

    def _check_one_take(self) -> None:
        if not self._one_take:
            raise ConfigError(f"the seed of a stream of {self._takes} seeds cannot be changed; start another")

    def _set_noise(self, seeds: Sequence[int]) -> None:
        self._drawn = np.stack([draw_noise(seed, self._model.info.noise_size) for seed in seeds])
        self._place_noise(self._brightness)

    def _place_noise(self, brightness: float | None) -> None:
        noise = place_noise(self._drawn, brightness, self._model.info.brightness, self._model.source)
        self._brightness = brightness
        self._line.set_noise(noise)

    def _advance(self, block: Float32) -> Float32:
        """Run samples at the model's rate through; ``(takes, channels, ready samples)``."""
        pieces = [
            self._mixed(dry, wet.reshape(self._takes, self.channels, -1)) for dry, wet in self._line.advance(block)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=2)

    def _mixed(self, dry: Float32, wet: Float32) -> Float32:
        if self._mix == 0.0:
            return np.tile(dry, (self._takes, 1, 1))
        if self._mix == 1.0:
            return np.ascontiguousarray(wet)
        return wet * np.float32(self._mix) + dry * np.float32(1.0 - self._mix)

    def _shaped(self, takes: Float32) -> Float32:
        if self._flat:
            takes = takes[:, 0]
        return takes[0] if self._one_take else takes
