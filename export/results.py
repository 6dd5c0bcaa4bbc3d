"""What `restorer evaluate` measured, in the words of a model's description."""

import json
from pathlib import Path
from typing import Any

from restorer.errors import ConfigError

BASELINES = {"MP3": "mp3", "MP3 / 0.95": "mp3_scaled"}


def read_metrics(path: Path, name: str) -> dict[str, Any]:
    """Means of the model `name` and of the MP3 at every coding, and on what they were measured.

    Parameters
    ----------
    path : the summary.json of `restorer evaluate`, with the model measured on one take or without noise.

    Raises
    ------
    ConfigError
        It is no such file, or the model was not measured so.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        labels = [model["label"] for model in summary["models"] if model["name"] == name]
        systems = {f"{label}, {kind}": "restored" for label in labels for kind in ("one take", "deterministic")}
        systems |= BASELINES
        by_coding: dict[str, dict[str, dict[str, float]]] = {}
        for line in summary["table"]:
            if line["system"] in systems:
                means = {metric: round(value["mean"], 3) for metric, value in line["metrics"].items()}
                by_coding.setdefault(line["coding"], {})[systems[line["system"]]] = means
        data = (
            f"{summary['split']} split of '{summary['data']}': {summary['songs']} songs, {summary['seconds']:g} s "
            "each, one take, mean"
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{path}' is no summary.json of restorer evaluate ({error!r})") from None
    measured = {coding: means for coding, means in by_coding.items() if "restored" in means}
    if not measured:
        raise ConfigError(
            f"'{path}' holds no model {name!r} with one take; it was made of {', '.join(labels) or 'others'}"
        )
    return {"data": data, "by_coding": measured}
