"""Whether a file needs restoring: how it was coded, and where its spectrum is cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorer.audio_in import AudioReader
from restorer.codec_facts import CodecFacts, read_codec_facts
from restorer.cutoff import Cutoff, LongTermSpectrum, find_cutoff
from restorer.errors import AudioFileError

# An edge below this is a codec's; LAME cuts at 16.5 kHz at 128 kbit/s joint stereo, 18.6 at 192, 20 at 320.
CODEC_EDGE_HZ = 17_000.0
LOW_KBPS = 64.5  # up to here every lossy file is worth restoring, whatever its spectrum looks like
# kbit/s and channel from which a codec is transparent on nearly all music.
_TRANSPARENT_KBPS = {"MP3": 80.0, "Vorbis": 56.0, "Opus": 48.0}
_TRANSPARENT_VBR = 4  # LAME's -V 0 to -V 4, whatever bitrate simple music needs with them
_EXCERPTS, _EXCERPT_SECONDS = 24, 1.0
_FULL_SCALE = 1.0 - 2.0**-15


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    `cutoff_hz` is the -6 dB point of a codec's edge, or None; `bandwidth_hz` is where audible content ends.
    `clipped_samples`, of all channels, is None where the file was not decoded as a whole. `verdict` is
    "restore" or "leave" and `reason` says why, in a few words.
    """

    path: str
    codec: str
    lossy: bool
    kbps: float
    sample_rate_hz: int
    channels: int
    seconds: float
    stereo_mode: str
    encoder: str
    cutoff_hz: float | None
    bandwidth_hz: float
    clipped_samples: int | None
    verdict: str
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def transparent(self) -> bool:
        """Whether restoring has nothing to give back."""
        return self.verdict == "leave"

    def as_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)


def inspect_file(path: str | os.PathLike[str], count_clipped: bool = True) -> Inspection:
    """Inspect an audio file.

    The cut-off is measured on 24 excerpts of one second, the loud half of their frames. Without
    `count_clipped` nothing else is decoded: that takes a fraction of a second for any length.

    Raises
    ------
    AudioFileError : the file cannot be read.
    """
    path = Path(path)
    with AudioReader(path, None) as reader:
        spectrum, equal = LongTermSpectrum(reader.source_rate), reader.channels > 1
        for excerpt in reader.excerpts(_EXCERPTS, round(_EXCERPT_SECONDS * reader.source_rate)):
            spectrum.add(excerpt)
            equal = equal and bool((np.abs(excerpt - excerpt[0]) < 1e-3).all())
        if not spectrum.frames:
            raise AudioFileError(f"cannot read {path}: no audio in it can be decoded")
        rate, channels, seconds = reader.source_rate, reader.channels, reader.source_samples / reader.source_rate
        container, warnings = reader.container, list(reader.warnings)
    cutoff = find_cutoff(spectrum.loud_power(), rate)
    facts = read_codec_facts(path, container, channels, seconds)
    clipped = None
    if count_clipped:
        with AudioReader(path, None) as reader:
            clipped = sum(_count_clipped(block) for block in reader.blocks(1 << 16))
            seconds, warnings = reader.source_samples / rate, list(reader.warnings)
    verdict, reason = judge(facts, cutoff, rate, 1 if equal else channels)
    return Inspection(
        path=str(path),
        codec=facts.codec,
        lossy=facts.lossy,
        kbps=round(facts.kbps, 1),
        sample_rate_hz=rate,
        channels=channels,
        seconds=round(seconds, 3),
        stereo_mode=f"{facts.stereo_mode}, channels equal" if equal else facts.stereo_mode,
        encoder=facts.encoder,
        cutoff_hz=None if cutoff.edge_hz is None else round(cutoff.edge_hz, 1),
        bandwidth_hz=round(cutoff.bandwidth_hz, 1),
        clipped_samples=clipped,
        verdict=verdict,
        reason=reason,
        warnings=tuple(warnings),
    )


def judge(facts: CodecFacts, cutoff: Cutoff, sample_rate: int, channels: int) -> tuple[str, str]:
    """Verdict ("restore" or "leave") and reason; lossless files are judged by their cut-off alone.

    `channels` counts those that differ. `sample_rate` in Hz.
    """
    edge = cutoff.edge_hz
    if edge is not None and edge < CODEC_EDGE_HZ:
        return "restore", f"cut at {edge / 1000:.1f} kHz: restore"
    if sample_rate / 2 < CODEC_EDGE_HZ:
        return "restore", f"sample rate of {sample_rate} Hz, ends at {sample_rate / 2000:.1f} kHz: restore"
    if facts.lossy:
        fine = _TRANSPARENT_KBPS[facts.codec] * channels
        good_vbr = facts.vbr_quality is not None and facts.vbr_quality <= _TRANSPARENT_VBR
        if facts.kbps <= LOW_KBPS or (facts.kbps < fine and not good_vbr):
            return "restore", f"only {facts.kbps:.0f} kbit/s: restore"
    if not cutoff.bandwidth_hz:
        return "leave", "silent: leave"
    if edge is None and cutoff.bandwidth_hz < CODEC_EDGE_HZ:
        return "leave", f"dark, fades out softly by {cutoff.bandwidth_hz / 1000:.1f} kHz, no codec's edge: leave"
    return "leave", "transparent: leave"


def _count_clipped(block: NDArray[np.float32]) -> int:
    return int(np.count_nonzero(np.abs(block) >= _FULL_SCALE))


def inspect_all(paths: list[Path], count_clipped: bool = True) -> Iterator[tuple[Path, Inspection | Exception]]:
    """Inspect file after file; a bad one yields its AudioFileError and the rest goes on."""
    for path in paths:
        try:
            yield path, inspect_file(path, count_clipped)
        except AudioFileError as error:
            yield path, error
