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
    facts = {key: value for key, value in values.items() if not isinstance(value, (dict, list))}
    groups = {key: value for key, value in values.items() if isinstance(value, dict) and value}
    times = groups.pop("seconds", {})
    scores = {key: value for key, value in groups.items() if _are_numbers(value)}
    files = {key: value for key, value in groups.items() if "sha256" in value}
    for key, group in groups.items():
        if key not in scores and key not in files:
            facts |= {f"{key}, {inner}": value for inner, value in group.items()}
    return Summary(
        {key: words(v) for key, v in facts.items() if not isinstance(v, (dict, list))},
        _table(scores),
        {key: duration(v) for key, v in times.items()} if _are_numbers(times) else {},
        [(name, _details(entry), words(entry["sha256"])) for name, entry in files.items()],
    )


def _are_numbers(group: object) -> bool:
    if not isinstance(group, dict) or not group:
        return False
    return all(type(value) in (int, float) and abs(value) < LARGEST for value in group.values())


def _table(scores: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return a row for each filling and a column for each score; [] without scores."""
    if not scores:
        return []
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    columns = [_aligned([values.get(name) for name in names]) for values in scores.values()]
    return [["filling", *scores], *map(list, zip(names, *columns, strict=True))]


def _aligned(values: Sequence[float | None]) -> list[str]:
    """Write numbers with as many decimals as the one that has most; "" for none."""
    decimals = max(len(str(value).partition(".")[2]) for value in values)
    return ["" if value is None else f"{value:.{min(decimals, 6)}f}" for value in values]


def _details(entry: Mapping) -> str:
    return ", ".join(words(value) for key, value in entry.items() if key != "sha256")


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
