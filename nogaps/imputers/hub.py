"""The folder of an imputer that is published on the Hub: weights, config, calibration, card."""

from __future__ import annotations

import shutil
from pathlib import Path

from nogaps.imputers.card import LICENCE, SOURCES, About
from nogaps.imputers.loading import FILES, SHIPPED, load_imputer, weights_file
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic_folder, load_json
from nogaps.runtime.hub import CARD, load_card

SUMMARY, RESULTS = "summary.json", "imputers.json"  # of a run, of `benchmarks.imputers`


def about_imputer(
    model: str | Path | None, results: str | Path | None = None, licence: str = "", data: str = ""
) -> About:
    """Collect what is known of an imputer from the files beside its weights.

    Args:
        model: As `weights_file` takes it.
        results: JSON of `benchmarks.imputers`; None is the one beside the weights, if any.
        licence: An id of the Hub; "" as the shipped imputer has.
        data: What the training images are; "" for the shipped imputer.

    Raises:
        BadInput: A file is unreadable, or data is missing.
    """
    folder = weights_file(model).parent
    if not data and not (folder.exists() and folder.samefile(SHIPPED)):
        problem = "has no model card, and nothing says what it learnt from"
        raise BadInput(problem, "--data 'A SENTENCE ON THE TRAINING IMAGES'", path=folder)
    path = folder / RESULTS if results is None else Path(results)
    measured = load_json(path) if results or path.exists() else None
    summary = load_json(folder / SUMMARY) if (folder / SUMMARY).exists() else None
    return About(data or SOURCES, licence or LICENCE, measured, summary)


def choose_card(
    model: str | Path | None, results: str | Path | None, licence: str, data: str
) -> About | None:
    """Return what a new card is written from, or None where the one beside the weights serves.

    Arguments and errors are those of `about_imputer`; a card without metadata is refused as well.
    """
    own = weights_file(model).parent / CARD
    if results or licence or data or not own.exists():
        return about_imputer(model, results, licence, data)
    load_card(own)
    return None


def write_folder(out: str | Path, model: str | Path | None, about: About | None) -> list[str]:
    """Write what is published to a new folder.

    Args:
        out: The folder; what it holds may only be an earlier version.
        model: As `weights_file` takes it.
        about: What the card is written from; None takes the card beside the weights.

    Returns:
        The names of its files.

    Raises:
        BadInput: The imputer does not load strictly, or `out` holds other files.
    """
    out, own = Path(out), weights_file(model).parent / CARD
    if out.exists() and not (out.is_dir() and {p.name for p in out.iterdir()} <= {*FILES, CARD}):
        raise BadInput("is in use", "a new or an empty folder", path=out)
    imputer = load_imputer(model)
    with atomic_folder(out) as folder:
        if about is None:
            shutil.copyfile(own, folder / CARD)
        imputer.save_pretrained(folder, model_card_kwargs={"about": about})
        return sorted(path.name for path in folder.iterdir())
