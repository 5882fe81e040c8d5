"""A server in this process that speaks the protocol of the Hugging Face Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

REPO = "owner/name"


class FakeHub(ThreadingHTTPServer):
    """A repository in memory: its branches, and what is refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.branches: dict[str, dict[str, bytes]] = {}
        self.private, self.refuse = False, 0
        self.refuse_reading: tuple[int, str] | None = None  # status, code of the error
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, value: object = None, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if hub.refuse or self.headers.get("Authorization") != "Bearer secret":
            self.answer({"error": "no"}, hub.refuse or 401)
        elif path == "/api/repos/create":
            known, asked = bool(hub.branches), json.loads(body)
            hub.private |= not known and (
                asked.get("private") is True or asked.get("visibility") == "private"
            )
            hub.branches.setdefault("main", {})
            self.answer({"url": f"{hub.url}/{REPO}"}, 409 if known else 200)
        elif "/branch/" in path:
            hub.branches.setdefault(path.rsplit("/", 1)[1], dict(hub.branches["main"]))
            self.answer({})
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.answer({"files": files})
        elif "/commit/" in path:
            files = hub.branches[path.rsplit("/", 1)[1]]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{hub.url}/{REPO}/commit/1", "commitOid": "1" * 40})
        else:
            self.answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        commits = {name: f"{k:040x}" for k, name in enumerate(sorted(hub.branches), 1)}
        asked = path.removeprefix(f"/api/models/{REPO}").removeprefix(f"/{REPO}/resolve")
        kind, _, rest = asked.strip("/").partition("/")
        names = {**{v: k for k, v in commits.items()}, **{k: k for k in commits}}
        if hub.refuse_reading:
            self.answer({}, hub.refuse_reading[0], X_Error_Code=hub.refuse_reading[1])
        elif (
            asked == path
            or not hub.branches
            or (hub.private and not self.headers.get("Authorization"))
        ):
            self.answer({}, 404, X_Error_Code="RepoNotFound")
        elif not path.startswith("/api/"):
            data = hub.branches[names[kind]][rest]
            tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            self.answer(data, X_Repo_Commit=commits[names[kind]], **tag)
        elif kind and rest.split("/")[0] not in names:
            self.answer({}, 404, X_Error_Code="RevisionNotFound")
        elif kind == "tree":
            files = hub.branches[names[rest.split("/")[0]]]
            self.answer([{"type": "file", "path": n, "size": 1, "oid": n} for n in files])
        else:
            sha = commits[names[rest or "main"]]
            self.answer({"id": REPO, "private": hub.private, "sha": sha, "tags": []})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    server = FakeHub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setenv("HF_TOKEN", "secret")
    yield server
    server.shutdown()
    server.server_close()
