"""Trained imputers: loaded strictly from safetensors, called as one, with or without intervals."""

from __future__ import annotations

import copy
import hashlib
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nogaps.Assessment import ConvBlock, Ensemble, Imputer
from nogaps.filling import TrainedOn
from nogaps.imputers.intervals import TERMS, Calibration, half_width, scale_of, scale_terms
from nogaps.interpolation import LinearImputer, keep_observed
from nogaps.runtime.checkpoint import build, fingerprint, load_tensors, save_model
from nogaps.runtime.errors import Advice, BadInput
from nogaps.runtime.files import load_json, save_json
from nogaps.runtime.hub import PyTorchModelHubMixin, download, locate
from nogaps.standin import course_mask
from nogaps.version import __version__

WEIGHTS = "imputer.safetensors"
CONFIG = "config.json"  # beside weights from the Hub: what their own config says
CALIBRATION = "uncertainty.json"  # beside the weights
FILES = (WEIGHTS, CONFIG, CALIBRATION)  # of an imputer on the Hub
SHIPPED = Path(__file__).parents[1] / "weights" / "imputer"
QUALITIES = ("fast", "best")
LARGEST = 1e6  # of a calibration's numbers; products of them stay finite


def weights_fingerprint(network: nn.Module) -> str:
    """Return 16 hex digits of all weights: calibrations and results belong to one imputer."""
    return fingerprint(*network.state_dict().values())


def folded(network: Imputer) -> Imputer:
    """Copy a network in eval mode for filling: BatchNorm within its convolutions, SiLU in place."""
    copied = copy.deepcopy(network)
    copied.interpolation = network.interpolation  # kriging's weights take a second per mask
    for block in copied.modules():
        if isinstance(block, ConvBlock):
            block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
            block[2].inplace = True
    return copied


class TrainedEnsemble(Ensemble, PyTorchModelHubMixin, library_name="nogaps"):
    """A trained imputer, `x_hat = imputer(y, mask)`, a `FillingMethod`; see `load_imputer`.

    Other programs can use the Hub's `from_pretrained`, `save_pretrained` and `push_to_hub`: they
    read and write as `load_imputer` and `nogaps push` do. The mixin by itself would start what a
    file lacks at random, in silence (strict=False), and unpickle where there are no safetensors.

    Args:
        networks: Their mean is what is filled in.
        trained_on: Size and mask of their training images, if known.
        calibration: Of the intervals, or its file, which is read when it is needed.
    """

    def __init__(
        self,
        networks: list[Imputer],
        trained_on: TrainedOn | None = None,
        calibration: Calibration | Path | None = None,
    ) -> None:
        super().__init__(networks)
        self.trained_on, self._calibration = trained_on, calibration
        self._folded: tuple[list, list[Imputer]] = ([], [])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @property
    def kriging(self) -> LinearImputer:
        """What the networks add to: kriging by the covariance of their training images."""
        return self.networks[0].interpolation

    @property
    def identity(self) -> str:
        """16 hex digits of the weights, the settings and the calibration."""
        stored = self._calibration
        calibration = stored.read_bytes() if isinstance(stored, Path) else stored
        text = f"{__version__} {self.config} {calibration} {weights_fingerprint(self)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def has_calibration(self) -> bool:
        """Whether there is a calibration; `calibration` says whether it fits."""
        return self._calibration is not None

    @cached_property
    def calibration(self) -> Calibration:
        """What turns the networks' fills into intervals.

        Raises:
            BadInput: There is none, it is damaged, or it belongs to other networks.
        """
        if self._calibration is None:
            raise BadInput("the imputer has no calibration", advice=Advice.QUALITY_BEST)
        if isinstance(self._calibration, Calibration):
            return self._calibration
        return _read_calibration(self._calibration, self)

    def members(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill with each network: (K,N,1,H,W).

        Frozen networks in eval mode fill as `folded` copies, renewed whenever weights change.
        """
        weights = [*self.parameters(), *self.buffers()]
        if self.training or any(weight.requires_grad for weight in weights):
            return super().members(y, mask)
        versions = [(weight.data_ptr(), weight._version) for weight in weights]
        if self._folded[0] != versions:
            self._folded = versions, [folded(network) for network in self.networks]
        return torch.stack([network(y, mask) for network in self._folded[1]])

    def with_half_width(
        self, y: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x_hat and the half-widths of its intervals, (N,1,H,W) each; 0 where observed.

        Raises:
            BadInput: There is no calibration for these networks.
        """
        calibration, members = self.calibration, self.members(y, mask)
        x_hat = keep_observed(members.mean(0), y, mask)
        scale = scale_of(scale_terms(members, x_hat, y, mask), calibration.weights)
        return x_hat, half_width(x_hat, scale, calibration.factor, mask)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None = None, strict: bool = True, **options: object
    ) -> TrainedEnsemble:
        if not strict:
            raise ValueError("an imputer is loaded strictly, expected no strict=False")
        known = ("cache_dir", "force_download", "local_files_only", "token")
        options = {name: value for name, value in options.items() if name in known}
        folder = model_id if os.path.isdir(model_id) else None
        imputer = load_imputer(folder or download(model_id, FILES, revision, **options))
        if imputer.has_calibration:
            _ = imputer.calibration  # raises where it is damaged
        return imputer

    def _save_pretrained(self, save_directory: Path) -> None:
        trained_on = {"trained_on": asdict(self.trained_on)} if self.trained_on else {}
        config = self.config | trained_on
        save_model(save_directory / WEIGHTS, self, config)
        save_json(save_directory / CONFIG, config)
        calibration = self.calibration if self.has_calibration else None
        if calibration and calibration.imputer == weights_fingerprint(self):  # not trained further
            save_json(save_directory / CALIBRATION, asdict(calibration))


def trained_on(mask: torch.Tensor) -> dict:
    """Return what the config of networks says about the mask (1,1,H,W) they were trained for."""
    return {"trained_on": {"size": [*mask.shape[2:]], "mask": fingerprint(mask[0, 0])}}


def weights_file(model: str | Path | None = None, revision: str | None = None) -> Path:
    """Return the weights file of an imputer.

    Args:
        model: A run folder, the file itself, or a Hub id `owner/name`, which is fetched; None is
            the imputer shipped with this package.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        BadInput: The Hub cannot be reached, or has no such imputer.
    """
    path = locate(SHIPPED if model is None else model, FILES, revision)
    file = path / WEIGHTS if os.path.isdir(path) else path
    if str(path) != str(model) and not os.path.exists(file):  # of a path, reading it says more
        raise BadInput(f"has no {WEIGHTS}", "the repository of an imputer", path=model)
    return file


def load_imputer(
    model: str | Path | None = None,
    device: torch.device | None = None,
    quality: str = "best",
    revision: str | None = None,
) -> TrainedEnsemble:
    """Load a trained imputer, all of its weights, strictly.

    Args:
        model: A run folder, a .safetensors file or a Hub id; None is the imputer shipped here.
        device: Where it computes, and where its images must be; None is the CPU.
        quality: "best" is the mean of all networks that were trained, "fast" the first alone.
        revision: Branch, tag or commit of a Hub id.

    Raises:
        BadInput: The file is missing or damaged, or its weights do not fit its config.
    """
    if quality not in QUALITIES:
        raise BadInput(f"quality {quality!r} is unknown", " or ".join(QUALITIES))
    path = weights_file(model, revision)
    tensors, config = load_tensors(path)
    if (beside := path.parent / CONFIG).exists() and load_json(beside) != config:
        raise BadInput(f"differs from the config in {path.name}", "the same", path=beside)
    networks = _networks(path, tensors, config)
    chosen = networks[: 1 if quality == "fast" else None]
    calibration = path.parent / CALIBRATION
    whole = len(chosen) == len(networks) and calibration.exists()
    imputer = TrainedEnsemble(chosen, _trained_on(path, config), calibration if whole else None)
    return imputer.eval().requires_grad_(False).to(device or torch.device("cpu"))


def _trained_on(path: Path, config: dict) -> TrainedOn | None:
    """What the networks were trained for; None if the file does not say it."""
    if "trained_on" not in config and path.parent == SHIPPED:  # the notebook's, for the course
        config = trained_on(torch.from_numpy(course_mask())[None, None])
    match config.get("trained_on"):
        case None:
            return None
        case {"size": [int(height), int(width)], "mask": str(mask)}:
            return TrainedOn((height, width), mask)
    raise BadInput("its trained_on is invalid", "a size and a mask", path=path)


def _networks(path: Path, tensors: dict[str, torch.Tensor], config: dict) -> list[Imputer]:
    configs = config.get("networks")
    if not isinstance(configs, list) or not configs:
        raise BadInput("describes no networks", "the config of an imputer", path=path)

    def untrained() -> nn.ModuleDict:
        networks = [
            Imputer(
                torch.zeros(2 * config["lag"] + 1, 2 * config["lag"] + 1),
                *(config[name] for name in ("widths", "bottleneck", "bottleneck_dropout")),
            )
            for config in configs
        ]
        return nn.ModuleDict({"networks": nn.ModuleList(networks)})

    return list(build(path, tensors, untrained)["networks"])


def _read_calibration(path: Path, imputer: TrainedEnsemble) -> Calibration:
    """The calibration in a file. Raises BadInput unless it is whole and that of the imputer."""
    try:
        calibration = Calibration(**load_json(path))
        numbers = [calibration.weights[name] for name in TERMS]
        numbers += [calibration.level, calibration.factor, calibration.groups]
        sound = all(0 <= n <= LARGEST for n in numbers) and calibration.level < 1
    except (TypeError, KeyError) as error:
        raise BadInput("lacks numbers of a calibration", "all", path=path) from error
    if not sound:
        raise BadInput("holds a number out of range", f"0 to {LARGEST:g}", path=path)
    if calibration.imputer != weights_fingerprint(imputer):
        raise BadInput("belongs to other weights", "a new calibration", path=path)
    return calibration
