"""Larger networks from trained ones: a wider or deeper generator that begins by computing the same function.

New maps are drawn at random and nothing that was there before listens to them at first; new layers of the stack add
nothing to what passes through them. Both begin to matter as training gives them weights (function-preserving
growth, after Net2Net, Chen et al. 2016). Aggregation filters of a lower rank are the nearest there are (singular value
decomposition), a last stage with fewer maps keeps those with the largest weights, and one without levels what it makes
of contrast; all three only begin near it.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from restorer.errors import ConfigError
from restorer.training.generator import Generator, GeneratorConfig

_GROWING = ("front_maps", "band_maps", "aggregation_maps", "stack_maps", "fine_maps", "hint_maps", "dilations")
_BANDS = 32  # bins of the stack
# What the inputs and the outputs of each parameter are, in their order: (size in the config, values for each of it).
_Axis = Sequence[tuple[str, int]]
_FRONT, _STACK = (("front_maps", 1),), (("stack_maps", 1),)
_LAYERS: dict[str, tuple[_Axis, _Axis]] = {
    "front.conv": ((), _FRONT),
    "bands.conv": (_FRONT, (("band_maps", 1),)),
    "aggregate.narrow": ((("band_maps", _BANDS),), (("aggregation_rank", 1),)),
    "aggregate.dense": ((("band_maps", _BANDS),), (("aggregation_maps", _BANDS),)),
    "merge.conv": ((("band_maps", 1), ("aggregation_maps", 1)), _STACK),
    "noise": ((), (("stack_maps", _BANDS),)),
    "stack": (_STACK, (*_STACK, *_STACK)),
    "spread.narrow": ((("stack_maps", _BANDS),), (("aggregation_rank", 1),)),
    "spread.dense": ((("stack_maps", _BANDS),), (("aggregation_maps", _BANDS),)),
    "rise.conv": ((("stack_maps", 1), ("aggregation_maps", 1)), (("front_maps", 4),)),
    "refine.layer.conv": (_FRONT, (*_FRONT, *_FRONT)),
    "out.conv": (_FRONT, ()),
    "fine.look.conv": ((), (("fine_maps", 1),)),
    "fine.hint.conv": (_FRONT, (("hint_maps", 8),)),
    "fine.merge.conv": ((("hint_maps", 1),), (("fine_maps", 1),)),
    "fine.fill.conv": ((("fine_maps", 1),), ()),
}
_PLACES = {"front_bias": _FRONT, "place": _STACK}  # (1, maps, 1, bins)


def grow(weights: dict[str, Tensor], small: GeneratorConfig, generator: Generator) -> dict[str, Tensor]:
    """Weights for the larger `generator` with which it computes what `weights` of a `small` one do.

    Aggregation filters of full rank may become those of a lower one, and the last stage may have fewer maps or lose its
    levels; then the function is only nearly the same.

    What is new keeps the generator's own initial values where these do not reach what was there before. Parameters
    that `weights` lack are left out, those that the generator lacks stay.

    Raises
    ------
    ConfigError
        The generator is smaller somewhere, or its stack does not begin with the small one's.
    """
    large = generator.config
    for name in _GROWING:
        old, new = getattr(small, name), getattr(large, name)
        if name == "dilations" and new[: len(old)] != old:
            raise ConfigError(f"dilations must begin with {list(old)}, those of the weights, and not be {list(new)}")
        if name == "fine_maps" and 0 < new < old:
            fewer = dataclasses.replace(small, fine_maps=new)
            return grow(_strongest_fine_maps(weights, new), fewer, generator)
        if name != "dilations" and new < old:
            raise ConfigError(f"{name} must be at least {old}, that of the weights, and not {new}")
    if small.fine_maps and large.fine_maps and small.fine_levels != large.fine_levels:
        look = "fine.look.conv.weight"
        contrast = weights[look][:, -1:]
        both = torch.cat([torch.zeros_like(contrast), contrast], dim=1)
        weights = {**weights, look: both if large.fine_levels else contrast}
    rank = large.aggregation_rank
    if rank < small.aggregation_rank:
        raise ConfigError(
            f"aggregation_rank must be at least {small.aggregation_rank}, that of the weights, and not {rank}"
        )
    if rank and not small.aggregation_rank:
        full = Generator(dataclasses.replace(large, aggregation_rank=0))
        return _lower_ranks(grow(weights, small, full), rank)
    grown = dict(weights)
    initials = {name: tensor.cpu() for name, tensor in generator.state_dict().items()}
    for name, initial in initials.items():
        if name not in weights or name.startswith("restraint."):  # which depends on no size
            continue
        layer, _, kind = name.rpartition(".")
        # New maps learn to hear noise: drawn at random, it would change takes in ways that nobody asked for.
        value = torch.zeros_like(initial) if layer == "noise" else initial.clone()
        old = weights[name].to(initial)
        if name in _PLACES:
            value[:, _kept(_PLACES[name], small, large, value.shape[1])] = old
        elif not layer:  # what does not grow
            value = old
        else:
            inputs, outputs = _LAYERS["stack" if layer.startswith("stack.") else layer]
            if layer.endswith("dense") and rank:
                inputs = (("aggregation_rank", 1),)
            rows = _kept(outputs, small, large, value.shape[0])
            if kind == "weight":
                columns = _kept(inputs, small, large, value.shape[1])
                old = torch.zeros_like(value[rows]).index_copy(1, columns, old)
            value[rows] = old
        grown[name] = value
    for index in range(len(small.dilations), len(large.dilations)):
        for kind in ("weight", "bias"):
            name = f"stack.{index}.layer.conv.{kind}"
            grown[name] = initials[name].clone()
            grown[name][: large.stack_maps] = 0  # values; the gates stay as they are drawn
    return grown


def lower_rank(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two matrices, inner first, whose product comes nearest to a weight in squares: (rank, in), (out, rank)."""
    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    roots = values[:rank].sqrt()
    return roots[:, None] * right[:rank], left[:, :rank] * roots


def _lower_ranks(weights: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    lower = dict(weights)
    for name in ("aggregate", "spread"):
        narrow, dense = lower_rank(weights[f"{name}.dense.weight"], rank)
        lower[f"{name}.narrow.weight"], lower[f"{name}.dense.weight"] = narrow, dense
    return lower


def _strongest_fine_maps(weights: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The same weights with only those maps of the last stage whose weights are largest, input times output."""
    look, merge, fill = (f"fine.{part}.conv.weight" for part in ("look", "merge", "fill"))
    heard = weights[look].float().square().sum((1, 2, 3)) + weights[merge].float().square().sum((1, 2, 3))
    kept = (heard * weights[fill].float().square().sum((0, 2, 3))).topk(count).indices.sort().values
    fewer = {**weights, fill: weights[fill][:, kept]}
    for name in (look, merge, f"{look[:-6]}bias", f"{merge[:-6]}bias"):
        fewer[name] = weights[name][kept]
    return fewer


def _kept(axis: _Axis, small: GeneratorConfig, large: GeneratorConfig, size: int) -> Tensor:
    """Where along an axis of the large generator the small one's values lie; all of it if it does not grow."""
    if not axis:
        return torch.arange(size)
    kept, start = [], 0
    for name, each in axis:
        kept.append(start + torch.arange(getattr(small, name) * each))
        start += getattr(large, name) * each
    return torch.cat(kept)
