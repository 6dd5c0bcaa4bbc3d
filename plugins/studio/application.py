"""The studio's addresses: its page, the state of a session, what it may ask for, and its sounds and pictures."""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from restorer.errors import RestorerError
from restorer.plugins.studio.guard import Guard
from restorer.plugins.studio.limits import Limits
from restorer.plugins.studio.requests import DownloadRequest, TakeRequest, read_object
from restorer.plugins.studio.sessions import BusyError, Session, Sessions
from restorer.plugins.studio.song import Song, check_disk
from restorer.plugins.studio.state import describe
from restorer.plugins.studio.trial import try_reading
from restorer.plugins.studio.uploads import UploadError, announced_bytes, check_head, clean_name, receive, source_name
from restorer.restorer import Restorer

COOKIE = "restorer_studio"
_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 5.0
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}
_AUDIO_TYPES = {".flac": "audio/flac", ".mp3": "audio/mpeg"}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_application(restorer: Restorer, limits: Limits | None = None, host: str = "127.0.0.1") -> Starlette:
    """The studio as an ASGI application; `host` is what it is bound to. Its files live as long as its lifespan."""
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        sessions = app.state.sessions = Sessions(restorer, limits)
        sweeper = asyncio.create_task(_sweep(sessions))
        try:
            yield
        finally:
            sweeper.cancel()
            await run_in_threadpool(sessions.close)

    return Starlette(
        routes=[
            Route("/", _page),
            *_static_routes(),
            Route("/api/state", _state),
            Route("/api/song", _open_song, methods=["PUT"]),
            Route("/api/song", _close_song, methods=["DELETE"]),
            Route("/api/takes", _make_take, methods=["POST"]),
            Route("/api/downloads", _make_download, methods=["POST"]),
            Route("/api/cancel", _cancel, methods=["POST"]),
            Route("/api/tracks/{name}/audio", _audio),
            Route("/api/tracks/{name}/peaks", _peaks),
            Route("/api/tracks/{name}/spectrogram", _spectrogram),
            Route("/api/downloads/{name}", _download),
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={
            UploadError: _on_upload_error,
            BusyError: _on_busy,
            RestorerError: _on_restorer_error,
            HTTPException: _on_http_error,
        },
        lifespan=lifespan,
    )


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        try:
            sessions.sweep()
        except Exception:  # the next one may do better; without any, nothing would ever be removed
            _log.exception("the studio could not remove what nobody uses")


def _static_routes() -> list[Route]:
    """One route for each file of the page, read now: no request ever names a path."""
    routes = []
    for file in (importlib.resources.files("restorer.plugins.studio") / "page").iterdir():
        kind = _TYPES.get(f".{file.name.rpartition('.')[2]}")
        if kind is not None:
            routes.append(Route(f"/static/{file.name}", _static(file.read_bytes(), kind)))
    return routes


def _static(content: bytes, kind: str) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return send


_PAGE = (importlib.resources.files("restorer.plugins.studio") / "page" / "index.html").read_text("utf-8")


async def _page(request: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    policy = _PAGE_POLICY.format(nonce=nonce)
    return HTMLResponse(_PAGE.replace("@NONCE@", nonce), headers={"content-security-policy": policy})


async def _state(request: Request) -> Response:
    return JSONResponse(describe(_sessions(request), _find(request)))


async def _open_song(request: Request) -> Response:
    sessions, session = _sessions(request), _find(request)
    if session is not None and session.busy:
        raise BusyError("something is in work already; wait for it or cancel it")
    check_head(request, sessions.limits)
    if sessions.uploads >= sessions.limits.uploads:
        raise BusyError("too many uploads at this moment; try again in a minute")
    session = session or sessions.create()
    sessions.uploads += 1
    session.uploading = True
    try:
        await _take_in(request, sessions, session)
    except BaseException:
        sessions.remove(session)
        raise
    finally:
        session.uploading = False
        sessions.uploads -= 1
    sessions.start(session, "open", Song.open)
    response = JSONResponse(describe(sessions, session), status_code=202)
    response.set_cookie(COOKIE, session.token, httponly=True, samesite="strict", path="/")
    return response


async def _take_in(request: Request, sessions: Sessions, session: Session) -> None:
    """Make the body of the request the session's song."""
    sessions.clear(session)
    name = clean_name(request.query_params.get("name", ""))
    source = session.folder / source_name(name)
    try:
        check_disk(session.folder, announced_bytes(request), sessions.limits)
    except RestorerError as error:
        raise UploadError(507, str(error)) from error
    await receive(request, source, sessions.limits)
    song = Song(sessions.restorer, session.folder, source, name, sessions.limits)
    try:
        await run_in_threadpool(try_reading, source, sessions.limits.audio_seconds)
        await run_in_threadpool(song.check)
    except RestorerError as error:
        raise UploadError(422, song.plain(error)) from error
    session.song = song


async def _close_song(request: Request) -> Response:
    sessions, session = _sessions(request), _find(request)
    if session is not None:
        if session.uploading:
            raise BusyError("a file is being uploaded; break that off first")
        sessions.remove(session)
    return JSONResponse(describe(sessions, None))


async def _make_take(request: Request) -> Response:
    sessions, session, song = _opened(request)
    wanted = TakeRequest.from_json(await read_object(request), sessions)
    if not any((take.seed, take.brightness) == (wanted.seed, wanted.brightness) for take in song.takes.values()):
        sessions.start(session, "take", lambda song, job: song.make_take(job, wanted.seed, wanted.brightness))
    return JSONResponse(describe(sessions, session), status_code=202)


async def _make_download(request: Request) -> Response:
    sessions, session, song = _opened(request)
    wanted = DownloadRequest.from_json(await read_object(request), sessions)
    settings = (wanted.seed, wanted.brightness, wanted.mix, wanted.suffix)
    try:
        song.check_download(wanted.suffix)
    except RestorerError as error:
        raise UploadError(422, song.plain(error)) from error
    name = song.find_download(*settings)
    if name is None:
        sessions.start(session, "download", lambda song, job: song.make_download(job, *settings))
    return JSONResponse({**describe(sessions, session), "download": name}, status_code=202)


async def _cancel(request: Request) -> Response:
    sessions, session = _sessions(request), _find(request)
    if session is not None:
        sessions.cancel(session)
    return JSONResponse(describe(sessions, session))


async def _audio(request: Request) -> Response:
    return FileResponse(_track(request).path, media_type="audio/wav")


async def _peaks(request: Request) -> Response:
    return Response(json.dumps(_track(request).peaks.round(4).tolist()), media_type="application/json")


async def _spectrogram(request: Request) -> Response:
    return Response(_track(request).spectrogram.tobytes(), media_type="application/octet-stream")


async def _download(request: Request) -> Response:
    _, _, song = _opened(request)
    path, name = song.download(request.path_params["name"]) or (None, "")
    if path is None or not path.exists():
        raise HTTPException(404, "there is no such download; make it again")
    return FileResponse(path, media_type=_AUDIO_TYPES[path.suffix], filename=name)


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _find(request: Request) -> Session | None:
    return _sessions(request).find(request.cookies.get(COOKIE))


def _opened(request: Request) -> tuple[Sessions, Session, Song]:
    session = _find(request)
    if session is None or session.song is None or session.song.original is None:
        raise HTTPException(404, "there is no song here any more; open it again")
    return _sessions(request), session, session.song


def _track(request: Request) -> Any:
    track = _opened(request)[2].track(request.path_params["name"])
    if track is None or not track.path.exists():
        raise HTTPException(404, "there is no such take any more; make it again")
    return track


def _error(status: int, words: str, close: bool = False) -> Response:
    return JSONResponse({"error": words}, status_code=status, headers={"connection": "close"} if close else None)


async def _on_upload_error(request: Request, error: Exception) -> Response:
    # What is left of the body is not read: the connection ends with the answer.
    return _error(getattr(error, "status", 400), str(error), close=True)


async def _on_busy(request: Request, error: Exception) -> Response:
    return _error(409, str(error), close=True)


async def _on_restorer_error(request: Request, error: Exception) -> Response:
    return _error(422, str(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    return _error(getattr(error, "status_code", 500), str(getattr(error, "detail", error)))
