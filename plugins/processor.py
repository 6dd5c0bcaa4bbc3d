"""`RestorerPlugin`: the restorer as an effect that is called like a plug-in of pedalboard."""

import math
import os
from typing import Any

import numpy as np

from restorer.brightness import check_brightness
from restorer.errors import ConfigError
from restorer.noise import check_seed
from restorer.plugins.effect import Effect
from restorer.plugins.host_stream import HostStream, host_latency
from restorer.restorer import Restorer
from restorer.stream import check_format, check_frames_per_call, check_mix
from restorer.transform import Float32

# A change of the mix from one end to the other takes this long.
RAMP_SECONDS = 0.02
# What a plug-in is made ready for before it knows its host.
_USUAL_CHANNELS = 2


class Ramp:
    """A gain that walks to its target in a straight line, sample by sample, however blocks are cut."""

    def __init__(self, gain: float) -> None:
        self.jump(gain)

    def jump(self, target: float) -> None:
        """Be there now."""
        self.gain = self._start = self._target = target
        self._steps = self._done = 0

    def aim(self, target: float, full_scale_samples: int) -> None:
        """Walk from here; from 0 to 1 it takes `full_scale_samples`."""
        if target != self._target:
            self._start, self._target, self._done = self.gain, target, 0
            self._steps = math.ceil(abs(target - self._start) * full_scale_samples)

    def take(self, samples: int) -> Float32 | None:
        """The gains of the next samples, ``(samples,)``; None when all are `gain`."""
        left = min(self._steps - self._done, samples)
        if left <= 0:
            self.gain = self._target
            return None
        steps = np.arange(self._done + 1, self._done + left + 1)
        gains = np.full(samples, self._target)
        gains[:left] = self._start + (self._target - self._start) * (steps / self._steps)
        self._done += left
        if self._done == self._steps:
            gains[left - 1 :] = self._target
        self.gain = float(gains[-1])
        return gains.astype(np.float32)


class RestorerPlugin(Effect):
    """Restores what runs through it, with the calls of a pedalboard plug-in; see `process`.

    A native `pedalboard.Pedalboard` takes no plug-ins written in Python: use `restorer.plugins.Chain`. Mono,
    stereo or up to 8 channels, host rates from 8 to 192 kHz; at other rates than the model's the signal is
    resampled inside, and the latency counts it. `mix`, `seed`, `brightness` and `bypass` may be set at any
    time, from any thread; they count from the next call on, without a click and without a loss of state.

    The first block of a stream costs no more time than the later ones: a plug-in is made ready for stereo at the
    model's rate, and `prepare` makes it ready for anything else.

    Parameters
    ----------
    restorer
        A `Restorer` to share, the path of a model, or None for the bundled model.
    mix
        0 is the input, exact but for the delay; 1 the restoration.
    seed
        Integer from 0; the same seed gives the same sound.
    bypass
        True gives the input with the delay unchanged, as mix=0 does, and keeps the mix.
    brightness
        "dark", "neutral", "bright", or a number from -4 (dark) to 4 (bright); None leaves it to the seed.
    frames_per_call
        1 to 16: each above 1 is 11.6 ms more latency and less processor time; None leaves it to the model, as `Stream`
        says.

    Raises
    ------
    RestorerError
        The model cannot be used, or a parameter is out of range.
    """

    def __init__(
        self,
        restorer: Restorer | str | os.PathLike[str] | None = None,
        mix: float = 1.0,
        seed: int = 0,
        bypass: bool = False,
        brightness: str | float | None = None,
        frames_per_call: int | None = None,
    ) -> None:
        super().__init__()
        self._frames_per_call = None if frames_per_call is None else check_frames_per_call(frames_per_call)
        self.mix = mix
        self.seed = seed
        self.bypass = bypass
        check_brightness(brightness)
        self._restorer = restorer if isinstance(restorer, Restorer) else Restorer(restorer)
        self.brightness = brightness
        self._ramp = Ramp(self._gain())
        self._host = self._make_host(_USUAL_CHANNELS, self._restorer.sample_rate)

    @property
    def mix(self) -> float:
        """0 is the input, 1 the restoration; a change takes up to 20 ms."""
        return self._mix

    @mix.setter
    def mix(self, mix: float) -> None:
        self._mix = check_mix(mix)

    @property
    def seed(self) -> int:
        """Decides the sound of what is made up; a change fades over the model's window (46 ms)."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = check_seed(seed)

    @property
    def brightness(self) -> float | None:
        """Standard deviations from the middle between dark and bright; a change fades as one of `seed` does."""
        return self._brightness

    @brightness.setter
    def brightness(self, brightness: str | float | None) -> None:
        self._brightness = self._restorer.check_brightness(brightness)

    @property
    def bypass(self) -> bool:
        """True gives the delayed input; the restoration goes on unheard."""
        return self._bypass

    @bypass.setter
    def bypass(self, bypass: bool) -> None:
        if not isinstance(bypass, (bool, np.bool_)):
            raise ConfigError(f"bypass must be True or False and not {bypass!r}")
        self._bypass = bool(bypass)

    @property
    def restorer(self) -> Restorer:
        """What restores; it may be shared with other plug-ins."""
        return self._restorer

    @property
    def latency_samples(self) -> int:
        """Samples by which the output runs behind, at the sample rate of the last call (first: the model's)."""
        return self._host.latency_samples

    def latency_samples_at(self, sample_rate: float) -> int:
        """Samples by which the output would run behind at another sample rate."""
        return host_latency(self._restorer, check_format(1, sample_rate)[1], self._frames_per_call)

    def prepare(self, channels: int, sample_rate: float) -> None:
        """Do what takes time before the first block comes, as a host's ``prepareToPlay`` does.

        Without it a stream in another format than the last pays in its first block (some 0.1 s), and so does a
        start right after a change of `seed` or `brightness`, unless `reset` was called between. Audio in another
        thread does not wait meanwhile. A stream in this format goes on; that in another is forgotten.

        Raises
        ------
        ConfigError
            Channels or sample rate are not possible.
        """
        wanted = check_format(channels, sample_rate)
        if (self._host.channels, self._host.sample_rate) == wanted:
            self._rest()
            return
        host = self._make_host(*wanted)
        with self._held():
            self._host = host
            self._expect(wanted)

    def __repr__(self) -> str:
        brightness = "" if self.brightness is None else f"brightness={self.brightness:g} "
        return (
            f"<restorer.plugins.RestorerPlugin mix={self.mix:g} seed={self.seed} {brightness}bypass={self.bypass} "
            f"model={self._restorer.model_info.name!r} at {id(self):#x}>"
        )

    def _make_host(self, channels: int, sample_rate: int) -> HostStream:
        return HostStream(self._restorer, channels, sample_rate, self._seed, self._brightness, self._frames_per_call)

    def _gain(self) -> float:
        return 0.0 if self._bypass else self._mix

    def _rest(self) -> None:
        self._host.rest(self._seed, self._brightness)

    def _known_latency(self, sample_rate: float) -> int:
        return host_latency(self._restorer, int(sample_rate), self._frames_per_call)

    def _forget(self) -> None:
        self._host.start(self._seed, self._brightness)

    def _advance(self, audio: Float32, sample_rate: float, block_samples: int) -> Float32:
        host = self._host
        if (host.channels, host.sample_rate) != (audio.shape[0], sample_rate):
            host = self._host = self._make_host(*check_format(audio.shape[0], sample_rate))
        host.change_take(self._seed, self._brightness)
        if host.started:
            self._ramp.aim(self._gain(), round(RAMP_SECONDS * sample_rate))
        else:
            self._ramp.jump(self._gain())
        dry, wet = host.process(audio)
        return self._mixed(dry, wet)

    def _mixed(self, dry: Float32, wet: Float32) -> Float32:
        gains: Any = self._ramp.take(dry.shape[1])
        if gains is None:
            if self._ramp.gain in (0.0, 1.0):
                return wet if self._ramp.gain else dry
            gains = np.float32(self._ramp.gain)
        return wet * gains + dry * (np.float32(1.0) - gains)
