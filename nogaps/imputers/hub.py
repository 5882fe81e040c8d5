"""The folder of an imputer that is published on the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from nogaps.imputers.card import LICENCE, SOURCES, About
from nogaps.imputers.loading import FILES, SHIPPED, load_imputer, weights_file
from nogaps.runtime.files import BadInput, atomic_folder, load_json
from nogaps.runtime.hub import CARD, load_card

SUMMARY, RESULTS = "summary.json", "imputers.json"  # of a run, of `benchmarks.imputers`


def about_imputer(
    model: str | Path | None, results: str | Path | None = None, licence: str = "", data: str = ""
) -> About:
    """What is known of an imputer besides its weights, from the files that lie beside them.

    results: JSON of `benchmarks.imputers`; None is the one beside the weights, if there is one.
    data: what the training images are, "" for the shipped imputer; licence: an id of the Hub, "" as
    the shipped one has. Raises BadInput for unreadable files, or without data.
    """
    folder = weights_file(model).parent
    if not data and not (folder.exists() and folder.samefile(SHIPPED)):
        found = "has no model card, and nothing says what it learnt from"
        raise BadInput(f"{folder}: {found}, expected --data 'A SENTENCE ON THE TRAINING IMAGES'")
    path = folder / RESULTS if results is None else Path(results)
    measured = load_json(path) if results or path.exists() else None
    summary = load_json(folder / SUMMARY) if (folder / SUMMARY).exists() else None
    return About(data or SOURCES, licence or LICENCE, measured, summary)


def choose_card(
    model: str | Path | None, results: str | Path | None, licence: str, data: str
) -> About | None:
    """What `write_folder` needs: None for the card beside the weights, if nothing else is asked.

    Raises BadInput as `about_imputer`, and for a card without metadata.
    """
    own = weights_file(model).parent / CARD
    if results or licence or data or not own.exists():
        return about_imputer(model, results, licence, data)
    load_card(own)
    return None


def write_folder(out: str | Path, model: str | Path | None, about: About | None) -> list[str]:
    """Write what is published to a new folder; returns the names of its files.

    Weights, config, calibration and card; about: None takes the card that lies beside the weights.
    Raises BadInput unless the imputer loads strictly, or if `out` holds other files.
    """
    out, own = Path(out), weights_file(model).parent / CARD
    known = {*FILES, CARD}
    if out.exists() and (not out.is_dir() or not {p.name for p in out.iterdir()} <= known):
        raise BadInput(f"{out}: is in use, expected a new or an empty folder")
    imputer = load_imputer(model)
    with atomic_folder(out) as folder:
        if about is None:
            shutil.copyfile(own, folder / CARD)
        imputer.save_pretrained(folder, model_card_kwargs={"about": about})
        return sorted(path.name for path in folder.iterdir())
