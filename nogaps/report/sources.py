"""What the code of a cell says of itself: the titles of its figures, and what it defines."""

from __future__ import annotations

import ast
import re
import warnings

TITLED = re.compile(r"show_\w+|suptitle|title")  # functions that are given a figure's title
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
LONGEST = 50_000  # characters of a source that is parsed


def parsed(source: str) -> list[ast.stmt]:
    """The statements of a cell; [] if it is no plain Python, as with %magic, or too long."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            return ast.parse(source).body if len(source) <= LONGEST else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def gist(source: str) -> str:
    """One line to know a cell by: the names it defines, else its first line that does something."""
    statements = parsed(source)
    names = [one.name for one in statements if isinstance(one, DEFINITIONS)]
    if names:
        return ", ".join(dict.fromkeys(names))
    lines = source.splitlines()
    working = [one for one in statements if not isinstance(one, (ast.Import, ast.ImportFrom))]
    first = (working or statements)[0].lineno - 1 if statements else 0
    return next((line.strip() for line in lines[first:] if line.strip()), "")


def titles(source: str) -> list[str]:
    """The titles that the code of a cell gives to its figures, in its order, as far as known.

    What an f-string fills in is not known before it runs: "…" stands for it.
    """
    calls = [
        node
        for one in parsed(source)
        for node in ast.walk(one)
        if isinstance(node, ast.Call) and TITLED.fullmatch(_name(node))
    ]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [title for call in calls if (title := _title(call))]


def _name(call: ast.Call) -> str:
    function = call.func
    return getattr(function, "attr", None) or getattr(function, "id", None) or ""


def _title(call: ast.Call) -> str:
    """The first text among the arguments of a call; "" if there is none."""
    named = [word.value for word in call.keywords if word.arg in ("title", "label", "t")]
    for value in [*named, *call.args]:
        parts = value.values if isinstance(value, ast.JoinedStr) else [value]
        words = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
        text = "".join(word if isinstance(word, str) else "…" for word in words)
        if text.strip("… "):
            return " ".join(text.split())
    return ""
