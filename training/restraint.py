"""What a generator's `Restraint` learns from: which share of the generator's changes is best for an excerpt.

And how much the noise should count: all of it where coding is audible, nothing where a take could only be farther off.

The losses cannot teach it. Where much is missing they are a hundred times as large as where little is, and drown what
matters there. So each excerpt counts alike here, and says how much of its changes it wants: PEAQ grades some shares of
them, and the log-spectral distance has a say.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional

from restorer.errors import ConfigError, RestorerError
from restorer.metrics import lsd, peaq
from restorer.training.generator import Generator, Restraint, bound, without
from restorer.training.layers import SLOPE
from restorer.training.mp3 import LAME_GAIN, SAMPLE_RATE
from restorer.training.signal import analyse, restore
from restorer.transform import Float32
from restorer.whole_file import whole_file

SHARES = (0.0, 0.25, 0.5, 1.0)  # of the changes, that are graded
POOR_ODG = -1.0  # an MP3 graded below gets all changes: PEAQ marks down a full band where coding is audible anyway
NOISE_ODG = (-1.0, -0.4)  # an MP3 graded below has all of its noise, one graded above none
NOISE_FIRMNESS = 2.0  # of that logit: what is learnt hedges
CERTAINTY = 0.8  # ODG that it costs there for each unit by which the share's logit is below 0
HARM = 8.0  # by which a loss of ODG counts more than a gain: what was learnt knows less of other music (EXPERIMENTS 43)
DISTANCE = 1.0  # ODG that the whole log-spectral distance is worth
LARGEST = 4.0  # difference of worth: no excerpt outweighs all others
FIRMNESS, RELUCTANCE = 3.0, 4.0  # of the logits: what is learnt hedges, and in doubt less is better
MAPS, DROPOUT = 63, 0.2  # many, of which any must do without some: other music is judged better (EXPERIMENTS 44)
QUIET, QUIETEST_DB = 0.3, -30.0  # share of what is learnt from that is heard as if quieter, by how much at most
STEPS = (1000, 20_000)  # of learning, least and most
WINDOWS = (16, 32, 64, 64, 128, 128, 256, 0)  # frames of each excerpt that are judged by; 0: all of them
_HELD_OUT = 10  # one excerpt in so many
COLUMNS = ("heard", "odg", "distances_db")  # of an `Example`


@dataclass(frozen=True)
class Example:
    """An excerpt: what is heard of it, and what shares of the changes are worth."""

    heard: Float32  # (len(WINDOWS), statistics), weighted means over windows
    odg: Float32  # of each of SHARES; not a number where it was not needed
    distances_db: Float32  # of each of SHARES, log-spectral; not a number where it was not needed


def unrestrained(generator: Generator) -> Generator:
    """The same generator, making all of its changes."""
    return without(generator, "restraint_frames")


def held_out(index: int) -> bool:
    """Whether the excerpt is not learnt from, but tells what others have taught."""
    return index % _HELD_OUT == 0


@torch.no_grad()
def examine(
    generator: Generator | None, original: Float32, coded: Float32, rng: np.random.Generator, *, whole: bool = True
) -> Example:
    """Restore an excerpt, (samples,) at 44.1 kHz, with z = 0, and grade shares of what changed.

    Not `whole`: only as far as `learn` needs it: no share of a poor MP3's changes is graded. Without a generator the
    MP3 alone is, which `learn_latitude` needs.
    """
    given = coded / np.float32(LAME_GAIN)
    odg, distances = np.full((2, len(SHARES)), np.nan, np.float32)
    odg[0] = peaq(original, given, SAMPLE_RATE).odg
    if generator is not None and (whole or odg[0] >= POOR_ODG):
        z = torch.zeros(generator.config.noise_size) if generator.config.noise_size else None
        change = restore(generator, coded[None], z)[0] - given
        parts = [given + np.float32(share) * change for share in SHARES]
        odg[1:] = [peaq(original, part, SAMPLE_RATE).odg for part in parts[1:]]
        distances[:] = [lsd(original, part) for part in parts]
    seen, loudness = Restraint(1).statistics(bound(analyse(torch.from_numpy(coded[None])))[1])
    frames = seen.shape[2]
    heard = []
    for window in WINDOWS:
        length = min(window or frames, frames)
        start = int(rng.integers(frames - length + 1))
        weights = loudness[:, :, start : start + length] + 1e-6
        means = (seen[:, :, start : start + length] * weights).sum(dim=2) / weights.sum(dim=2)
        heard.append(means.flatten().numpy())
    return Example(np.stack(heard).astype(np.float32), odg, distances)


def worth(example: Example) -> NDArray[np.float64]:
    """Of each of SHARES in ODG, less harm and what the log-spectral distance adds, below that of the best, (4,).

    Coding is not audible in it: `is_poor` excerpts want all changes.
    """
    odg, distances = example.odg.astype(float), example.distances_db.astype(float)
    gained = odg - odg[0]
    value = gained + HARM * np.minimum(gained, 0) + DISTANCE * (1 - distances / max(distances[0], 1e-3))
    return np.maximum(value - value.max(), -LARGEST)


def is_poor(example: Example) -> bool:
    """Whether coding is audible, so that all changes are wanted whatever they are graded."""
    return bool(example.odg[0] < POOR_ODG)


def learn(restraint: Restraint, examples: list[Example], steps: int | None = None, seed: int = 2) -> None:
    """Fit a restraint, so that the shares it gives are worth most; an example gives an input for each window.

    Without a number of steps, three for each example, within `STEPS`. Some are heard as if `quieter`: level should
    not matter.
    """
    steps = steps or int(np.clip(3 * len(examples), *STEPS))
    heard = torch.from_numpy(np.stack([example.heard for example in examples]))
    nothing = np.zeros(len(SHARES))
    values = torch.from_numpy(np.stack([nothing if is_poor(e) else worth(e) for e in examples])).float()
    poor = torch.tensor([float(is_poor(e)) for e in examples])
    values, poor = (of_each.repeat_interleave(heard.shape[1], dim=0) for of_each in (values, poor))
    heard = heard.flatten(0, 1)
    mean, spread = heard.mean(dim=0), heard.std(dim=0) + 0.05
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = nn.Linear(heard.shape[1], restraint.maps), nn.Linear(restraint.maps, 1)
        optimiser = torch.optim.AdamW([*first.parameters(), *last.parameters()], weight_decay=0.3)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
            chosen = torch.randint(0, len(heard), (256,))
            gains_db = QUIETEST_DB * torch.rand(256) * (torch.rand(256) < QUIET)
            x = (quieter(heard[chosen], 10 ** (gains_db / 20)) - mean) / spread
            x = functional.dropout(x + 0.05 * torch.randn(256, heard.shape[1]), DROPOUT)
            logits = last(functional.leaky_relu(first(x), SLOPE))
            unsure = CERTAINTY * functional.softplus(-logits[:, 0])
            loss = (unsure * poor[chosen]).mean() - _between(values[chosen], torch.sigmoid(logits)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():  # heard enters the graph as it is
        weight = first.weight / spread
        restraint.tell.weight.copy_(weight)
        restraint.tell.bias.copy_(first.bias - weight @ mean)
        restraint.judge.weight.copy_(FIRMNESS * last.weight)
        restraint.judge.bias.copy_(FIRMNESS * last.bias - RELUCTANCE)


def learn_latitude(restraint: Restraint, examples: list[Example], steps: int = 1500, seed: int = 3) -> None:
    """Fit the share of the noise that counts to what the grades of the MP3s say (`NOISE_ODG`), from what is told."""
    assert restraint.latitude is not None
    heard = torch.from_numpy(np.stack([example.heard for example in examples]))
    all_from, none_from = NOISE_ODG
    odg = torch.tensor([float(example.odg[0]) for example in examples]).repeat_interleave(heard.shape[1])
    wanted = ((odg - none_from) / (all_from - none_from)).clamp(0, 1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        told = functional.leaky_relu(restraint.tell(heard.flatten(0, 1)), SLOPE)
        mean, spread = told.mean(dim=0), told.std(dim=0) + 1e-3
        layer = nn.Linear(restraint.maps, 1)
        optimiser = torch.optim.AdamW(layer.parameters(), weight_decay=0.01)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = 3e-2 * (1 - step / steps)
            chosen = torch.randint(0, len(told), (1024,))
            with torch.enable_grad():
                logits = layer((told[chosen] - mean) / spread)[:, 0]
                loss = functional.binary_cross_entropy_with_logits(logits, wanted[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        weight = NOISE_FIRMNESS * layer.weight / spread
        restraint.latitude.weight.copy_(weight)
        restraint.latitude.bias.copy_(NOISE_FIRMNESS * layer.bias - weight @ mean)


def quieter(heard: Tensor, gains: Tensor) -> Tensor:
    """What would be heard, (n, statistics), of the same excerpts times gains of 1 or less, (n,), approximately.

    Levels fall, at the lowest to the floor. No bin is deeper below its band's mean than the floor is, so what lies
    beyond each depth loses what lay beyond that: min(x, top) - depth is x - depth less x - top, where positive.
    """
    floor, depths = Restraint.FLOOR, torch.tensor(Restraint.DEPTHS).view(1, -1, 1)
    level, beyond = heard.view(len(heard), Restraint.STATISTICS, Restraint.BANDS).split([1, depths.shape[1]], dim=1)
    lower = ((level.exp() - floor).clamp(min=0) * gains.view(-1, 1, 1) ** 2 + floor).log()
    before, top = ((each - math.log(floor)).clamp(min=0) for each in (level, lower))
    places = torch.cat([depths.expand_as(beyond), before.clamp(min=Restraint.DEPTHS[-1] + 1e-3)], dim=1)
    values = torch.cat([beyond, torch.zeros_like(level)], dim=1)  # nothing was deeper than the floor before
    lost = torch.zeros_like(top)
    for index in range(len(Restraint.DEPTHS)):
        low, high = places[:, index : index + 1], places[:, index + 1 : index + 2]
        part = ((top - low) / (high - low)).clamp(0, 1)
        found = torch.lerp(values[:, index : index + 1], values[:, index + 1 : index + 2], part)
        lost = torch.where((top >= low) & (top < high), found, lost)
    return torch.cat([lower, (beyond - lost).clamp(min=0) * (top > depths)], dim=1).flatten(1)


def _between(values: Tensor, shares: Tensor) -> Tensor:
    """Values of SHARES, (n, 4), at other shares, (n, 1), on straight lines between them."""
    places = torch.tensor(SHARES)
    below = torch.bucketize(shares.detach(), places[1:-1], right=True)
    low, high = places[below], places[below + 1]
    part = (shares - low) / (high - low)
    return torch.lerp(values.gather(1, below), values.gather(1, below + 1), part)


@torch.no_grad()
def judge(restraint: Restraint, examples: list[Example]) -> NDArray[np.float64]:
    """The shares for each example, (n, 1 or 2), from the last of its windows, the whole excerpt."""
    heard = torch.from_numpy(np.stack([example.heard[-1] for example in examples]))
    told = restraint.summarise(heard.view(-1, restraint.STATISTICS, 1, restraint.BANDS))
    return restraint.decide(told)[:, :, 0, 0].double().numpy()


def gains(examples: list[Example], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """In ODG over the MP3, for each example's share of the changes, between what was graded."""
    return np.array([np.interp(share, SHARES, e.odg) - e.odg[0] for e, share in zip(examples, shares, strict=True)])


def with_restraint(generator: Generator, frames: int, maps: int = MAPS, latitude: bool = True) -> Generator:
    """The same generator with a restraint over so many frames, which has yet to learn; with `latitude` of its noise."""
    sizes = {"restraint_frames": frames, "restraint_maps": maps}
    config = dataclasses.replace(
        generator.config, **sizes, restrained_noise=latitude and generator.config.noise_size > 0
    )
    restrained = Generator(config)
    restrained.load_state_dict(unrestrained(generator).state_dict(), strict=False)
    return restrained.eval()


def save_examples(path: Path, examples: list[Example], weights: str) -> None:
    """Keep examples in a safetensors file, with the `fingerprint` of the weights whose changes were graded.

    Raises
    ------
    RestorerError
        The disk is full or refuses otherwise; what was there before is still there.
    """
    columns = {name: np.stack([getattr(example, name) for example in examples]) for name in COLUMNS}
    try:
        with whole_file(path) as partial:
            save_file(columns, partial, {"weights": weights})
    except (OSError, SafetensorError) as error:
        raise RestorerError(f"cannot write '{path}': {error}") from error


def load_examples(path: Path, weights: str | None) -> list[Example]:
    """What `save_examples` kept; without a fingerprint, whatever the weights whose changes were graded.

    Raises
    ------
    ConfigError
        The file holds no grades, or those of other weights.
    """
    try:
        with safe_open(path, "numpy") as kept:
            of = (kept.metadata() or {}).get("weights")
            columns = [kept.get_tensor(name) for name in COLUMNS]
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"'{path}' holds no grades: {error}") from error
    if weights is not None and of != weights:
        raise ConfigError(f"the grades in '{path}' are those of other weights")
    if columns[COLUMNS.index("distances_db")].shape[1:] != (len(SHARES),):
        raise ConfigError(f"the grades in '{path}' are of an earlier version, without distances for every share")
    return [Example(*row) for row in zip(*columns, strict=True)]


def fingerprint(generator: Generator) -> str:
    """The same for two generators whose changes are the same: of their weights but for those of the restraint."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unrestrained(generator).state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
