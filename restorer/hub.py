"""Models by name: a folder, a file, or owner/name[@revision] on a hub that speaks Hugging Face's HTTP.

The hub's own package fetches, caches and works offline (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN mean
what they mean there); this module chooses the file, refuses what could run code, and checks what arrived.
"""

from __future__ import annotations

import hashlib
import logging
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
from restorer.whole_file import whole_file

MODEL_NAME = "model.onnx"
CARD_NAME = "README.md"
CREDITS_NAME = "CREDITS.md"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class HubMissingError(ConfigError, ImportError):
    """huggingface_hub is not installed: an ImportError, and a RestorerError for whoever prints those."""


def find_model(name: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The ONNX file of a model: one that is here, or fetched from the hub and kept in its cache.

    Parameters
    ----------
    name : an ONNX file, a folder that holds one (model.onnx, if there are several), or owner/name on the hub,
        with @revision behind it if you like.
    revision : branch, tag or commit on the hub; None is the main branch.

    Raises
    ------
    ModelError : nothing has this name, it holds no ONNX file, only pickles or a damaged file, or the hub
        cannot be reached and the cache does not have it.
    ConfigError : a revision is given for a local or bundled model or is given twice, or huggingface_hub is not
        installed.
    """
    path, text = Path(name), os.fspath(name)
    if path.exists():
        if revision is not None:
            raise ConfigError(f"revision {revision!r} is for models on the hub and {text} is here; leave it out")
        if path.is_file():
            return path.parent / choose_file([path.name], text)
        return path / choose_file(sorted(entry.name for entry in path.iterdir()), text)
    text, at, named = text.partition("@")
    if at and revision is not None:
        raise ConfigError(f"model {text}@{named} names its revision and {revision!r} is given too; give it once")
    revision = named if at else revision
    if text in bundled_models():
        if revision is not None:
            raise ConfigError(f"revision {revision!r} is for models on the hub and {text} is bundled; leave it out")
        return bundled_models()[text]
    if not _HUB_NAME.fullmatch(text) or Path(text).suffix == ".onnx" or revision == "":
        raise ModelError(
            f"model {path}: there is no such file or folder, and models on the hub are named owner/name[@revision]"
        )
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
    """All ONNX files in the hub's cache, each with every owner/name@revision that loads it.

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
            found += [
                (f"{repository.repo_id}@{ref}", Path(file.file_path))
                for ref in revision.refs or [revision.commit_hash]
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

    A cache without links, as on Windows, keeps it under its own name; there the checksum that the hub gave with the
    download is in a file beside it. Where that is missing, a warning says that nothing was checked.

    Raises
    ------
    ModelError : it has changed since it was made.
    """
    blob = file.resolve()
    expected = blob.name
    if not _is_sum(expected):
        beside = _sum_file(file)
        expected = beside.read_text("ascii", "replace").strip() if beside.is_file() else ""
    if not _is_sum(expected):
        _log.warning("model %s: not checked for damage, the cache holds no checksum of it", file)
        return
    data = blob.read_bytes()
    if _SHA256.fullmatch(expected):
        found = hashlib.sha256(data).hexdigest()
    else:  # small files have the checksum of git
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ModelError(f"model {file}: is damaged, its checksum is {found[:12]}...; delete {blob} and load it again")


def _is_sum(text: str) -> bool:
    return bool(_SHA256.fullmatch(text) or _COMMIT.fullmatch(text))


def _sum_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.sum")


def _keep_sum(hub: types.ModuleType, file: Path, name: str, chosen: str) -> None:
    """Where the cache has no links, ask the hub for the file's checksum, once, and put it beside the file."""
    if _is_sum(file.resolve().name) or _sum_file(file).is_file():
        return
    commit = file.parents[chosen.count("/")].name
    told = hub.get_hf_file_metadata(hub.hf_hub_url(name, chosen, revision=commit)).etag or ""
    if _is_sum(told):
        with suppress(OSError), whole_file(_sum_file(file)) as partial:  # without it, `check_sum` warns
            partial.write_text(told, encoding="ascii")


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
        file = Path(hub.hf_hub_download(name, chosen, **get))
        _keep_sum(hub, file, name, chosen)
        return file
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
