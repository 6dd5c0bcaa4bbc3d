"""``restorer studio``: serve the page to this machine's browser."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

import click

from restorer.errors import ConfigError
from restorer.plugins.studio.limits import Limits


@click.command("studio")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to bind to; this machine alone by default."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free one.")
@click.option("--open/--no-open", "open_page", default=True, help="Open the page in a browser.  [default: open]")
@click.option(
    "--max-mb", type=click.FloatRange(0.1), default=200.0, show_default=True, help="Largest file to be uploaded."
)
@click.option(
    "--max-minutes", type=click.FloatRange(0.1), default=20.0, show_default=True, help="Longest song to be restored."
)
@click.option("--model", type=click.Path(path_type=Path), help="ONNX model or name of a bundled one; default: compact.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def studio(
    host: str, port: int, open_page: bool, max_mb: float, max_minutes: float, model: Path | None, device: str
) -> None:
    """Restore songs in the browser and compare them with the original.

    A local page: drop a file, listen to original and restoration switched at the same position, choose a take
    and download it. Nothing is loaded from other addresses; uploaded files live in a temporary folder and are
    removed at the end. Ctrl-C ends the studio.
    """
    from restorer import Restorer
    from restorer.plugins.studio.server import serve

    limits = Limits(upload_bytes=round(max_mb * 1e6), audio_seconds=max_minutes * 60)
    listener = bind(host, port)
    try:
        restorer = Restorer(model, device=device)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        if not _is_loopback(host):
            click.echo(f"Warning: whoever reaches {host} can use this studio; it has no password", err=True)
        click.echo(f"The studio is at {url} (model {restorer.model_info.name} on {restorer.device}; Ctrl-C ends it)")
        on_start = (lambda: _show(url)) if open_page and _is_loopback(host) else None
        with suppress(KeyboardInterrupt):  # the usual way to end it
            serve(restorer, limits, host, listener, on_start)
    finally:
        listener.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises
    ------
    ConfigError : the address is not one of this machine, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host!r} is no address; use 127.0.0.1, or an address of this machine") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows it would let two programs share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port, 0 takes any free one"
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _show(url: str) -> None:
    """Open a browser with windows; one inside the terminal would take it over."""
    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)
