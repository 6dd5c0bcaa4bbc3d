"""``restorer restore --png``: each input above what became of it, as spectrograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restorer.audio_out import check_free
from restorer.errors import ConfigError
from restorer.file_pictures import draw_files, name_pictures
from restorer.object_store import at_hand

if TYPE_CHECKING:
    from restorer.batch import Outcome
    from restorer.batch_plan import Job

_SAMPLE_RATE_HZ = 44100
_MOST_PANELS = 12


@dataclass(frozen=True)
class Picture:
    """A picture to draw, and the outputs to show in it, below their input."""

    path: Path
    targets: tuple[Path, ...]

    def draw(self, source: Path, name: str, done: str) -> None:
        """Draw it; `name` is that of the input for people, `done` says what became of it."""
        shown = [(f"{target.name}, {done}", target) for target in self.targets]
        draw_files(self.path, [(name, source), *shown], _SAMPLE_RATE_HZ)


def plan_pictures(png: Path | None, source: Path, targets: Sequence[Path], overwrite: bool) -> list[Picture]:
    """What to draw of one input: all outputs in one picture, or in a folder one for each.

    Raises
    ------
    ConfigError, AudioFileError : a picture cannot be written there, exists, or is the input itself.
    """
    if png is None:
        return []
    paths = name_pictures([Path(target.name) for target in targets], png, folder=False)
    if png.is_dir():
        pictures = [Picture(path, (target,)) for path, target in zip(paths, targets, strict=True)]
    elif len(targets) > _MOST_PANELS:
        raise ConfigError(
            f"--png draws at most {_MOST_PANELS} candidates in one picture and not {len(targets)}; "
            f"name an existing folder instead of {png}"
        )
    else:
        pictures = [Picture(png, tuple(targets))]
    for picture in pictures:
        if picture.path.exists() and picture.path.samefile(source):
            raise ConfigError(f"--png must not be the input {source}; name another picture")
        check_free(picture.path, overwrite)
    return pictures


class BatchPictures:
    """Draws the files of a batch into a folder, which mirrors the tree of the outputs.

    Raises
    ------
    ConfigError : `png` is a file.
    """

    def __init__(self, png: Path | None, jobs: Sequence[Job]) -> None:
        names = name_pictures([Path(job.name) for job in jobs], png, folder=True) if png else []
        self._jobs = {str(job.target): (job, path) for job, path in zip(jobs, names, strict=False)}

    def draw(self, outcome: Outcome) -> None:
        """Draw what was made; of what was made before, a picture that is missing.

        Raises
        ------
        RestorerError : a file cannot be read, or the picture cannot be written.
        """
        if outcome.target not in self._jobs or outcome.status == "failed":
            return
        job, path = self._jobs[outcome.target]
        if outcome.status == "skipped" and path.exists():
            return
        done = "made before" if outcome.status == "skipped" else outcome.status
        with at_hand(job.source) as (source, _), at_hand(job.target) as (target, _):
            shown = [(job.source.name, source), (f"{job.target.name}, {done}", target)]
            draw_files(path, shown, _SAMPLE_RATE_HZ)
