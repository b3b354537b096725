"""A small server that answers as the Hugging Face Hub does: files of repositories at commits, branches, listings."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubServer:
    """`repos` maps a name to its commits, newest last, each a pair of a commit and its files by name."""

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

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request, body):
        self.asked.append(f"{request.command} {request.path}")
        status, headers, content = self._found(request.path.partition("?")[0])
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)

    def _found(self, path):
        if made := re.fullmatch(r"/api/models/(.+?)(?:/(revision|tree)/([^/]+))?", path):
            repo, what, revision = made.groups()
            commit, files = self._at(repo, revision or "main")
            if commit is None:
                return self._refusal(repo)
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            content = listed if what == "tree" else {"id": repo, "sha": commit, "siblings": []}
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
