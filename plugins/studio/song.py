"""A song in the studio: its original, the takes that were made of it, and the files to download."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutagen.flac import FLAC

from restorer.audio_in import AudioReader
from restorer.audio_out import check_target
from restorer.errors import AudioFileError, ConfigError
from restorer.inspection import Inspection, inspect_file
from restorer.noise import draw_noise
from restorer.plugins.studio.jobs import Job
from restorer.plugins.studio.limits import Limits
from restorer.plugins.studio.track import Track, check_length, make_track
from restorer.restorer import Restorer

FORMATS = ("flac", "mp3")
_SHOWN_TAGS = ("title", "artist", "album")
_LONGEST_TAG = 200
# A codec's edge is not infinitely steep: levels are compared below this part of it.
_BELOW_EDGE = 0.9
_PREVIEW_BYTES, _TAKE_BYTES = 2, 5  # per sample and channel: 16-bit WAV, and with it 24-bit FLAC


@dataclass(frozen=True)
class Take:
    """One restoration: the FLAC file that `restorer restore` writes, and what the page plays of it.

    `brightness` is what was asked for, None if nothing was; `drawn_brightness` is what the seed has by itself.
    `gain_db` is how much louder it is than the original in the band that both have.
    """

    name: str
    seed: int
    brightness: float | None
    drawn_brightness: float | None
    file: Path
    track: Track
    gain_db: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Download:
    """A finished file and the settings that made it."""

    path: Path
    settings: tuple[Any, ...]
    warnings: tuple[str, ...]


class Song:
    """Everything about one uploaded file, inside one folder. The methods that take a `Job` are slow.

    Parameters
    ----------
    folder : empty but for `source`.
    source : the uploaded file.
    name : what its user calls it, for messages and downloads.
    """

    def __init__(self, restorer: Restorer, folder: Path, source: Path, name: str, limits: Limits) -> None:
        self.name = name
        self.inspection: Inspection | None = None
        self.original: Track | None = None
        self.takes: dict[str, Take] = {}
        self.downloads: dict[str, Download] = {}
        self.tags: dict[str, str] = {}
        self._restorer = restorer
        self._folder = folder
        self._source = source
        self._limits = limits
        self._made = 0

    def check(self) -> None:
        """An AudioFileError where the file is no audio or too long, as far as its header tells."""
        with AudioReader(self._source) as reader:
            check_length(reader, self._limits.audio_seconds)

    def open(self, job: Job) -> None:
        """Decode the original, find out what it is, and make the first take."""
        job.begin("Reading")
        target, rate = self._folder / "original.wav", self._restorer.sample_rate
        self._check_disk(_PREVIEW_BYTES)
        original = make_track(self._source, target, rate, self._limits.audio_seconds, job.report)
        job.begin("Inspecting")
        self.inspection = inspect_file(self._source, count_clipped=False)
        self.original = original
        self.make_take(job, 0, None)

    def make_take(self, job: Job, seed: int, brightness: float | None) -> None:
        """Restore with a seed, exactly as the command line does; another take of the seed is replaced."""
        original = self._opened()
        self._check_disk(_TAKE_BYTES)
        job.begin("Restoring")
        self._made += 1
        name = f"take{self._made}"
        file, wav = self._folder / f"{name}.flac", self._folder / f"{name}.wav"
        report = self._restorer.restore_file(
            self._source, file, seed=seed, brightness=brightness, progress=job.report, turn_up=True
        )
        try:
            job.begin("Drawing")
            seconds = self._limits.audio_seconds + 1.0
            track = make_track(file, wav, original.sample_rate, seconds, job.report, original.top_db)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        edge = self._edge_hz() * _BELOW_EDGE
        gain = track.level_db(edge) - original.level_db(edge)
        self.tags = self.tags or _read_tags(file)
        warnings = tuple(self.plain(line) for line in report.warnings)
        take = Take(name, seed, brightness, self._drawn_brightness(seed), file, track, gain, warnings)
        replaced = [old for old in self.takes.values() if old.seed == seed]
        self.takes[name] = take
        for old in replaced:
            del self.takes[old.name]
            old.file.unlink(missing_ok=True)
            old.track.path.unlink(missing_ok=True)

    def make_download(self, job: Job, seed: int, brightness: float | None, mix: float, suffix: str) -> None:
        """Write the file that `restorer restore --force` writes with these settings."""
        self._check_disk(_TAKE_BYTES)
        job.begin("Writing")
        self._made += 1
        path = self._folder / f"download{self._made}.{suffix}"
        report = self._restorer.restore_file(
            self._source, path, seed=seed, mix=mix, brightness=brightness, progress=job.report, turn_up=True
        )
        while len(self.downloads) >= self._limits.downloads:
            self.downloads.pop(next(iter(self.downloads))).path.unlink(missing_ok=True)
        warnings = tuple(self.plain(line) for line in report.warnings)
        self.downloads[path.stem] = Download(path, (seed, brightness, mix, suffix), warnings)

    def check_download(self, suffix: str) -> None:
        """A RestorerError where this song cannot be written in this format."""
        if suffix not in FORMATS:
            raise ConfigError(f"the format must be one of {', '.join(FORMATS)} and not {suffix!r}")
        check_target(self._source, self._folder / f"download.{suffix}", channels=self._opened().channels)

    def find_download(self, seed: int, brightness: float | None, mix: float, suffix: str) -> str | None:
        """Name of a finished download with these settings; a take is the FLAC file of its own settings."""
        for take in self.takes.values():
            if (take.seed, take.brightness, 1.0, "flac") == (seed, brightness, mix, suffix):
                return take.name
        wanted = (seed, brightness, mix, suffix)
        return next((name for name, made in self.downloads.items() if made.settings == wanted), None)

    def download(self, name: str) -> tuple[Path, str] | None:
        """A finished download: its file, and what the user's browser is to call it."""
        if name in self.takes:
            path, seed = self.takes[name].file, self.takes[name].seed
        elif name in self.downloads:
            path, seed = self.downloads[name].path, self.downloads[name].settings[0]
        else:
            return None
        stem = self.name.rpartition(".")[0] or self.name
        return path, f"{stem}.restored{f'.take{seed + 1}' if seed else ''}{path.suffix}"

    def track(self, name: str) -> Track | None:
        """What plays under this name: "original" or a take's."""
        if name == "original":
            return self.original
        return self.takes[name].track if name in self.takes else None

    def plain(self, error: object) -> str:
        """A message about the uploaded file with the name that its user knows, and no path of this machine."""
        return str(error).replace(str(self._source), self.name).replace(f"{self._folder}/", "")

    def _opened(self) -> Track:
        if self.original is None:
            raise AudioFileError(f"{self.name} has not been read; wait until it is")
        return self.original

    def _drawn_brightness(self, seed: int) -> float | None:
        """The brightness of a seed that is left as it was drawn; None where the model knows no brightness."""
        info = self._restorer.model_info
        if info.brightness is None:
            return None
        return float(draw_noise(seed, info.noise_size) @ np.asarray(info.brightness["direction"], np.float32))

    def _edge_hz(self) -> float:
        """Where the original ends, in Hz."""
        nyquist = self._opened().sample_rate / 2
        found = self.inspection
        edge = nyquist if found is None else found.cutoff_hz or found.bandwidth_hz or nyquist
        return min(edge, nyquist)

    def _check_disk(self, bytes_per_sample: int) -> None:
        if self.original is not None:
            samples, channels = self.original.samples, self.original.channels
        else:
            with AudioReader(self._source, self._restorer.sample_rate) as reader:
                samples, channels = reader.samples, reader.channels
        check_disk(self._folder, samples * channels * bytes_per_sample, self._limits)


def check_disk(folder: Path, needed_bytes: int, limits: Limits) -> None:
    """An AudioFileError where `needed_bytes` more would fill the disk that holds `folder`."""
    free = shutil.disk_usage(folder).free - limits.free_disk_bytes
    if needed_bytes > free:
        raise AudioFileError(
            f"the computer that runs the studio has too little disk space: {max(0, free) / 1e6:.0f} MB to give and "
            f"{needed_bytes / 1e6:.0f} MB needed; free some, or try again later"
        )


def _read_tags(path: Path) -> dict[str, str]:
    """Title, artist and album as the restored file has them, cut to a length that a page can show."""
    comments: Any = FLAC(path).tags or {}
    found = {name: ", ".join(comments.get(name, []))[:_LONGEST_TAG] for name in _SHOWN_TAGS}
    return {name: value for name, value in found.items() if value}
