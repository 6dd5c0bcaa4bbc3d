"""`Streams`: many signals in one batched call, for servers that restore several at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.brightness import check_brightness, place_noise
from restorer.errors import ConfigError, RestorerError
from restorer.line import Line
from restorer.model_file import Model
from restorer.noise import check_seed, draw_noise
from restorer.steady_resampler import SteadyResampler
from restorer.stream import check_audio, check_format, replace_damage
from restorer.transform import Float32

MAX_STREAMS = 256


class Streams:
    """n signals advanced in lock-step; each comes out as it would from a `Stream` of its own.

    `Restorer.streams` makes it. Blocks of one call have the same length, and all signals start, end and are reset
    together: give silence to those that wait. Signals that start at any time need streams of their own. Frames do not
    wait for each other here, so the latency is ``model_info.latency_samples``: the batch is what saves time. What is
    NaN, infinite or beyond 120 dB over full scale is replaced by 0 and counted in `replaced_samples`. An object
    belongs to one thread at a time.

    Parameters
    ----------
    model
        The model; any number of streams share one.
    n
        1 to 256 signals.
    channels
        Of each signal, 1 to 8.
    sample_rate
        Of the input, in Hz; the output has the model's.
    seeds
        One for each signal, or one for all.
    brightness
        Of all signals, as for `Restorer.__call__`.
    """

    def __init__(
        self,
        model: Model,
        n: int,
        channels: int,
        sample_rate: int,
        seeds: int | Sequence[int] = 0,
        brightness: str | float | None = None,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MAX_STREAMS:
            raise ConfigError(f"n must be an integer from 1 to {MAX_STREAMS} and not {n!r}")
        self.n = int(n)
        self.channels, self.sample_rate = check_format(channels, sample_rate)
        seeds = list(seeds) if isinstance(seeds, (Sequence, np.ndarray)) else [seeds] * self.n
        if len(seeds) != self.n:
            raise ConfigError(
                f"seeds must be one integer or {self.n} of them, one for each stream, and not {len(seeds)}"
            )
        self._model = model
        rate = model.info.sample_rate
        same = self.sample_rate == rate
        self._resampler = None if same else SteadyResampler(self.n * self.channels, self.sample_rate, rate)
        self._line = Line(model, self.n, self.channels, separate=True)
        noise = np.stack([draw_noise(check_seed(seed), model.info.noise_size) for seed in seeds])
        self._line.set_noise(place_noise(noise, check_brightness(brightness), model.info.brightness, model.source))
        self.reset()

    @property
    def latency_samples(self) -> int:
        """Samples, at the output's rate, by which every stream runs behind."""
        return self._line.latency_samples

    def reset(self) -> None:
        """Forget all signals; the next blocks start new ones with the same seeds."""
        if self._resampler:
            self._resampler.reset()
        self._line.reset()
        self._flushed = False
        self.replaced_samples = 0

    def process(self, blocks: Sequence[NDArray[Any]]) -> list[Float32]:
        """Take a block of each signal and return what is ready of each.

        Shape
        -----
        Input: n arrays, float32 or float64 ``(channels, samples)``, all of the same length. Output: n arrays,
        float32 ``(channels, ready)``.

        Raises
        ------
        RestorerError
            Another number, type, shape or length of blocks, or the streams were flushed and not reset.
        """
        if self._flushed:
            raise RestorerError("the streams have been flushed; call reset() before the next signals")
        if len(blocks) != self.n:
            raise RestorerError(f"blocks must be {self.n}, one for each stream, and not {len(blocks)}")
        samples = check_audio(blocks[0]).shape[-1]
        for index, block in enumerate(blocks):
            if check_audio(block).shape != (self.channels, samples):
                raise RestorerError(
                    f"block {index} must have shape ({self.channels}, {samples}), as all streams advance together, "
                    f"and not {block.shape}"
                )
        together, replaced = replace_damage(np.concatenate(blocks))
        self.replaced_samples += replaced
        return self._advance(self._resampler.process(together) if self._resampler else together)

    def flush(self) -> list[Float32]:
        """Return everything still missing of each, so that it is as long as its input; then `reset` to go on."""
        pieces = [[np.zeros((self.channels, 0), np.float32)] * self.n]
        if not self._flushed:
            self._flushed = True
            if self._resampler:
                pieces.append(self._advance(self._resampler.flush()))
            if self._line.received_samples:
                pieces.append(self._advance(np.zeros((self.n * self.channels, self.latency_samples), np.float32)))
        return [np.concatenate(parts, axis=1) for parts in zip(*pieces, strict=True)]

    def _advance(self, block: Float32) -> list[Float32]:
        wet = np.concatenate([wet for _, wet in self._line.advance(block)], axis=1)
        return list(wet.reshape(self.n, self.channels, -1))
