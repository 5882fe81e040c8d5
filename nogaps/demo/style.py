"""How the page looks, and what differs between the versions of Gradio."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import gradio as gr

FONTS = ["Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["Consolas", "Menlo", "monospace"]
CSS = """
footer { display: none !important; }
.html-container { padding: 0 !important; }
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#head h1 { font-size: 1.9rem; font-weight: 650; letter-spacing: -0.02em; margin: 0 0 .3rem; }
#head p { margin: 0 0 .35rem; max-width: 62rem; line-height: 1.5; }
#head .care, #caption .small, #try, #empty { font-size: .9rem;
  color: color-mix(in srgb, var(--body-text-color) 75%, transparent); }
#status p { margin: 0; padding: .6rem .8rem; border-radius: 8px; overflow-wrap: anywhere;
  border-left: 4px solid var(--border-color-primary);
  background: var(--background-fill-secondary); }
#status .busy { height: 8rem; }
#status .bad { border-color: #d64545; }
#status .good { border-color: #2f9e6e; }
#try { margin: 0 0 -.4rem; }
#empty { display: grid; place-items: center; min-height: 20rem; text-align: center; padding: 1rem;
  border: 1px dashed var(--border-color-primary); border-radius: 10px; }
#caption p { margin: .1rem 0; overflow-wrap: anywhere; line-height: 1.5; }
#caption .bar i { display: inline-block; width: 6rem; height: .7rem; margin: 0 .4rem;
  border-radius: 3px; }
#examples { gap: .5rem; }
"""


def supported(function: Callable, **options: object) -> dict[str, object]:
    """Those of `options` that `function` takes in this version of Gradio."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def look() -> dict[str, object]:
    """Theme and style of the page: fonts of the system, nothing is fetched."""
    fonts = {"font": FONTS, "font_mono": MONO}
    fonts = {key: [gr.themes.Font(name) for name in names] for key, names in fonts.items()}
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", **fonts)
    return {"theme": theme, "css": CSS}
