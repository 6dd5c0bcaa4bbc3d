"""Finds the direction of z along which a model's restorations gain energy above the cut-off (paper 4.1.1).

Coded excerpts are restored with noise vectors z and -z; the difference of their upper levels in dB, so free of
the excerpt itself, is regressed on z over all excerpts. Levels are taken from the audio and not from the
generator's frames: overlapping frames may cancel, and what cancels nobody hears.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.brightness import NAMES, find_upper_band_hz, place_noise, upper_level_db
from restorer.errors import ConfigError, ModelError
from restorer.lame import encode_mp3
from restorer.model_file import Model
from restorer.synthesis import synthesize
from restorer.training.mp3 import SAMPLE_RATE, Coding, round_trip
from restorer.training.pairs import Pairs
from restorer.transform import Analysis, Float32, Synthesis

STEPS = (NAMES["dark"], -1.0, 0.0, 1.0, NAMES["bright"])  # at which what was found is checked
_MEASURED_SECONDS = 1.5  # of each excerpt; the generator's context comes before
_PAIRS_OF_NOISE = 4  # z and -z, per excerpt: songs differ more than draws, so many excerpts and few draws
_RIDGE = 0.1  # relative to the number of differences: keeps the scale sane when there are few
_HIGHEST_HZ = 15_500.0  # excerpts that reach beyond have no upper band to speak of
_SILENT_DB, _DEAF_DB = -110.0, 1e-3
_MOST_PASSED = 500  # excerpts in a row that are of no use, before the search is given up

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Search:
    """How much music a direction is found on, and checked on: excerpts of 1.5 s and the context before them."""

    excerpts: int = 192
    seed: int = 0

    @property
    def checked(self) -> int:
        """Further excerpts, for the check."""
        return -(-self.excerpts // 6)


def excerpt_samples(model: Model) -> int:
    """Length of the excerpts that this model needs."""
    return round(_MEASURED_SECONDS * SAMPLE_RATE) + _context_frames(model) * model.info.hop_samples


def excerpts_of_pairs(folder: Path, samples: int, seed: int) -> Iterator[Float32]:
    """Coded excerpts of the train split of a pairs folder, songs by their length, codings evenly: (samples,)."""
    pairs = Pairs(folder, "train")
    known = {name for song in pairs.songs for name in song.codings}
    codings = tuple(sorted(name for name in known if Coding.parse(name).kbps <= 64))
    index = 0
    while True:
        yield pairs.draw(index, samples, seed, codings)[1]
        index += 1


def synthesised_excerpts(samples: int, seed: int) -> Iterator[Float32]:
    """Music made by code, coded by LAME at 16 to 64 kbit/s: (samples,); a seed shares no piece with another.

    Raises
    ------
    ConfigError
        lameenc is not installed.
    """
    try:
        encode_mp3(np.zeros((1, 1000)), SAMPLE_RATE, 32)
    except ImportError as error:
        raise ConfigError('this codes music to MP3; run: pip install "restorer[mp3]"') from error
    codings = [Coding(kbps, False) for kbps in (16, 24, 32, 48, 64)]
    index = 0
    while True:
        piece = synthesize(samples / SAMPLE_RATE, SAMPLE_RATE, 1_000_000 * (seed + 1) + index, 1)
        yield round_trip(piece, codings[index % len(codings)])[0]
        index += 1


def find_brightness(
    model: Model, excerpts: Iterator[Float32], search: Search, progress: Progress | None = None
) -> dict[str, Any]:
    """Find the direction and check it on further excerpts; what goes into the metadata as `brightness`.

    Parameters
    ----------
    excerpts
        Coded, each ``(samples,)`` of `excerpt_samples`; silent ones and such without an upper band are passed over.
    progress
        Called as ``progress(excerpts done, excerpts in all)``.

    Returns
    -------
    "direction", a unit vector; "db_per_unit", the mean slope from dark to bright on the excerpts checked;
    "monotonic", the share of those where every step of `STEPS` is brighter than the one before; "checked", how
    many they are.

    Raises
    ------
    ConfigError
        The model has no noise.
    ModelError
        Noise does not change what it restores above the cut-off.
    """
    info = model.info
    if not info.noise_size:
        raise ConfigError("this model has no noise, so nothing decides its brightness; leave --brightness out")
    rng = np.random.default_rng(search.seed)
    usable = _usable(excerpts, search, progress)
    noises, differences = [], []
    for _ in range(search.excerpts):
        coded, above_hz = next(usable)
        noise = rng.standard_normal((_PAIRS_OF_NOISE, info.noise_size)).astype(np.float32)
        levels = restored_levels_db(model, coded, np.concatenate([noise, -noise]), above_hz)
        noises.append(noise)
        differences.append(levels[:_PAIRS_OF_NOISE] - levels[_PAIRS_OF_NOISE:])
    if np.abs(differences).max() < _DEAF_DB:
        raise ModelError("noise does not change what this model restores above the cut-off; leave --brightness out")
    direction = _regress(np.stack(noises), np.stack(differences))
    axis: dict[str, Any] = {"direction": [round(float(number), 6) for number in direction]}
    return {**axis, **check_direction(model, axis, usable, search.checked, rng)}


def check_direction(
    model: Model,
    axis: dict[str, Any],
    usable: Iterator[tuple[Float32, float]],
    count: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Restore `count` excerpts from dark to bright; the fields of `find_brightness` that say how well it works."""
    slopes, monotonic = [], []
    for _ in range(count):
        coded, above_hz = next(usable)
        drawn = rng.standard_normal((1, model.info.noise_size)).astype(np.float32)
        noise = np.concatenate([place_noise(drawn, step, axis, model.source) for step in STEPS])
        levels = restored_levels_db(model, coded, noise, above_hz)
        slopes.append((levels[-1] - levels[0]) / (STEPS[-1] - STEPS[0]))
        monotonic.append(bool((np.diff(levels) > 0).all()))
    return {
        "db_per_unit": round(float(np.mean(slopes)), 4),
        "monotonic": round(float(np.mean(monotonic)), 3),
        "checked": count,
    }


def restored_levels_db(
    model: Model, coded: Float32, noise: NDArray[np.float32], above_hz: float
) -> NDArray[np.float64]:
    """Level above a frequency of an excerpt restored with each noise vector, past the generator's context.

    Shape: coded (samples,), noise (takes, noise_size) -> (takes,) in dB.
    """
    info, takes = model.info, len(noise)
    frames = Analysis(1, info.window_samples, info.hop_samples)(coded[None])
    synthesis = Synthesis(takes, info.window_samples, info.hop_samples)
    states, pieces = model.zero_states(takes), []
    for start in range(0, frames.shape[2], 64):
        piece = np.repeat(frames[:, :, start : start + 64], takes, axis=0)
        restored, states = model.run(piece, noise, states)
        pieces.append(synthesis(restored))
    audio = np.concatenate(pieces, axis=1)[:, _context_frames(model) * info.hop_samples :]
    return np.array([upper_level_db(take[None], info.sample_rate, above_hz) for take in audio])


def _usable(excerpts: Iterator[Float32], search: Search, progress: Progress | None) -> Iterator[tuple[Float32, float]]:
    """Excerpts that sound, with the frequency at which their upper band begins."""
    done, total, passed = 0, search.excerpts + search.checked, 0
    for coded in excerpts:
        above_hz = find_upper_band_hz(coded[None], SAMPLE_RATE)
        passed += 1
        if above_hz < _HIGHEST_HZ and upper_level_db(coded[None], SAMPLE_RATE, 0.0) > _SILENT_DB:
            done, passed = done + 1, 0
            if progress:
                progress(done, total)
            yield coded, above_hz
        if passed == _MOST_PASSED:
            break
    raise ConfigError(f"the music for --brightness ends at {done} of {total} excerpts that were cut by a codec")


def _regress(noise: NDArray[np.float32], difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ridge regression of differences on noise: the unit vector that explains most of them.

    Excerpts on which noise does more than on the median one are scaled down to that, so that a few do not decide.

    Shape: (excerpts, draws, noise_size), (excerpts, draws) -> (noise_size,).
    """
    size = np.sqrt((difference**2).mean(axis=1, keepdims=True))
    scaled = (difference / np.maximum(size, np.median(size)).clip(min=_DEAF_DB)).ravel()
    z = noise.reshape(-1, noise.shape[2]).astype(np.float64)
    weights = np.linalg.solve(z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1]), z.T @ scaled)
    return weights / np.linalg.norm(weights)


def _context_frames(model: Model) -> int:
    """Frames until what comes out no longer depends on the states it began with, and no longer waits."""
    return model.info.warmup_frames + model.info.lookahead_frames + model.info.window_samples // model.info.hop_samples
