"""Markdown of a notebook as HTML: tags in it are text, and nothing is brought in from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

from nogaps.report.figures import picture

EMBEDDED = re.compile(r"data:image/(?:png|jpe?g);base64,([A-Za-z0-9+/=]{100,})")
# what Markdown nests is parsed again and again: hostile text could take minutes
LONGEST, ALL = 20_000, 100_000  # characters of a cell, and of all, that are taken for Markdown


@dataclass(frozen=True)
class Heading:
    """An entry of the contents; `anchor` is the id of its element."""

    level: int
    text: str
    anchor: str


class Prose:
    """Renders the Markdown cells of one notebook, in order, and collects their headings.

    `title` is the first heading of level 1, which the page shows itself; "" before it was met.
    """

    def __init__(self) -> None:
        self.title = ""
        self.headings: list[Heading] = []
        self._anchors = {"content", "summary", ""}  # ids of the page itself
        self._left = ALL
        self._markdown = MarkdownIt("js-default")  # "js-default": tags of the text are escaped
        self._markdown.use(dollarmath_plugin, allow_labels=False, allow_digits=False)
        rules = {"image": _image, "link_open": _link, "th_open": _column, "td_open": _column}
        rules |= {"math_inline": _formula, "math_block": _formula}
        rules |= {"table_open": _table, "table_close": _table}
        for name, rule in rules.items():
            self._markdown.add_render_rule(name, rule)

    def render(self, source: str, attachments: Mapping[str, str] | None = None) -> str:
        """HTML of one cell; attachments: pictures in base64 by their names.

        What is too long to be parsed safely is shown as it was typed.
        """
        attached = dict(attachments or {})
        source = EMBEDDED.sub(lambda found: _attach(found[1], attached), source)
        if len(source) > min(LONGEST, self._left):
            return f"<pre>{escape(source)}</pre>"
        self._left -= len(source)
        tokens = self._markdown.parse(source)
        shown = self._with_anchors(tokens)
        return self._markdown.renderer.render(
            shown, self._markdown.options, {"attachments": attached}
        )

    def _with_anchors(self, tokens: list[Token]) -> list[Token]:
        shown, skip = [], 0
        for place, token in enumerate(tokens):
            skip = max(0, skip - 1)
            if token.type == "heading_open":
                level, text = int(token.tag[1]), _plain(tokens[place + 1])
                if level == 1 and not self.title and text:
                    self.title, skip = text, 3  # the heading's end is the third token
                else:
                    token.attrSet("id", self._anchor(text))
                    self.headings.append(Heading(level, text, token.attrs["id"]))
            if not skip:
                shown.append(token)
        return shown

    def _anchor(self, text: str) -> str:
        start = anchor = slug(text)
        number = 1
        while anchor in self._anchors:
            number += 1
            anchor = f"{start or 'part'}-{number}"
        self._anchors.add(anchor)
        return anchor


def slug(text: str) -> str:
    """The anchor that belongs to a heading: "Question 1: data" becomes "question-1-data"."""
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:60]


def _attach(encoded: str, attached: dict[str, str]) -> str:
    """Keep a picture that stands in the text; return the name that takes its place there."""
    name = f"embedded-{len(attached)}"
    attached[name] = encoded
    return f"attachment:{name}"


def _plain(inline: Token) -> str:
    words = [child.content or " " * (child.type == "softbreak") for child in inline.children or []]
    return " ".join("".join(words).split())


# Rules of markdown-it: (renderer, tokens, place, options, environment) to HTML


def _image(_: Any, tokens: list[Token], place: int, options: Any, env: Mapping) -> str:
    """A picture of the notebook itself; of any other its text, since nothing is fetched."""
    token = tokens[place]
    source = str(token.attrs.get("src", ""))
    encoded = env["attachments"].get(unquote(source.removeprefix("attachment:")), "")
    found = picture(encoded, token.content)[0] if source.startswith("attachment:") else ""
    return found or f'<span class="absent">[picture: {escape(token.content or source[:80])}]</span>'


def _link(renderer: Any, tokens: list[Token], place: int, options: Any, env: Mapping) -> str:
    token = tokens[place]
    target = str(token.attrs.get("href", ""))
    if target.startswith("#"):
        token.attrSet("href", "#" + slug(unquote(target)))
    else:
        token.attrSet("rel", "noopener noreferrer")
    return renderer.renderToken(tokens, place, options, env)


def _column(renderer: Any, tokens: list[Token], place: int, options: Any, env: Mapping) -> str:
    """A cell of a table, aligned by a class: the page allows no style of an element's own."""
    token = tokens[place]
    style = str(token.attrs.pop("style", ""))
    if style:
        token.attrSet("class", style.rpartition(":")[2])
    return renderer.renderToken(tokens, place, options, env)


def _table(renderer: Any, tokens: list[Token], place: int, options: Any, env: Mapping) -> str:
    found = renderer.renderToken(tokens, place, options, env)
    opens = tokens[place].type == "table_open"
    return f'<div class="wide">{found}' if opens else f"{found}</div>"


def _formula(_: Any, tokens: list[Token], place: int, options: Any, env: Mapping) -> str:
    """A formula as it was typed: nothing here could set it."""
    text = escape(tokens[place].content.strip())
    inline = tokens[place].type == "math_inline"
    return f"<code>{text}</code>" if inline else f"<pre>{text}</pre>"
