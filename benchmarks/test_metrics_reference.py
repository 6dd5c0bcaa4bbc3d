"""Our PEAQ beside two independent implementations, on MP3s of real music.

Run: pytest benchmarks/test_metrics_reference.py -s

Reads ../shared/reference/peaq.csv and the music that it names; skipped where they are not. Its README says how the rows
were made. tests/test_metrics_peaq.py has the synthetic rows.
"""

import csv
import re
from pathlib import Path

import pytest
import soundfile
import soxr

from restorer.metrics import peaq
from restorer.training.mp3 import Coding, Mp3, encode_mp3

SHARED = Path(__file__).parents[2] / "shared"
REFERENCE = SHARED / "reference" / "peaq.csv"
NEAR = 0.05  # in ODG and in DI


def rows() -> list[dict[str, str]]:
    if not REFERENCE.is_file():
        return []
    with REFERENCE.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == "mp3"]


def grade(row: dict[str, str]) -> tuple[float, float]:
    """ODG and DI of the row's excerpt, its mono mean coded and aligned, at 48 kHz in 16 bits."""
    found = re.fullmatch(r"start=(\d+) len=(\d+) mono (\d+) kbit/s coded at (\d+) Hz", row["how"])
    assert found, row["how"]
    start, samples, kbps, rate_hz = map(int, found.groups())
    audio, rate = soundfile.read(SHARED / row["item"], start=start, frames=samples, dtype="float32", always_2d=True)
    assert rate == 44100
    original = audio.mean(axis=1)
    mp3 = Mp3.index(encode_mp3(original[None], Coding(kbps, False)))
    assert mp3.sample_rate == rate_hz
    pair = [soxr.resample(x, 44100, 48000, quality="VHQ") for x in (original, mp3.decode(0, len(original))[0])]
    result = peaq(*pair, 48000)
    return result.odg, result.di


@pytest.mark.skipif(not REFERENCE.is_file(), reason="no ../shared/reference")
def test_mp3_rows() -> None:
    """Within 0.05 of the nearer one, which at 16 kbit/s, where they part, may be either."""
    far = []
    print("\n| item | ODG | a | b | DI | a | b |\n|---|---|---|---|---|---|---|")
    for row in rows():
        odg, di = grade(row)
        name = f"{Path(row['item']).stem}, {row['how'].split('mono ')[1]}"
        cells = [f"{odg:.3f}", row["odg_a"], row["odg_b"], f"{di:.3f}", row["di_a"], row["di_b"]]
        print(f"| {name} | {' | '.join(cells)} |")
        for kind, value in (("odg", odg), ("di", di)):
            if min(abs(value - float(row[f"{kind}_{who}"])) for who in "ab") > NEAR:
                far.append(f"{name}: {kind} {value:.3f}")
    assert not far
