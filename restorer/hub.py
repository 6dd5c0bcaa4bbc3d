"""Models by name: a folder, a file, or owner/name on a hub that speaks Hugging Face's HTTP.

The hub's own package fetches, caches and works offline (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN mean
what they mean there); this module chooses the file, refuses what could run code, and checks what arrived.
"""

from __future__ import annotations

import hashlib
import os
import re
import types
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from restorer import __version__
from restorer.bundled import bundled_models
from restorer.errors import ConfigError, ModelError

MODEL_NAME = "model.onnx"
CARD_NAME = "README.md"
CREDITS_NAME = "CREDITS.md"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubMissingError(ConfigError, ImportError):
    """huggingface_hub is not installed: an ImportError, and a RestorerError for whoever prints those."""


def find_model(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The ONNX file of a model: one that is here, or fetched from the hub and kept in its cache.

    Parameters
    ----------
    name : an ONNX file, a folder that holds one (model.onnx, if there are several), or owner/name on the hub.
    revision : branch, tag or commit on the hub; None is the main branch.

    Raises
    ------
    ModelError : nothing has this name, it holds no ONNX file, only pickles or a damaged file, or the hub
        cannot be reached and the cache does not have it.
    ConfigError : `revision` is given for a local model, or huggingface_hub is not installed.
    """
    path, text = Path(name), os.fspath(name)
    if path.exists():
        if revision is not None:
            raise ConfigError(f"revision {revision!r} is for models on the hub and {text} is here; leave it out")
        if path.is_file():
            return path.parent / choose_file([path.name], text)
        return path / choose_file(sorted(entry.name for entry in path.iterdir()), text)
    if not _HUB_NAME.fullmatch(text) or path.suffix == ".onnx":
        if text in bundled_models():
            return bundled_models()[text]
        raise ModelError(f"model {text}: there is no such file or folder, and models on the hub are named owner/name")
    file = _fetch(text, revision)
    check_sum(file)
    return file


def choose_file(names: Iterable[str], where: str) -> str:
    """The model among the files of a folder or repository; only ONNX will do, and pickles are refused by name.

    Raises
    ------
    ModelError : there is none, or several of which none is called model.onnx.
    """
    names = list(names)
    found = [name for name in names if name.endswith(".onnx")]
    if len(found) == 1 or MODEL_NAME in found:
        return MODEL_NAME if MODEL_NAME in found else found[0]
    if found:
        raise ModelError(f"model {where}: holds {', '.join(found)}; name the one to load {MODEL_NAME}")
    pickles = [name for name in names if name.lower().endswith(PICKLES)]
    tensors = [name for name in names if name.endswith(".safetensors")]
    if tensors:
        raise ModelError(
            f"model {where}: has a checkpoint ({tensors[0]}) and no ONNX model; "
            f"make one: restorer export {tensors[0]} {MODEL_NAME}"
        )
    if pickles:
        raise ModelError(
            f"model {where}: holds pickles only ({', '.join(pickles)}), which can run code and are never loaded; "
            "ask for an ONNX model"
        )
    raise ModelError(f"model {where}: holds no ONNX model; one is made by restorer export or save_pretrained")


def cached_models() -> list[tuple[str, Path]]:
    """All ONNX files in the hub's cache, each with the owner/name@revision that loads it.

    Raises
    ------
    ConfigError : huggingface_hub is not installed.
    """
    hub = import_hub()
    try:
        repositories = hub.scan_cache_dir().repos
    except hub.errors.CacheNotFound:
        return []
    found = []
    for repository in repositories:
        for revision in repository.revisions:
            refs = ", ".join(sorted(revision.refs)) or revision.commit_hash
            found += [
                (f"{repository.repo_id}@{refs}", Path(file.file_path))
                for file in revision.files
                if file.file_name.endswith(".onnx") and repository.repo_type == "model"
            ]
    return sorted(found)


def import_hub() -> types.ModuleType:
    """huggingface_hub, or the error that names the command which installs it."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise HubMissingError(
            'models from the hub need huggingface_hub; run: pip install "restorer[hub]"', name="huggingface_hub"
        ) from error
    return huggingface_hub


def check_sum(file: Path) -> None:
    """Compare a file of the hub's cache with its checksum, which is the name under which the cache keeps it.

    Raises
    ------
    ModelError : it has changed since it was made.
    """
    blob = file.resolve()
    data = blob.read_bytes()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        found = hashlib.sha256(data).hexdigest()
    elif _COMMIT.fullmatch(blob.name):  # small files are kept as git keeps them
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    else:
        return  # a cache without links, as on Windows: the hub's package has compared the sizes
    if found != blob.name:
        raise ModelError(f"model {file}: is damaged, its checksum is {found[:12]}...; delete {blob} and load it again")


def _fetch(name: str, revision: str | None) -> Path:
    """The model's file in the cache; asked of the hub first, unless a commit says that nothing can be newer."""
    hub = import_hub()
    errors = hub.errors
    if revision is not None and _COMMIT.fullmatch(revision):
        with suppress(ModelError):
            return _find_cached(hub, name, revision)
    shown = name if revision is None else f"{name}@{revision}"
    try:
        api = hub.HfApi(library_name="restorer", library_version=__version__)
        names = [entry.rfilename for entry in api.model_info(name, revision=revision).siblings or []]
        chosen = choose_file(names, shown)
        get: dict[str, Any] = {"revision": revision, "library_name": "restorer", "library_version": __version__}
        for card in {CARD_NAME, CREDITS_NAME} & set(names):
            hub.hf_hub_download(name, card, **get)
        return Path(hub.hf_hub_download(name, chosen, **get))
    except ModelError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(f"model {shown}: its owner has to let you in; ask on its page, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"model {shown}: the hub has none of this name, or it is private and HF_TOKEN does not open it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"model {shown}: has no branch, tag or commit {revision!r}") from error
    except errors.HFValidationError as error:
        raise ModelError(f"model {shown}: {_one_line(error)}") from error
    except Exception as error:  # offline, unreachable, or not answering as it should, by any HTTP library
        return _find_cached(hub, name, revision, error)


def _find_cached(hub: types.ModuleType, name: str, revision: str | None, reason: Exception | None = None) -> Path:
    """The file that an earlier download left in the cache; `reason` tells why the hub was not asked."""
    shown = name if revision is None else f"{name}@{revision}"
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception as error:
        why = _one_line(reason).rstrip(".") if reason else "it was never fetched"
        raise ModelError(
            f"model {shown}: is not in the cache, and the hub cannot be reached ({why}); load it once with a network"
        ) from error
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return folder / choose_file(names, f"{shown} in the cache")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]}..."
