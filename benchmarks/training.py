"""Accuracy against training time: ours beside the coursework's recipe, on the same images.

    python -m benchmarks.training runs/full/samples/images.npy runs/frames/heads.npz ... \\
        --published runs/published --schedules 1,2,4,8,60

The recipe's scores after every epoch come from the log of `benchmarks.published`. Ours: one network
of the notebook per schedule, each with the learning rate of its own length; its averaged weights
are scored after every epoch on the same `val` heads. A curve's inner points lie before the end of
their schedule, where the learning rate is still high: only its last one is what such a training
gives. The seconds of an epoch are measured anew for both, in turns, because logs may come from
machines that were busy with something else; every time is a number of epochs by that. With
--rates-only nothing is trained, and the curves are taken from the working folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import typer
from matplotlib.figure import Figure
from torch.utils.data import TensorDataset

from benchmarks import check_profile, run, timing
from benchmarks.published import EPOCHS, SMOKE
from benchmarks.rates import epoch_seconds
from benchmarks.timing import machine, table
from nogaps import Assessment
from nogaps.metrics import hole_scores
from nogaps.prior.frames.heads import load_frames, load_val, to_size
from nogaps.runtime.checkpoint import fingerprint, load_state, save_model
from nogaps.runtime.device import pick_device
from nogaps.runtime.files import BadInput, atomic, load_images, load_json, save_json
from nogaps.standin import course_mask

RESULTS = timing.RESULTS / "training.json"
FIGURE = timing.ROOT / "docs" / "training.png"
TRAIN_EPOCH, VALIDATE = Assessment.train_epoch, Assessment.validate
Scores = Callable[[torch.nn.Module], dict[str, float]]


def scorer(frames: list[Path], mask: torch.Tensor) -> Scores:
    """Mean hole PSNR of a network on the `val` heads of all files, and of each."""
    sets = {"val": load_val(frames)}
    sets |= {path.stem: to_size(load_frames(path, "val")[0]) for path in frames}

    def score(network: torch.nn.Module) -> dict[str, float]:
        found = {}
        for name, x in sets.items():
            x_hat = Assessment.fill(network, Assessment.corrupt(x, mask.cpu()), mask)
            found[name] = float(hole_scores(x_hat, x, mask)["psnr"].mean())
        return found

    return score


@contextlib.contextmanager
def logging(log: list[dict], path: Path, score: Scores) -> Iterator[None]:
    """The notebook's training, with a row of `log`, kept in `path`, after every epoch."""
    seconds = 0.0

    def train_epoch(*arguments: object) -> float:
        nonlocal seconds
        start = time.perf_counter()
        loss = TRAIN_EPOCH(*arguments)
        seconds = time.perf_counter() - start
        return loss

    def validate(network: torch.nn.Module, *arguments: object) -> float:
        network.eval()
        log.append({"epoch": len(log) + 1, "seconds": seconds, **score(network)})
        save_json(path, {"log": log})
        return VALIDATE(network, *arguments)

    with (
        mock.patch.object(Assessment, "train_epoch", train_epoch),
        mock.patch.object(Assessment, "validate", validate),
    ):
        yield


def train_schedule(
    epochs: int,
    sets: tuple[TensorDataset, TensorDataset],
    mask: torch.Tensor,
    score: Scores,
    folder: Path,
    profile: str,
) -> list[dict]:
    """Train one network of the notebook for so many epochs; a row per epoch. Continues.

    The network is left in `folder`, for `benchmarks.hidden` to rank.
    """
    size = replace(Assessment.PROFILES[profile], epochs=epochs, networks=1)
    folder.mkdir(parents=True, exist_ok=True)
    path, checkpoint = folder / f"{epochs}.json", folder / f"{epochs}.training"
    imputer = Assessment.new_imputer(size, sets[0].tensors[1], 0)
    state, log = load_state(checkpoint), []
    settings = Assessment.run_settings(imputer, sets[0], mask, epochs, 0)
    if state is not None and state["settings"] == settings and path.exists():
        log = load_json(path)["log"][: len(state["history"]["training"])]
    elif state is not None:
        checkpoint.unlink()  # of other images, or without its log
    with logging(log, path, score):
        trained, _ = Assessment.train(imputer, *sets, mask, epochs, checkpoint, seed=0)
    alone = Assessment.Ensemble([trained])  # as `load_imputer` reads it
    save_model(folder / f"{epochs}.safetensors", alone, alone.config)
    return log


def reached(curve: list[tuple[float, float]], psnr: float) -> float | None:
    """The first time at which a curve of (seconds, dB) has so much, between its points; or None."""
    before = (0.0, float("-inf"))
    for seconds, value in curve:
        if value >= psnr:
            (t, v), rise = before, value - before[1]
            return seconds if v == float("-inf") else t + (seconds - t) * (psnr - v) / rise
        before = (seconds, value)
    return None


def at_time(curve: list[tuple[float, float]], seconds: float) -> float | None:
    """The best a curve has reached by then; None before its first point."""
    return max((value for t, value in curve if t <= seconds), default=None)


def compare(recipe: dict, ours: dict[str, list[dict]], rates: dict[str, float]) -> dict:
    """Curves over seconds, and what follows: time ratios and accuracies at equal time."""
    theirs = [(row["epoch"] * rates["recipe"], row["score"]) for row in recipe["log"]]
    best = max(value for _, value in theirs)
    ends = sorted(
        (len(log) * rates["ours"], log[-1]["val"], len(log)) for log in ours.values() if log
    )
    points = [(seconds, value) for seconds, value, _ in ends]
    first = next((end for end in ends if end[1] >= best), None)
    whole = EPOCHS["coursework"] * rates["recipe"]
    soonest = next(t for t, value in theirs if value == best)
    last = points[-1]
    return {
        "recipe": {
            "epochs": len(theirs),
            "best_psnr": best,
            "best_after_seconds": soonest,
            "extrapolated_psnr": recipe["extrapolated_psnr"],
            "published_seconds": whole,
            "curve": theirs,
        },
        "ours": {"ends": ends, "curves": {k: _curve(log, rates) for k, log in ours.items()}},
        "schedule_that_reaches": None if first is None else first[2],
        "reaches_after_seconds": None if first is None else first[0],
        "reaches_between_schedules": reached(points, best),
        "times_faster_than_150_epochs": None if first is None else whole / first[0],
        "times_faster_than_its_best": None if first is None else soonest / first[0],
        "ours_at_the_end": last[1],
        "recipe_by_then": at_time(theirs, last[0]),
        "more_db_than_its_best": last[1] - best,
    }


def _curve(log: list[dict], rates: dict[str, float]) -> list[tuple[float, float]]:
    return [(row["epoch"] * rates["ours"], row["val"]) for row in log]


def draw(found: dict, path: Path) -> None:
    """Both curves over minutes, on a logarithmic axis; a dot where a schedule ends."""
    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axis = figure.subplots()
    recipe = found["recipe"]
    minutes = [t / 60 for t, _ in recipe["curve"]]
    axis.plot(minutes, [v for _, v in recipe["curve"]], color="C1", label="coursework recipe")
    axis.axhline(recipe["best_psnr"], color="C1", linestyle=":", label="its best")
    longest = max(found["ours"]["curves"].values(), key=len)
    inner = [t / 60 for t, _ in longest], [v for _, v in longest]
    axis.plot(*inner, color="C0", alpha=0.5, label="ours, on the way to the longest's end")
    ends = [(t / 60, v) for t, v, _ in found["ours"]["ends"]]
    axis.plot(*zip(*ends, strict=True), "o-", color="C0", label="ours, each schedule at its end")
    axis.set(xscale="log", xlabel="minutes of training", ylabel="hole PSNR / dB on val")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(True, which="both", alpha=0.3)
    axis.legend(loc="lower right")
    axis.set_title("Accuracy on real heads against training time")
    with atomic(path) as temporary:
        figure.savefig(temporary)


def as_markdown(found: dict) -> str:
    """Schedules of ours, and the comparison with the recipe."""
    c, rates = found["compared"], found["rates"]
    recipe = c["recipe"]
    lasts = {len(log): log[-1] for log in found["logs"].values()}
    files = [key for key in next(iter(lasts.values())) if key not in ("epoch", "seconds", "val")]
    rows = [
        [f"ours, {n}", f"{t / 60:.1f}", f"{v:.2f}", *[f"{lasts[n][key]:.2f}" for key in files]]
        for t, v, n in c["ours"]["ends"]
    ]
    end, power = recipe["curve"][-1], recipe["extrapolated_psnr"]
    said = f"{end[1]:.2f} (best {recipe['best_psnr']:.2f})"
    rows.append([f"recipe, {recipe['epochs']}", f"{end[0] / 60:.1f}", said, *[""] * len(files)])
    if power is not None:
        minutes = f"{recipe['published_seconds'] / 60:.0f}"
        last = [f"recipe, {EPOCHS['coursework']} by a power law", minutes, f"{power:.2f}"]
        rows.append([*last, *[""] * len(files)])
    parts = [table(["epochs", "minutes", "hole PSNR / dB on all val heads", *files], rows)]
    text = f"An epoch takes ours {rates['ours']:.1f} s, the recipe {rates['recipe']:.1f} s "
    text += f"({rates['threads']} threads, {rates['precision']}, in turns). "
    if c["times_faster_than_150_epochs"] is None:
        text += "No schedule reaches the recipe's best."
    else:
        text += f"{c['schedule_that_reaches']} epochs of ours reach the recipe's best: "
        text += f"{c['times_faster_than_150_epochs']:.0f} times faster than its "
        text += f"{EPOCHS['coursework']} epochs, {c['times_faster_than_its_best']:.0f} times "
        text += "faster than it got there."
    equal = "nothing yet" if c["recipe_by_then"] is None else f"{c['recipe_by_then']:.2f} dB"
    text += f" At the end of the longest schedule ours has {c['ours_at_the_end']:.2f} dB"
    text += f" ({c['more_db_than_its_best']:+.2f} dB to the recipe's best); the recipe {equal}"
    return "\n\n".join([*parts, text + " by then."])


def main(
    images: Annotated[Path, typer.Argument(help="Synthetic heads, .npy of `nogaps sample`.")],
    frames: Annotated[list[Path], typer.Argument(help="Frame files of `nogaps prior prepare`.")],
    published: Annotated[Path, typer.Option(help="Folder of `benchmarks.published`.")] = Path(
        "runs/published"
    ),
    schedules: Annotated[str, typer.Option(help="Epochs of each, with commas.")] = "1,2,4,8,16,60",
    rates_only: Annotated[bool, typer.Option("--rates-only", help="Train nothing.")] = False,
    folder: Annotated[Path, typer.Option(help="Logs and checkpoints of ours.")] = Path(
        "runs/training"
    ),
    profile: Annotated[str, typer.Option(help="full, or smoke: small networks.")] = "full",
    out: Annotated[Path, typer.Option(help="JSON to write.")] = RESULTS,
    figure: Annotated[Path, typer.Option(help="Picture to write.")] = FIGURE,
) -> None:
    """Train what is not trained yet, print the table, write it as JSON, draw the curves."""
    check_profile(profile)
    where, mask = machine(), torch.from_numpy(course_mask())[None, None].to(pick_device())
    x = torch.from_numpy(load_images(images))
    recipe = _recipe(published / "published.json", load_val(frames))
    sets = Assessment.make_datasets(x, mask.cpu(), seed=0)
    score, ours = scorer(frames, mask), {}
    for epochs in sorted(map(int, schedules.split(","))):
        path = folder / f"{epochs}.json"
        if not rates_only:
            ours[str(epochs)] = train_schedule(epochs, sets, mask, score, folder, profile)
        elif path.exists():
            ours[str(epochs)] = load_json(path)["log"]
    if not ours:
        raise BadInput(f"{folder}: holds no log, expected those of a run without --rates-only")
    few = {"size": SMOKE, "turns": 1} if profile == "smoke" else {}
    rates = epoch_seconds(sets[0], mask, profile, **few)
    compared = compare(recipe, ours, rates)
    found = {"machine": where, "rates": rates, "compared": compared, "logs": ours}
    save_json(out, found)
    draw(compared, figure)
    print(as_markdown(found))


def _recipe(path: Path, val: torch.Tensor) -> dict:
    """The recipe's row of `published.json`. Raises BadInput if it was scored on other heads."""
    row = load_json(path).get("coursework")
    if not isinstance(row, dict) or not row.get("log"):
        raise BadInput(f"{path}: holds no log of the coursework's recipe, expected one")
    if row["scored_on"] != fingerprint(val):
        raise BadInput(f"{path}: was scored on other heads, expected those of the frame files")
    return row


if __name__ == "__main__":
    run(main)
