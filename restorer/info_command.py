"""`restorer info`: what a model file says about itself, and where its latency comes from."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from restorer.benchmark_graph import count_parameters
from restorer.bundled import find_model
from restorer.model_file import Model, ModelInfo


@click.command("info")
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the model's config.")
def info(model: Path | None, as_json: bool) -> None:
    """Print what the file MODEL says about itself; without MODEL, the bundled model.

    Name, licence, size, what it was trained on, its frames, noise and states, and its latency by layer.
    """
    description = describe_model(model)
    click.echo(json.dumps(description, indent=2) if as_json else format_description(description))


def describe_model(path: Path | None) -> dict[str, Any]:
    """Everything a model file says, with what follows from it: size, states' memory, latency by layer.

    Raises
    ------
    ModelError
        The file is missing, damaged, or not made by this project.
    """
    model = Model(path, "cpu", 1)
    file = find_model(path)
    said = {field.name: getattr(model.info, field.name) for field in fields(model.info)}
    size = sum(state.nbytes for state in model.zero_states(1))
    return {
        "file": str(file),
        "size_bytes": file.stat().st_size,
        "parameters": count_parameters(file),
        **said,
        "state_shapes": [state.shape for state in model.states],
        "state_bytes_per_channel": size,
        "frames_per_call": model.info.frames_per_call,
        "latency": split_latency(model.info),
    }


def split_latency(info: ModelInfo) -> dict[str, dict[str, float]]:
    """A stream's latency as ``{layer: {"samples", "ms"}}`` for window, block, lookahead and waiting, and their "total".

    Window: overlap-add completes a sample when the last window that covers it is there. Block: windows end
    only every hop, and the latency is that of the sample that waits longest. Lookahead: hops of future that
    the generator sees. Waiting: frames wait for each other, unless ``frames_per_call=1``.
    """
    layers = {
        "window": info.window_samples - info.hop_samples,
        "block": info.hop_samples - 1,
        "lookahead": info.lookahead_frames * info.hop_samples,
        "waiting": info.latency_of() - info.latency_samples,
    }
    layers["total"] = sum(layers.values())
    return {name: {"samples": n, "ms": round(1000 * n / info.sample_rate, 2)} for name, n in layers.items()}


def format_description(description: dict[str, Any]) -> str:
    """A description as lines for people."""
    d = description
    rate_hz = d["sample_rate"]
    latency = d["latency"]
    reasons = {
        "window": f"a sample waits for the last of the windows of {d['window_samples']} samples over it",
        "block": f"and windows end only every hop of {d['hop_samples']} samples",
        "lookahead": f"the generator sees {d['lookahead_frames']} hops ahead",
        "waiting": _waiting(d["frames_per_call"]),
    }
    rows = [
        ("model", f"{d['name']} {d['version']}"),
        ("file", f"{d['file']}, {d['size_bytes'] / 1e6:.1f} MB"),
        ("licence", d["licence"] or "not stated"),
        ("parameters", f"{d['parameters'] / 1e6:.2f} million"),
        ("trained at", f"{', '.join(f'{kbps:g}' for kbps in d['trained_kbps'])} kbit/s"),
        ("training data", "; ".join(str(source) for source in d["training_data"]) or "not stated"),
        ("sample rate", f"{rate_hz} Hz"),
        ("hop", _samples(d["hop_samples"], rate_hz)),
        ("window", _samples(d["window_samples"], rate_hz)),
        ("noise", f"{d['noise_size']} numbers per song" if d["noise_size"] else "none: one restoration only"),
        ("brightness", _brightness(d)),
        ("states", f"{len(d['state_shapes'])}, {d['state_bytes_per_channel'] / 1e3:.0f} kB per channel"),
        ("warm-up", f"{d['warmup_frames']} frames of silence"),
        ("memory", f"{d['memory_frames']} frames, {d['memory_frames'] * d['hop_samples'] / rate_hz:.1f} s"),
        *_measured(d["metrics"]),
        ("latency", _samples(latency["total"]["samples"], rate_hz)),
        *[(f"  {name}", f"{_samples(latency[name]['samples'], rate_hz)}: {why}") for name, why in reasons.items()],
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _samples(count: int, rate_hz: int) -> str:
    return f"{count} samples ({1000 * count / rate_hz:.1f} ms)"


def _waiting(frames_per_call: int) -> str:
    if frames_per_call == 1:
        return "no frame waits for another"
    return f"{frames_per_call} frames wait for each other and share a call; frames_per_call=1 spares it"


def _measured(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """What `restorer export --results` wrote, a row for each coding; anything else as JSON."""
    try:
        codings = [
            (f"  {name}", _gains(found["mp3"], found["restored"])) for name, found in metrics["by_coding"].items()
        ]
        return [("measured on", str(metrics["data"])), *codings]
    except (AttributeError, KeyError, TypeError, ValueError):
        return [(f"metric {name}", json.dumps(value)) for name, value in metrics.items()]


def _gains(mp3: dict[str, float], restored: dict[str, float]) -> str:
    """Metrics of the MP3 -> of what was restored, in one line."""
    names = {"visqol": "ViSQOL", "si_snr": "SI-SNR"}
    return ", ".join(
        f"{names.get(name, name.upper())} {mp3[name]:.2f} -> {value:.2f}" for name, value in restored.items()
    )


def _brightness(d: dict[str, Any]) -> str:
    found = d.get("brightness")
    return f"{found['db_per_unit']:.2f} dB per standard deviation" if found else "cannot be chosen"
