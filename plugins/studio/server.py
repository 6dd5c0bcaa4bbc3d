"""uvicorn, told to give up connections on which no request arrives."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from restorer.plugins.studio.application import make_application
from restorer.plugins.studio.limits import Limits
from restorer.restorer import Restorer

_KEEP_ALIVE_SECONDS = 10
_GOODBYE_SECONDS = 3
_LOOKS = 4


class Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_start is not None and not self.should_exit:
            await asyncio.get_running_loop().run_in_executor(None, self._on_start)


def make_server(
    restorer: Restorer, limits: Limits, host: str, on_start: Callable[[], None] | None = None
) -> uvicorn.Server:
    """A server for one studio; run it with a socket."""
    config = uvicorn.Config(
        make_application(restorer, limits, host),
        http=_patient_for(limits.head_seconds),
        ws="none",
        loop="asyncio",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
    )
    return Server(config, on_start)


def serve(
    restorer: Restorer,
    limits: Limits,
    host: str,
    listener: socket.socket,
    on_start: Callable[[], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM; all files are gone afterwards."""
    make_server(restorer, limits, host, on_start).run([listener])


def _patient_for(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with an end to the patience for clients that neither ask nor listen.

    Closed are connections that take longer than `seconds` for the head of a request, and those that read
    nothing of an answer for `_LOOKS` times as long.
    """

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._asked: Any = None
            self._unread, self._looks = 0, 0
            self._watch = self.loop.call_later(seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            idle = self.cycle is None or self.cycle.response_complete
            unread = self.transport.get_write_buffer_size()
            stuck = unread > 0 and unread == self._unread
            self._looks = self._looks + 1 if stuck else 0
            if self._looks >= _LOOKS or (idle and not unread and self.cycle is self._asked):
                self.transport.abort()
                return
            self._asked, self._unread = self.cycle, unread
            self._watch = self.loop.call_later(seconds, self._look)

    return Protocol
