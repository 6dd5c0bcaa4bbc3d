"""The models that come with the package, by name."""

import importlib.resources
import os
from pathlib import Path

from restorer.errors import ModelError

DEFAULT = "compact"


def bundled_models() -> dict[str, Path]:
    """Name -> file of every bundled model, the default one first."""
    files = weights_folder().glob("*.onnx")
    return {file.stem: file for file in sorted(files, key=lambda file: (file.stem != DEFAULT, file.stem))}


def weights_folder() -> Path:
    """Where the bundled models and their SHA256SUMS are."""
    return Path(str(importlib.resources.files("restorer") / "weights"))


def is_bundled(file: Path) -> bool:
    """Whether an existing file is in the package's own folder, by whatever path it is named."""
    folder = weights_folder()
    return folder.is_dir() and file.parent.samefile(folder)


def find_model(model: str | os.PathLike[str] | None) -> Path:
    """The file that a model's name or path means; None is the default model.

    A file of the same name as a bundled model comes first, so a path always means what it says.

    Raises
    ------
    ModelError
        There is no such file and no such bundled model.
    """
    bundled = bundled_models()
    if model is None:
        if DEFAULT not in bundled:
            raise ModelError(f"the bundled model {DEFAULT}.onnx is missing; reinstall restorer or give a model")
        return bundled[DEFAULT]
    file = Path(model)
    if file.is_file():
        return file
    if str(model) in bundled:
        return bundled[str(model)]
    problem = "is no file" if file.exists() else "does not exist"
    names = ", ".join(repr(name) for name in bundled)
    raise ModelError(f"model {file}: {problem}; give the path of an ONNX model or the name of a bundled one ({names})")
