"""What the notebook sums up in its last cell, as tables for whoever reads results first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Numbers = Mapping[str, float]
LARGEST = 1e12  # a number that is greater is none of a run's
OURS = "ours"  # the notebook's name for its own filling


def summary(found: Mapping) -> str:
    """HTML of the summary that a notebook printed: facts, scores, times, files by their sha256."""
    facts = {key: value for key, value in found.items() if not isinstance(value, (dict, list))}
    groups = {key: value for key, value in found.items() if isinstance(value, dict) and value}
    times = groups.pop("seconds", {})
    scores = {key: value for key, value in groups.items() if _numbers(value)}
    files = {key: value for key, value in groups.items() if "sha256" in value}
    facts |= {
        f"{key}, {inner}": one
        for key, value in groups.items()
        if key not in scores and key not in files
        for inner, one in value.items()
        if not isinstance(one, (dict, list))
    }
    parts = [_facts({key: words(value) for key, value in facts.items()}), '<div class="tables">']
    if scores:
        parts.append(_scores(scores))
    if _numbers(times):
        rows = [[key, duration(value)] for key, value in times.items()]
        parts.append(_table("Time", ["part", "time"], rows))
    parts.append("</div>")
    if files:
        parts.append(_files(files))
    return "".join(parts)


def _numbers(value: object) -> bool:
    """Is it a group of numbers, such as one score of several fillings?"""
    if not isinstance(value, dict) or not value:
        return False
    return all(type(one) in (int, float) and abs(one) < LARGEST for one in value.values())


def duration(seconds: float) -> str:
    """Seconds as people say them: "42 min 20 s"."""
    if not 0 <= seconds < 1e8:
        return words(seconds)
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def words(value: object) -> str:
    """A scalar of the summary, or the shape of an array, for people."""
    if isinstance(value, list):
        return " × ".join(words(one) for one in value[:8] if not isinstance(one, (list, dict)))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return (f"{value:,}" if type(value) is int and abs(value) > 9999 else str(value))[:200]


def _facts(facts: Mapping[str, str]) -> str:
    rows = [f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()]
    return f'<dl class="facts">{"".join(rows)}</dl>' if rows else ""


def _scores(scores: Mapping[str, Numbers]) -> str:
    """One row per filling, one column per score."""
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    columns = [_aligned([values.get(name) for name in names]) for values in scores.values()]
    rows = [[name, *values] for name, *values in zip(names, *columns, strict=True)]
    return _table("Scores", ["filling", *scores], rows)


def _aligned(values: Sequence[float | None]) -> list[str]:
    """Numbers with as many decimals as the one that has most; "" for none."""
    decimals = max(len(str(value).partition(".")[2]) for value in values)
    return ["" if value is None else f"{value:.{min(decimals, 6)}f}" for value in values]


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column names the rows; the row of the notebook's own filling is bold."""
    top = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in head)
    body = ""
    for name, *values in rows:
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        mark = ' class="ours"' if name == OURS else ""
        body += f'<tr{mark}><th scope="row">{escape(str(name))}</th>{cells}</tr>'
    return (
        f'<div class="wide"><table class="numbers"><caption>{title}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _files(files: Mapping[str, Mapping]) -> str:
    rows = ""
    for name, entry in files.items():
        others = ", ".join(words(value) for key, value in entry.items() if key != "sha256")
        rows += (
            f'<div><dt>{escape(str(name))} <span class="kind">{escape(others)}</span></dt>'
            f"<dd><code>{escape(words(entry['sha256']))}</code></dd></div>"
        )
    return f'<h3>sha256</h3><dl class="files">{rows}</dl>'
