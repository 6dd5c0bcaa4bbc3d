"""A `Stream` restores audio block by block; restoring a whole file is the same with larger blocks.

Nothing is cross-faded and nothing depends on block size: the generator's states carry all context from call
to call, and the number of samples a call returns follows from the number given so far and the model's
latency alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ, StreamResampler
from restorer.errors import ConfigError, RestorerError
from restorer.model_file import Model, States
from restorer.noise import draw_noise
from restorer.transform import Analysis, Float32, Synthesis

# Frames of one session call, all channels and candidates together, and of one channel: they bound the memory.
_FRAMES_PER_CALL = 512
_FRAMES_PER_CHANNEL = 64
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
    bad = ~(np.abs(block) <= _LARGEST_SAMPLE)
    count = int(np.count_nonzero(bad))
    return (np.where(bad, 0, block) if count else block).astype(np.float32, copy=False), count


class Stream:
    """Restores one signal in blocks of any length.

    `Restorer.stream` makes it. `mix` may be set between blocks and counts from the next sample returned. A
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
    """

    def __init__(
        self, model: Model, channels: int, sample_rate: int, seeds: int | Sequence[int], mix: float = 1.0
    ) -> None:
        self.channels, self.sample_rate = check_format(channels, sample_rate)
        self.mix = mix
        self._model = model
        info = model.info
        self._one_take = not isinstance(seeds, Sequence)
        seeds = seeds if isinstance(seeds, Sequence) else [seeds]
        self._takes = len(seeds)
        batch = self._takes * self.channels
        self._rested: States | None
        self._set_noise(seeds)
        self._step_frames = max(1, min(_FRAMES_PER_CHANNEL, _FRAMES_PER_CALL // batch))
        self._analysis = Analysis(self.channels, info.window_samples, info.hop_samples)
        self._synthesis = Synthesis(batch, info.window_samples, info.hop_samples)
        self._resampler = (
            None
            if self.sample_rate == info.sample_rate
            else StreamResampler(self.channels, self.sample_rate, info.sample_rate)
        )
        self.reset()

    @property
    def latency_samples(self) -> int:
        """Samples, at the output's rate, by which it runs behind; `flush` gives the last of them.

        Input at another rate waits in the resampler besides.
        """
        return self._model.info.latency_samples

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
        if not self._one_take:
            raise ConfigError(f"the seed of a stream of {self._takes} seeds cannot be changed; start another")
        self._set_noise([seed])

    def reset(self) -> None:
        """Forget the signal; the next block starts a new one with the same seed."""
        info = self._model.info
        if self._resampler:
            self._resampler.reset()
        self._analysis.reset()
        self._synthesis.reset()
        if self._rested is None:
            self._rested = self._rest()
        self._states = self._rested
        # What precedes the first sample: the delay line's frames, then the part of the windows before time 0.
        self._skip_frames = info.lookahead_frames
        self._skip_samples = info.window_samples - info.hop_samples
        self._dry: Float32 = np.zeros((self.channels, 0), np.float32)
        self._wet: Float32 = np.zeros((self._takes * self.channels, 0), np.float32)
        self._received = 0
        self._returned = 0
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
            if self._received:
                pieces.append(self._advance(np.zeros((self.channels, self.latency_samples), np.float32)))
        empty = np.zeros((self._takes, self.channels, 0), np.float32)
        return self._shaped(np.concatenate([empty, *pieces], axis=2))

    def _set_noise(self, seeds: Sequence[int]) -> None:
        self._noise = np.stack([draw_noise(seed, self._model.info.noise_size) for seed in seeds])
        self._z = np.repeat(self._noise, self.channels, axis=0)
        self._rested = None

    def _rest(self) -> States:
        """The states after `warmup_frames` of silence; all channels of a take are alike."""
        info = self._model.info
        states = self._model.zero_states(self._takes)
        for start in range(0, info.warmup_frames, self._step_frames):
            frames = min(self._step_frames, info.warmup_frames - start)
            silence = np.zeros((self._takes, 2, frames, info.bins), np.float32)
            _, states = self._model.run(silence, self._noise, states)
        return self._model.repeat_states(states, self.channels)

    def _advance(self, block: Float32) -> Float32:
        """Run samples at the model's rate through; ``(takes, channels, ready samples)``."""
        step = self._step_frames * self._model.info.hop_samples
        if block.shape[1] <= step:
            return self._step(block)
        pieces = [self._step(block[:, start : start + step]) for start in range(0, block.shape[1], step)]
        return np.concatenate(pieces, axis=2)

    def _step(self, block: Float32) -> Float32:
        self._received += block.shape[1]
        self._dry = np.concatenate([self._dry, block], axis=1)
        frames = self._analysis(block)
        if frames.shape[2]:
            frames = np.tile(frames, (self._takes, 1, 1, 1))
            restored, self._states = self._model.run(frames, self._z, self._states)
            skipped = min(self._skip_frames, restored.shape[2])
            self._skip_frames -= skipped
            samples = self._synthesis(restored[:, :, skipped:])
            skipped = min(self._skip_samples, samples.shape[1])
            self._skip_samples -= skipped
            self._wet = np.concatenate([self._wet, samples[:, skipped:]], axis=1)

        ready = max(0, self._received - self.latency_samples) - self._returned
        self._returned += ready
        dry, self._dry = self._dry[:, :ready], self._dry[:, ready:]
        wet, self._wet = self._wet[:, :ready], self._wet[:, ready:]
        return self._mixed(dry, wet.reshape(self._takes, self.channels, ready))

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
