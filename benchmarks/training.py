"""Accuracy against training time: ours beside the coursework's recipe, on the same images.

    python -m benchmarks.training runs/full/samples/images.npy runs/frames/heads.npz ... \\
        --published runs/published --schedules 1,2,4,8

The recipe's scores after every epoch come from the log of `benchmarks.published`. Ours: one network
of the notebook per schedule, each with the learning rate of its own length; its averaged weights
are scored after every epoch on the same `val` heads. A curve's inner points lie before the end of
their schedule, where the learning rate is still high: only its last one is what such a training
gives. The seconds of an epoch are measured anew for both, in turns, because logs may come from
machines that were busy with something else; every time is a number of epochs by that. What the
working folder holds is not trained again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset

from benchmarks import harness
from benchmarks.harness import course_mask
from benchmarks.published import EPOCHS, build
from benchmarks.recipes import COURSEWORK, SMOKE, plain_epoch, plain_parts, rows_of, shuffled
from nogaps import Assessment, tables
from nogaps.metrics import hole_scores
from nogaps.muon import Muon
from nogaps.prior.frames import load_frames, load_val, to_size
from nogaps.runtime.checkpoint import Epochs, ema_of, fingerprint, run_settings, save_model
from nogaps.runtime.device import autocast_dtype, pick_device
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import atomic, load_images, load_json, save_json

RESULTS = harness.RESULTS / "training.json"
FIGURE = harness.ROOT / "docs" / "training.png"
Scores = Callable[[torch.nn.Module], dict[str, float]]


# training ------------------------------------------------------------------------------------


def notebook_parts(profile: Assessment.Profile, x: torch.Tensor, device: torch.device) -> dict:
    """Return an untrained network of the notebook, its average, optimiser and loss scaler."""
    imputer = Assessment.new_imputer(profile, x, 0).to(device)
    half = autocast_dtype(device) == torch.float16
    return {
        "imputer": imputer,
        "ema": ema_of(imputer),
        "optimizer": Muon(imputer.parameters(), weight_decay=1e-3),
        "scaler": torch.amp.GradScaler(device.type, enabled=half),
    }


def epoch_seconds(
    pairs: TensorDataset, mask: torch.Tensor, profile: Assessment.Profile, smoke: bool
) -> dict[str, Any]:
    """Measure the seconds of a whole epoch on `pairs`, from some steps of both in turns.

    The steps are those of the two trainings themselves, augmentation and averaging of weights
    included.
    """
    (turns, steps), options = (1, 1) if smoke else (6, 4), Assessment.Options(epochs=1)
    ours = notebook_parts(profile, pairs.tensors[1], mask.device)
    network = build("coursework", SMOKE if smoke else None).to(mask.device)
    recipe = plain_parts(network, COURSEWORK["learning_rate"])

    def train_ours() -> None:
        batches = Assessment.training_batches(pairs, 0, options, mask.device)
        Assessment.train_epoch(*ours.values(), islice(batches, steps), mask)

    def train_recipe() -> None:
        batches = shuffled(pairs, COURSEWORK["batch_size"], torch.Generator().manual_seed(0))
        plain_epoch(*recipe.values(), islice(batches, steps), mask)

    times = harness.interleaved({"ours": train_ours, "recipe": train_recipe}, turns)
    sizes = {"ours": options.batch_size, "recipe": COURSEWORK["batch_size"]}
    seconds = {
        name: harness.spread(times[name])["median"] / steps * max(1, len(pairs) // size)
        for name, size in sizes.items()
    }
    threads, precision = torch.get_num_threads(), harness.native_precision()
    return seconds | {"threads": threads, "precision": precision}


def scorer(frames: list[Path], mask: torch.Tensor) -> Scores:
    """Return a function: hole PSNR of a network on the `val` heads of all files, and of each."""
    sets = {"val": load_val(frames)}
    sets |= {path.stem: to_size(load_frames(path, "val")[0]) for path in frames}

    def psnr(network: torch.nn.Module, x: torch.Tensor) -> float:
        x_hat = Assessment.fill(network, Assessment.corrupt(x, mask.cpu()), mask)
        return float(hole_scores(x_hat, x, mask)["psnr"].mean())

    return lambda network: {name: psnr(network, x) for name, x in sets.items()}


def train_schedule(
    profile: Assessment.Profile,
    pairs: TensorDataset,
    mask: torch.Tensor,
    score: Scores,
    folder: Path,
) -> list[dict]:
    """Train one network as the notebook does, or continue, and return the scores of each epoch.

    The network is left in `folder`, for `benchmarks.label_free` to rank.
    """
    epochs, x = profile.epochs, pairs.tensors[1]
    parts, options = notebook_parts(profile, x, mask.device), Assessment.Options(epochs)
    settings = run_settings(parts["imputer"], x, mask, options)
    run = Epochs(folder / f"{epochs}.training", settings, parts)
    for epoch in run.remaining(epochs, options.seed, mask.device):
        batches = Assessment.training_batches(pairs, epoch, options, mask.device)
        Assessment.train_epoch(*parts.values(), batches, mask)
        run.note(**score(parts["ema"].module.eval()))
    ensemble = Assessment.Ensemble([parts["ema"].module])  # as `load_imputer` reads it
    save_model(folder / f"{epochs}.safetensors", ensemble, ensemble.config)
    return rows_of(run.history)


# the comparison ------------------------------------------------------------------------------


def compare(recipe: dict, ours: dict[str, list[dict]], rates: dict[str, float]) -> dict:
    """Return both curves over seconds, and what follows at equal accuracy and at equal time."""
    curves = {k: [(row["epoch"] * rates["ours"], row["val"]) for row in v] for k, v in ours.items()}
    ends = sorted((*curve[-1], len(curve)) for curve in curves.values())
    curve = [(row["epoch"] * rates["recipe"], row["score"]) for row in recipe["log"]]
    best = max(psnr for _, psnr in curve)
    soonest = next(seconds for seconds, psnr in curve if psnr == best)
    whole = EPOCHS["coursework"] * rates["recipe"]
    seconds, _, epochs = next((end for end in ends if end[1] >= best), (None, None, None))
    return {
        "recipe": {
            "epochs": len(curve),
            "best_psnr": best,
            "extrapolated_psnr": recipe["extrapolated_psnr"],
            "published_seconds": whole,
            "curve": curve,
        },
        "ours": {"ends": ends, "curves": curves},
        "schedule_that_reaches": epochs,
        "times_faster_than_150_epochs": seconds and whole / seconds,
        "times_faster_than_its_best": seconds and soonest / seconds,
    }


def draw(compared: dict, path: Path) -> None:
    """Draw both curves over minutes, on a logarithmic axis; a dot where a schedule ends."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axis, recipe = figure.subplots(), compared["recipe"]

    def plot(points: list, *style: str, **options: object) -> None:
        axis.plot([p[0] / 60 for p in points], [p[1] for p in points], *style, **options)

    plot(recipe["curve"], color="C1", label="coursework recipe")
    axis.axhline(recipe["best_psnr"], color="C1", linestyle=":", label="its best")
    longest = max(compared["ours"]["curves"].values(), key=len)
    plot(longest, color="C0", alpha=0.5, label="ours, on the way to the longest's end")
    plot(compared["ours"]["ends"], "o-", color="C0", label="ours, each schedule at its end")
    axis.set(xscale="log", xlabel="minutes of training", ylabel="hole PSNR / dB on val")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(True, which="both", alpha=0.3)
    axis.legend(loc="lower right")
    axis.set_title("Accuracy on real heads against training time")
    with atomic(path) as temporary:
        figure.savefig(temporary)


def as_markdown(results: dict) -> str:
    """Return schedules of ours, and the comparison with the recipe."""
    compared, rates = results["compared"], results["rates"]
    recipe, lasts = compared["recipe"], {len(log): log[-1] for log in results["logs"].values()}
    files = [key for key in next(iter(lasts.values())) if key not in ("epoch", "val")]
    rows = [
        [f"ours, {n}", f"{t / 60:.1f}", f"{v:.2f}", *(f"{lasts[n][key]:.2f}" for key in files)]
        for t, v, n in compared["ours"]["ends"]
    ]
    (seconds, psnr), none = recipe["curve"][-1], [""] * len(files)
    text = f"{psnr:.2f} (best {recipe['best_psnr']:.2f})"
    rows.append([f"recipe, {recipe['epochs']}", f"{seconds / 60:.1f}", text, *none])
    if (psnr := recipe["extrapolated_psnr"]) is not None:
        name, minutes = f"recipe, {EPOCHS['coursework']}", recipe["published_seconds"] / 60
        rows.append([f"{name} by a power law", f"{minutes:.0f}", f"{psnr:.2f}", *none])
    text = f"An epoch takes ours {rates['ours']:.1f} s, the recipe {rates['recipe']:.1f} s "
    text += f"({rates['threads']} threads, {rates['precision']}, in turns). "
    if (epochs := compared["schedule_that_reaches"]) is None:
        text += "No schedule reaches the recipe's best."
    else:
        text += f"{epochs} epochs of ours reach the recipe's best: "
        text += f"{compared['times_faster_than_150_epochs']:.0f} times faster than its "
        text += f"{EPOCHS['coursework']} epochs, {compared['times_faster_than_its_best']:.0f} "
        text += "times faster than it got there."
    header = ["epochs", "minutes", "hole PSNR / dB on all val heads", *files]
    return f"{tables.as_markdown(header, rows)}\n\n{text}"


def main(
    images: harness.Images,
    frames: harness.Frames,
    published: Annotated[Path, typer.Option(help="Folder of `benchmarks.published`.")] = Path(
        "runs/published"
    ),
    schedules: Annotated[str, typer.Option(help="Epochs of each, with commas.")] = "1,2,4,8,20",
    folder: Annotated[Path, typer.Option(help="Networks and checkpoints of ours.")] = Path(
        "runs/training"
    ),
    smoke: harness.Smoke = False,
    out: harness.Out = RESULTS,
    figure: harness.Figure = FIGURE,
) -> None:
    """Train what is not trained yet, print the table, write it as JSON, draw the curves."""
    machine, mask = harness.machine(), course_mask().to(pick_device())
    x = torch.from_numpy(load_images(images))
    recipe = load_recipe(published / "published.json", load_val(frames))
    pairs = Assessment.make_datasets(x, mask.cpu(), seed=0)[0]
    profile = Assessment.PROFILES["smoke" if smoke else "full"]
    score, logs = scorer(frames, mask), {}
    for epochs in sorted(map(int, schedules.split(","))):
        size = replace(profile, epochs=epochs)
        logs[str(epochs)] = train_schedule(size, pairs, mask, score, folder)
    rates = epoch_seconds(pairs, mask, profile, smoke)
    compared = compare(recipe, logs, rates)
    results = {"machine": machine, "rates": rates, "compared": compared, "logs": logs}
    save_json(out, results)
    draw(compared, figure)
    print(as_markdown(results))


def load_recipe(path: Path, val: torch.Tensor) -> dict:
    """Return the recipe's row of `published.json`.

    Raises:
        BadInput: There is no log, or it was scored on other heads than val.
    """
    row = load_json(path).get("coursework")
    if not isinstance(row, dict) or not row.get("log"):
        raise BadInput("holds no log of the coursework's recipe", "one", path=path)
    if row["scored_on"] != fingerprint(val):
        raise BadInput("was scored on other heads", "those of the frame files", path=path)
    return row


if __name__ == "__main__":
    harness.run(main)
