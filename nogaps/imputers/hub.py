"""What is published of an imputer on the Hub: weights, config, calibration, and a model card.

The card is card.md.j2, filled with what was measured and with nothing else.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined, UndefinedError

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

TEMPLATE = Path(__file__).with_name("card.md.j2")
SUMMARY, RESULTS = "summary.json", "imputers.json"  # of a run, of `benchmarks.imputers`
LICENCE = "cc-by-sa-4.0"
TAGS = ["medical-imaging", "mri", "inpainting", "image-restoration"]
NAMES = {
    "kriging (real)": "kriging, covariance of real heads",
    "kriging (synthetic)": "kriging, covariance of the training images",
    "coursework": "coursework recipe, 21.6 million weights",
    "ours, fast": "this imputer, `--quality fast`",
    "ours, best": "**this imputer**",
}  # rows of `benchmarks.imputers` that a card shows
BEST = "ours, best"


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
        results, licence, data: As `model_card` takes them.

    Returns:
        The names of its files.

    Raises:
        BadInput: The imputer does not load strictly, the card lacks facts or metadata, or `out`
            holds other files.
    """
    out, own, imputer = Path(out), weights_file(model).parent / CARD, load_imputer(model)
    if results or licence or data or not own.exists():
        card = model_card(imputer, own.parent, results, licence, data)
    else:
        card = load_card(own)
    if out.exists() and not (out.is_dir() and {p.name for p in out.iterdir()} <= {*FILES, CARD}):
        raise BadInput("is in use", "a new or an empty folder", path=out)
    with atomic_folder(out) as folder:
        card.save(folder / CARD)
        imputer.save_pretrained(folder)
        return sorted(path.name for path in folder.iterdir())


def model_card(
    imputer: TrainedEnsemble,
    folder: Path,
    results: str | Path | None = None,
    licence: str = "",
    data: str = "",
) -> ModelCard:
    """Write the card of an imputer, its metadata valid for the Hub.

    Args:
        imputer: The networks.
        folder: Where its weights lie, with the summary of the run.
        results: JSON of `benchmarks.imputers`; None is the one beside the weights, if any.
        licence: An id of the Hub; "" as the shipped imputer has.
        data: What the training images are; "" for the shipped imputer.

    Raises:
        BadInput: A file is unreadable or lacks a number, the results are of other weights, or
            data is missing.
    """
    if not data and not (folder.exists() and folder.samefile(SHIPPED)):
        problem = "has no model card, and nothing says what it learnt from"
        raise BadInput(problem, "--data 'A SENTENCE ON THE TRAINING IMAGES'", path=folder)
    licence, path = licence or LICENCE, Path(results or folder / RESULTS)
    measured = load_json(path) if results or path.exists() else None
    if measured and measured.get("imputer") not in (None, weights_fingerprint(imputer)):
        raise BadInput(f"{RESULTS}: was measured with other weights", "these")
    facts = {
        "networks": len(imputer.networks),
        "weights": sum(p.numel() for p in imputer.parameters()),
        "size": imputer.trained_on and imputer.trained_on.size,
        "data": data,
        "summary": load_json(folder / SUMMARY) if (folder / SUMMARY).exists() else None,
        "results": measured,
        "calibration": imputer.calibration if imputer.has_calibration else None,
        "names": NAMES,
        "best": BEST,
        "licence": "CC BY-SA 4.0" if licence == LICENCE else licence,
        "with_interval": with_interval,
    }
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    markdown = Environment(undefined=StrictUndefined, **options)  # noqa: S701 (no HTML)
    try:
        body = markdown.from_string(TEMPLATE.read_text("utf-8")).render(facts)
        metadata = _metadata(licence, measured).to_yaml()
    except (UndefinedError, KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"model card: a measured file lacks an entry ({type(error).__name__}: {error})"
        raise BadInput(problem[:200], "one of benchmarks.imputers") from error
    return ModelCard(f"---\n{metadata}\n---\n\n{body}")


def _metadata(licence: str, measured: dict | None) -> ModelCardData:
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
        for name, rows in (measured or {"tables": {}})["tables"].items()
        for metric, label in (("psnr", "hole PSNR / dB"), ("ssim", "hole SSIM"))
    ]
    return ModelCardData(
        license=licence,
        library_name="nogaps",
        pipeline_tag="image-to-image",
        tags=TAGS,
        model_name="nogaps imputer" if results else None,
        eval_results=results or None,
    )
