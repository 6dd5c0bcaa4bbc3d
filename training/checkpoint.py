"""Checkpoints: safetensors with the whole config and bookkeeping as JSON in their metadata; never pickled."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from restorer.errors import ModelError, RestorerError
from restorer.model_checks import shown
from restorer.training.config import Config, from_dict
from restorer.training.generator import Generator
from restorer.training.models import build_generator
from restorer.training.paper_generator import PaperGenerator
from restorer.whole_file import whole_file


def save(path: Path, tensors: dict[str, Tensor], config: Config, extra: dict[str, Any]) -> None:
    """Write tensors, config and bookkeeping to a temporary file, then rename it into place.

    Raises
    ------
    RestorerError
        The disk is full or refuses otherwise; what was there before is still there.
    """
    metadata = {"restorer": json.dumps({"config": config.to_dict(), **extra})}
    try:
        with whole_file(path) as partial:
            save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, partial, metadata)
    except (OSError, SafetensorError) as error:
        raise RestorerError(f"cannot write '{path}': {error}; the checkpoint before it, if any, is whole") from error


def load(path: str | Path) -> tuple[dict[str, Tensor], Config, dict[str, Any]]:
    """Read what `save` wrote.

    Raises
    ------
    ModelError
        The file is missing, not safetensors, or not a checkpoint of this project.
    """
    refuse_pickle(Path(path))
    try:
        with safe_open(str(path), "pt") as file:
            metadata = dict(json.loads((file.metadata() or {})["restorer"]))
            said = metadata.pop("config")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at '{path}'") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{path}' is not a readable safetensors checkpoint: {error}") from None
    except (KeyError, RecursionError, TypeError, ValueError):
        raise ModelError(
            f"'{path}' is safetensors, but no restorer checkpoint: its metadata lacks 'restorer'"
        ) from None
    config = from_dict(Config, said, str(path))
    return tensors, config, metadata


_PICKLE_STARTS = (b"\x80", b"\x8a", b"PK\x03\x04")  # of protocols from 2 on, and of torch.save
_TEXT_PICKLE_STARTS = (b"(", b"c", b"}", b"]")  # of protocols 0 and 1, which end with a full stop


def refuse_pickle(path: Path) -> None:
    """Name a pickle for what it is; nothing here would load it anyway.

    Raises
    ------
    ModelError
        The file is a pickle by its first and last bytes. A safetensors file begins with the length of its header,
        8 bytes, and a brace.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
            file.seek(-min(1, len(head)), os.SEEK_END)
            last = file.read(1)
    except OSError:
        return
    text = head.startswith(_TEXT_PICKLE_STARTS) and last == b"."
    if (text or head.startswith(_PICKLE_STARTS)) and head[8:9] != b"{":
        raise ModelError(
            f"'{path}' is not a readable safetensors checkpoint: it is a pickle, which can run code and is never "
            "loaded; restorer train writes safetensors"
        )


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(prefix + ".")}


def optimiser_tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten Adam's moments to named tensors."""
    flat = {}
    for name, parameter in module.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            flat[f"{name}/{key}"] = value
    return flat


def restore_optimiser(module: nn.Module, optimiser: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` flattened."""
    for name, parameter in module.named_parameters():
        state = {key.rsplit("/", 1)[1]: value.clone() for key, value in flat.items() if key.rsplit("/", 1)[0] == name}
        if state:
            optimiser.state[parameter] = state


def _check_fit(config: Config, weights: dict[str, Tensor], path: str | Path) -> None:
    """Compare shapes before anything as large as a config says is allocated."""
    try:
        with torch.device("meta"):
            built = build_generator(config.generator)
    except Exception as error:  # torch has many kinds for sizes that make no layer
        raise ModelError(f"'{path}' has a config that describes no generator: {shown(str(error))}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    for name in sorted({*wanted, *weights}):
        found = tuple(weights[name].shape) if name in weights else None
        if found != wanted.get(name):
            raise ModelError(
                f"'{path}' does not fit its own config: {shown(name)} has shape {found} and must have "
                f"{wanted.get(name)}"
            )
        if not torch.isfinite(weights[name]).all():
            raise ModelError(f"'{path}': the weights {shown(name)} hold NaN or infinity; take an earlier checkpoint")


def load_generator(path: str | Path) -> tuple[Generator | PaperGenerator, Config, dict[str, Any]]:
    """Rebuild the generator of a checkpoint, averaged weights preferred, ready for evaluation.

    Raises
    ------
    ModelError
        As `load`, or config and weights do not belong together, or a weight is NaN or infinite.
    """
    tensors, config, extra = load(path)
    weights = unprefixed("average", tensors) or unprefixed("generator", tensors)
    _check_fit(config, weights, path)
    generator = build_generator(config.generator)
    try:
        generator.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"'{path}' does not fit its own config: {str(error).splitlines()[0]}") from None
    return generator.eval(), config, extra
