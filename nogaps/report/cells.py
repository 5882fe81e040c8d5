"""What page.html.j2 shows of a notebook's cells: clean prose, code, captions, printed text."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape

from bleach.css_sanitizer import CSSSanitizer
from bleach.sanitizer import Cleaner
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup
from mistune import import_plugin
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from nogaps.submission.findings import ANSI
from nogaps.submission.notebook import EMBEDDED, last_state, outputs, pictures

LONGEST = 20_000  # characters of one output, or of code, that are shown, or of prose that is parsed
MARKDOWN = ("strikethrough", "table", "url", "def_list")  # what is added to plain Markdown
TAGS = (
    "a abbr b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s"
    " small span strong sub sup table tbody td th thead tr u ul"
)
ADDRESS = re.compile(r"(?:https?:|mailto:|#).*|[\w./%-]*", re.S)  # of a link: also a file beside
CLASSES = re.compile(r"highlight|[a-z]{1,2}[0-9]?")  # of coloured code
TITLED = re.compile(r"show_\w+|suptitle|title")  # functions that are given a figure's title
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
COLUMNS = re.compile(r"\S {2,}\S")  # in several lines: a table, which must not be wrapped


def _is_allowed(tag: str, name: str, value: str) -> bool:
    """Return whether an attribute may stay: nothing that runs, fetches, or looks like the page."""
    if name == "src":
        return tag == "img" and EMBEDDED.fullmatch(value) is not None
    if name == "href":
        return tag == "a" and ADDRESS.fullmatch(value) is not None
    if name == "class":
        return tag in ("div", "span") and CLASSES.fullmatch(value) is not None
    return (tag, name) in {("img", "alt"), ("td", "style"), ("th", "style"), ("ol", "start")}


CLEANER = Cleaner(
    tags=TAGS.split(),
    attributes=_is_allowed,
    protocols=["http", "https", "mailto", "data"],
    css_sanitizer=CSSSanitizer(["text-align"]),
)


@dataclass(frozen=True)
class Heading:
    """An entry of the contents; `anchor` is the id of its element."""

    level: int
    text: str
    anchor: str


@dataclass
class Prose:
    """Renders the Markdown of one notebook, in order, and collects its headings.

    `title` is the first heading of level 1, which the page shows itself.
    """

    title: str = ""
    headings: list[Heading] = field(default_factory=list)

    def render(self, source: str, attachments: Mapping[str, Mapping] | None = None) -> Markup:
        """Return Markdown as HTML that runs and fetches nothing; its unknown tags become text.

        Markdown that is too long to be parsed in reasonable time is shown as it was typed.
        """
        as_typed = Markup(f"<pre>{escape(source)}</pre>")
        if len(EMBEDDED.sub("", source)) > LONGEST:
            return as_typed
        renderer = IPythonRenderer(
            escape=False, attachments=dict(attachments or {}), exclude_anchor_links=True
        )
        markdown = MarkdownWithMath(renderer, plugins=[import_plugin(name) for name in MARKDOWN])
        try:
            html = markdown.render(source)
        except (InvalidNotebook, RecursionError):
            return as_typed
        return self._arrange(BeautifulSoup(CLEANER.clean(html), "html.parser"))

    def _arrange(self, soup: BeautifulSoup) -> Markup:
        """Name the headings, and put what a page without inline styles needs in its place."""
        for image in soup("img"):
            if not image.get("src"):
                image.replace_with(f"[picture: {image.get('alt', '')}]")
        for cell in soup(["td", "th"]):
            cell["class"] = cell.attrs.pop("style", "").strip("; ").rpartition(":")[2].strip()
        for table in soup("table"):
            table.wrap(soup.new_tag("div", attrs={"class": "wide"}))
        for heading in soup(re.compile("^h[1-6]$")):
            self._add(heading)
        return Markup(soup)

    def _add(self, heading: Tag) -> None:
        level, text = int(heading.name[1]), " ".join(heading.get_text().split())
        if level == 1 and text and not self.title:
            self.title = text
            heading.decompose()
            return
        taken = {"content", "summary", *(known.anchor for known in self.headings)}
        start = anchor = text.replace(" ", "-") or "part"  # Jupyter's ids, to which links lead
        number = 1
        while anchor in taken:
            number += 1
            anchor = f"{start}-{number}"
        heading["id"] = anchor
        self.headings.append(Heading(level, text, anchor))

    def captions(self, cell: NotebookNode) -> list[str]:
        """Return a caption for each figure of a cell: its title, else the heading above it."""
        count = sum(len(pictures(output)) for output in outputs(cell))
        names = titles(cell.source)
        if len(names) != count:  # drawn in a loop, or not all of them: which is which is not known
            names = [f"in “{self.headings[-1].text}”" if self.headings else ""] * count
        return names


def cut(text: str) -> str:
    """Return the start of a text that is too long, and how much is missing."""
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]}\n… {more} more characters in the notebook"


def terminal(text: str) -> str:
    """Return a text that a cell printed as a terminal shows it in the end."""
    return cut(last_state(ANSI.sub("", text)).strip("\n"))


def has_columns(text: str) -> bool:
    """Return whether a printed text is a table."""
    return sum(bool(COLUMNS.search(line)) for line in text.splitlines()) > 1


def coloured(source: str) -> Markup:
    """Return Python code as HTML with a class for each kind of word."""
    if len(source) > LONGEST:
        return Markup(escape(cut(source)))
    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip())


def _statements(source: str) -> list[ast.stmt]:
    """Parse a cell; [] if it is not plain Python, as with %magic."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            return ast.parse(source[: 2 * LONGEST]).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def gist(source: str) -> str:
    """Return one line to know a cell by: the names it defines, else its first working line."""
    statements = _statements(source)
    names = [node.name for node in statements if isinstance(node, DEFINITIONS)]
    if names:
        return ", ".join(dict.fromkeys(names))[:200]
    working = [node for node in statements if not isinstance(node, (ast.Import, ast.ImportFrom))]
    first = (working or statements)[0].lineno - 1 if statements else 0
    lines = source.splitlines()[first:]
    return next((line.strip()[:200] for line in lines if line.strip()), "")


def titles(source: str) -> list[str]:
    """Return the titles that the code of a cell gives to its figures, in order.

    "…" stands for what an f-string fills in, which is not known before it runs.
    """
    calls = [
        node
        for statement in _statements(source)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and TITLED.fullmatch(_name(node.func))
    ]
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    return [title for call in calls if (title := _title(call))]


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _title(call: ast.Call) -> str:
    """Return the first text among the arguments of a call; "" if there is none."""
    named = [word.value for word in call.keywords if word.arg in ("title", "label", "t")]
    for value in [*named, *call.args]:
        parts = value.values if isinstance(value, ast.JoinedStr) else [value]
        words = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
        text = "".join(word if isinstance(word, str) else "…" for word in words)
        if text.strip("… "):
            return " ".join(text.split())
    return ""
