"""The Hub: push to and load from a server that speaks its protocol; errors are one clear line."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner

from nogaps.commands.main import app
from nogaps.prior.hub import files_to_push, push_prior
from nogaps.prior.loading import WEIGHTS, load_prior
from nogaps.runtime.files import BadInput

CARD = """---
license: mit
tags: [test]
---
# A prior

![Samples](docs/samples.png) and <img width="64" src="grid.jpg"> and
![elsewhere](https://example.org/badge.svg)
"""
PARTS = {"model_index.json", "scheduler/scheduler_config.json"}
PARTS |= {f"{part}/{name}" for part in ("unet", "vqvae") for name in ("config.json", WEIGHTS)}
REPO = "owner/name"


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory: branches of files, and what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.branches: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}
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

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_PUT(self) -> None:
        self.server.stored[self.path.rsplit("/", 1)[1]] = self.body()
        self.answer({})

    def do_POST(self) -> None:
        hub, path, body = self.server, unquote(urlsplit(self.path).path), self.body()
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
            modes = {name: "lfs" if name.endswith("safetensors") else "regular" for name in names}
            files = [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]
            self.answer({"files": files})
        elif path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{hub.url}/store/{item['oid']}"}}
            self.answer({"objects": objects})
        elif "/commit/" in path:
            files = hub.branches[path.rsplit("/", 1)[1]]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.stored[value["oid"]]
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
            rows = [
                {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                for n, d in files.items()
            ]
            self.answer(rows)
        else:
            branch = names[rest or "main"]
            files = [{"rfilename": name} for name in hub.branches[branch]]
            info = {"id": REPO, "modelId": REPO, "private": hub.private, "siblings": files}
            self.answer({**info, "sha": commits[branch], "tags": []})


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


@pytest.fixture
def folder(prior_folder: Path, tmp_path: Path) -> Path:
    """A prior with a card, its pictures, and files that are nobody's business."""
    path = tmp_path / "prior"
    shutil.copytree(prior_folder, path)
    (path / "README.md").write_text(CARD)
    (path / "docs").mkdir()
    for name in ("docs/samples.png", "grid.jpg", "private.png"):
        Image.new("L", (4, 4)).save(path / name)
    (path / "patient.csv").write_text("name\n")
    (path / ".cache").mkdir()
    (path / ".cache/state.json").write_text("{}")
    return path


def test_pushed_prior_loads_from_the_hub(hub: FakeHub, folder: Path) -> None:
    address = push_prior(REPO, folder, private=True, revision="dev")
    assert address == f"{hub.url}/{REPO}/commit/1" and hub.private
    assert hub.branches["main"] == {}
    wanted = PARTS | {"README.md", "docs/samples.png", "grid.jpg"}
    assert set(hub.branches["dev"]) == wanted == set(files_to_push(folder)[1])
    for name, data in hub.branches["dev"].items():
        assert data == (folder / name).read_bytes(), name
    there, here = load_prior(REPO, revision="dev"), load_prior(folder)
    assert there.weights_sha256 == here.weights_sha256
    for a, b in zip(there.unet.parameters(), here.unet.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(BadInput, match="no revision 'v9'"):
        load_prior(REPO, revision="v9")
    with pytest.raises(BadInput, match="no such repository"):
        load_prior("owner/other")


def test_private_is_not_promised_for_a_public_repository(hub: FakeHub, folder: Path) -> None:
    hub.branches["main"] = {}
    with pytest.raises(BadInput, match="exists and is public"):
        push_prior(REPO, folder, private=True)
    assert hub.branches == {"main": {}}
    push_prior(REPO, folder)
    assert set(hub.branches["main"]) > PARTS


def test_push_through_the_command_line(hub: FakeHub, folder: Path) -> None:
    command = ["prior", "push", REPO, "--folder", str(folder)]
    with pytest.raises(BadInput, match="add --yes"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not hub.branches
    done = CliRunner().invoke(app, [*command, "--yes", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == {"repo_id": REPO, "commit": f"{hub.url}/{REPO}/commit/1"}


@pytest.mark.parametrize("status", [401, 403, 500])
def test_refused_pushes_are_one_line(hub: FakeHub, folder: Path, status: int) -> None:
    hub.refuse = status
    text = "HF_TOKEN" if status < 500 else "did not answer as expected"
    with pytest.raises(BadInput, match=f"{REPO}: not uploaded, .*{text}") as caught:
        push_prior(REPO, folder)
    assert "\n" not in str(caught.value)


def spoil(folder: Path, name: str) -> None:
    if name == "weights":
        (folder / "unet" / WEIGHTS).unlink()
    elif name == "no card":
        (folder / "README.md").unlink()
    elif name == "bare card":
        (folder / "README.md").write_text("# A prior\n")
    elif name == "bad card":
        (folder / "README.md").write_text("---\na: [\n---\n# A prior\n")
    elif name == "picture":
        (folder / "docs/samples.png").unlink()
    elif name == "outside":
        (folder / "README.md").write_text(CARD.replace("grid.jpg", "../grid.jpg"))
        Image.new("L", (4, 4)).save(folder.parent / "grid.jpg")
    elif name == "not a picture":
        (folder / "README.md").write_text(CARD.replace("grid.jpg", "patient.csv"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("weights", "unet/diffusion_pytorch_model.safetensors: cannot be read"),
        ("no card", "README.md: no readable model card"),
        ("bare card", "README.md: has no metadata"),
        ("bad card", "README.md: no readable model card"),
        ("picture", "README.md: shows docs/samples.png"),
        ("outside", r"README.md: shows \.\./grid.jpg"),
        ("not a picture", "README.md: shows patient.csv"),
    ],
)
def test_unfit_folders_are_not_pushed(hub: FakeHub, folder: Path, name: str, text: str) -> None:
    spoil(folder, name)
    with pytest.raises(BadInput, match=text):
        push_prior(REPO, folder)
    assert not hub.branches


def test_without_token_network_or_id(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="expected owner/name"):
        push_prior("name", folder)
    with pytest.raises(BadInput, match="no such folder"):
        push_prior(REPO, tmp_path / "absent")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(BadInput, match=f"{REPO}: not uploaded, the Hub"):
        push_prior(REPO, folder)
    with pytest.raises(BadInput, match="cannot be reached and no copy is here"):
        load_prior(REPO)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(BadInput, match="no token for the Hub"):
        push_prior(REPO, folder)


def test_offline_is_one_line_and_exit_2(
    nogaps: Callable[..., CompletedProcess[str]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    for command in (
        ("sample", "--prior", REPO, "--revision", "v1", "--out", tmp_path / "s"),
        ("prior", "push", REPO, "--folder", folder, "--yes"),
    ):
        done = nogaps(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("nogaps: ")]
        assert len(lines) == 1 and "offline mode is on (HF_HUB_OFFLINE)" in lines[0]
    assert not (tmp_path / "s").exists()
