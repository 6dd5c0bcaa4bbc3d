"""The signal path at the model's rate, for one signal with several takes or for several signals at once."""

from collections.abc import Iterator

import numpy as np

from restorer.model_file import Model, States
from restorer.row_threads import RowThreads
from restorer.transform import Analysis, Float32, Synthesis

# Takes whose rested states a line keeps, so that going back and forth between some costs nothing.
_KEPT_TAKES = 4
# Frames of one session call, all rows of the batch together, and of one row: they bound the memory.
_FRAMES_PER_CALL = 512
_FRAMES_PER_ROW = 64
# One core likes best what stays in its own cache; several share the work better in long calls.
_FRAMES_PER_ROW_OF_ONE_CORE = 32
# Frames that wait are restored together in a block long enough for it: at most so many times its share.
_FRAMES_PER_HOP_OF_A_BLOCK = 4


class Line:
    """Transform, generator and overlap-add: what goes in comes out dry and wet, `latency_samples` later.

    Parameters
    ----------
    model
        The model; any number of lines share one.
    voices
        Noise vectors. The batch has ``voices * channels`` rows, all channels of a voice side by side.
    channels
        Of each voice.
    separate
        Each voice has an input of its own; else all are takes of one.
    frames_per_call
        Frames that may wait for each other, so that the generator restores them in one call.
    """

    def __init__(
        self, model: Model, voices: int, channels: int, separate: bool = False, frames_per_call: int = 1
    ) -> None:
        self._model = model
        self._voices, self._channels = voices, channels
        batch = voices * channels
        self._inputs = batch if separate else channels
        self._copies = 1 if separate else voices
        info = model.info
        alone = model.device == "cpu" and model.threads == 1
        per_row = _FRAMES_PER_ROW_OF_ONE_CORE if alone else _FRAMES_PER_ROW
        self._step_frames = max(1, min(per_row, _FRAMES_PER_CALL // batch))
        self._frames_per_call = frames_per_call
        self.latency_samples = info.latency_of(frames_per_call)
        sizes = info.window_samples, info.hop_samples
        # Beside a GPU the transforms of many streams are what takes the time; on a CPU it is the model.
        threads = 1 if model.device == "cpu" else model.threads
        self._analysis = RowThreads(lambda rows: Analysis(rows, *sizes), self._inputs, threads)
        self._synthesis = RowThreads(lambda rows: Synthesis(rows, *sizes), batch, threads)
        self._run = model.bind(batch)
        self._noise: Float32 = np.zeros((voices, info.noise_size), np.float32)
        self._rested: dict[bytes, States] = {}
        self._warm_up()

    @property
    def received_samples(self) -> int:
        """Samples that came in since the last reset."""
        return self._received

    def set_noise(self, noise: Float32) -> None:
        """Go on with other noise, ``(voices, noise_size)``, from the next frame on."""
        self._noise = noise
        self._run.set_noise(np.repeat(noise, self._channels, axis=0))

    def rest(self, noise: Float32) -> None:
        """Find the states that silence leaves behind with this noise, so that `reset` need not.

        It may run in another thread while the line goes on.
        """
        self._rested_with(noise)

    def reset(self) -> None:
        """Forget the signal; what came before the next sample is silence."""
        info = self._model.info
        self._analysis.reset()
        self._synthesis.reset()
        self._run.set_states(self._model.repeat_states(self._rested_with(self._noise), self._channels))
        # What precedes the first sample: the delay line's frames, then the part of the windows before time 0.
        self._skip_frames = info.lookahead_frames
        self._skip_samples = info.window_samples - info.hop_samples
        self._waiting: Float32 = np.zeros((self._inputs, 2, 0, info.bins), np.float32)
        self._dry: Float32 = np.zeros((self._inputs, 0), np.float32)
        self._wet: Float32 = np.zeros((self._voices * self._channels, 0), np.float32)
        self._received = 0
        self._returned = 0

    def advance(self, block: Float32) -> Iterator[tuple[Float32, Float32]]:
        """Take ``(inputs, samples)`` and give what is ready, piece by piece.

        A piece is dry ``(inputs, ready)`` and wet ``(voices * channels, ready)``; there is at least one. How long
        the block is bounds how much is done now of what may wait.
        """
        hop = self._model.info.hop_samples
        most = max(1, _FRAMES_PER_HOP_OF_A_BLOCK * block.shape[1] // hop)
        step = self._step_frames * hop
        for start in range(0, max(1, block.shape[1]), step):
            yield self._step(block[:, start : start + step], most)

    def _warm_up(self) -> None:
        """Make the slow calls, one with each of the run's two sets of states: memory is planned and touched there."""
        rows, bins = self._voices * self._channels, self._model.info.bins
        for frames in {1, self._frames_per_call}:
            silence = np.zeros((rows, 2, frames, bins), np.float32)
            for _ in range(2):
                self._synthesis(self._run(silence))

    def _rested_with(self, noise: Float32) -> States:
        """The states after `warmup_frames` of silence, of one channel: all of a voice are alike."""
        info, key = self._model.info, noise.tobytes()
        states = self._rested.get(key)
        if states is None:
            run = self._model.bind(self._voices)
            run.set_noise(noise)
            for start in range(0, info.warmup_frames, self._step_frames):
                frames = min(self._step_frames, info.warmup_frames - start)
                run(np.zeros((self._voices, 2, frames, info.bins), np.float32))
            states = run.get_states()
            # Replaced as a whole: another thread may be reading it.
            self._rested = dict([*self._rested.items(), (key, states)][-_KEPT_TAKES:])
        return states

    def _step(self, block: Float32, most: int) -> tuple[Float32, Float32]:
        self._received += block.shape[1]
        self._dry = np.concatenate([self._dry, block], axis=1)
        frames = self._gather(self._analysis(block), most)
        if frames.shape[2]:
            if self._copies > 1:
                frames = np.tile(frames, (self._copies, 1, 1, 1))
            restored = self._run(frames)
            skipped = min(self._skip_frames, restored.shape[2])
            self._skip_frames -= skipped
            samples = self._synthesis(restored[:, :, skipped:])
            skipped = min(self._skip_samples, samples.shape[1])
            self._skip_samples -= skipped
            samples = samples[:, skipped:]
            self._wet = np.concatenate([self._wet, samples], axis=1) if self._wet.shape[1] else samples

        ready = max(0, self._received - self.latency_samples) - self._returned
        self._returned += ready
        dry, self._dry = self._dry[:, :ready], self._dry[:, ready:]
        wet, self._wet = self._wet[:, :ready], self._wet[:, ready:]
        return dry, wet

    def _gather(self, frames: Float32, most: int) -> Float32:
        """Add frames to those that wait, and give full calls, or `most` of them where the block is too short for that.

        The latency lets all but one of a call's frames wait; whatever is more than those is due.
        """
        if self._frames_per_call == 1:
            return frames
        if self._waiting.shape[2]:
            frames = np.concatenate([self._waiting, frames], axis=2)
        there = frames.shape[2]
        due = there - (self._frames_per_call - 1)
        now = max(due, min(most, there - there % min(most, self._frames_per_call)))
        self._waiting = frames[:, :, now:]
        return np.ascontiguousarray(frames[:, :, :now])
