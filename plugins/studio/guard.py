"""Refuses what other web sites and other hosts' names send, before anything reads it, and says no to framing."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page of another site can send no header of its own without asking first, and nobody answers that question.
OWN_HEADER = "x-restorer-studio"
_SAFE_METHODS = ("GET", "HEAD")
_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware for a server that has no password because only its own page may talk to it.

    Parameters
    ----------
    app : what is guarded.
    host : the name or address that the server is bound to; with it, "localhost", the machine's name and every
        literal address are names of this server. Others are those of a foreign site that points here (DNS
        rebinding).
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        machine = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), machine, f"{machine}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refuse(scope["method"], Headers(scope=scope))
        app = self._app if refusal is None else _refusal(refusal)
        await app(scope, receive, send_guarded)

    def _refuse(self, method: str, headers: Headers) -> str | None:
        """Why this request is not answered, or None."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "this is not the address of the studio; open it under the address that `restorer studio` printed"
        if method in _SAFE_METHODS:
            return None
        site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
        if site != "same-origin" or (origin is not None and origin not in _origins(hosts[0])):
            return "another web site sent this; only the studio's own page may"
        if OWN_HEADER not in headers:
            return f"the header {OWN_HEADER} is missing; only the studio's own page sends it"
        return None

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        name, _, port = name.rpartition(":") if not name.endswith("]") and ":" in name else (name, "", "")
        if port and not port.isdigit():
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def _origins(host: str) -> tuple[str, str]:
    return f"http://{host}", f"https://{host}"  # https where a proxy stands before it


def _refusal(words: str) -> Any:
    return JSONResponse({"error": words}, status_code=403, headers={"connection": "close"})
