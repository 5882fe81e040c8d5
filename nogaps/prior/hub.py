"""The Hugging Face Hub: fetch a prior, and publish one with its model card."""

from __future__ import annotations

import re
from glob import escape
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nogaps.files import BadInput

CARD = "README.md"
WEIGHTS_AND_CONFIGS = (".json", ".safetensors")
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
PICTURE_LINK = re.compile(r"""!\[[^\]]*\]\(\s*<?([^)>\s]+)|<img[^>]*?\ssrc=["']([^"']+)""", re.I)
# the first base is the HTTP library's own error: requests', httpx' or httpx2's, by version
HUB_ERRORS = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def download(repo_id: str, revision: str | None = None) -> Path:
    """Folder of the prior `owner/name` in the Hub's local cache, fetched if need be.

    Raises BadInput, one line, if the Hub cannot be reached or does not have it.
    """
    patterns = ["*.json", "*/*.json", "*/*.safetensors"]
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))
    except HUB_ERRORS as error:
        raise BadInput(f"{repo_id}: no such folder, and {reason(error, revision)}") from error


def reason(error: Exception, revision: str | None = None) -> str:
    """Why the Hub did not do what was asked, in one line that says what would help."""
    if isinstance(error, HFValidationError):
        return "not an id of the Hub, expected owner/name"
    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
        return "the Hub is out of reach: offline mode is on (HF_HUB_OFFLINE) and no copy is here"
    if isinstance(error, RevisionNotFoundError):
        return f"its repository on the Hub has no revision {revision!r}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        return (
            "the Hub has no such repository, or your token gives no access to it: check the id, "
            "and HF_TOKEN or `hf auth login`"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return "the Hub cannot be reached and no copy is here: check the network"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the Hub did not answer as expected ({lines[0][:120]})"


def files_to_push(folder: str | Path | None = None) -> tuple[Path, list[str]]:
    """What `push_prior` uploads: the folder, None being the shipped prior, and paths within it.

    Weights, configs, card, and the pictures that the card shows. Raises BadInput unless the folder
    loads strictly and has a model card.
    """
    import torch

    from nogaps.prior.loading import SHIPPED, load_prior  # which imports this module for Hub ids

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
    try:
        card = ModelCard.load(folder / CARD)
    except Exception as error:  # the YAML of its metadata has errors of its own
        raise BadInput(f"{folder / CARD}: no readable model card, expected one") from error
    if not card.data.to_dict():
        raise BadInput(
            f"{folder / CARD}: has no metadata, expected a model card that opens with license "
            "and tags between two lines of ---"
        )
    names = [a or b for a, b in PICTURE_LINK.findall(card.text)]
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
    """Upload a prior and its card to the Hub repository `owner/name`, made if it is not there.

    revision: a branch, made if it is not there. Returns the address of the commit. Raises BadInput,
    one line, for a folder that `files_to_push` refuses, without token or network, or if `private`
    is asked of a repository that is public already.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise BadInput(f"{repo_id}: not an id of the Hub, expected owner/name")
    if constants.HF_HUB_OFFLINE:
        raise BadInput(f"{repo_id}: offline mode is on (HF_HUB_OFFLINE), nothing was uploaded")
    if not get_token():
        raise BadInput(
            f"{repo_id}: no token for the Hub, nothing was uploaded: set HF_TOKEN to one that may "
            "write, or use `hf auth login`"
        )
    folder, names = files_to_push(folder)
    try:
        return _upload(HfApi(), repo_id, folder, names, private, revision)
    except HUB_ERRORS as error:
        raise BadInput(f"{repo_id}: not uploaded, {reason(error, revision)}") from error


def _upload(
    api: HfApi, repo_id: str, folder: Path, names: list[str], private: bool, revision: str | None
) -> str:
    api.create_repo(repo_id, private=private, exist_ok=True)
    if private and not api.model_info(repo_id).private:  # exist_ok leaves an old one as it is
        raise BadInput(f"{repo_id}: exists and is public, --private cannot change that")
    if revision:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        allow_patterns=[escape(name) for name in names],
        revision=revision,
        commit_message="Upload a prior of nogaps",
    )
    return str(commit.commit_url)
