"""A stand-in for the hub: repositories in memory, served over the HTTP that huggingface_hub speaks."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_LARGE_BYTES = 2000  # as on the hub, large files have their SHA-256 as tag, small ones what git has


@dataclass
class ToyHub:
    """`repositories`: {"owner/name": {"branch, tag or commit": {"file": content}}}."""

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    corrupt: bool = False
    requests: list[str] = field(default_factory=list)

    def commit(self, name: str, revision: str) -> str:
        files = self.repositories[name][revision]
        listing = json.dumps([[file, tag(content)] for file, content in sorted(files.items())])
        return hashlib.sha1(listing.encode()).hexdigest()

    def resolve(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a branch, or of a commit by its number."""
        branches = self.repositories[name]
        for branch in branches:
            if revision in (branch, self.commit(name, branch)):
                return self.commit(name, branch), branches[branch]
        return None


def tag(content: bytes) -> str:
    if len(content) >= _LARGE_BYTES:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: ToyHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self.describe(match[1], match[2] or "main")
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.give(match[1], match[2], match[3])
            else:
                self.refuse("EntryNotFound")

        def describe(self, name: str, revision: str) -> None:
            if name not in hub.repositories:
                self.refuse("RepoNotFound")
            elif (found := hub.resolve(name, revision)) is None:
                self.refuse("RevisionNotFound")
            else:
                siblings = [{"rfilename": file} for file in sorted(found[1])]
                body = {
                    "id": name,
                    "modelId": name,
                    "sha": found[0],
                    "siblings": siblings,
                    "private": False,
                    "tags": [],
                }
                self.send(json.dumps(body).encode(), {"Content-Type": "application/json"})

        def give(self, name: str, revision: str, file: str) -> None:
            found = hub.resolve(name, revision) if name in hub.repositories else None
            if found is None:
                self.refuse("RepoNotFound" if name not in hub.repositories else "RevisionNotFound")
            elif file not in found[1]:
                self.refuse("EntryNotFound")
            else:
                content = found[1][file]
                headers = {"ETag": f'"{tag(content)}"', "X-Repo-Commit": found[0]}
                self.send(content[::-1] if hub.corrupt else content, headers)

        def send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, code: str) -> None:
            self.send(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, 404)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serve_hub() -> Iterator[ToyHub]:
    """Run a hub on a free port of this machine."""
    hub = ToyHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
