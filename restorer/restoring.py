"""One input to one output: restored if it needs it, else carried over unprocessed; and through pipes."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from restorer.audio_in import AudioReader
from restorer.audio_out import AudioWriter, check_target, choose_format, place, temporary_path, write_error
from restorer.inspection import Inspection, inspect_file
from restorer.pipe import NAME, WavStreamReader, WavStreamWriter
from restorer.progress import Progress
from restorer.quiet import gain_for_quiet
from restorer.restore_report import RestoreReport
from restorer.restorer import Restorer

_BLOCK_SAMPLES = 1 << 16
_PIPE_BLOCK_SAMPLES = 1 << 13  # small, so that little waits in a pipe from a live source
_COPIED = ("PCM_16", "PCM_24", "MPEG_LAYER_III", "VORBIS", "OPUS")
_WAV_NAMES = {"WAVEX": "WAV"}
_OGG_NAMES = {"VORBIS": "Ogg Vorbis", "OPUS": "Opus"}
_OPUS_RATE_HZ = 48_000


def restore_or_copy(
    restorer: Restorer,
    source: Path,
    target: Path,
    seed: int = 0,
    mix: float = 1.0,
    overwrite: bool = False,
    subtype: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    brightness: str | float | None = None,
) -> tuple[RestoreReport, Inspection | None]:
    """Restore a file, unless inspection finds it transparent and `force` is not set.

    Returns
    -------
    The report, and the inspection if the file was carried over and not restored.

    Raises
    ------
    AudioFileError : a file cannot be read or written.
    """
    if not force and (found := inspect_file(source, count_clipped=False)).transparent:
        return copy_unprocessed(source, target, restorer.sample_rate, overwrite, subtype, progress), found
    chosen = choose_format(target, subtype)[1]
    report = restorer.restore_file(
        source,
        target,
        seed=seed,
        mix=mix,
        overwrite=overwrite,
        subtype=chosen,
        progress=progress,
        brightness=brightness,
        turn_up=True,
    )
    return report, None


def copy_unprocessed(
    source: Path,
    target: Path,
    sample_rate: int,
    overwrite: bool = False,
    subtype: str | None = None,
    progress: Progress | None = None,
) -> RestoreReport:
    """Carry a file over as it sounds: byte for byte where format and rate are those wanted, else decoded.

    Parameters and errors are those of `Restorer.restore_file`; `sample_rate` in Hz is what the output gets. The
    report's `carried` says which of the two it was.
    """
    check_target(source, target, overwrite, subtype)
    started = time.perf_counter()
    clipped, warnings = 0, []
    with AudioReader(source, None) as reader:
        wanted = _is_wanted(reader, target, sample_rate, subtype) and _decodes_whole(reader)
    with AudioReader(source, sample_rate) as reader:
        if wanted:
            carried = "copied unprocessed"
            _copy_bytes(source, target, overwrite)
        else:
            carried = _conversion(*choose_format(target, subtype), sample_rate)
            with AudioWriter(
                target, reader.channels, sample_rate, subtype=subtype, overwrite=overwrite, tags_from=source
            ) as writer:
                for block in reader.blocks(_BLOCK_SAMPLES):
                    writer.write(block)
                    if progress:
                        progress(min(writer.samples, reader.samples), max(reader.samples, writer.samples))
            clipped, warnings = writer.clipped_samples, writer.warnings
        samples, warnings = reader.samples, [*reader.warnings, *warnings]
    return RestoreReport.since(started, target, samples, sample_rate, clipped, warnings, carried)


def restore_pipe(
    restorer: Restorer,
    source: Path | BinaryIO,
    target: Path | BinaryIO,
    seed: int = 0,
    mix: float = 1.0,
    overwrite: bool = False,
    subtype: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    brightness: str | float | None = None,
) -> tuple[RestoreReport, Inspection | None]:
    """Restore from a WAV stream, to one, or both, in bounded memory; what comes in goes out block by block.

    A stream cannot be inspected before it is restored, so it always is, as quiet as it comes; a file that is
    transparent passes as it sounds unless `force` is set, and a quiet one is turned up meanwhile.

    Returns
    -------
    The report, and the inspection if the file passed and was not restored.

    Raises
    ------
    AudioFileError : the input is no audio, or the target cannot be written.
    """
    started = time.perf_counter()
    found, carried, gain = None, "", np.float32(1)
    with ExitStack() as stack:
        reader: AudioReader | WavStreamReader
        if isinstance(source, Path):
            if not force and (inspection := inspect_file(source, count_clipped=False)).transparent:
                found, mix, carried = inspection, 0.0, _conversion("WAV", "", restorer.sample_rate)
            else:
                gain = gain_for_quiet(source)
            reader = stack.enter_context(AudioReader(source, restorer.sample_rate))
            stream = restorer.stream(reader.channels, restorer.sample_rate, seed, mix, brightness)
        else:
            reader = WavStreamReader(source)
            stream = restorer.stream(reader.channels, reader.sample_rate, seed, mix, brightness)
        writer: AudioWriter | WavStreamWriter
        if isinstance(target, Path):
            check_target(NAME, target, overwrite, subtype, reader.channels)
            writer = stack.enter_context(
                AudioWriter(target, reader.channels, restorer.sample_rate, subtype=subtype, overwrite=overwrite)
            )
        else:
            writer = WavStreamWriter(target, reader.channels, restorer.sample_rate, subtype)
        read = written = 0
        for block in reader.blocks(_PIPE_BLOCK_SAMPLES):
            read += block.shape[1]
            restored = stream.process(block * gain) / gain
            writer.write(restored)
            written += restored.shape[1]
            if progress and reader.samples:
                progress(min(read, reader.samples), reader.samples)
        restored = stream.flush() / gain
        writer.write(restored)
        written += restored.shape[1]
    warnings = list(reader.warnings)
    if stream.replaced_samples:
        warnings.append(f"{NAME}: {stream.replaced_samples} impossible samples were replaced by silence")
    shown = target if isinstance(target, Path) else Path("-")
    report = RestoreReport.since(
        started, shown, written, restorer.sample_rate, writer.clipped_samples, warnings, carried
    )
    return report, found


def _conversion(container: str, chosen: str, sample_rate: int) -> str:
    """What becomes of a file that is decoded and written again, by libsndfile's names of the format."""
    rate = _OPUS_RATE_HZ if chosen == "OPUS" else sample_rate
    return f"converted to {rate / 1000:g} kHz {_OGG_NAMES.get(chosen, container)}, not restored"


def _is_wanted(reader: AudioReader, target: Path, sample_rate: int, subtype: str | None) -> bool:
    """Whether the file already is what would be written; a sample format that nobody asked for may differ."""
    container, chosen = choose_format(target, subtype)
    # Float samples may be NaN or infinite: only decoding tells.
    found = _WAV_NAMES.get(reader.container, reader.container)
    if reader.warnings or reader.subtype not in _COPIED or found != container:
        return False
    if (subtype is not None or container == "OGG") and reader.subtype != chosen:
        return False
    return reader.source_rate == (_OPUS_RATE_HZ if chosen == "OPUS" else sample_rate)


def _decodes_whole(reader: AudioReader) -> bool:
    """Whether all of a file decodes: damage is not copied on without a word."""
    for _ in reader.blocks(_BLOCK_SAMPLES):
        pass
    return not reader.warnings


def _copy_bytes(source: Path, target: Path, overwrite: bool) -> None:
    temporary = temporary_path(target)
    try:
        shutil.copyfile(source, temporary)
        place(temporary, target, overwrite)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
