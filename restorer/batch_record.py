"""What a batch has done is remembered beside its outputs, so that it is done once and can be interrupted."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from restorer.batch_plan import Job
from restorer.bundled import find_model
from restorer.errors import AudioFileError, ModelError, RestorerError
from restorer.object_store import Location, RemotePath, fingerprint
from restorer.whole_file import whole_file

RECORD_NAME = ".restorer-done.json"
_VERSION = 1
_PART_NAME = ".restorer-done.{:06d}.jsonl"
_PART = re.compile(r"\.restorer-done\.(\d+)\.jsonl")
_PART_LINES = 200  # about 64 kB: little enough to write again with each line
_HALF_FILE = re.compile(r"\.restorer-[0-9a-f]{12}\..*")


def read_model(path: Path | None) -> bytes:
    """The bytes of a model by its name or path, None being the default one; none where it cannot be read."""
    try:
        return find_model(path).read_bytes()
    except (ModelError, OSError):
        return b""


def model_sha256(path: Path | None) -> str:
    """SHA-256 of the model file, None being the bundled one; "" where it cannot be read."""
    data = read_model(path)
    return hashlib.sha256(data).hexdigest() if data else ""


def write_json(path: Location, value: Any) -> None:
    """Write beside the target and rename into place.

    Raises
    ------
    AudioFileError : the system refuses.
    """
    _write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Location, text: str) -> None:
    if isinstance(path, RemotePath):
        path.write_text(text)
        return
    try:
        with whole_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {error.strerror or error}") from error


class Record:
    """The JSON file RECORD_NAME in the output folder; all methods may be called from any thread.

    An output is done if it exists and was made from the same input (size and time of change, or a store's
    tag for the version), model (SHA-256) and settings. An output is ours if the record tells that it was
    begun, or finished and not changed since: only such a one is replaced without being asked for.

    While a batch runs, what happens goes to a journal of small files beside the record, and `close` folds
    them into it: a file costs the same whether ten or a million were done before it.

    Parameters
    ----------
    folder : of the outputs.
    model, settings : what the outputs depend on besides input and seed.
    """

    def __init__(self, folder: Location, model: str, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.path = folder / RECORD_NAME
        self._common = {"model": model, "settings": settings}
        self._lock = threading.Lock()  # of what follows; held for moments only
        self._writing = threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        self._before: dict[str, dict[str, Any] | None] = {}
        self._lines: list[str] = []
        self._stored = self._written = 0
        # A store is asked once for all outputs; questions for each would take longer than the work.
        listing = folder.find() if isinstance(folder, RemotePath) else []
        self._outputs = {file.url: file.fingerprint() for file in listing}
        self._parts: dict[int, Location] = {}
        for file in listing or _glob(folder):
            if match := _PART.fullmatch(file.name):
                self._parts[int(match[1])] = file
        self._part = max(self._parts, default=-1) + 1
        self._read()

    def is_done(self, job: Job) -> bool:
        """Whether this output is there, made from this input with this model and these settings."""
        entry = self._files.get(job.name, {})
        return (
            entry.get("state") == "done" and entry.get("made_from") == self._key(job) and bool(self._output(job.target))
        )

    def is_ours(self, job: Job) -> bool:
        """Whether the file under the output's name was made by a batch and may be replaced by one."""
        entry = self._files.get(job.name, {})
        return entry.get("state") == "begun" or (
            entry.get("state") == "done" and entry.get("output") == self._output(job.target)
        )

    def begin(self, job: Job) -> None:
        """Claim the output's name, before it is there."""
        self._before[job.name] = self._files.get(job.name)
        self._store(job, {"state": "begun", "made_from": self._key(job)})

    def finish(self, job: Job, action: str) -> None:
        """Remember that the output is complete; `action` is "restored" or "copied"."""
        target = job.target
        output = target.fingerprint() if isinstance(target, RemotePath) else fingerprint(target)
        self._outputs[str(target)] = output
        done = {"state": "done", "action": action, "output": output}
        self._store(job, {**done, "made_from": self._files[job.name]["made_from"]})

    def sweep(self, jobs: Sequence[Job]) -> None:
        """Remove the hidden half files that a killed run left where it had begun something; before work starts."""
        for half in self.folder.glob("..restorer-*.partial") if isinstance(self.folder, Path) else []:
            shutil.rmtree(half, ignore_errors=True)
        self.sweep_folders(job for job in jobs if self._files.get(job.name, {}).get("state") == "begun")

    def sweep_folders(self, jobs: Iterable[Job]) -> None:
        """Remove the hidden half files beside the outputs of these jobs; none of them may be in work."""
        folders = {job.target.parent for job in jobs}
        if isinstance(self.folder, RemotePath):
            found: list[Location] = [file for file in self.folder.find() if file.parent in folders] if folders else []
        else:
            found = [file for folder in folders for file in _glob(folder)]
        for file in found:
            if _HALF_FILE.fullmatch(file.name):
                with suppress(OSError, RestorerError):
                    file.unlink()

    def abandon(self, job: Job) -> None:
        """Give back a claim: nothing was written, and what was known before is true again."""
        self._store(job, self._before.get(job.name))

    def action(self, job: Job) -> str:
        """How the output was made, if it is done."""
        return str(self._files.get(job.name, {}).get("action", ""))

    def close(self) -> None:
        """Fold the journal into the record.

        Raises
        ------
        AudioFileError : the system or the store refuses; the journal stays and is read next time.
        """
        with self._writing:
            if not self._parts:
                return
            _write_text(self.path, json.dumps({"version": _VERSION, "files": self._files}, ensure_ascii=False) + "\n")
            for _, part in sorted(self._parts.items()):  # what was last goes last, should this be interrupted
                with suppress(OSError, RestorerError):  # read again, it says nothing new
                    part.unlink()
            self._parts, self._lines, self._part = {}, [], 0

    def _read(self) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RestorerError):
            # None yet, or damaged: nothing is known to be done
            stored = json.loads(_read_text(self.path))
            if stored["version"] == _VERSION:
                self._files = {str(name): dict(entry) for name, entry in stored["files"].items()}
        for _, part in sorted(self._parts.items()):
            with suppress(OSError, ValueError, RestorerError):
                for line in _read_text(part).splitlines():
                    name, entry = json.loads(line)
                    self._apply(str(name), entry)

    def _output(self, target: Location) -> dict[str, Any]:
        if isinstance(target, RemotePath):
            return self._outputs.get(target.url, {})
        return fingerprint(target)

    def _key(self, job: Job) -> dict[str, Any]:
        return {"input": fingerprint(job.source), "seed": job.seed, **self._common}

    def _apply(self, name: str, entry: dict[str, Any] | None) -> None:
        if entry is None:
            self._files.pop(name, None)
        else:
            self._files[name] = entry

    def _store(self, job: Job, entry: dict[str, Any] | None) -> None:
        """Change an entry and return when that is on disk; whoever waits meanwhile is written in one go."""
        with self._lock:
            self._apply(job.name, entry)
            self._lines.append(json.dumps([job.name, entry], ensure_ascii=False))
            self._stored += 1
            number = self._stored
        with self._writing:
            if self._written >= number:
                return
            with self._lock:
                lines, upto = list(self._lines), self._stored
            part = self._parts[self._part] = self.folder / _PART_NAME.format(self._part)
            _write_text(part, "\n".join(lines) + "\n")
            self._written = upto
            if len(lines) >= _PART_LINES:
                self._part += 1
                with self._lock:
                    self._lines = self._lines[len(lines) :]


def _glob(folder: Location) -> list[Path]:
    return list(folder.glob(".restorer-*")) if isinstance(folder, Path) else []


def _read_text(path: Location) -> str:
    return path.read_text() if isinstance(path, RemotePath) else path.read_text(encoding="utf-8")
