"""What the benchmarks measured: results by file, and the numbers of the pages by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from nogaps.imputers.loading import SHIPPED
from nogaps.runtime.files import load_json
from nogaps.tables import with_interval

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results"
SETS = {
    "val": "val of heads.npz",
    "val_t1": "val of heads_t1.npz",
    "val_oasis": "val of heads_t1_more.npz",
    "stand-in": "stand-in",
}


class Results:
    """`results["filling"]` is the content of `benchmarks/results/filling.json`."""

    @cache  # noqa: B019  one short-lived object
    def __getitem__(self, name: str) -> dict:
        """Return the content of a results file.

        Raises:
            BadInput: The file is missing or damaged.
        """
        return load_json(FOLDER / f"{name}.json")

    def score(self, method: str, images: str, score: str = "psnr") -> float:
        """Return a score of `benchmarks.imputers` for one of SETS."""
        return self["imputers"]["tables"][SETS[images]][method][score]

    def rate(self, imputer: str, precision: str, threads: int) -> float:
        """Return the images per second that an imputer fills in memory."""
        row = _row(self["filling"]["imputers"], name=imputer, precision=precision)
        return row["images_per_second"][str(threads)]["median"]

    def file(self, images: int, method: str, threads: int) -> dict[str, float]:
        """Return the median run of `nogaps fill` on a file of so many images."""
        row = _row(self["filling"]["files"], images=images, method=method, threads=threads)
        runs = sorted(row["runs"], key=lambda run: run["seconds"])
        return runs[len(runs) // 2]


def _row(rows: Iterable[dict], **known: object) -> dict:
    """Return the first of the rows that holds these values."""
    return next(row for row in rows if known.items() <= row.items())


def summary() -> dict:
    """Return what the last cell of the committed notebook summed up."""
    return load_json(SHIPPED / "summary.json")


def intervals(results: Results, images: str) -> dict:
    """Return the row of `benchmarks.uncertainty` for the name of a frame file, or "stand-in"."""
    heads = results["uncertainty"]["heads"]
    return next(row for name, row in heads.items() if images in name)


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent."""
    return f"{100 * share:.{digits}f}"


def coverage(results: Results, images: str) -> str:
    """Return the share of hole pixels within their intervals, in percent."""
    return percent(intervals(results, images)["coverage"])


def middle_third(results: Results, pick: Callable[[Iterable[float]], float]) -> str:
    """Return the coverage of the pixels of middle brightness, least or most of all sets."""
    rows = results["uncertainty"]["heads"].values()
    return percent(pick(row["coverage_by_brightness"][1] for row in rows))


def covered_sizes(results: Results, pick: Callable[[Iterable[float]], float]) -> str:
    """Return the coverage on heads of other sizes, least or most of all rows, in percent."""
    rows = [row for gaps in results["unseen"]["sizes"].values() for row in gaps.values()]
    return percent(pick(row["coverage"] for row in rows), 0)


def label_free(results: Results, part: str) -> str:
    """Return the score without labels of `best` on the stand-in: "imputer", or "gain"."""
    row = results["label_free"]["test_set.npy"]["nogaps/weights/imputer"][part]
    return with_interval(row["psnr"], row["psnr_95"])


def gain(results: Results, method: str, images: str) -> str:
    """Return by how many dB `best` exceeds a method, with its interval."""
    more, *ends = results.score(method, images, "more_db")
    return with_interval(more, ends)


def rms(results: Results, scheduler: str, steps: int) -> str:
    """Return how far samples lie from those of 200 steps, in grey levels of 255."""
    ways = [row["way"] | row for row in results["sampling"]["rows"]]
    return f"{255 * _row(ways, name='ours', scheduler=scheduler, steps=steps)['rms']:.1f}"


def border(results: Results, which: str) -> str:
    """Return steps at hole borders over those between observed neighbours, on the stand-in."""
    return f"{results.score('ours, best', 'stand-in', which):.2f}"


NUMBERS: dict[str, Callable[[Results], str]] = {
    "cpu_minutes": lambda r: f"{r['notebook']['cpu']['everything'] / 60:.1f}",
    "smoke_seconds": lambda r: f"{r['notebook']['smoke']['everything']:.0f}",
    "full_minutes": lambda r: f"{summary()['seconds']['everything'] / 60:.0f}",
    "full_sampling_seconds": lambda r: f"{summary()['seconds']['sampling']}",
    "full_training_minutes": lambda r: f"{summary()['seconds']['training'] / 60:.0f}",
    "best_standin": lambda r: f"{r.score('ours, best', 'stand-in'):.2f}",
    "best_val": lambda r: f"{r.score('ours, best', 'val'):.2f}",
    "best_val_t1": lambda r: f"{r.score('ours, best', 'val_t1'):.2f}",
    "fast_val": lambda r: f"{r.score('ours, fast', 'val'):.2f}",
    "fast_val_t1": lambda r: f"{r.score('ours, fast', 'val_t1'):.2f}",
    "fast_rate": lambda r: f"{r.rate('ours, fast', 'bf16', 2):.0f}",
    "covered_val": lambda r: coverage(r, "heads.npz"),
    "covered_val_t1": lambda r: coverage(r, "heads_t1.npz"),
    "covered_val_oasis": lambda r: coverage(r, "heads_t1_more.npz"),
    "calibrated_groups": lambda r: f"{r['uncertainty']['groups']}",
    "calibrated_groups_t1": lambda r: f"{intervals(r, 'heads_t1.npz')['groups']}",
    "covered_standin": lambda r: coverage(r, "stand-in"),
    "covered_low": lambda r: percent(intervals(r, "heads.npz")["groups_5_50_95"][0]),
    "covered_high": lambda r: percent(intervals(r, "heads.npz")["groups_5_50_95"][2]),
    "covered_left_out": lambda r: percent(r["uncertainty"]["left out"]["nine tenths"]["coverage"]),
    "covered_grey_least": lambda r: middle_third(r, min),
    "covered_grey_most": lambda r: middle_third(r, max),
    "covered_sizes_least": lambda r: covered_sizes(r, min),
    "covered_sizes_most": lambda r: covered_sizes(r, max),
    "interval_rank": lambda r: f"{intervals(r, 'heads.npz')['rank_correlation']:.2f}",
    "label_free_best": lambda r: label_free(r, "imputer"),
    "label_free_gain": lambda r: label_free(r, "gain"),
    "label_free_coursework": lambda r: (
        f"{r['label_free'][SETS['val']]['models']['coursework']['hidden_psnr']:.1f}"
    ),
    "coursework_val": lambda r: f"{r.score('coursework', 'val'):.2f}",
    "kriging_standin": lambda r: f"{r.score('kriging (synthetic)', 'stand-in'):.2f}",
    "worst_image": lambda r: f"{min(r.score('ours, best', 'stand-in', 'psnr_of_images')):.1f}",
    "best_image": lambda r: f"{max(r.score('ours, best', 'stand-in', 'psnr_of_images')):.1f}",
    "wide_times_longer": lambda r: "{:.1f}".format(
        r["ablations"]["seconds"]["1.5 times as wide"] / r["ablations"]["seconds"]["default"]
    ),
    "million_minutes": lambda r: f"{10 * r.file(100_000, 'ours, fast', 2)['seconds'] / 60:.0f}",
    "rms_dpm_20": lambda r: rms(r, "dpm", 20),
    "rms_dpm_40": lambda r: rms(r, "dpm", 40),
    "rms_ddim_50": lambda r: rms(r, "ddim", 50),
    "border_steps": lambda r: border(r, "border_steps"),
    "true_steps": lambda r: border(r, "true_steps"),
    "gain_val": lambda r: gain(r, "coursework", "val"),
    "top_ratio": lambda r: f"{summary()['99.5th percentile, hole / observed']:.3f}",
}
