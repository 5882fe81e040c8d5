"""The pages: links resolve, commands are those of this version, numbers those of the benchmarks."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from conftest import ROOT

from docs import render
from docs.numbers import Results
from nogaps.commands.main import app

PAGES = [ROOT / "README.md", ROOT / "References.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES += sorted(ROOT.glob("nogaps/weights/**/README.md"))
FENCED = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1[ \t]*$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:href|src)=\"([^\"]+)\"")
ASSIGNED = re.compile(r"^[ \t]*(\w+)=(?:\"([^\"]*)\"|([^\s\"]*))[ \t]*$", re.M)
CALL = re.compile(  # alone, behind settings and launchers, or as a module
    r"\s*(?:\w+=\S* +)*(?:(?:srun|nohup|time) +)?"
    r"(?:nogaps\b|.* -m (?:nogaps\b|(?=benchmarks\.)))(.*)"
)
COMMANDS, HELP = typer.main.get_command(app), {"-h", "--help"}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def test_links_resolve() -> None:
    """Relative ones, and their anchors, as GitHub makes them."""
    broken, count = [], 0
    for page in PAGES:
        for target in links(FENCED.sub("", page.read_text())):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            name, _, anchor = unquote(target).partition("#")
            path = (page.parent / name).resolve() if name else page
            known = path.exists() and path.is_relative_to(ROOT)
            if not known or (anchor and anchor not in anchors(path)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken and count > 20, broken


def test_every_page_is_on_the_map_and_nothing_is_left_open() -> None:
    pages = {path.name for path in ROOT.glob("docs/*.md")} - {"README.md"}
    assert pages <= set(links((ROOT / "docs" / "README.md").read_text()))
    for page in PAGES:
        assert not re.search(r"@[A-Z_]+@|\bTODO\b", page.read_text()), page


def test_modules_stay_short_and_leave_nothing_open() -> None:
    for path in (ROOT / "nogaps").rglob("*.py"):
        assert not re.search(r"#.*\b(TODO|FIXME)\b", path.read_text()), path
        if path.name != "Assessment.py":
            assert len(path.read_text().splitlines()) <= 300, path


def test_commands_shown_are_commands() -> None:
    """Parsed, not run: names, options, arguments and the kinds of their values."""
    wrong, count = [], 0
    for page in PAGES:
        for language, block in [(m[2], m[3]) for m in FENCED.finditer(page.read_text())]:
            for words in commands(block) if language in ("sh", "bash", "console") else ():
                count += 1
                if why := misuse(words):
                    wrong.append(f"{page.relative_to(ROOT)}: {shlex.join(words)}: {why}")
    assert not wrong and count > 20, "\n".join(wrong)


def test_commands_named_in_the_text_exist() -> None:
    """Those between backticks: their names and options; what else they would need may lack."""
    wrong, count = [], 0
    for page in PAGES:
        for text in re.findall(r"(?<!`)`nogaps\s+([^`]+)`", FENCED.sub("", page.read_text())):
            command, rest = walk(text.replace("…", " ").split())
            options = {word for word in rest if re.match(r"--?[a-z]", word)}
            unknown = options - options_of(command)
            lost = [word for word in rest[:1] if hasattr(command, "commands")]
            lost = [word for word in lost if re.fullmatch(r"[a-z][a-z-]*", word)]
            count += 1
            if unknown or lost:
                wrong.append(f"{page.relative_to(ROOT)}: nogaps {text}: {[*unknown, *lost]}")
    assert not wrong and count > 10, "\n".join(wrong)


def test_no_page_is_stale() -> None:
    assert not render.stale(), "run: make docs"


def test_marked_numbers_and_tables_are_written_anew() -> None:
    text = "A <!--n:best_val-->0<!--/n--> B\n<!--table:masks-->\nold\n<!--/table-->\nC"
    page = render.render(text, Results())
    best = f"{Results().score('ours, best', 'val'):.2f}"
    assert page.startswith(f"A <!--n:best_val-->{best}<!--/n--> B\n<!--table:masks-->\n| mask")
    assert "old" not in page and page.endswith("|\n<!--/table-->\nC")
    commented = render.render("# <!--table:masks-->\n# <!--/table-->", Results())
    assert all(line.startswith("# ") for line in commented.splitlines())
    with pytest.raises(KeyError, match="nothing"):
        render.render("<!--n:nothing-->0<!--/n-->", Results())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["researchers.md", "limits.md"])
def test_page_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """From top to bottom in an empty folder, and says what the page says it does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tools(tmp_path / 'bin')}"}
    text, said, compared = (ROOT / "docs" / name).read_text(), "", 0
    (tmp_path / "here").mkdir()
    for match in FENCED.finditer(text):
        language, block = match[2], match[3]
        if text[: match.start()].rstrip().splitlines()[-1].startswith("<!-- not run"):
            continue
        if language == "text":
            assert alike(block, said), f"the page says\n{block}\nfound\n{said}"
            compared += 1
        if language in ("sh", "python"):
            command = ["bash", "-ec"] if language == "sh" else [sys.executable, "-c"]
            options = {"cwd": tmp_path / "here", "env": environment, "capture_output": True}
            done = subprocess.run([*command, block], **options, text=True)
            assert done.returncode == 0, f"{block}\n{done.stderr[-2000:]}"
            said = done.stdout
    assert compared


def tools(folder: Path) -> str:
    """A PATH on which `nogaps` and `python` are those of this test."""
    folder.mkdir()
    for name, arguments in (("nogaps", "-m nogaps "), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def alike(expected: str, found: str) -> bool:
    """The same text; numbers to 3 %, or one in the last digit: machines round differently."""
    texts = [re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip() for text in (expected, found)]
    pairs = zip(NUMBER.findall(expected), NUMBER.findall(found), strict=False)
    ends = [(a, float(a), float(b)) for a, b in pairs]
    steps = [10.0 ** -len(a.partition(".")[2]) for a, _, _ in ends]
    near = (abs(a - b) <= max(0.03 * a, s) for (_, a, b), s in zip(ends, steps, strict=True))
    return texts[0] == texts[1] and all(near)


def links(text: str) -> Iterator[str]:
    """Targets of a page's links and pictures."""
    for match in LINK.finditer(text):
        yield match[1] or match[2]


def anchors(page: Path) -> set[str]:
    """What can stand behind # in a link to a page."""
    text, seen = FENCED.sub("", page.read_text()), {}
    titles = re.findall(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", text, re.M)
    return {anchor_of(title, seen) for title in titles} | set(re.findall(r"id=\"([^\"]+)\"", text))


def anchor_of(title: str, seen: dict[str, int]) -> str:
    """The anchor of a heading; seen: how often each came before."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower()
    anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
    seen[anchor] = number = seen.get(anchor, -1) + 1
    return f"{anchor}-{number}" if number else anchor


def commands(block: str) -> Iterator[list[str]]:
    """The words after `nogaps` of each call in lines of a shell; of a benchmark with its name."""
    block = re.sub(r"^\$ |'", "", block.replace("\\\n", " "), flags=re.M)
    for name, *values in ASSIGNED.findall(block):
        block = re.sub(rf"\$\{{?{name}\b\}}?", "".join(values), block)
    block = re.sub(r"\$\{?\w+\}?", "1", block)  # what only the reader's shell knows
    for command in re.split(r"\n|;|&&|\|", block):
        if match := CALL.match(re.sub(r"\d?[<>]+ *\S+", "", command)):  # without redirections
            yield shlex.split(match[1], comments=True)


def walk(words: list[str]) -> tuple:
    """The command that the first words name, or the group where they end, and the rest."""
    command = COMMANDS
    if words and words[0].startswith("benchmarks."):
        one = typer.Typer()
        one.command()(importlib.import_module(words[0]).main)
        return typer.main.get_command(one), words[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: object) -> set[str]:
    return HELP.union(*(set(p.opts) | set(p.secondary_opts) for p in command.params))


def misuse(words: list[str]) -> str:
    """What is wrong with the words after `nogaps`, "" for nothing."""
    command, rest = walk(words)
    if HELP & set(rest):
        return ""
    if hasattr(command, "commands"):
        good = rest and set(rest[:1]) <= options_of(command)
        return "" if good else f"no command {' '.join(rest[:1])!r}"
    try:
        command.make_context("nogaps", list(rest))
    except Exception as error:  # typer's errors of use have no public ancestor
        return f"{type(error).__name__}: {error}"
    return ""
