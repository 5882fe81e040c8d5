"""Imputers on the Hub: the folder that is published, and the Hub's own three methods."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nogaps.Assessment import Ensemble, Imputer
from nogaps.imputers.card import LICENCE, SOURCES, About, model_card
from nogaps.imputers.loading import (
    CALIBRATION,
    CONFIG,
    FILES,
    SHIPPED,
    WEIGHTS,
    load_imputer,
    weights_file,
)
from nogaps.imputers.uncertainty import identity, load_calibrated
from nogaps.runtime.checkpoint import save_model
from nogaps.runtime.files import BadInput, atomic_folder, load_json, save_json
from nogaps.runtime.hub import CARD, ModelCard, PyTorchModelHubMixin, download, load_card

SUMMARY, RESULTS = "summary.json", "imputers.json"  # of a run, of `benchmarks.imputers`


class HubImputer(Ensemble, PyTorchModelHubMixin, library_name="nogaps"):
    """An imputer with `from_pretrained`, `save_pretrained` and `push_to_hub`, for other programs.

    They read and write as `load_imputer` and `nogaps push` do: all weights, strictly, from
    safetensors. The mixin itself, left alone, would start what a file lacks at random, in silence
    (strict=False), and unpickle where there are no safetensors.
    """

    def __init__(self, networks: list[Imputer]) -> None:
        super().__init__(networks)
        self.trained_on, self.calibration = None, None

    @classmethod
    def read(cls, model: str | Path | None = None) -> HubImputer:
        """The imputer of a path or Hub id, as `load_imputer`, with the calibration beside it."""
        path = weights_file(model)
        ensemble = load_imputer(path)
        found = cls(list(ensemble.networks)).eval()
        found.trained_on, beside = ensemble.trained_on, path.parent / CALIBRATION
        if beside.exists():
            load_calibrated(ensemble, path)  # or it is damaged, or another imputer's
            found.calibration = load_json(beside)
        return found

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, strict: bool = True, **options: object
    ) -> HubImputer:
        if not strict:
            raise ValueError("an imputer is loaded strictly, expected no strict=False")
        if os.path.isdir(model_id):
            return cls.read(model_id)
        known = ("cache_dir", "force_download", "local_files_only", "token")
        options = {name: value for name, value in options.items() if name in known}
        return cls.read(download(model_id, FILES, revision, **options))

    def _save_pretrained(self, save_directory: Path) -> None:
        config = self.config
        if (trained := self.trained_on) is not None:
            config |= {"trained_on": {"size": [*trained.size], "mask": trained.mask}}
        save_model(save_directory / WEIGHTS, self, config)
        save_json(save_directory / CONFIG, config)
        if self.calibration is not None:
            save_json(save_directory / CALIBRATION, self.calibration)

    def generate_model_card(self, about: About | None = None) -> ModelCard:
        """The card of `model_card`. Raises BadInput for results of other weights."""
        about = about or About()
        if about.results and about.results.get("imputer") not in (None, identity(self)):
            raise BadInput(f"{RESULTS}: was measured with other weights, expected these")
        weights = sum(p.numel() for p in self.parameters())
        shape = (len(self.networks), weights, self.trained_on)
        return model_card(about, *shape, self.calibration)


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
    imputer = HubImputer.read(model)
    with atomic_folder(out) as folder:
        if about is None:
            shutil.copyfile(own, folder / CARD)
        imputer.save_pretrained(folder, model_card_kwargs={"about": about})
        return sorted(path.name for path in folder.iterdir())
