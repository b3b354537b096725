"""Servers that tests read from: S3, by moto, and a web server that can be told to fail."""

import importlib.util
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def lacks(*packages):
    return [name for name in packages if importlib.util.find_spec(name) is None]


needs_s3 = pytest.mark.skipif(
    bool(lacks("s3fs", "moto")), reason="needs s3fs and moto's server: pip install s3fs 'moto[server]'"
)
needs_http = pytest.mark.skipif(bool(lacks("aiohttp")), reason="needs aiohttp: pip install s3fs")


class S3Server:
    """moto's server in a process of its own."""

    def __init__(self):
        code = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
            port = free.server_port
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in self._process.stdout:
            if "Running on" in line:
                break
        self._reading = threading.Thread(target=self._process.stdout.read)  # its log would fill the pipe
        self._reading.start()
        self.variables = {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def close(self):
        self._process.terminate()
        self._process.wait()
        self._reading.join()
        self._process.stdout.close()


class WebServer:
    """A server of `files`, by path, that gives them an ETag. `faults` maps a path to a status, or to bytes sent."""

    def __init__(self):
        self.files, self.faults, self.downloads = {}, {}, []
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                served.answer(self, body=False)

            def do_GET(self):
                served.answer(self, body=True)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request, body):
        path = request.path.partition("?")[0]
        fault = self.faults.get(path)
        content = self.files.get(path)
        if content is None or isinstance(fault, str):
            request.send_response(int(fault or 404))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.send_header("ETag", f'"{hash(content)}"')
        request.end_headers()
        if body:
            self.downloads.append(path)
            request.wfile.write(content[:fault])
            if fault is not None:
                request.close_connection = True

    def close(self):
        self._server.shutdown()
        self._server.server_close()
