"""`restorer metrics`: judge a file against its original."""

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from restorer.audio_in import read_audio
from restorer.errors import RestorerError
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (null for no value or an infinite one).")
def metrics(reference: Path, test: Path, as_json: bool) -> None:
    """Measure how close TEST is to its original REFERENCE.

    Both are resampled to 44.1 kHz and aligned in time first. When only one of them is mono, the other is
    mixed down. ViSQOL is included when it is installed: pip install 'restorer[visqol]'. What cannot be judged, as
    PEAQ cannot what is silent or lasts less than 0.6 s and ViSQOL what lasts less than 1 s, is n/a with the reason.
    """
    one, other = (read_audio(path, SAMPLE_RATE_HZ)[0] for path in (reference, test))
    mixed = one.shape[0] != other.shape[0]
    if mixed:
        one, other = (np.mean(x, axis=0, keepdims=True) for x in (one, other))
        click.echo("note: different numbers of channels, so both are compared in mono", err=True)
    lag, one, other = align(one, other, SAMPLE_RATE_HZ)
    which = METRICS if importlib.util.find_spec("visqol") else DEFAULT_METRICS
    values, reasons = measure_each(one, other, which)

    channels, samples = one.shape
    if as_json:
        record = {
            "reference": str(reference),
            "test": str(test),
            "sample_rate": SAMPLE_RATE_HZ,
            "channels": channels,
            "samples": samples,
            "lag_samples": lag,
            **{name: values[name] if math.isfinite(values.get(name, math.nan)) else None for name in which},
            "not_measured": reasons,
        }
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(f"{channels} channel{'s' * (channels > 1)}, {samples / SAMPLE_RATE_HZ:.2f} s at {SAMPLE_RATE_HZ} Hz")
    click.echo(f"lag    {lag:9d} samples ({1000 * lag / SAMPLE_RATE_HZ:.2f} ms; positive: TEST is late), removed")
    for name in which:
        label, unit, meaning = _LABELS[name]
        if name in values:
            click.echo(f"{label:6s} {values[name]:9.3f} {unit:2s} {meaning}")
        else:
            click.echo(f"{label:6s} {'n/a':>9s}    {reasons[name]}")


def measure_each(
    reference: np.ndarray, test: np.ndarray, which: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """What `measure` gives of an aligned pair, and why it gives no value of the others: short or silent signals."""
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    peaq = [name for name in which if name in ("odg", "di")]  # which run together
    for names in (peaq, *([name] for name in which if name not in peaq)):
        try:
            values |= measure(reference, test, SAMPLE_RATE_HZ, names)
        except RestorerError as error:
            reasons |= dict.fromkeys(names, str(error))
    return values, reasons
