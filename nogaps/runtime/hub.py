"""The Hugging Face Hub, the one way to the network: fetch a model by its id, and publish one."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from glob import escape
from pathlib import Path

from huggingface_hub import (
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    PyTorchModelHubMixin,
    constants,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from nogaps.runtime.errors import BadInput

__all__ = ["EvalResult", "ModelCard", "ModelCardData", "PyTorchModelHubMixin"]  # for other rooms
__all__ += ["CARD", "download", "load_card", "locate", "upload"]
CARD = "README.md"
# the first base is the HTTP library's own error: requests', httpx' or httpx2's, by version
HUB_ERRORS = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)
LOGIN = "HF_TOKEN or `hf auth login`"
REASONS: dict[type[Exception], str] = {
    HFValidationError: "not an id of the Hub, expected owner/name",
    GatedRepoError: "its repository on the Hub is gated: ask for access on its page, then use "
    + LOGIN,
    RepositoryNotFoundError: "the Hub has no such repository, or your token gives no access to it: "
    f"check the id, and {LOGIN}",
    LocalEntryNotFoundError: "the Hub cannot be reached and no copy is here: check the network",
}


def locate(model: str | Path, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Return a path as it is, and the downloaded folder of an id `owner/name`.

    What exists here, and what cannot be an id (dots in front, more or fewer slashes, the name of a
    weights file), is a path.

    Args:
        model: The path or the id.
        patterns: Of the files that are wanted.
        revision: Branch, tag or commit of an id.

    Raises:
        BadInput: As `download`.
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
    """Return the folder of a model in the Hub's local cache, fetched if need be.

    Args:
        repo_id: `owner/name`.
        patterns: Of the files that are wanted.
        revision: Branch, tag or commit.
        options: Of `snapshot_download`.

    Raises:
        BadInput: The Hub cannot be reached, or does not have it.
    """
    options = {"allow_patterns": [*patterns], "revision": revision, **options}
    try:
        return Path(snapshot_download(repo_id, **options))
    except HUB_ERRORS as error:
        problem = f"no such file or folder, and {_reason(error, revision)}"
        raise BadInput(problem, path=repo_id) from error


def _reason(error: Exception, revision: str | None) -> str:
    """Why the Hub did not do what was asked, in one line that says what helps."""
    if constants.HF_HUB_OFFLINE and not isinstance(error, HFValidationError):
        return "the Hub is out of reach: offline mode is on (HF_HUB_OFFLINE) and no copy is here"
    if isinstance(error, RevisionNotFoundError):
        return f"its repository on the Hub has no revision {revision!r}"
    for kind, reason in REASONS.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return REASONS[RepositoryNotFoundError]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the Hub did not answer as expected ({lines[0][:120]})"


def load_card(path: Path) -> ModelCard:
    """Read a model card with its metadata.

    Raises:
        BadInput: It is missing or unreadable, or has no metadata.
    """
    try:
        card = ModelCard.load(path)
    except Exception as error:  # the YAML of its metadata has errors of its own
        raise BadInput("no readable model card", "one", path=path) from error
    if not card.data.to_dict():
        expected = "a model card that opens with license and tags between two lines of ---"
        raise BadInput("has no metadata", expected, path=path)
    return card


def upload(
    repo_id: str,
    folder: Path,
    names: Sequence[str],
    message: str,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Upload files to a repository of the Hub, which is made if it does not exist.

    Args:
        repo_id: `owner/name`.
        folder: Where the files lie.
        names: Their paths within it.
        message: Of the commit.
        private: Whether a new repository is private.
        revision: A branch, made if it does not exist.

    Returns:
        The address of the commit.

    Raises:
        BadInput: There is no token or network, or `private` is asked of a public repository.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise BadInput(REASONS[HFValidationError], path=repo_id)
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:  # exist_ok leaves an old one as it is
            raise BadInput("exists and is public, --private cannot change that", path=repo_id)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        patterns = [escape(name) for name in names]
        options = {"allow_patterns": patterns, "revision": revision, "commit_message": message}
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options).commit_url)
    except BadInput:
        raise
    except HUB_ERRORS as error:
        raise BadInput(f"not uploaded, {_reason(error, revision)}", path=repo_id) from error
