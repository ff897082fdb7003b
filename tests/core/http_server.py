"""A local HTTP server for tests of downloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["FolderServer", "serve_folder"]


class _Handler(SimpleHTTPRequestHandler):
    """Serves files; `/redirect?URL` redirects, and `/truncated` closes within the content."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        name, _, target = self.path.partition("?")
        if name == "/redirect":
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        elif name == "/truncated":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class FolderServer(ThreadingHTTPServer):
    """Serves a folder and records the paths of all requests."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """Address of the folder."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve_folder(folder: Path) -> Iterator[FolderServer]:
    """Yield a running server of a folder."""
    with FolderServer(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
