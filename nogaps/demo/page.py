"""The page: its components, what happens when they are used, and how it looks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from nogaps.demo.pictures import colour_stops, downloads, view
from nogaps.demo.uploads import Example, Filler, Item, Results
from nogaps.images.nifti import PLANES
from nogaps.runtime.errors import Advice, BadInput

KEPT = 3600  # seconds that uploads and results are kept
QUALITY = {"best": "mean of all networks", "fast": "the first network alone"}
STORED = "as stored"  # in place of a plane
DOWNLOADS = {  # keys of `downloads`
    "npy": "Filled .npy",
    "png": "Filled PNG",
    "own": "Same format",
    "half": "Uncertainty .npy",
}
WORDS = {
    Advice.MASK: "a mask (under “Options”)",
    Advice.MISSING_NAN: "“NaN” under “Options” if that is what is missing, else a mask",
    Advice.QUALITY_BEST: "the quality “best” (under “Options”)",
    Advice.PLANE: "the plane of the slices (under “Options”)",
}
PROGRESS = gr.Progress()  # the default by which Gradio recognises the argument
PRIVATE = {"api_visibility": "private"}  # nothing is offered to other programs
SILENT = {"show_progress": "hidden", **PRIVATE}
EMPTY = "<div id=empty>The filled images appear here.</div>"
HERE = "Your files stay on this machine"
AWAY = "Your files go to the machine that serves this page, and no further"
FONTS = [["Segoe UI", "Roboto", "Arial", "sans-serif"], ["Consolas", "Menlo", "monospace"]]
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


def theme() -> gr.themes.Base:
    """Return the theme of the page: fonts of the system, so that the page fetches none."""
    fonts, mono = ([gr.themes.Font(name) for name in names] for names in FONTS)
    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=mono)


class Page:
    """The page's components, and what happens when they are used.

    Args:
        filler: Fills the uploads.
        examples: Each gets a button.
        quality: The quality that the page begins with.
        here: Whether only this machine reaches the page.
    """

    def __init__(
        self, filler: Filler, examples: Sequence[Example], quality: str, here: bool
    ) -> None:
        self.filler = filler
        with gr.Blocks(
            title="nogaps", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)
        ) as self.blocks:
            gr.HTML(_head(here), elem_id="head")
            self.results = gr.State(None, time_to_live=KEPT, delete_callback=_remove)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    buttons = self._add_inputs(examples, quality)
                with gr.Column(scale=3, min_width=300):
                    self.empty = gr.HTML(EMPTY)
                    with gr.Column(visible=False) as self.shown:
                        self._add_outputs()
            self._add_events(buttons, examples)
        self.blocks.queue(max_size=32, default_concurrency_limit=1)

    def _add_inputs(self, examples: Sequence[Example], quality: str) -> list[gr.Button]:
        """Add what the user gives, and return the buttons of the examples."""
        label = "Images: .npy, .npz, PNG, NIfTI"
        self.files = gr.File(label=label, file_count="multiple", height=150, elem_id="files")
        gr.HTML("<p id=try>Or try real heads:</p>")
        with gr.Row(elem_id="examples"):
            buttons = [gr.Button(example.label, size="sm", min_width=80) for example in examples]
        with gr.Accordion("Options", open=False) as self.options:
            label = "Mask: .npy, PNG, NIfTI; True = observed"
            self.mask = gr.File(label=label, height=110, elem_id="mask")
            gr.HTML(_small("Without a mask the missing pixels are found."))
            choices = [("zero", "zero"), ("NaN", "nan")]
            self.missing = gr.Radio(choices, value="zero", label="Missing pixels are")
            choices = [(f"{name}: {meaning}", name) for name, meaning in QUALITY.items()]
            self.quality = gr.Radio(choices, value=quality, label="Quality")
            self.plane = gr.Radio([STORED, *PLANES], value=STORED, label="Slices of NIfTI")
        self.go = gr.Button("Fill", variant="primary", elem_id="go")
        self.status = gr.HTML(elem_id="status")
        return buttons

    def _add_outputs(self) -> None:
        """Add what the page shows."""
        image = {"format": "png", "interactive": False, "buttons": ["fullscreen"]}
        self.compare = gr.ImageSlider(
            label="Before and after", elem_id="compare", max_height=640, **image
        )
        self.number = gr.Slider(1, 2, 1, step=1, label="Image", elem_id="number")
        with gr.Row(elem_id="panels"):
            labels = ("Input", "Filled", "Uncertainty")
            self.panels = [gr.Image(label=label, min_width=150, **image) for label in labels]
        self.caption = gr.HTML(elem_id="caption")
        with gr.Row(elem_id="downloads"):
            self.downloads = [
                gr.DownloadButton(f"{label} ↓", size="sm", min_width=120, elem_id=f"get-{name}")
                for name, label in DOWNLOADS.items()
            ]
        self.pictures = [self.compare, *self.panels, self.caption]

    def _add_events(self, buttons: Sequence[gr.Button], examples: Sequence[Example]) -> None:
        """Say what each button and the slider do."""
        page = [self.status, self.empty, self.shown]
        given = [self.files, self.mask, self.missing, self.quality, self.plane]
        outputs = [*page, self.results, self.number, *self.pictures, *self.downloads]

        def start(event: gr.events.Dependency) -> None:
            begun = event(self._begin, [self.results], [self.go, *page], **SILENT)
            filled = begun.then(
                self._fill, given, outputs, show_progress_on=[self.status], **PRIVATE
            )
            filled.then(lambda: gr.update(interactive=True), outputs=[self.go], **SILENT)

        start(self.go.click)
        for button, example in zip(buttons, examples, strict=True):
            chosen = button.click(
                lambda example=example: self._choose(example),
                outputs=[self.files, self.mask, self.missing, self.options],
                **SILENT,
            )
            start(chosen.then)
        self.number.input(
            self._turn,
            [self.results, self.number],
            self.pictures,
            trigger_mode="always_last",
            concurrency_limit=4,
            **SILENT,
        )

    def _choose(self, example: Example) -> dict:
        """Put an example where the user's own files go."""
        return {
            self.files: [str(path) for path in example.files],
            self.mask: example.mask and str(example.mask),
            self.missing: "zero",
            self.options: gr.update(open=example.mask is not None),
        }

    def _begin(self, old: Results | None) -> dict:
        """Clear away what was filled before."""
        _remove(old)
        return {
            self.go: gr.update(interactive=False),
            self.status: "<div class=busy></div>",
            self.empty: gr.update(visible=True),
            self.shown: gr.update(visible=False),
        }

    def _fill(
        self,
        files: list[str] | None,
        mask: str | None,
        missing: str,
        quality: str,
        plane: str,
        progress: gr.Progress = PROGRESS,
    ) -> dict:
        """Fill the uploads; of invalid ones a message takes the place of the results."""

        def tell(done: int, total: int) -> None:
            progress((done, total), desc="Filling", unit="images")

        try:
            uploads, given = [Path(name) for name in files or []], Path(mask) if mask else None
            own_plane = None if plane == STORED else plane
            results = self.filler.fill(uploads, given, missing, quality, own_plane, tell)
            ready = downloads(results)
        except BadInput as error:
            return {self.status: _message("bad", _line(error)), self.results: None}
        count, paths = results.images, map(ready.get, DOWNLOADS)
        return {
            **{
                button: gr.update(value=path and str(path), visible=path is not None)
                for button, path in zip(self.downloads, paths, strict=True)
            },
            self.results: results,
            self.status: _message("good", _summary(results)),
            self.empty: gr.update(visible=False),
            self.shown: gr.update(visible=True),
            self.number: gr.update(maximum=max(count, 2), value=1, visible=count > 1),
            **self._turn(results, 1),
        }

    def _turn(self, results: Results | None, number: float) -> dict:
        """Show image `number`, counted from 1."""
        if results is None or not results.folder.exists():
            return {self.caption: _message("bad", "the results are deleted: fill again")}
        item, index = results.locate(min(int(number), results.images) - 1)
        shown = view(item, index)
        marked, after, half = self.panels
        return {
            self.compare: (shown.before, shown.after),
            marked: shown.marked,
            after: shown.after,
            half: gr.update(value=shown.half, visible=shown.half is not None),
            self.caption: _caption(item, index, shown.top),
        }


def _remove(results: Results | None) -> None:
    if results is not None:
        results.remove()


def _line(error: BadInput) -> str:
    """Return the message in the page's words; it names files without the server's folders."""
    path = Path(error.path or "")
    if not path.name:
        return error.line(WORDS)
    line = error.line(WORDS, path.name)  # a command in it may name the file again
    return line.replace(f"{path.parent}/", "").replace(str(path.parent), ".")


def _head(here: bool) -> str:
    return f"""<h1>nogaps</h1>
<p>Fills the missing lines of head MRIs. Observed pixels come back unchanged, bit for bit; missing
ones are filled by networks that have learnt from synthetic heads of 64×64 pixels.</p>
<p class="care">Not a medical device: filled pixels are guesses, not measurements.
{HERE if here else AWAY}; they are deleted after an hour.</p>"""


def _message(kind: str, text: str) -> str:
    role = "alert" if kind == "bad" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'


def _summary(results: Results) -> str:
    images, pixels = results.images, sum(item.report.missing_pixels for item in results.items)
    return f"{images} image{'' if images == 1 else 's'}, {pixels:,} pixels filled"


def _caption(item: Item, index: int, top: float) -> str:
    pixels = item.report.height * item.report.width
    holes = int((~item.masks[index]).sum())
    name = html.escape(item.name(index))
    place = f", {index + 1} of {item.report.images}" if not item.source.is_dir() else ""
    size = f"{item.report.height}×{item.report.width}"
    share = f"{holes:,} of {pixels:,} pixels filled ({holes / pixels:.0%})"
    lines = [f"<p><b>{name}</b>{place}: {size}, {share}; blue in the input</p>"]
    if item.half is not None:
        bar = f'<i style="background: linear-gradient(90deg, {", ".join(colour_stops())})"></i>'
        scale = f"0{bar}{f'{top:.3g}' if top < 1000 else f'{top:,.0f}'}"
        text = f"half-width of {item.level:.0%} intervals: {scale}"
        lines.append(f'<p class="bar small">{text}</p>')
    else:
        lines.append(_small("Uncertainty is shown for quality “best” of a calibrated imputer."))
    lines += [_small(html.escape(note)) for note in item.report.notes]
    return "".join(lines)


def _small(text: str) -> str:
    return f'<p class="small">{text}</p>'
