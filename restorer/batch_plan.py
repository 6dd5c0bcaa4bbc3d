"""Folders, globs, files and URLs become a list of jobs: which input goes to which output."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from restorer.errors import AudioFileError, ConfigError
from restorer.object_store import Location, RemotePath, common_parent, has_magic

AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc")


@dataclass(frozen=True)
class Job:
    """One output to make. `name` is the target below the output folder, with forward slashes."""

    source: Location
    target: Location
    name: str
    seed: int


def is_pattern(path: Location) -> bool:
    """Whether this is a glob that the shell left alone, and not the name of a file."""
    magic = has_magic(path.url) if isinstance(path, RemotePath) else glob.has_magic(str(path))
    return magic and not path.exists()


def find_audio(
    inputs: Sequence[Path], excluded: Path | None = None, alone: bool | None = None
) -> list[tuple[Path, Path]]:
    """All audio files below folders, in globs and named singly, as (file, its place in the tree), in order.

    A folder by itself is mirrored from its inside; one of several inputs keeps its own name (`alone` says
    which it is, where `inputs` are not all that there are). Hidden files, other files than audio, and
    whatever lies in `excluded` are passed over; a file named singly is taken whatever its extension.

    Raises
    ------
    AudioFileError : an input does not exist, or there is no audio file at all.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    out = excluded.resolve() if excluded else None
    alone = len(inputs) == 1 if alone is None else alone
    for entry in inputs:
        if is_pattern(entry):
            base = _fixed_part(entry)
            roots = [(Path(match), Path(match).relative_to(base)) for match in sorted(_expand(entry))]
            if not roots:
                raise AudioFileError(f"{entry}: no file matches this pattern; quote it and check the folder")
        elif entry.is_dir():
            roots = [(entry, Path() if alone else Path(entry.resolve().name))]
        elif entry.exists():
            roots = [(entry, Path(entry.name))]
        else:
            raise AudioFileError(f"{entry} does not exist; name an audio file, a folder or a pattern")
        for root, place in roots:
            for path, below in _walk(root, place, out):
                found.setdefault(path.resolve(), (path, below))
    if not found:
        raise _nothing_found(inputs)
    return list(found.values())


def find_remote_audio(
    entry: RemotePath, alone: bool, excluded: Location | None = None
) -> list[tuple[RemotePath, Path]]:
    """What `find_audio` finds, behind one URL that names a file, a folder or a pattern.

    `alone` tells whether this is the only input, whose own name is not kept.

    Raises
    ------
    AudioFileError : there is nothing behind the URL, or the store refuses.
    """
    if is_pattern(entry):
        base = common_parent(entry.url)
        found = [(file, base) for match in entry.match() for file in (match.find() if match.is_dir() else [match])]
        if not found:
            raise AudioFileError(f"{entry}: no file matches this pattern; quote it and check the folder")
    elif entry.is_dir():
        found = [(file, entry.url if alone else entry.parent.url) for file in entry.find()]
    elif entry.exists():
        return [(entry, Path(entry.name))]
    else:
        raise AudioFileError(f"{entry} does not exist; name an audio file, a folder or a pattern")
    places = [(file, Path(file.url.removeprefix(base).lstrip("/"))) for file, base in found]
    return [
        (file, place)
        for file, place in places
        if place.name.lower().endswith(AUDIO_SUFFIXES)
        and not any(part[0] == "." for part in place.parts)
        and not (isinstance(excluded, RemotePath) and file.url.startswith(f"{excluded.url}/"))
    ]


def plan_jobs(inputs: Sequence[Location], out: Location, suffix: str, seeds: Sequence[int]) -> list[Job]:
    """One job for each audio file and seed; `suffix` is that of the outputs, such as ".flac".

    Files that differ in their extension alone keep it in the name of the output; with several seeds the
    output gets .seedS before its extension.

    Raises
    ------
    AudioFileError : as `find_audio`.
    ConfigError : `out` is an input folder itself, or is a file, or two inputs would become the same output.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; several inputs need a folder to go to")
    for entry in inputs:
        if _is_same_folder(entry, out):
            raise ConfigError(f"{out} is the input folder itself; name another folder for the output")
    files = _find_all(inputs, out)
    twins = Counter(str(place.with_suffix("")).casefold() for _, place in files)
    jobs: dict[str, Job] = {}
    for source, place in files:
        stem = place.name if twins[str(place.with_suffix("")).casefold()] > 1 else place.stem
        for seed in seeds:
            part = f".seed{seed}" if len(seeds) > 1 else ""
            name = (place.parent / f"{stem}{part}{suffix}").as_posix()
            other = jobs.setdefault(name.casefold(), Job(source, out / name, name, seed))
            if other.source != source:
                raise ConfigError(f"{other.source} and {source} would both become {out / name}; give their folders")
    return list(jobs.values())


def _is_same_folder(entry: Location, out: Location) -> bool:
    if isinstance(entry, Path) and isinstance(out, Path):
        return entry.is_dir() and out.is_dir() and entry.samefile(out)
    return entry == out


def _find_all(inputs: Sequence[Location], out: Location) -> list[tuple[Location, Path]]:
    excluded = out if isinstance(out, Path) else None
    local = [entry for entry in inputs if isinstance(entry, Path)]
    if len(local) == len(inputs):
        return list(find_audio(local, excluded))
    found: dict[Location, Path] = {}
    for entry in inputs:
        if isinstance(entry, RemotePath):
            found |= dict(find_remote_audio(entry, len(inputs) == 1, out))
        else:
            found |= dict(find_audio([entry], excluded, alone=False))
    if not found:
        raise _nothing_found(inputs)
    return list(found.items())


def _nothing_found(inputs: Sequence[Location]) -> AudioFileError:
    names = ", ".join(map(str, inputs))
    return AudioFileError(f"{names}: no audio file in there; looked for {', '.join(AUDIO_SUFFIXES)}")


def _walk(root: Path, place: Path, excluded: Path | None) -> Iterator[tuple[Path, Path]]:
    if not root.is_dir():
        yield root, place
        return
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if name[0] != "." and (here / name).resolve() != excluded)
        for name in sorted(names):
            if name[0] != "." and name.lower().endswith(AUDIO_SUFFIXES):
                yield here / name, place / (here / name).relative_to(root)


def _expand(pattern: Path) -> list[str]:
    """What matches, without the folders on the way if files below them match too."""
    matches = glob.glob(str(pattern), recursive=True)
    files = [match for match in matches if Path(match).is_file() and match.lower().endswith(AUDIO_SUFFIXES)]
    return files or [match for match in matches if Path(match).is_dir()]


def _fixed_part(pattern: Path) -> Path:
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])
