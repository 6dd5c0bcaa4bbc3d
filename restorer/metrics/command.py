"""`restorer metrics`: judge a file against its original."""

import importlib.util
import json
import math
from pathlib import Path

import click
import numpy as np

from restorer.audio_in import read_audio
from restorer.metrics.alignment import align
from restorer.metrics.measure import DEFAULT_METRICS, METRICS, measure

SAMPLE_RATE_HZ = 44100
_LABELS = {
    "odg": ("ODG", "", "PEAQ basic: 0 imperceptible ... -4 very annoying"),
    "di": ("DI", "", "PEAQ basic: higher is better"),
    "lsd": ("LSD", "dB", "log-spectral distance: lower is better"),
    "mse": ("MSE", "", "of magnitude spectra: lower is better"),
    "snr": ("SNR", "dB", "higher is better"),
    "si_snr": ("SI-SNR", "dB", "whatever the gain: higher is better"),
    "visqol": ("ViSQOL", "", "1 bad ... 4.73 equal"),
}


@click.command()
@click.argument("reference", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("test", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (null for an infinite value).")
def metrics(reference: Path, test: Path, as_json: bool) -> None:
    """Measure how close TEST is to its original REFERENCE.

    Both are resampled to 44.1 kHz and aligned in time first. When only one of them is mono, the other is
    mixed down. ViSQOL is included when it is installed: pip install 'restorer[visqol]'.
    """
    one, other = (read_audio(path, SAMPLE_RATE_HZ)[0] for path in (reference, test))
    mixed = one.shape[0] != other.shape[0]
    if mixed:
        one, other = (np.mean(x, axis=0, keepdims=True) for x in (one, other))
        click.echo("note: different numbers of channels, so both are compared in mono", err=True)
    lag, one, other = align(one, other, SAMPLE_RATE_HZ)
    which = METRICS if importlib.util.find_spec("visqol") else DEFAULT_METRICS
    values = measure(one, other, SAMPLE_RATE_HZ, which)

    channels, samples = one.shape
    if as_json:
        record = {
            "reference": str(reference),
            "test": str(test),
            "sample_rate": SAMPLE_RATE_HZ,
            "channels": channels,
            "samples": samples,
            "lag_samples": lag,
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
        }
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(f"{channels} channel{'s' * (channels > 1)}, {samples / SAMPLE_RATE_HZ:.2f} s at {SAMPLE_RATE_HZ} Hz")
    click.echo(f"lag    {lag:9d} samples ({1000 * lag / SAMPLE_RATE_HZ:.2f} ms; positive: TEST is late), removed")
    for name, value in values.items():
        label, unit, meaning = _LABELS[name]
        click.echo(f"{label:6s} {value:9.3f} {unit:2s} {meaning}")
