"""Files behind URLs that fsspec reaches (s3://, gs://, memory://, file:// ...): listed, fetched, put there whole."""

from __future__ import annotations

import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from restorer.audio_out import check_free, temporary_path
from restorer.errors import AudioFileError, ConfigError, RestorerError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What tells versions of a file apart, the most reliable first: stores have a tag or a number for each version,
# file systems a time.
_VERSIONS = ("ETag", "etag", "generation", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind a URL, asked as a `pathlib.Path` would be asked.

    Parameters
    ----------
    url : whole, with its protocol, without a slash at the end; `parse_location` makes it.
    info : what the store's listing said about it, so that a million files need no million questions.

    Raises
    ------
    AudioFileError : of every method, where the store refuses or cannot be reached.
    """

    url: str
    info: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}" if not self.url.endswith("/") else f"{self.url}{name}")

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.url.rsplit("/", 1)[0])

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def exists(self) -> bool:
        with self._opened("look for") as (store, path):
            return bool(store.exists(path))

    def is_dir(self) -> bool:
        with self._opened("look for") as (store, path):
            return bool(store.isdir(path))

    def find(self) -> list[RemotePath]:
        """All files below this folder, in order, in as few requests as the store's listing takes."""
        with self._opened("list") as (store, path):
            return _with_info(store, store.find(path, detail=True))

    def match(self) -> list[RemotePath]:
        """All files and folders that match, this being a pattern as `fsspec` has it, in order."""
        with self._opened("list") as (store, path):
            return _with_info(store, store.glob(path, detail=True))

    def fingerprint(self) -> dict[str, Any]:
        """Size and version of the file (ETag, generation or time of change); {} if there is none."""
        info = self.info
        if info is None:
            with self._opened("look for") as (store, path):
                store.invalidate_cache()
                try:
                    info = store.info(path)
                except FileNotFoundError:
                    return {}
        for key in _VERSIONS:
            if info.get(key) is not None:
                version = info[key]
                return {"size": info.get("size"), "version": _as_text(version)}
        return {"size": info.get("size")}

    def read_text(self) -> str:
        with self._opened("read") as (store, path):
            return bytes(store.cat_file(path)).decode()

    def write_text(self, text: str) -> None:
        """Replace the file by this text, as a whole."""
        with tempfile.TemporaryDirectory(prefix="restorer-") as folder:
            file = Path(folder) / "text"
            file.write_bytes(text.encode())
            self.put(file)

    def get(self, file: Path) -> None:
        """Download to the local `file`."""
        with self._opened("fetch") as (store, path):
            store.get_file(path, str(file))
            size = store.info(path).get("size") if self.info is None else self.info.get("size")
            if size is not None and file.stat().st_size != size:
                raise OSError(f"{file.stat().st_size} of {size} bytes arrived")

    def put(self, file: Path) -> None:
        """Upload the local `file` under a hidden name beside this one, then move it here.

        Who looks sees the old file or the new one in full. File systems rename; object stores, which cannot,
        copy within the store and delete, and each of their objects appears at once or not at all.
        """
        hidden = self.with_name(temporary_path(Path(self.name)).name)
        with self._opened("write") as (store, path):
            part = hidden._opened_path(store)
            try:
                try:
                    store.put_file(str(file), part)
                except FileNotFoundError:  # a file system, which wants its folders made
                    store.makedirs(posixpath.dirname(part), exist_ok=True)
                    store.put_file(str(file), part)
                size = store.info(part).get("size")
                if size is not None and file.stat().st_size != size:
                    raise OSError(f"{size} of {file.stat().st_size} bytes arrived")
                _move(store, part, path)
            except BaseException:
                with suppress(Exception):  # whatever was wrong above is what has to be told
                    store.rm_file(part)
                raise

    def unlink(self) -> None:
        with self._opened("remove") as (store, path):
            store.rm_file(path)

    @contextmanager
    def _opened(self, doing: str) -> Iterator[tuple[Any, str]]:
        """The store and the path in it; whatever the store raises becomes one line."""
        store, path = _connect(self.url)
        try:
            yield store, path
        except RestorerError:
            raise
        except FileNotFoundError as error:
            raise AudioFileError(f"cannot {doing} {self.url}: it does not exist") from error
        except Exception as error:  # every store has its own kinds
            text = " ".join(str(error).split()) or type(error).__name__
            raise AudioFileError(f"cannot {doing} {self.url}: {text}") from error

    def _opened_path(self, store: Any) -> str:
        return str(store._strip_protocol(self.url))


Location = Path | RemotePath


def is_url(text: str) -> bool:
    """Whether this names a file by URL; a drive letter is none."""
    return _URL.match(text) is not None


def parse_location(text: str) -> Location:
    """A local path, or the file or folder behind a URL.

    Raises
    ------
    ConfigError : fsspec or what it needs for this protocol is not installed, or the protocol is unknown.
    """
    if not is_url(text):
        return Path(text)
    store, path = _connect(text)
    return RemotePath(store.unstrip_protocol(path))


def fingerprint(location: Location) -> dict[str, Any]:
    """What tells this version of a file from others; {} if there is no such file."""
    if isinstance(location, RemotePath):
        return location.fingerprint()
    try:
        status = location.stat()
    except OSError:
        return {}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


@contextmanager
def at_hand(source: Location, target: Location | None = None, overwrite: bool = False) -> Iterator[tuple[Path, Path]]:
    """Local paths of a source and a target: fetched before the block and delivered after it where they are remote.

    In errors the URL stands in the place of the local path. Without `target`, the second path is of no use.

    Raises
    ------
    AudioFileError : the store refuses, or the remote target exists without `overwrite`.
    """
    if isinstance(source, Path) and not isinstance(target, RemotePath):
        yield source, target or source
        return
    if isinstance(target, RemotePath):
        check_free_at(target, overwrite)
    with tempfile.TemporaryDirectory(prefix="restorer-") as folder:
        here = source if isinstance(source, Path) else Path(folder) / f"input{source.suffix}"
        there = target if isinstance(target, Path) else Path(folder) / f"output{target.suffix if target else ''}"
        names = {str(path): str(place) for path, place in ((here, source), (there, target)) if place}
        if isinstance(source, RemotePath):
            source.get(here)
        try:
            yield here, there
        except RestorerError as error:
            raise type(error)(name_remotely(str(error), names)) from error
        if isinstance(target, RemotePath):
            check_free_at(target, overwrite)
            target.put(there)


def check_free_at(target: Location, overwrite: bool) -> None:
    """An AudioFileError where `target` exists and may not be replaced."""
    if isinstance(target, Path):
        check_free(target, overwrite)
    elif not overwrite and target.exists():
        raise AudioFileError(f"{target} exists; choose another name or pass --overwrite")


def name_remotely(text: str, names: Mapping[str, str]) -> str:
    """`text` with each local path replaced by the URL that it stands for."""
    for path, url in names.items():
        text = text.replace(path, url)
    return text


def _connect(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ConfigError(f'{url}: URLs need fsspec; run: pip install "restorer[cluster]"') from error
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{url}: {text}; local files are named without ://") from error
    except Exception as error:  # a store that logs in as it is opened, and may refuse in any way
        raise AudioFileError(f"cannot open {url}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _with_info(store: Any, found: Mapping[str, Mapping[str, Any]]) -> list[RemotePath]:
    return [RemotePath(store.unstrip_protocol(path), found[path]) for path in sorted(found)]


def _move(store: Any, source: str, target: str) -> None:
    """Rename where the store can; names are taken as they are, whatever signs of patterns they hold."""
    from fsspec import AbstractFileSystem

    if type(store).mv is not AbstractFileSystem.mv:
        store.mv(source, target)
    else:
        store.cp_file(source, target)
        store.rm_file(source)


def _as_text(version: Any) -> str:
    """The same text for the same version, which some stores tell as a date here and as a number there."""
    value = version.timestamp() if isinstance(version, datetime) else version
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def common_parent(pattern: str) -> str:
    """The folders of a URL before its first sign of a pattern."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]


def has_magic(url: str) -> bool:
    """Whether a URL holds signs of a pattern."""
    return re.search(r"[*?\[]", url) is not None
