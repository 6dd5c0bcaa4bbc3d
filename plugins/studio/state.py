"""What the page is told: the limits, the song, its takes and the job in work."""

from __future__ import annotations

from typing import Any

from restorer.brightness import LIMIT
from restorer.plugins.studio.sessions import Session, Sessions
from restorer.plugins.studio.song import FORMATS, Song
from restorer.plugins.studio.track import ROWS, Track


def describe(sessions: Sessions, session: Session | None) -> dict[str, Any]:
    """The state of a session, ready for JSON."""
    limits, info = sessions.limits, sessions.restorer.model_info
    song, job = (session.song, session.job) if session else (None, None)
    return {
        "limits": {
            "upload_bytes": limits.upload_bytes,
            "upload": limits.upload_words,
            "length": limits.length_words,
            "takes": limits.takes,
        },
        "formats": list(FORMATS),
        "model": {"name": info.name, "version": info.version, "device": sessions.restorer.device},
        "brightness_limit": LIMIT if info.brightness is not None else None,
        "song": _describe_song(song) if song else None,
        "job": {
            "number": job.number,
            "kind": job.kind,
            "state": job.state,
            "phase": job.phase,
            "share": round(job.share, 4),
            "ahead": sessions.ahead(job),
            "error": job.error,
        }
        if job
        else None,
    }


def _describe_song(song: Song) -> dict[str, Any]:
    found = song.inspection
    return {
        "name": song.name,
        "tags": dict(song.tags),
        "facts": {
            "codec": found.codec,
            "kbps": found.kbps if found.lossy else None,
            "sample_rate_hz": found.sample_rate_hz,
            "channels": found.channels,
            "seconds": found.seconds,
            "ends_hz": found.cutoff_hz or found.bandwidth_hz,
            "needs_nothing": found.transparent,
            "reason": found.reason,
            "warnings": [song.plain(line) for line in found.warnings],
        }
        if found
        else None,
        "original": _describe_track(song.original) if song.original else None,
        "takes": [
            {
                "name": take.name,
                "seed": take.seed,
                "brightness": take.brightness,
                "drawn_brightness": take.drawn_brightness,
                "gain_db": round(take.gain_db, 3),
                "warnings": list(take.warnings),
                **_describe_track(take.track),
            }
            for take in sorted(song.takes.values(), key=lambda take: take.seed)
        ],
    }


def _describe_track(track: Track) -> dict[str, Any]:
    return {
        "samples": track.samples,
        "channels": track.channels,
        "sample_rate": track.sample_rate,
        "data_offset": track.data_offset,
        "rows": ROWS,
        "columns": track.spectrogram.shape[1],
    }
