"""What is published of an imputer on the Hub: weights, config, calibration, and a model card.

The card is written from what was measured and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nogaps.imputers.intervals import Calibration
from nogaps.imputers.loading import (
    FILES,
    SHIPPED,
    TrainedEnsemble,
    load_imputer,
    weights_file,
    weights_fingerprint,
)
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic_folder, load_json
from nogaps.runtime.hub import CARD, EvalResult, ModelCard, ModelCardData, load_card
from nogaps.tables import with_interval

SUMMARY, RESULTS = "summary.json", "imputers.json"  # of a run, of `benchmarks.imputers`
LICENCE = "cc-by-sa-4.0"
TAGS = ["medical-imaging", "mri", "inpainting", "image-restoration"]
LICENCES = {LICENCE: "CC BY-SA 4.0"}
SOURCES = """All training images are synthetic: 2,048 samples of the latent diffusion model of \
nogaps. That model saw 707 real slices:

- 531 of the Brain Tumor MRI Dataset (Kaggle, masoudnickparvar; CC0; it combines figshare 1512427,
  CC BY 4.0, by Jun Cheng, with SARTAJ and Br35H), mostly of tumour patients;
- 176 of 16 healthy subjects: 11 of OpenfMRI ds000011 (PDDL), 5 of IXI (CC BY-SA 3.0,
  <https://brain-development.org/ixi-dataset/>).

CC BY-SA 4.0 honours the licences of all of these.

Neither model has seen the images that are scored below: 100 slices of the Brain Tumor MRI Dataset
(`heads`), 88 of 8 subjects of the NiChart demo data (`heads_t1`; for evaluation only, not passed
on), and 100 of nine healthy subjects, the `test_set.npy` of nogaps (the stand-in)."""
NAMES = {
    "kriging (real)": "kriging, covariance of real heads",
    "kriging (synthetic)": "kriging, covariance of the training images",
    "coursework": "coursework recipe, 21.6 million weights",
    "ours, fast": "this imputer, `--quality fast`",
    "ours, best": "**this imputer**",
}  # rows of `benchmarks.imputers` that a card shows
BEST = "ours, best"
USE = """```sh
nogaps fill corrupted.npy -o filled.npy --model ID     # ID: of this repository, or its folder
```

```python
from nogaps.imputers.loading import load_imputer

imputer = load_imputer("ID")  # weights are loaded strictly, from safetensors
x_hat = imputer(y, mask)  # y (N,1,H,W) float32 in [0,1]; mask (1,1,H,W) bool, True = observed
```"""
LIMITS = """Not a medical device. What is filled in is plausible, not measured: nothing may be
diagnosed from it, and no statement about patients or populations rests on it. Under other masks,
sizes, contrasts and parts of the body less holds; `nogaps fill` notes where size or mask differ."""


@dataclass(frozen=True)
class About:
    """Facts for the model card that the weights do not hold.

    Attributes:
        data: What it learnt from.
        licence: An id of the Hub.
        results: JSON of `benchmarks.imputers`.
        summary: Of the notebook's run.
    """

    data: str
    licence: str
    results: dict | None
    summary: dict | None


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


def write_folder(
    out: str | Path,
    model: str | Path | None = None,
    results: str | Path | None = None,
    licence: str = "",
    data: str = "",
) -> list[str]:
    """Write what is published to a new folder.

    The card is the one beside the weights, unless `results`, `licence` or `data` say anew what it
    is written from.

    Args:
        out: The folder; what it holds may only be an earlier version.
        model: As `weights_file` takes it.
        results: As `about_imputer` takes it.
        licence: As `about_imputer` takes it.
        data: As `about_imputer` takes it.

    Returns:
        The names of its files.

    Raises:
        BadInput: The imputer does not load strictly, the card cannot be written or has no
            metadata, or `out` holds other files.
    """
    out, own, imputer = Path(out), weights_file(model).parent / CARD, load_imputer(model)
    if results or licence or data or not own.exists():
        card = model_card(imputer, about_imputer(model, results, licence, data))
    else:
        card = load_card(own)
    if out.exists() and not (out.is_dir() and {p.name for p in out.iterdir()} <= {*FILES, CARD}):
        raise BadInput("is in use", "a new or an empty folder", path=out)
    with atomic_folder(out) as folder:
        card.save(folder / CARD)
        imputer.save_pretrained(folder)
        return sorted(path.name for path in folder.iterdir())


def model_card(imputer: TrainedEnsemble, about: About) -> ModelCard:
    """Write the card of an imputer, its metadata valid for the Hub.

    Raises:
        BadInput: The results lack a number, or were measured with other weights.
    """
    if about.results and about.results.get("imputer") not in (None, weights_fingerprint(imputer)):
        raise BadInput(f"{RESULTS}: was measured with other weights", "these")
    calibration = imputer.calibration if imputer.has_calibration else None
    try:
        parts = [_head(imputer), USE, "## What it learnt from", about.data]
        parts += ["## Measured", *_run(about.summary), *_tables(about.results)]
        parts += [*_intervals(calibration), "## Limits", LIMITS, "## Licence"]
        data = _metadata(about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"model card: a measured file lacks an entry ({type(error).__name__}: {error})"
        raise BadInput(problem[:200], "one of benchmarks.imputers") from error
    parts.append(f"Weights: {LICENCES.get(about.licence, about.licence)}. Code: MIT.")
    body = "\n\n".join(parts)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _metadata(about: About) -> ModelCardData:
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name="filling missing lines",
            dataset_type="head-mri",
            dataset_name=name,
            dataset_config=name,  # the Hub joins results of one configuration
            metric_type=metric,
            metric_name=label,
            metric_value=round(float(rows[BEST][metric]), 3),
        )
        for name, rows in (about.results or {"tables": {}})["tables"].items()
        for metric, label in (("psnr", "hole PSNR / dB"), ("ssim", "hole SSIM"))
    ]
    return ModelCardData(
        license=about.licence,
        library_name="nogaps",
        pipeline_tag="image-to-image",
        tags=TAGS,
        model_name="nogaps imputer" if results else None,
        eval_results=results or None,
    )


def _head(imputer: TrainedEnsemble) -> str:
    networks, weights = len(imputer.networks), sum(p.numel() for p in imputer.parameters())
    description = "one U-Net" if networks == 1 else f"the mean of {networks} U-Nets"
    text = f"""# Filling the missing lines of head MRIs

`x_hat = imputer(y, mask)`: {description}, {weights:,} weights, each of which adds to kriging what
kriging misses; observed pixels come back bit for bit."""
    if imputer.trained_on is not None:
        text += " Trained for images of {}×{} under one mask.".format(*imputer.trained_on.size)
    return text


def _run(summary: dict | None) -> Iterator[str]:
    if summary is None:
        return
    count, seconds = summary["synthetic images"]["shape"][0], summary["seconds"]
    kind = summary["test set"]["kind"]
    yield (
        f"`nogaps run --profile {summary['profile']}` sampled {count:,} images in "
        f"{seconds['sampling']:,} s and trained for {seconds['training']:,} s on "
        f"{summary['device']}, seed {summary['seed']}."
    )
    if psnr := summary["hole PSNR / dB"]:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in psnr.items())
        yield f"Its last cell, hole PSNR in dB on the {kind}: {scores}."


def _tables(results: dict | None) -> Iterator[str]:
    if results is None:
        yield "`benchmarks.imputers` was not run with these weights: no scores are claimed."
        return
    yield (
        "Over the missing pixels of real heads that no training has seen, under the course's mask, "
        "per image and then averaged; 95 % intervals by bootstrap over subjects. *More*: PSNR of "
        "this imputer minus the row's, image by image."
    )
    for name, rows in results["tables"].items():
        lines = [f"| {name} | hole RMSE | PSNR / dB | SSIM | more / dB |", "|---|---|---|---|---|"]
        for key, label in NAMES.items():
            if key in rows:
                lines.append(_row(label, rows[key], key == BEST))
        yield "\n".join(lines)
    if run := results.get("training", {}).get("coursework"):
        yield (
            f"The coursework recipe was trained on the same images for {run['seconds'] / 60:.0f} "
            f"minutes, {run['epochs']} of its {run['published_epochs']} epochs."
        )
    yield (
        "`python -m benchmarks.imputers runs/frames/heads.npz runs/frames/heads_t1.npz --published "
        "runs/published`, the frame files made by `nogaps prior prepare` from the sources above."
    )


def _row(label: str, row: dict, best: bool) -> str:
    more, *interval = row["more_db"]
    psnr, more = with_interval(row["psnr"], row["psnr_95"], 2), with_interval(more, interval, 2)
    cells = [label, f"{row['rmse']:.4f}", psnr, f"{row['ssim']:.3f}", "" if best else more]
    return f"| {' | '.join(cells)} |"


def _intervals(calibration: Calibration | None) -> Iterator[str]:
    if calibration is None:
        return
    yield (
        f"`--uncertainty` gives half-widths of {calibration.level:.0%} intervals, calibrated on "
        f"{calibration.groups} groups (conformal risk control, arXiv 2208.02814)."
    )
    if not isinstance(measured := calibration.measured, dict):
        source = f"; calibrated {measured}" if measured else ""
        yield f"What they cover was not measured on real heads{source}."
        return
    lines = ["| heads | groups | hole pixels covered | 5th to 95th percentile of groups |"]
    lines.append("|---|---|---|---|")
    for name, row in measured["heads"].items():
        low, _, high = row["groups_5_50_95"]
        line = f"| {name} | {row['groups']} | {row['coverage']:.1%} | {low:.1%} to {high:.1%} |"
        lines.append(line)
    yield "\n".join(lines)
    left = ", ".join(f"{n}: {row['coverage']:.1%}" for n, row in measured["left out"].items())
    yield (
        f"Coverage of groups not used for calibration, by the share of groups used: {left}. "
        "`python -m benchmarks.uncertainty runs/frames/heads.npz runs/frames/heads_t1.npz`"
    )
