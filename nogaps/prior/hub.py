"""Publish a prior with its model card on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from nogaps.prior.loading import SHIPPED, load_prior
from nogaps.runtime.errors import BadInput
from nogaps.runtime.hub import CARD, load_card, upload

WEIGHTS_AND_CONFIGS = (".json", ".safetensors")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
PICTURE_LINK = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)>\s]+)|<img[^>]*?\ssrc=["']([^"']+)""", re.I)


def files_to_push(folder: str | Path | None = None) -> tuple[Path, list[str]]:
    """Return the folder of a prior, None being the shipped one, and the files to upload.

    These are weights, configs, the card, and the pictures that the card shows.

    Raises:
        BadInput: The prior does not load strictly, or has no model card with its pictures.
    """
    folder = Path(folder or SHIPPED)
    if not folder.is_dir():
        raise BadInput("no such folder", "a prior to publish", path=folder)
    load_prior(folder.resolve(), torch.device("cpu"))
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    visible = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    parts = [name.as_posix() for name in visible if name.suffix in WEIGHTS_AND_CONFIGS]
    return folder, sorted({*parts, CARD, *_card_pictures(folder)})


def _card_pictures(folder: Path) -> list[str]:
    """Local pictures of the model card; BadInput where one is missing."""
    names = [a or b for a, b in PICTURE_LINK.findall(load_card(folder / CARD).text)]
    names = [Path(name).as_posix() for name in names if not re.match(r"[a-z]+:", name, re.I)]
    for name in names:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
        if not (inside and (folder / name).is_file() and Path(name).suffix.lower() in PICTURES):
            raise BadInput(f"shows {name}", "a picture in the folder", path=folder / CARD)
    return names


def push_prior(
    repo_id: str,
    folder: str | Path | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload `files_to_push`; arguments, result and errors are those of `runtime.hub.upload`."""
    message = "Upload a prior of nogaps"
    return upload(repo_id, *files_to_push(folder), message, private, revision)
