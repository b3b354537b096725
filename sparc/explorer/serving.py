"""Serve a site on this machine alone: one folder, on the loopback interface."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
PORT = 8724
"""Port that is tried first, so that links stay the same; if it is taken, any free one."""


def serve(folder: Path, on_ready: Callable[[str], None]) -> None:
    """Serve a folder until Ctrl-C. on_ready: receives the address once the server listens."""
    with server(folder) as found:
        on_ready(f"http://{LOOPBACK}:{found.server_address[1]}/")
        try:
            found.serve_forever()
        except KeyboardInterrupt:
            return


def server(folder: Path, port: int = PORT) -> ThreadingHTTPServer:
    """Return a server of a folder that listens, and serves when `serve_forever` is called."""
    handler = functools.partial(SiteHandler, directory=os.fspath(folder.resolve()))
    try:
        return _Server((LOOPBACK, port), handler)
    except OSError:  # another program has the port
        return _Server((LOOPBACK, 0), handler)


class _Server(ThreadingHTTPServer):
    # On Windows, two programs could otherwise listen on one port.
    allow_reuse_address = os.name != "nt"
    daemon_threads = True


class SiteHandler(SimpleHTTPRequestHandler):
    """Answers requests for the files of a folder, and for nothing else."""

    server_version = "sparc"
    sys_version = ""
    extensions_map = {  # noqa: RUF012, the base class has it so; the system's own table may call a script plain text
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".webp": "image/webp",
        ".svg": "image/svg+xml",
        ".md": "text/plain; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
        "": "application/octet-stream",
    }

    def send_head(self) -> Any:
        """Answer GET and HEAD. A foreign Host header is refused: a page elsewhere may have rebound its name to us."""
        port = self.connection.getsockname()[1]
        if self.headers.get_all("Host", []) not in ([f"{LOOPBACK}:{port}"], [f"localhost:{port}"]):
            self.send_error(HTTPStatus.FORBIDDEN, "unknown host")
            return None
        inside = Path(self.translate_path(self.path)).resolve()
        if not inside.is_relative_to(self.directory):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """List no folder."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Add headers that keep other sites and stale copies out."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
