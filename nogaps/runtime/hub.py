"""The Hugging Face Hub: the one way to the network. Fetch a model by its id, and publish one."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Sequence
from glob import escape
from pathlib import Path

from huggingface_hub import (
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    PyTorchModelHubMixin,
    constants,
    get_token,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nogaps.runtime.files import BadInput

__all__ = ["EvalResult", "ModelCard", "ModelCardData", "PyTorchModelHubMixin"]  # for others here
__all__ += ["CARD", "download", "load_card", "locate", "upload"]
CARD = "README.md"
# the first base is the HTTP library's own error: requests', httpx' or httpx2's, by version
HUB_ERRORS = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def locate(model: str | Path, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The path itself, or, for an id `owner/name`, the folder of `download`.

    What exists here, and what cannot be an id (dots in front, more or fewer slashes, the name of a
    weights file), is a path. Raises BadInput as `download`.
    """
    name = str(model)
    here = name.count("/") != 1 or name.startswith((".", "/")) or name.endswith(".safetensors")
    if os.path.exists(model) or here:
        if revision:
            warnings.warn(f"{model}: a path, so revision {revision} does nothing", stacklevel=3)
        return Path(model)
    return download(name, patterns, revision)


def download(
    repo_id: str, patterns: Sequence[str], revision: str | None = None, **options: object
) -> Path:
    """Folder of the model `owner/name` in the Hub's local cache, fetched if need be.

    patterns: of the files that are wanted; options: of `snapshot_download`. Raises BadInput, one
    line, if the Hub cannot be reached or does not have it.
    """
    options = {"allow_patterns": [*patterns], "revision": revision, **options}
    try:
        return Path(snapshot_download(repo_id, **options))
    except HUB_ERRORS as error:
        why = reason(error, revision)
        raise BadInput(f"{repo_id}: no such file or folder, and {why}") from error


def reason(error: Exception, revision: str | None = None) -> str:
    """Why the Hub did not do what was asked, in one line that says what would help."""
    if isinstance(error, HFValidationError):
        return "not an id of the Hub, expected owner/name"
    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
        return "the Hub is out of reach: offline mode is on (HF_HUB_OFFLINE) and no copy is here"
    if isinstance(error, RevisionNotFoundError):
        return f"its repository on the Hub has no revision {revision!r}"
    if isinstance(error, GatedRepoError):
        return (
            "its repository on the Hub is gated: ask for access on its page, then set HF_TOKEN or "
            "use `hf auth login`"
        )
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


def load_card(path: Path) -> ModelCard:
    """A model card with its metadata. Raises BadInput if there is none, or none in it."""
    try:
        card = ModelCard.load(path)
    except Exception as error:  # the YAML of its metadata has errors of its own
        raise BadInput(f"{path}: no readable model card, expected one") from error
    if not card.data.to_dict():
        raise BadInput(
            f"{path}: has no metadata, expected a model card that opens with license and tags "
            "between two lines of ---"
        )
    return card


def upload(
    repo_id: str,
    content: Callable[[], tuple[Path, list[str]]],
    what: str,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload files to the Hub repository `owner/name`, made if it is not there.

    content: gives their folder and names, and is only asked where an upload could work; what: they
    are, in words; revision: a branch, made if it is not there. Returns the address of the commit.
    Raises BadInput, one line, without token or network, or if `private` is asked of a repository
    that is public already.
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
    found = content()
    try:
        return _upload(HfApi(), repo_id, found, what, private, revision)
    except HUB_ERRORS as error:
        raise BadInput(f"{repo_id}: not uploaded, {reason(error, revision)}") from error


def _upload(
    api: HfApi,
    repo_id: str,
    content: tuple[Path, list[str]],
    what: str,
    private: bool,
    revision: str | None,
) -> str:
    folder, names = content
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
        commit_message=f"Upload {what}",
    )
    return str(commit.commit_url)
