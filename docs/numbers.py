"""The measured numbers of the pages by name, each read from one result."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.harness import interval
from docs.results import Results
from nogaps.imputers.loading import SHIPPED
from nogaps.runtime.files import load_json


def summary() -> dict:
    """Return what the last cell of the committed notebook summed up."""
    return load_json(SHIPPED / "summary.json")


def minutes(results: Results, profile: str) -> str:
    """Return how long `nogaps run` takes with a profile, in minutes."""
    return f"{results['notebook'][profile]['everything'] / 60:.1f}"


def coverage(results: Results, images: str) -> str:
    """Return the share of hole pixels within their intervals, in percent."""
    heads = results["uncertainty"]["heads"]
    row = next(row for name, row in heads.items() if images in name)
    return f"{100 * row['coverage']:.1f}"


def border(results: Results, which: str) -> str:
    """Return steps at hole borders over those between observed neighbours, on the stand-in."""
    return f"{results.score('ours, best', 'stand-in', which):.2f}"


NUMBERS: dict[str, Callable[[Results], str]] = {
    "cpu_minutes": lambda r: minutes(r, "cpu"),
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
    "fast_rate_1": lambda r: f"{r.rate('ours, fast', 'bf16', 1):.0f}",
    "coursework_rate": lambda r: f"{r.rate('coursework', 'bf16', 2):.0f}",
    "large_seconds": lambda r: f"{r.file(100_000, 'ours, fast', 2)['seconds']:.0f}",
    "large_memory": lambda r: f"{r.file(100_000, 'ours, fast', 2)['peak_mb']:.0f}",
    "help_seconds": lambda r: f"{r['filling']['start']['nogaps --help']['median']:.2f}",
    "covered_val": lambda r: coverage(r, "heads.npz"),
    "covered_val_t1": lambda r: coverage(r, "heads_t1.npz"),
    "covered_standin": lambda r: coverage(r, "stand-in"),
    "border_steps": lambda r: border(r, "border_steps"),
    "true_steps": lambda r: border(r, "true_steps"),
    "gain_val": lambda r: interval(r.score("coursework", "val", "more_db")),
    "gain_val_t1": lambda r: interval(r.score("coursework", "val_t1", "more_db")),
    "gain_standin": lambda r: interval(r.score("coursework", "stand-in", "more_db")),
    "top_ratio": lambda r: f"{summary()['99.5th percentile, hole / observed']:.3f}",
}
