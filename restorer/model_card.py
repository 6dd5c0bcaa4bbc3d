"""A model as a folder to share: the ONNX file, a card that says what it is, and credits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from restorer.bundled import weights_folder
from restorer.errors import ModelError
from restorer.hub import CARD_NAME, CREDITS_NAME, MODEL_NAME
from restorer.model_file import ModelInfo
from restorer.whole_file import whole_file

_LIBRARY = "library_name: restorer"


def save_model(info: ModelInfo, source: Path, folder: Path) -> Path:
    """Write a model's file, card and credits into `folder`, and return the path of its ONNX file.

    A card and credits that came with the model go along; without them they are made from what the model
    says about itself.

    Parameters
    ----------
    info : what the model, as it was loaded, says.
    source : the ONNX file.

    Raises
    ------
    ModelError : the file has changed or gone since it was loaded, or the folder cannot be written.
    """
    from restorer.model_file import Model

    bundled = weights_folder()
    target = folder / MODEL_NAME
    card, credits = _cards_beside(source) or (make_card(info), make_credits(info))
    if source.parent == bundled:
        card = front_matter(info) + (bundled / "MODEL_CARD.md").read_text(encoding="utf-8")
        credits = (bundled / CREDITS_NAME).read_text(encoding="utf-8")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (target.exists() and target.samefile(source)):
            with whole_file(target) as partial:
                shutil.copyfile(source, partial)
                if Model(partial, "cpu", 1).info != info:
                    raise ModelError(f"model {source}: has changed since it was loaded; load it again")
        for name, text in ((CARD_NAME, card), (CREDITS_NAME, credits)):
            with whole_file(folder / name) as partial:
                partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot save the model to {folder}: {error.strerror or error}") from error
    return target


def front_matter(info: ModelInfo) -> str:
    """What a hub reads at the top of a card."""
    return "\n".join(
        [
            "---",
            f"license: {info.licence.lower() or 'other'}",
            _LIBRARY,
            "pipeline_tag: audio-to-audio",
            "tags: [audio-restoration, music, mp3, bandwidth-extension, onnx]",
            "---",
            "",
            "",
        ]
    )


def make_card(info: ModelInfo) -> str:
    """A card with what the model says about itself."""
    latency_ms = 1000 * info.latency_samples / info.sample_rate
    lines = [
        f"# {info.name} {info.version}",
        "",
        "Restores compressed music to full band with [restorer](https://pypi.org/project/restorer/):",
        "",
        "```python",
        "from restorer import Restorer",
        "",
        'restorer = Restorer.from_pretrained("FOLDER or OWNER/NAME")',
        "```",
        "",
        f"* Licence: {info.licence or 'not stated'}",
        f"* Trained at {', '.join(f'{kbps:g}' for kbps in info.trained_kbps)} kbit/s",
        f"* Training data: see [CREDITS]({CREDITS_NAME})",
        f"* {info.sample_rate} Hz, window {info.window_samples}, hop {info.hop_samples}, "
        f"latency {info.latency_samples} samples ({latency_ms:.0f} ms)",
        f"* Noise: {info.noise_size or 'no'} numbers per song",
    ]
    if info.metrics:
        lines += ["", "## Metrics", "", "```json", json.dumps(dict(info.metrics), indent=1), "```"]
    return front_matter(info) + "\n".join(lines) + "\n"


def make_credits(info: ModelInfo) -> str:
    """The training data that the model names."""
    sources = [f"* {source}" for source in info.training_data] or ["Not stated by the model."]
    return "\n".join([f"# What {info.name} {info.version} was trained on", "", *sources, ""])


def _cards_beside(file: Path) -> tuple[str, str] | None:
    """Card and credits in the model's folder; the README of something else is no card."""
    try:
        card = (file.parent / CARD_NAME).read_text(encoding="utf-8")
        credits = (file.parent / CREDITS_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return (card, credits) if card.startswith("---") and _LIBRARY in card.split("---")[1] else None
