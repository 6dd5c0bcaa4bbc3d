"""Who uses the studio: a random token in a cookie, with a folder, a song and at most one job."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from restorer.errors import RestorerError
from restorer.plugins.studio.jobs import Job, JobQueue
from restorer.plugins.studio.limits import Limits
from restorer.plugins.studio.song import Song
from restorer.restorer import Restorer

_PREFIX = "restorer-studio-"


class BusyError(RestorerError):
    """The studio, or this session, cannot take this now."""


class Session:
    """One browser. Its folder holds whatever it uploaded and whatever was made of that."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_urlsafe(32)
        self.folder = folder
        self.song: Song | None = None
        self.job: Job | None = None
        self.uploading = False
        self.seen_seconds = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether something of it is in work."""
        return self.uploading or (self.job is not None and self.job.active)

    def absent_seconds(self) -> float:
        """How long its page has not been heard of."""
        return time.monotonic() - self.seen_seconds


class Sessions:
    """All sessions, one queue, and the temporary folder around everything that is ever written.

    Methods are called from one thread.
    """

    def __init__(self, restorer: Restorer, limits: Limits) -> None:
        self.restorer = restorer
        self.limits = limits
        self.uploads = 0
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._queue = JobQueue()
        self._sessions: dict[str, Session] = {}

    def find(self, token: str | None) -> Session | None:
        """The session of a cookie, noted as present."""
        session = self._sessions.get(token or "")
        if session is not None:
            session.seen_seconds = time.monotonic()
        return session

    def create(self) -> Session:
        """A new session; BusyError where there are too many that are in use."""
        if len(self._sessions) >= self.limits.sessions:
            idle = [each for each in self._sessions.values() if not each.busy]
            oldest = max(idle, key=Session.absent_seconds, default=None)
            if oldest is None or oldest.absent_seconds() < self.limits.absent_seconds:
                raise BusyError(f"the studio is full: {self.limits.sessions} people use it; try again in a while")
            self.remove(oldest)
        session = Session(Path(tempfile.mkdtemp(dir=self.folder)))
        self._sessions[session.token] = session
        return session

    def start(self, session: Session, kind: str, work: Callable[[Song, Job], None]) -> Job:
        """Queue a job about the session's song; BusyError where it has one already."""
        song = session.song
        if song is None:
            raise BusyError("there is no song here; open one first")
        if session.busy:
            raise BusyError("something is in work already; wait for it or cancel it")
        job = Job(kind, lambda job: work(song, job), song.plain)
        session.job = job
        self._queue.add(job)
        return job

    def ahead(self, job: Job) -> int:
        """How many jobs come before this one."""
        return self._queue.ahead(job)

    def cancel(self, session: Session) -> None:
        """Stop the session's job."""
        if session.job is not None:
            self._queue.cancel(session.job)

    def clear(self, session: Session) -> None:
        """Stop the session's job and remove its files; the session stays, with a new folder."""
        self.cancel(session)
        _remove_folder(session.folder)
        session.song, session.job = None, None
        session.folder = Path(tempfile.mkdtemp(dir=self.folder))

    def remove(self, session: Session) -> None:
        """Forget a session and all its files."""
        self._sessions.pop(session.token, None)
        self.cancel(session)
        _remove_folder(session.folder)

    def sweep(self) -> None:
        """End jobs and remove files whose page is gone, and what a job held open when its folder was removed."""
        for session in list(self._sessions.values()):
            absent = session.absent_seconds()
            working = session.job is not None and session.job.active
            limit = self.limits.absent_seconds if working else self.limits.idle_seconds
            if absent > limit and not session.uploading:
                self.remove(session)
        kept = {session.folder for session in self._sessions.values()}
        for folder in self.folder.iterdir():
            if folder not in kept:
                _remove_folder(folder)

    def close(self) -> None:
        """Stop all work and remove all files."""
        self._queue.close()
        self._sessions.clear()
        _remove_folder(self.folder)


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove folders of studios that were killed: theirs is the process that is no more."""
    if os.name != "posix":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        try:
            if number.isdigit() and folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                os.kill(int(number), 0)
        except ProcessLookupError:
            _remove_folder(folder)
        except OSError:
            continue
