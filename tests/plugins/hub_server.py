"""A small server that answers as the Hugging Face Hub does: files of repositories at commits, branches, listings."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote

API = r"/api/(?:models/|(datasets/))(.+?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"


def listed(files, start="", recursive=True):
    """Describe the files and folders whose names begin with `start`."""
    folders = {above.as_posix() for name in files for above in PurePosixPath(name).parents} - {"."}
    content = [{"type": "directory", "path": name, "oid": name} for name in sorted(folders)]
    for name, data in files.items():
        content.append({"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()})
    inside = [one for one in content if one["path"].startswith(start)]
    return [one for one in inside if recursive or "/" not in one["path"].removeprefix(start)]


class HubServer:
    """`repos` maps a name to its commits, newest last, each a pair of a commit and its files by name.

    The names of datasets begin with `datasets/`.
    """

    def __init__(self):
        self.repos = {}
        self.asked = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.answer(self, body=False)

            def do_GET(self):
                hub.answer(self, body=True)

            def do_POST(self):
                asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                hub.answer(self, body=True, paths=asked["paths"])

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request, body, paths=()):
        self.asked.append(f"{request.command} {request.path}")
        path, _, query = unquote(request.path).partition("?")
        status, headers, content = self._found(path, query, paths)
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)

    def _found(self, path, query, paths):
        if made := re.fullmatch(API, path):
            kind, name, what, revision, folder = made.groups()
            repo = f"{kind or ''}{name}"
            commit, files = self._at(repo, revision or "main")
            if commit is None:
                return self._refusal(repo)
            content = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
            if what in ("tree", "paths-info"):
                content = listed(files, f"{folder}/" if folder else "", "recursive=true" in query.lower())
                content = content if what == "tree" else [one for one in listed(files) if one["path"] in paths]
                if folder and not content:
                    return 404, {"X-Error-Code": "EntryNotFound"}, b""
            return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
        if not (made := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path)):
            return 404, {}, b""
        repo, revision, name = made.groups()
        commit, files = self._at(repo, revision)
        if commit is None:
            return self._refusal(repo)
        if name not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        etag = hashlib.sha1(files[name]).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, files[name]

    def _refusal(self, repo):
        return 404, {"X-Error-Code": "RevisionNotFound" if repo in self.repos else "RepoNotFound"}, b""

    def _at(self, repo, revision):
        for commit, files in reversed(self.repos.get(repo, [])):
            if revision in ("main", commit):
                return commit, files
        return None, {}
