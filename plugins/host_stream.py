"""`HostStream`: a restoration at the host's own sample rate, with one latency that is exact."""

import math

import numpy as np

from restorer.audio_in import StreamResampler
from restorer.restorer import Restorer
from restorer.steady_resampler import resampler_delay
from restorer.stream import replace_damage
from restorer.transform import Float32

# Bounds the memory of one call.
_STEP_SAMPLES = 1 << 16


def host_latency(restorer: Restorer, sample_rate: int, frames_per_call: int | None = None) -> int:
    """Samples at a host's `sample_rate` between input and output; the stream's own where the rates agree.

    Elsewhere it counts the way to the model's rate and back, whatever the sizes of the blocks.
    """
    inside = restorer.sample_rate
    latency = restorer.model_info.latency_of(frames_per_call)
    if sample_rate == inside:
        return latency
    behind = latency + resampler_delay(sample_rate, inside)
    return math.ceil(behind * sample_rate / inside + resampler_delay(inside, sample_rate))


class HostStream:
    """Restores one stream at the host's rate and delays the input as much, so that both can be mixed.

    Parameters
    ----------
    restorer
        Shared by any number of streams.
    channels, sample_rate
        Of input and output.
    seed, brightness
        The same two give the same sound.
    frames_per_call
        As for `Stream`.
    """

    def __init__(
        self,
        restorer: Restorer,
        channels: int,
        sample_rate: int,
        seed: int,
        brightness: float | None = None,
        frames_per_call: int | None = None,
    ) -> None:
        self.channels = channels
        self.sample_rate = sample_rate
        self.seed = seed
        self.latency_samples = host_latency(restorer, sample_rate, frames_per_call)
        self.brightness = brightness
        self._stream = restorer.stream(
            channels, sample_rate, seed, brightness=brightness, frames_per_call=frames_per_call
        )
        self._back = StreamResampler(channels, restorer.sample_rate, sample_rate)
        self.start(seed, brightness)

    @property
    def started(self) -> bool:
        """Whether any output has been returned since the last reset."""
        return self._returned > 0

    def start(self, seed: int, brightness: float | None) -> None:
        """Forget the signal and start anew with this take."""
        self._set_take(seed, brightness)
        self._stream.reset()
        self._back.reset()
        self._dry: Float32 = np.zeros((self.channels, 0), np.float32)
        self._wet: Float32 = np.zeros((self.channels, 0), np.float32)
        self._provided = 0
        self._returned = 0

    def rest(self, seed: int, brightness: float | None) -> None:
        """Compute what `start` with this take needs, in any thread; see `Stream.rest`."""
        self._stream.rest(seed, brightness)

    def change_take(self, seed: int, brightness: float | None) -> None:
        """Fade to another seed or brightness within the running stream."""
        if (seed, brightness) == (self.seed, self.brightness):
            return
        if self._provided:
            self._set_take(seed, brightness)
        else:
            self.start(seed, brightness)

    def process(self, block: Float32) -> tuple[Float32, Float32]:
        """Take any number of samples, return those that are ready: the input, and its restoration.

        After n samples max(0, n - latency_samples) have been returned in all. Impossible samples (NaN,
        infinity) are replaced by 0.

        Shape
        -----
        Input: ``(channels, n)``. Output: two of ``(channels, m)``.
        """
        if block.shape[1] > _STEP_SAMPLES:
            steps = [
                self.process(block[:, start : start + _STEP_SAMPLES])
                for start in range(0, block.shape[1], _STEP_SAMPLES)
            ]
            return (
                np.concatenate([dry for dry, _ in steps], axis=1),
                np.concatenate([wet for _, wet in steps], axis=1),
            )
        block, _ = replace_damage(block)
        self._dry = np.concatenate([self._dry, block], axis=1)
        self._wet = np.concatenate([self._wet, self._back.process(self._stream.process(block))], axis=1)
        self._provided += block.shape[1]
        ready = max(0, self._provided - self.latency_samples) - self._returned
        if ready > self._wet.shape[1]:
            raise RuntimeError(f"the restoration is {ready - self._wet.shape[1]} samples late at {self.sample_rate} Hz")
        self._returned += ready
        dry, self._dry = self._dry[:, :ready], self._dry[:, ready:]
        wet, self._wet = self._wet[:, :ready], self._wet[:, ready:]
        return dry, wet

    def _set_take(self, seed: int, brightness: float | None) -> None:
        if seed != self.seed:
            self._stream.change_seed(seed)
        self._stream.brightness = brightness
        self.seed, self.brightness = seed, brightness
