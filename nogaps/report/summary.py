"""The run in numbers: what the notebook sums up in its last cell, for the page's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LARGEST = 1e12  # greater numbers do not come from a run


@dataclass(frozen=True)
class Summary:
    """Texts for the tables of the page."""

    facts: dict[str, str]
    scores: list[list[str]]  # the first row is the head; a row for each filling
    times: dict[str, str]
    files: list[tuple[str, str, str]]  # name, what else is known, sha256


def summarize(values: Mapping) -> Summary:
    """Sort the summary that a notebook printed into facts, scores, times, and files."""
    summary = Summary({}, [], {}, [])
    scores = {}
    for key, value in values.items():
        if not isinstance(value, dict):
            summary.facts[key] = words(value)
        elif "sha256" in value:
            details = [words(entry) for name, entry in value.items() if name != "sha256"]
            summary.files.append((key, ", ".join(details), words(value["sha256"])))
        elif not all(type(n) in (int, float) and abs(n) < LARGEST for n in value.values()):
            summary.facts.update({f"{key}, {name}": words(entry) for name, entry in value.items()})
        elif key == "seconds":
            summary.times.update({name: duration(seconds) for name, seconds in value.items()})
        elif value:
            scores[key] = value
    if scores:
        names = list(dict.fromkeys(name for column in scores.values() for name in column))
        columns = [_aligned([column.get(name) for name in names]) for column in scores.values()]
        summary.scores[:] = [["filling", *scores], *map(list, zip(names, *columns, strict=True))]
    return summary


def _aligned(values: Sequence[float | None]) -> list[str]:
    """Write numbers with as many decimals as the one that has most; "" for none."""
    decimals = max(len(str(value).partition(".")[2]) for value in values)
    return ["" if value is None else f"{value:.{min(decimals, 6)}f}" for value in values]


def duration(seconds: float) -> str:
    """Return seconds as people say them: "42 min 20 s"."""
    if not 0 <= seconds < 1e8:
        return words(seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def words(value: object) -> str:
    """Return a scalar, or the shape of an array, for people."""
    if isinstance(value, list):
        return " × ".join(words(part) for part in value[:8] if not isinstance(part, (list, dict)))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return (f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value))[:200]
