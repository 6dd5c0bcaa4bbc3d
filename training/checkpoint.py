"""Checkpoints: safetensors with the whole config and bookkeeping as JSON in their metadata; never pickled."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from restorer.errors import ModelError
from restorer.training.config import Config, from_dict
from restorer.training.generator import Generator
from restorer.training.models import build_generator
from restorer.training.paper_generator import PaperGenerator
from restorer.whole_file import whole_file


def save(path: Path, tensors: dict[str, Tensor], config: Config, extra: dict[str, Any]) -> None:
    """Write tensors, config and bookkeeping to a temporary file, then rename it into place."""
    metadata = {"restorer": json.dumps({"config": config.to_dict(), **extra})}
    with whole_file(path) as partial:
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, partial, metadata)


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
            metadata = json.loads((file.metadata() or {})["restorer"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at '{path}'") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{path}' is not a readable safetensors checkpoint: {error}") from None
    except (KeyError, json.JSONDecodeError):
        raise ModelError(
            f"'{path}' is safetensors, but no restorer checkpoint: its metadata lacks 'restorer'"
        ) from None
    config = from_dict(Config, metadata.pop("config"), str(path))
    return tensors, config, metadata


_PICKLE_STARTS = (b"\x80", b"PK\x03\x04", b"(", b"c", b"}", b"]", b"\x8a")  # pickles, and the zip of torch.save


def refuse_pickle(path: Path) -> None:
    """Name a pickle for what it is; nothing here would load it anyway.

    Raises
    ------
    ModelError
        The file is a pickle by its first bytes. A safetensors file begins with the length of its header, which is
        small, and a brace.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return
    if head.startswith(_PICKLE_STARTS) and head[8:9] != b"{":
        raise ModelError(
            f"'{path}' is a pickle, which can run code and is never loaded; a checkpoint is safetensors, as "
            "restorer train writes it"
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


def load_generator(path: str | Path) -> tuple[Generator | PaperGenerator, Config, dict[str, Any]]:
    """Rebuild the generator of a checkpoint, averaged weights preferred, ready for evaluation."""
    tensors, config, extra = load(path)
    generator = build_generator(config.generator)
    weights = unprefixed("average", tensors) or unprefixed("generator", tensors)
    try:
        generator.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ModelError(f"'{path}' does not fit its own config: {str(error).splitlines()[0]}") from None
    return generator.eval(), config, extra
