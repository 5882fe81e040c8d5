"""What page.html.j2 shows of a notebook's cells: clean prose, code, captions, printed text."""

from __future__ import annotations

import ast
import itertools
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
from nogaps.submission.notebook import EMBEDDED, outputs, pictures

LONGEST = 20_000  # characters of one output, or of code, that are shown, or of prose that is parsed
MARKDOWN = ("strikethrough", "table", "url", "def_list")  # what is added to plain Markdown
TAGS = (
    "a abbr b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p pre s"
    " small span strong sub sup table tbody td th thead tr u ul"
)
ADDRESS = re.compile(r"(?:https?:|mailto:|#).*|[\w./%-]*", re.S)  # of a link: also a file beside
ANYTHING = re.compile(r".*", re.S)
CLASSES = re.compile(r"highlight|[a-z]{1,2}[0-9]?")  # of coloured code
TITLED = re.compile(r"\b(show_\w+|suptitle|title)$")  # functions that are given a figure's title
DEFINED = re.compile(r"^(?:async )?(?:def|class) (\w+)", re.M)
IMPORT = re.compile(r"^(?:from .*)?import (?:\([^)]*\)|.*)$", re.M)


ATTRIBUTES = {  # that may stay: nothing that runs, fetches, or looks like the page
    ("img", "src"): EMBEDDED,
    ("a", "href"): ADDRESS,
    **dict.fromkeys([("div", "class"), ("span", "class")], CLASSES),
    **dict.fromkeys([("img", "alt"), ("td", "style"), ("th", "style"), ("ol", "start")], ANYTHING),
}


def _is_allowed(tag: str, name: str, value: str) -> bool:
    pattern = ATTRIBUTES.get((tag, name))
    return pattern is not None and pattern.fullmatch(value) is not None


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
        first = text.replace(" ", "-") or "part"  # Jupyter's ids, to which links lead
        numbered = (f"{first}-{number}" for number in itertools.count(2))
        anchor = next(name for name in itertools.chain([first], numbered) if name not in taken)
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
    lines = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return cut("\n".join(shown).strip("\n"))


def has_columns(text: str) -> bool:
    """Return whether a printed text is a table, which must not be wrapped."""
    return len(re.findall(r"^.*\S {2,}\S", text, re.M)) > 1


def coloured(source: str) -> Markup:
    """Return Python code as HTML with a class for each kind of word."""
    if len(source) > LONGEST:
        return Markup(escape(cut(source)))
    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip())


def gist(source: str) -> str:
    """Return one line to know a cell by: the names it defines, else its first working line."""
    source = source[:LONGEST]
    names = ", ".join(dict.fromkeys(DEFINED.findall(source)))
    lines = [*re.findall(r"^[ \t]*[^\s#].*", IMPORT.sub("", source), re.M), *source.split("\n")]
    return (names or next((line.strip() for line in lines if line.strip()), ""))[:200]


def titles(source: str) -> list[str]:
    """Return the titles that the code of a cell gives to its figures, in order.

    A title is the first text among the arguments of a call; "…" stands for what an f-string fills
    in. A cell that is not plain Python, as with %magic, has none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            nodes = ast.walk(ast.parse(source[: 2 * LONGEST]))
            calls = [node for node in nodes if isinstance(node, ast.Call)]
            calls = [call for call in calls if TITLED.search(ast.unparse(call.func))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    calls.sort(key=lambda call: (call.lineno, call.col_offset))
    texts = [[text for text in map(_text, call.args) if text.strip("… ")] for call in calls]
    return [found[0] for found in texts if found]


def _text(value: ast.expr) -> str:
    """Return a text as it stands in code, on one line; "…" for what is not known."""
    parts = value.values if isinstance(value, ast.JoinedStr) else [value]
    words = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
    return " ".join("".join(word if isinstance(word, str) else "…" for word in words).split())
