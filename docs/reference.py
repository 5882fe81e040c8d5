"""The text of docs/reference.md, from docstrings and signatures; `make docs` writes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import get_args, get_type_hints

import typer
from typer.models import ArgumentInfo

from nogaps.commands import main as cli

START = """# Reference

Written by `make docs` from what the code says of itself; do not edit it here.

- [Python](#python)
- [Command line](#command-line)

<!-- runs -->
```python
import numpy as np
from nogaps import fill, load_imputer

y = np.load("test_set.npy", allow_pickle=False)  # (N, 1, H, W), (N, H, W) or (H, W); also tensors
x_hat = fill(y)  # the mask is found; observed values come back bit for bit

imputer = load_imputer(quality="fast")  # loaded once, for many calls
mask = (y != 0).any((0, 1))  # (H, W), True = observed
one = fill(y[0, 0], mask, model=imputer)
x_hat, half = fill(y[:4], mask, half_width=True)  # 90 % intervals: x_hat ± half
```
"""
COMMON = """## Command line

`nogaps --help` lists the commands, `nogaps COMMAND --help` says this of one of them. Exit code 0:
done, 1: findings, 2: bad use or bad input, in one line that says what is wrong and what was
expected. `nogaps --quiet COMMAND` shows no progress and no result; `COMMAND --json` prints the
result as JSON and nothing else on stdout. Progress goes to stderr: a bar in a terminal, lines in a
log. No command prints colours. `nogaps --install-completion` teaches your shell the commands and
their options.
"""
TAKES = {"Path": " PATH", "int": " NUMBER", "float": " NUMBER", "str": " TEXT"}
BAR = "\\|"
MODULES = {  # what is meant to be used from Python; everything else may change
    "nogaps": ["fill", "load_imputer", "generate", "BadInput"],
    "nogaps.filling.files": ["fill_file"],
    "nogaps.masks": ["shared_mask"],
    "nogaps.images.formats": ["open_images"],
    "nogaps.interpolation": ["linear", "biharmonic", "kriging"],
    "nogaps.imputers.loading": ["TrainedEnsemble"],
    "nogaps.imputers.intervals": ["interval"],
    "nogaps.imputers.posterior": ["Posterior"],
    "nogaps.evaluation.scoring": ["hidden_score"],
    "nogaps.metrics": ["hole_scores", "summarize", "bootstrap"],
    "nogaps.submission": ["check_submission", "report"],
    "nogaps.submission.similarity": ["compare_folders"],
    "nogaps.prior.sampling": ["sample_to"],
    "nogaps.prior.loading": ["load_prior"],
}


class Written(str):
    """An annotation or a default that is shown as it was written."""

    def __repr__(self) -> str:
        """Without quotation marks."""
        return str(self)


def signature(name: str, thing: object) -> str:
    """Return how to call it: on one line if that is short, else a line per argument."""
    called = inspect.signature(thing)
    shown = [
        one.replace(annotation=Written(one.annotation)) if one.annotation is not one.empty else one
        for one in called.parameters.values()
    ]
    gives = called.return_annotation
    back = "" if gives in (called.empty, None, "None") else f" -> {gives}"
    short = f"{name}{called.replace(parameters=shown, return_annotation=called.empty)}{back}"
    if len(short) <= 96:
        return short
    lines, star = [], False
    for one in shown:
        if one.kind == one.KEYWORD_ONLY and not star:
            lines, star = [*lines, "    *,"], True
        lines.append(f"    {one},")
    return "\n".join([f"{name}(", *lines, f"){back}"])


def escaped(text: str) -> str:
    """Return text in which Markdown reads nothing but `code`."""
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [re.sub(r"([*<])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces)


def prose(text: str) -> str:
    """Return a docstring as Markdown: examples in boxes, Args, Returns and Raises as lists."""
    parts = []
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        head, _, rest = part.partition(":\n")
        if part.startswith(">>>"):
            parts.append(f"```pycon\n{part}\n```")
        elif head in ("Args", "Raises"):
            parts.append(f"{head}:\n\n" + "\n".join(entries(rest)))
        elif head == "Returns":
            parts.append(f"Returns: {escaped(inspect.cleandoc(rest))}")
        else:
            parts.append(escaped(part))
    return "\n\n".join(parts)


def entries(text: str) -> Iterator[str]:
    """Yield "    name: text" and its further lines as an item of a list."""
    for entry in re.split(r"\n(?=\S)", inspect.cleandoc(text)):
        name, _, about = entry.partition(": ")
        yield f"- `{name}`: {escaped(' '.join(about.split()))}"


def python_part() -> Iterator[str]:
    """Yield a heading per module, a signature and a docstring for each thing in it."""
    yield "## Python\n"
    for module, names in MODULES.items():
        yield f"### {module}\n"
        for name in names:
            thing = getattr(import_module(module), name)
            error = inspect.isclass(thing) and issubclass(thing, Exception)
            yield f"```python\n{name if error else signature(name, thing)}\n```\n"
            yield prose(thing.__doc__) + "\n"


def command_part(app: typer.Typer, path: str) -> Iterator[str]:
    """Yield a heading per command, how to call it, its help and its options.

    Read off the functions themselves: what typer makes of them differs between its versions.
    """
    for info in app.registered_commands:
        name = info.name or info.callback.__name__.replace("_", "-")
        yield from _command(f"{path} {name}", info.callback)
    for group in app.registered_groups:
        yield from command_part(group.typer_instance, f"{path} {group.name}")


def _command(called: str, function: Callable) -> Iterator[str]:
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    words, rows = "", []
    for one in parameters:
        kind, info = get_args(hints[one.name])[:2]
        if isinstance(info, ArgumentInfo):
            names = info.metavar or one.name.upper()
            words += f" {names}"
        else:
            words_given = (info.default, *(info.param_decls or ()))  # typer keeps the first apart
            own = [word for word in words_given if isinstance(word, str) and word[:1] == "-"]
            names = ", ".join(own or [f"--{one.name.replace('_', '-')}"]) + _takes(kind)
        needed = one.default is one.empty
        value = "required" if needed else f"`{one.default}`"
        value = "" if not needed and one.default in (None, False) else value
        rows.append(f"| `{names}` | {value} | {prose(info.help or '').replace('|', BAR)} |")
    text, _, example = inspect.cleandoc(function.__doc__).partition("Example: ")
    yield f"### {called}\n\n```\n{called}{words} [OPTIONS]\n```\n"
    yield f"{prose(text.strip())}\n\n```sh\n{' '.join(example.split())}\n```\n"
    yield "\n".join(["| | default | |", "|---|---|---|", *rows]) + "\n"


def _takes(kind: object) -> str:
    """Return what an option takes, by its type; " …" if it can be repeated."""
    text = str(getattr(kind, "__name__", kind))
    word = next((word for name, word in TAKES.items() if name in text or name in str(kind)), "")
    return word + (" …" if "list" in str(kind) else "")


def page() -> str:
    """Return the whole page."""
    parts = [START, *python_part(), COMMON, *command_part(cli.app, "nogaps")]
    return "\n".join(parts).rstrip() + "\n"
