"""What a batch has done is remembered beside its outputs, so that it is done once and can be interrupted."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from restorer.batch_plan import Job
from restorer.errors import AudioFileError

RECORD_NAME = ".restorer-done.json"
_VERSION = 1


def model_sha256(path: Path | None) -> str:
    """SHA-256 of the model file, None being the bundled one; "" where it cannot be read."""
    file = path or importlib.resources.files("restorer") / "weights" / "compact.onnx"
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def write_json(path: Path, value: Any) -> None:
    """Write beside the target and rename into place.

    Raises
    ------
    AudioFileError : the system refuses.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


class Record:
    """The JSON file RECORD_NAME in the output folder; all methods may be called from any thread.

    An output is done if it exists and was made from the same input (size and time of change), model
    (SHA-256) and settings. An output is ours if the record tells that it was begun, or finished and not
    changed since: only such a one is replaced without being asked for.

    Parameters
    ----------
    folder : of the outputs.
    model, settings : what the outputs depend on besides input and seed.
    """

    def __init__(self, folder: Path, model: str, settings: dict[str, Any]) -> None:
        self.path = folder / RECORD_NAME
        self._common = {"model": model, "settings": settings}
        self._lock = threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        self._before: dict[str, dict[str, Any] | None] = {}
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["version"] == _VERSION:
                self._files = {str(name): dict(entry) for name, entry in stored["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # none yet, or damaged: nothing is known to be done

    def is_done(self, job: Job) -> bool:
        """Whether this output is there, made from this input with this model and these settings."""
        entry = self._files.get(job.name, {})
        return entry.get("state") == "done" and entry.get("made_from") == self._key(job) and job.target.exists()

    def is_ours(self, job: Job) -> bool:
        """Whether the file under the output's name was made by a batch and may be replaced by one."""
        entry = self._files.get(job.name, {})
        return entry.get("state") == "begun" or (
            entry.get("state") == "done" and entry.get("output") == _fingerprint(job.target)
        )

    def begin(self, job: Job) -> None:
        """Claim the output's name, before it is there."""
        self._before[job.name] = self._files.get(job.name)
        self._store(job, {"state": "begun", "made_from": self._key(job)})

    def finish(self, job: Job, action: str) -> None:
        """Remember that the output is complete; `action` is "restored" or "copied"."""
        done = {"state": "done", "action": action, "output": _fingerprint(job.target)}
        self._store(job, {**done, "made_from": self._files[job.name]["made_from"]})

    def sweep(self, jobs: Sequence[Job]) -> None:
        """Remove the hidden half files that a killed run left where it had begun something; before work starts."""
        for folder in {job.target.parent for job in jobs if self._files.get(job.name, {}).get("state") == "begun"}:
            for left in folder.glob(".restorer-" + "[0-9a-f]" * 12 + ".*"):
                with suppress(OSError):
                    left.unlink()

    def abandon(self, job: Job) -> None:
        """Give back a claim: nothing was written, and what was known before is true again."""
        self._store(job, self._before.get(job.name))

    def action(self, job: Job) -> str:
        """How the output was made, if it is done."""
        return str(self._files.get(job.name, {}).get("action", ""))

    def _key(self, job: Job) -> dict[str, Any]:
        return {"input": _fingerprint(job.source), "seed": job.seed, **self._common}

    def _store(self, job: Job, entry: dict[str, Any] | None) -> None:
        with self._lock:
            if entry is None:
                self._files.pop(job.name, None)
            else:
                self._files[job.name] = entry
            write_json(self.path, {"version": _VERSION, "files": self._files})


def _fingerprint(path: Path) -> dict[str, int]:
    try:
        status = path.stat()
    except OSError:
        return {}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
