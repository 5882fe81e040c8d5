"""The Hub: push to and load from a server that speaks its protocol; errors are one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fake_hub import REPO, FakeHub
from huggingface_hub import constants
from in_process import called
from PIL import Image

from nogaps.prior.loading import WEIGHTS, files_to_push, load_prior
from nogaps.runtime.errors import BadInput
from nogaps.runtime.hub import upload

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


@pytest.fixture
def folder(prior_folder: Path, tmp_path: Path) -> Path:
    """A prior with a card, its pictures, and files that are nobody's business."""
    path = shutil.copytree(prior_folder, tmp_path / "prior")
    (path / "README.md").write_text(CARD)
    for name in ("docs/samples.png", "grid.jpg", "private.png", ".cache/state.png"):
        (path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(path / name)
    (path / "patient.csv").write_text("name\n")
    return path


def push_prior(repo: str, folder: Path, private: bool = False, revision: str | None = None) -> str:
    return upload(repo, *files_to_push(folder), "Upload a prior", private, revision)


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


def test_nothing_is_pushed_unasked(hub: FakeHub, folder: Path) -> None:
    command = ("prior", "push", REPO, "--folder", folder)
    done = called(*command)
    assert done.code == 2 and "add --yes" in done.err and not hub.branches
    done = called(*command, "--yes", "--json")
    assert json.loads(done.out) == {"repo_id": REPO, "commit": f"{hub.url}/{REPO}/commit/1"}
    assert set(hub.branches["main"]) > PARTS


@pytest.mark.parametrize("status", [401, 403, 500])
def test_refused_pushes_are_one_line(hub: FakeHub, folder: Path, status: int) -> None:
    hub.refuse = status
    text = "HF_TOKEN" if status < 500 else "did not answer as expected"
    with pytest.raises(BadInput, match=f"{REPO}: not uploaded, .*{text}") as caught:
        push_prior(REPO, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        (f"unet/{WEIGHTS}", None, "cannot be read"),
        ("README.md", None, "no readable model card"),
        ("README.md", "# A prior\n", "has no metadata"),
        ("README.md", "---\na: [\n---\n# A prior\n", "no readable model card"),
    ],
)
def test_unfit_folders_are_not_pushed(
    hub: FakeHub, folder: Path, name: str, content: str | None, text: str
) -> None:
    (folder / name).unlink()
    if content:
        (folder / name).write_text(content)
    with pytest.raises(BadInput, match=f"{name}: {text}"):
        push_prior(REPO, folder)
    assert not hub.branches


def test_without_token_network_or_id(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="expected owner/name"):
        push_prior("name", folder)
    with pytest.raises(BadInput, match="no such folder"):
        push_prior(REPO, tmp_path / "absent")
    with monkeypatch.context() as patch, pytest.raises(BadInput, match=r"not uploaded, .*HF_TOKEN"):
        patch.delenv("HF_TOKEN")
        patch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        push_prior(REPO, folder)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(BadInput, match=f"{REPO}: not uploaded, the Hub"):
        push_prior(REPO, folder)
    with pytest.raises(BadInput, match="cannot be reached and no copy is here"):
        load_prior(REPO)


def test_gated_and_offline_are_one_line(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.refuse_reading = 403, "GatedRepo"
    with pytest.raises(BadInput, match="is gated: ask for access"):
        load_prior(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for command in (
        ("sample", "--prior", "a/b", "--revision", "v1", "--out", tmp_path / "s"),
        ("fill", "y.npy", "-o", tmp_path / "x.npy", "--model", "a/b"),
        ("prior", "push", REPO, "--folder", folder, "--yes"),
    ):
        done = called(*command)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
        assert "offline mode is on (HF_HUB_OFFLINE)" in done.err
    assert not (tmp_path / "s").exists()
