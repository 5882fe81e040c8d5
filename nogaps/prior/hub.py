"""Publish a prior with its model card on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from nogaps.runtime.files import BadInput
from nogaps.runtime.hub import CARD, load_card, upload

WEIGHTS_AND_CONFIGS = (".json", ".safetensors")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
PICTURE_LINK = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)>\s]+)|<img[^>]*?\ssrc=["']([^"']+)""", re.I)


def files_to_push(folder: str | Path | None = None) -> tuple[Path, list[str]]:
    """What `push_prior` uploads: the folder, None being the shipped prior, and paths within it.

    Weights, configs, card, and the pictures that the card shows. Raises BadInput unless the folder
    loads strictly and has a model card.
    """
    import torch

    from nogaps.prior.loading import SHIPPED, load_prior

    folder = Path(folder or SHIPPED)
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder, expected a prior to publish")
    load_prior(folder.resolve(), torch.device("cpu"))
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    found = [
        name.as_posix()
        for name in names
        if name.suffix in WEIGHTS_AND_CONFIGS and not any(p.startswith(".") for p in name.parts)
    ]
    return folder, sorted({*found, CARD, *_card_pictures(folder)})


def _card_pictures(folder: Path) -> list[str]:
    """Local pictures of the model card. Raises BadInput for no card or a picture that is absent."""
    names = [a or b for a, b in PICTURE_LINK.findall(load_card(folder / CARD).text)]
    names = [Path(name).as_posix() for name in names if not re.match(r"[a-z]+:", name, re.I)]
    for name in names:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
        if not (inside and (folder / name).is_file() and Path(name).suffix.lower() in PICTURES):
            raise BadInput(f"{folder / CARD}: shows {name}, expected a picture in the folder")
    return names


def push_prior(
    repo_id: str,
    folder: str | Path | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload a prior and its card, as `runtime.hub.upload`; returns the address of the commit.

    Raises BadInput also for a folder that `files_to_push` refuses.
    """
    return upload(repo_id, lambda: files_to_push(folder), "a prior of nogaps", private, revision)
