"""Adapt a trained ensemble to an unlabelled test set: joint supervised and self-supervised steps.

Each step adds the loss on synthetic images, whose holes are known, to a fifth of the loss on the
test set, where further observed pixels are hidden and predicted (JSSL, arXiv 2311.15856); alone,
observed pixels say next to nothing about neighbours two columns apart. They are split three ways,
as in zero-shot SSDU (arXiv 2102.07737): about 5 % are never shown to the network and never in its
loss; they decide, without labels, which step is kept, and whether any is.

Falling error there is not enough: fine-tuning also teaches the network the masks with more hidden,
which the true holes do not reward. A control takes the same steps with synthetic images in the test
set's place. What is adopted must beat the original *and* the control on the pixels never shown, and
must not have got worse, beyond chance, at the true holes of synthetic images that no step of
it saw (seen: +0.10 dB on the former, -0.05 on these, -0.08 in truth). Otherwise the original
weights are returned. All this is transductive: the test set's observed pixels train what then fills
it. It is never a default, and whoever uses it must say so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nogaps.Assessment import augment, corrupt, fill, learning_rate
from nogaps.checkpoint import fingerprint, load_state, save_model, save_state
from nogaps.device import autocast_dtype, pick_device
from nogaps.ema import ema_of
from nogaps.files import BadInput, load_images, samples_file, save_json
from nogaps.imputers.hidden import gain_db, hidden_folds, hidden_mse, line_segments
from nogaps.imputers.loading import WEIGHTS, load_imputer, trained_on
from nogaps.locks import folder_lock
from nogaps.masks import shared_mask
from nogaps.metrics import bootstrap, hole_mse
from nogaps.progress import progress
from nogaps.seeds import numbered_generator

STOP_SHARE = 0.05  # of the observed pixels: never shown, never in the loss
EXTRA_SHARE = 0.3  # of the supervised steps hide as much as the self-supervised ones do
DISCLOSURE = "adapted to its test set: the observed pixels of the test set trained this network"


@dataclass(frozen=True)
class Settings:
    """steps and peak learning rate of AdamW; self_weight: of the self-supervised loss.

    batch_size: of synthetic and of test images each. check_every: steps between two looks at the
    pixels that decide when to stop.
    """

    steps: int = 500
    rate: float = 1e-4
    batch_size: int = 16
    self_weight: float = 0.2
    check_every: int = 50
    seed: int = 0


def stop_pixels(mask: torch.Tensor, seed: int = 0, share: float = STOP_SHARE) -> torch.Tensor:
    """About `share` of the observed pixels, in line segments beside the holes, (1,1,H,W) bool.

    mask: (1,1,H,W) bool, True = observed. Raises ValueError if no pixel lies beside a hole.
    """
    segments = line_segments(mask[0, 0].cpu().numpy(), side=1)
    sizes = np.bincount(segments.ravel())[1:]
    if not len(sizes):
        raise ValueError("no observed pixel lies beside a hole: nothing can be held out")
    order = np.random.default_rng(seed).permutation(len(sizes))
    taken = 1 + np.searchsorted(np.cumsum(sizes[order]), share * float(mask.sum()))
    chosen = np.isin(segments, 1 + order[:taken])
    return torch.from_numpy(chosen)[None, None].to(mask.device)


def extra_holes(mask: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Observed pixels to hide, (16,1,1,H,W) bool: eight folds of lines, eight random 15 to 25 %.

    A fixed pool, because kriging prepares every new mask for a second.
    """
    generator = torch.Generator().manual_seed(seed)
    shares = 0.15 + 0.1 * torch.rand(8, 1, 1, 1, 1, generator=generator)
    chance = torch.rand(8, *mask.shape, generator=generator) < shares
    return torch.cat([hidden_folds(mask, 8, seed), chance.to(mask.device) & mask])


def hole_loss(
    ensemble: nn.Module, x: torch.Tensor, seen: torch.Tensor, scored: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of the members over `scored` pixels, when only `seen` ones are shown.

    x: (N,1,H,W); seen, scored: bool (1,1,H,W), disjoint. Members are scored one by one, not their
    mean: it is worth something only as long as they differ.
    """
    members = ensemble.members(corrupt(x, seen), seen)
    return ((members - x) ** 2 * scored).sum() / scored.sum() / len(x) / len(members)


def _as_used(ensemble: nn.Module) -> nn.Module:
    """Gradients on, outputs unclipped; BatchNorm keeps its statistics, Dropout stays off."""
    ensemble.requires_grad_(True).train()
    for module in ensemble.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout, nn.Dropout2d)):
            module.eval()
    return ensemble


class _Run:
    """State of one fine-tuning: what is trained, what was best, and the pixels that decide.

    teacher: images (M,1,H,W) whose `observed & ~stop` pixels are hidden and predicted: those of the
    test set, or synthetic ones in the control.
    """

    def __init__(
        self,
        ensemble: nn.Module,
        y: torch.Tensor,
        mask: torch.Tensor,
        x: torch.Tensor,
        teacher: torch.Tensor,
        settings: Settings,
    ) -> None:
        self.y, self.mask, self.x, self.teacher = y, mask, x, teacher
        self.settings = settings
        self.stop = stop_pixels(mask, settings.seed)
        self.extra = extra_holes(mask & ~self.stop, settings.seed)
        self.ensemble = _as_used(copy.deepcopy(ensemble))
        self.ema = ema_of(self.ensemble)
        self.optimizer = torch.optim.AdamW(self.ensemble.parameters(), weight_decay=1e-3)
        half = autocast_dtype(mask.device) == torch.float16
        self.scaler = torch.amp.GradScaler(mask.device.type, enabled=half)
        self.before = self.stop_mse(ensemble)
        self.best = {"step": 0, "mse": self.before.tolist(), "state": ensemble.state_dict()}
        self.history = [[0, _psnr(self.before)]]

    def stop_mse(self, imputer: nn.Module) -> np.ndarray:
        """Mean squared error of each test image over the pixels that are never shown, (N,)."""
        return hidden_mse(imputer, self.y, self.mask, self.stop[None])

    def loss(self, step: int) -> torch.Tensor:
        """Of one step; its random numbers depend on the seed and the step only."""
        generator, n = numbered_generator(self.settings.seed, step), self.settings.batch_size
        x = self.x[torch.randperm(len(self.x), generator=generator)[:n]].to(self.mask.device)
        hidden = self.extra[int(torch.randint(len(self.extra), (), generator=generator))]
        less = self.mask & ~self.stop & ~hidden
        more = float(torch.rand((), generator=generator)) < EXTRA_SHARE
        seen = less if more else self.mask
        supervised = hole_loss(self.ensemble, augment(x, generator), seen, ~seen)
        # drawn last: what comes before is the same whoever teaches
        taught = torch.randperm(len(self.teacher), generator=generator)[:n]
        images = self.teacher[taught].to(self.mask.device)
        return supervised + self.settings.self_weight * hole_loss(
            self.ensemble, images, less, hidden
        )

    def step(self, step: int) -> None:
        """One update of the weights and of their average."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.settings.steps, self.settings.rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.loss(step)).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.ensemble.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update_parameters(self.ensemble)

    def check(self, step: int) -> None:
        """Score the average without labels, and keep it if it is the best so far."""
        averaged = self.ema.module.eval()
        mse = self.stop_mse(averaged)
        self.history.append([step, _psnr(mse)])
        if _psnr(mse) > _psnr(np.array(self.best["mse"])):
            state = copy.deepcopy(averaged.state_dict())
            self.best = {"step": step, "mse": mse.tolist(), "state": state}

    def fit(self, checkpoint: Path | None, original: Iterable[torch.Tensor]) -> None:
        """All steps, from the checkpoint on if there is one; BadInput if it is another run's."""
        data = fingerprint(self.y, self.mask, self.x, self.teacher, *original)
        identity = [asdict(self.settings), data, str(self.mask.device.type)]
        parts = {name: getattr(self, name) for name in ("ensemble", "ema", "optimizer", "scaler")}
        state = load_state(checkpoint) if checkpoint else None
        if state is not None:
            if state["identity"] != identity:
                found = f"{checkpoint.parent}: holds a run on other images, weights or settings"
                raise BadInput(f"{found}; choose another --out")
            self.best, self.history = state["best"], state["history"]
            for name, part in parts.items():
                part.load_state_dict(state[name])
        steps, done = self.settings.steps, self.history[-1][0]
        bar = progress(range(done, steps), "adapting", initial=done, total=steps)
        for step in bar:
            self.step(step)
            if (step + 1) % self.settings.check_every == 0 or step + 1 == steps:
                self.check(step + 1)
                bar.set_postfix({"hidden PSNR": f"{self.history[-1][1]:.3f}"})
                kept = {"best": self.best, "history": self.history, "identity": identity}
                if checkpoint:
                    save_state(checkpoint, kept | {k: p.state_dict() for k, p in parts.items()})


def _psnr(mse: np.ndarray) -> float:
    return float(np.mean(-10 * np.log10(np.maximum(mse, 1e-12))))


def adapt(
    ensemble: nn.Module,
    y: torch.Tensor,
    mask: torch.Tensor,
    x: torch.Tensor,
    settings: Settings | None = None,
    checkpoint: Path | None = None,
) -> tuple[nn.Module, dict[str, object]]:
    """Fine-tune a copy of an ensemble on the observed pixels of y and on synthetic images x.

    ensemble: `members(y, mask)` gives (K,N,1,H,W). y: (N,1,H,W) in [0,1]; mask: (1,1,H,W) bool on
    the ensemble's device; x: at least two clean images (M,1,H,W), a tenth of which is not trained
    on. Returns the network and a report: "adopted", "best_step", PSNR in dB over the pixels never
    shown, "before" and "after"; what was gained there over the original and over the control, and
    on the holes of the synthetic images not trained on, in dB with 95 % intervals over images; the
    "history", and the "disclosure". If it is not adopted, the network is a copy of the original,
    bit for bit. The state is saved to `checkpoint`, the control's beside it, at every check; the
    same call goes on. Raises BadInput if it is another run's, ValueError if no hole has neighbours.
    """
    settings, kept = settings or Settings(), min(200, -(-len(x) // 10))
    runs = []
    for name, teacher in (("", y), ("-control", x[:-kept])):
        path = checkpoint and checkpoint.with_name(f"{checkpoint.stem}{name}{checkpoint.suffix}")
        runs.append(_Run(ensemble, y, mask, x[:-kept], teacher, settings))
        runs[-1].fit(path, ensemble.state_dict().values())
    adapted = copy.deepcopy(ensemble)
    adapted.load_state_dict(runs[0].best["state"])
    report = _report(*runs, *(_task_mse(one, x[-kept:], mask) for one in (ensemble, adapted)))
    if not report["adopted"]:
        adapted.load_state_dict(ensemble.state_dict())
    return adapted.eval().requires_grad_(False), report


def _task_mse(imputer: nn.Module, x: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    return hole_mse(fill(imputer, corrupt(x, mask.cpu()), mask), x, mask.cpu()).double().numpy()


def _report(
    run: _Run, control: _Run, task_before: np.ndarray, task_after: np.ndarray
) -> dict[str, object]:
    after, reference = (np.array(one.best["mse"]) for one in (run, control))
    gains = {
        "over_original": bootstrap(gain_db(after, run.before)),
        "over_control": bootstrap(gain_db(after, reference)),
        "synthetic_holes": bootstrap(gain_db(task_after, task_before)),
    }
    rises = gains["over_original"][1] > 0 and gains["over_control"][1] > 0
    adopted = rises and gains["synthetic_holes"][2] >= 0
    return {
        "adopted": adopted,
        "best_step": run.best["step"],
        "before": run.history[0][1],
        "after": _psnr(after),
        "gain_db": {name: list(values) for name, values in gains.items()},
        "stop_pixels": int(run.stop.sum()),
        "settings": asdict(run.settings),
        "history": run.history,
        "control": control.history,
        "disclosure": DISCLOSURE if adopted else "rolled back: the weights are the original ones",
    }


def adapt_file(
    test_set: str | Path,
    images: str | Path,
    out: str | Path,
    model: str | Path | None = None,
    settings: Settings | None = None,
) -> dict[str, object]:
    """Adapt an imputer to a test set; write `out/imputer.safetensors` and `adaptation.json`.

    test_set: .npy (N,1,H,W) float in [0,1] with one mask; images: clean ones, .npy or a folder with
    `images.npy`; model: else the shipped imputer. Returns the report of `adapt`. Continues its own
    interrupted run. Raises BadInput: sizes differ, no mask to find, `out` in use or another run's.
    """
    images, out, device = Path(images), Path(out), pick_device()
    y = torch.from_numpy(load_images(test_set))
    mask = torch.from_numpy(shared_mask(y.numpy(), str(test_set)))[None, None].to(device)
    x = torch.from_numpy(load_images(samples_file(images)))
    if x.shape[1:] != y.shape[1:] or len(x) < 10:
        found = f"{len(x)} images of {tuple(x.shape[2:])}"
        raise BadInput(f"{images}: holds {found}, expected 10 or more of {tuple(y.shape[2:])}")
    try:
        stop_pixels(mask)
    except ValueError as error:
        raise BadInput(f"{test_set}: {error}") from error
    ensemble = load_imputer(model, device)
    with folder_lock(out):
        adapted, report = adapt(ensemble, y, mask, x, settings, out / "adaptation.safetensors")
        save_model(out / WEIGHTS, adapted, adapted.config | trained_on(mask))
        save_json(out / "adaptation.json", report)
    return {"imputer": str(out / WEIGHTS), **report}
