"""Songs of folders whose manifests may change while a pool is filled, as `restorer render` changes its own."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from restorer.errors import RestorerError
from restorer.training.mix_command import music_sources
from restorer.training.mixing import Source

LOOK_SECONDS = 10.0  # between two looks at the manifests


class GrowingMusic:
    """The training songs of folders, by the newest manifest of each that could be used.

    Parameters
    ----------
    folders : each holds a MANIFEST.csv.

    Raises
    ------
    ConfigError
        See `music_sources`: only now, not when a manifest has changed.
    """

    def __init__(self, folders: Sequence[Path]):
        self._changed = {folder: _changed(folder) for folder in folders}  # before what is read: none is missed
        self._songs = {folder: music_sources(folder) for folder in folders}
        self._looked = time.monotonic()

    @property
    def songs(self) -> list[Source]:
        """Of all folders."""
        return [song for songs in self._songs.values() for song in songs]

    def look(self) -> bool:
        """Read manifests that have changed, unless it is too soon; whether there are other songs now.

        Where one cannot be used, the songs of its folder stay as they were.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        before = self.songs
        for folder, known in self._changed.items():
            now = _changed(folder)
            if now != known:
                self._changed[folder] = now
                with suppress(RestorerError):
                    self._songs[folder] = music_sources(folder)
        return self.songs != before


def _changed(folder: Path) -> tuple[int, int]:
    """What tells one manifest from the next."""
    try:
        found = (folder / "MANIFEST.csv").stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
