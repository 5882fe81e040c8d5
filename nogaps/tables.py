"""Tables in Markdown whose columns are aligned as text as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DIGITS = {"rmse": 4, "psnr": 2, "ssim": 3}


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with aligned columns, all but the first to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append(f"| {' | '.join([first.ljust(widths[0]), *right])} |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def with_interval(value: float, interval: Sequence[float], digits: int = 2, sign: str = "") -> str:
    """Return a number with its interval: "24.93 [24.38, 25.57]"; sign: "+" for differences."""
    low, high = interval
    return f"{value:{sign}.{digits}f} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def scores_table(scores: Mapping[str, Mapping]) -> str:
    """Return results of `metrics.summarize` by name, one line each, with 95 % intervals."""
    rows = [
        [name, *(with_interval(row[s], row[f"{s}_95"], n) for s, n in DIGITS.items())]
        for name, row in scores.items()
    ]
    return as_markdown(["filling", "hole RMSE", "PSNR / dB", "SSIM"], rows)


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a table in a notebook; elsewhere print its text."""
    _show(as_markdown(header, rows))


def show_scores(scores: Mapping[str, Mapping]) -> None:
    """Show `scores_table` in a notebook; elsewhere print its text."""
    _show(scores_table(scores))


def _show(text: str) -> None:
    from IPython.display import display

    display({"text/markdown": text, "text/plain": text}, raw=True)
