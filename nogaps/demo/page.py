"""The page itself, for Gradio 5 (from 5.27) and 6."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from nogaps.demo.examples import Example
from nogaps.demo.pictures import colour_stops, downloads, view
from nogaps.demo.style import look, supported
from nogaps.demo.work import Filler, Item, Results, for_page
from nogaps.images.orientation import PLANES
from nogaps.runtime.files import BadInput

KEPT = 3600  # seconds that uploads and results are kept
LEARNT = 64  # side of the images that the networks have learnt
QUALITY = {"best": "mean of all networks", "fast": "the first network alone"}
STORED = "as stored"  # in place of a plane
DOWNLOADS = {  # fields of `Downloads`
    "npy": "Filled .npy",
    "png": "Filled PNG",
    "own": "Same format",
    "half": "Uncertainty .npy",
}
NO_PROGRESS = gr.Progress()  # Gradio puts the call's own in its place
EMPTY = "<div id=empty>The filled images appear here.</div>"
HERE = "Your files stay on this machine"
AWAY = "Your files go to the machine that serves this page, and no further"


class Page:
    """The page's components, and what happens when they are used."""

    def __init__(
        self, filler: Filler, examples: Sequence[Example], quality: str, here: bool
    ) -> None:
        self.filler = filler
        cache = {"analytics_enabled": False, "delete_cache": (KEPT // 6, KEPT)}
        with gr.Blocks(title="nogaps", **cache, **supported(gr.Blocks, **look())) as self.blocks:
            gr.HTML(_head(here), elem_id="head")
            self.results = gr.State(None, time_to_live=KEPT, delete_callback=_remove)
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    buttons = self._inputs(examples, quality)
                with gr.Column(scale=3, min_width=300):
                    self.empty = gr.HTML(EMPTY)
                    with gr.Column(visible=False) as self.shown:
                        self._outputs()
            self._events(buttons, examples)
        self.blocks.queue(max_size=32, default_concurrency_limit=1)

    def _inputs(self, examples: Sequence[Example], quality: str) -> list[gr.Button]:
        """What the user gives; the buttons are those of the examples."""
        label = "Images: .npy, .npz, PNG, NIfTI"
        self.files = gr.File(label=label, file_count="multiple", height=150, elem_id="files")
        gr.HTML("<p id=try>Or try real heads:</p>")
        with gr.Row(elem_id="examples"):
            buttons = [gr.Button(one.label, size="sm", min_width=80) for one in examples]
        with gr.Accordion("Options", open=False) as self.options:
            label = "Mask: .npy, PNG, NIfTI; True = observed"
            self.mask = gr.File(label=label, height=110, elem_id="mask")
            gr.HTML(_small("Without a mask the missing pixels are found."))
            self.missing = gr.Radio(
                [("zero", "zero"), ("NaN", "nan")], value="zero", label="Missing pixels are"
            )
            self.quality = gr.Radio(
                [(f"{name}: {what}", name) for name, what in QUALITY.items()],
                value=quality,
                label="Quality",
            )
            self.plane = gr.Radio([STORED, *PLANES], value=STORED, label="Slices of NIfTI")
        self.go = gr.Button("Fill", variant="primary", elem_id="go")
        self.status = gr.HTML(elem_id="status")
        return buttons

    def _outputs(self) -> None:
        """What the page shows."""
        small = supported(gr.ImageSlider, buttons=["fullscreen"], show_download_button=False)
        self.compare = gr.ImageSlider(
            label="Before and after",
            format="png",
            interactive=False,
            elem_id="compare",
            max_height=640,
            **small,
        )
        self.number = gr.Slider(1, 2, 1, step=1, label="Image", elem_id="number")
        small = {"buttons": ["fullscreen"], "show_download_button": False}
        small = supported(gr.Image, **small, show_share_button=False)
        with gr.Row(elem_id="panels"):
            self.panels = [
                gr.Image(label=label, format="png", interactive=False, min_width=150, **small)
                for label in ("Input", "Filled", "Uncertainty")
            ]
        self.caption = gr.HTML(elem_id="caption")
        with gr.Row(elem_id="downloads"):
            self.downloads = [
                gr.DownloadButton(f"{label} ↓", size="sm", min_width=120, elem_id=f"get-{name}")
                for name, label in DOWNLOADS.items()
            ]

    def _events(self, buttons: Sequence[gr.Button], examples: Sequence[Example]) -> None:
        """Nothing here is offered to other programs."""
        private = supported(self.go.click, api_visibility="private")
        private = private or {"api_name": False}
        begin = {
            "fn": self._begin,
            "inputs": [self.results],
            "outputs": [self.go, self.status, self.empty, self.shown],
            "show_progress": "hidden",
            **private,
        }
        fill = {
            "fn": self._fill,
            "inputs": [self.files, self.mask, self.missing, self.quality, self.plane],
            "outputs": [
                *(self.status, self.empty, self.shown, self.results, self.number),
                *self._pictures,
                *self.downloads,
            ],
            "show_progress_on": [self.status],
            **private,
        }
        end = {
            "fn": lambda: gr.update(interactive=True),
            "outputs": [self.go],
            "show_progress": "hidden",
            **private,
        }
        self.go.click(**begin).then(**fill).then(**end)
        for button, example in zip(buttons, examples, strict=True):
            chosen = button.click(
                lambda example=example: self._choose(example),
                outputs=[self.files, self.mask, self.missing, self.options],
                show_progress="hidden",
                **private,
            )
            chosen.then(**begin).then(**fill).then(**end)
        self.number.input(
            self._turn,
            [self.results, self.number],
            self._pictures,
            show_progress="hidden",
            trigger_mode="always_last",
            concurrency_limit=4,
            **private,
        )

    @property
    def _pictures(self) -> list[gr.components.Component]:
        return [self.compare, *self.panels, self.caption]

    def _choose(self, example: Example) -> dict:
        """Put an example where the user's own files go."""
        mask = str(example.mask) if example.mask else None
        return {
            self.files: [str(path) for path in example.files],
            self.mask: mask,
            self.missing: "zero",
            self.options: gr.update(open=mask is not None),
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
        progress: gr.Progress = NO_PROGRESS,
    ) -> dict:
        """Fill what was given; a message takes the place of the results if that cannot be."""

        def tell(count: int, total: int) -> None:
            progress((count, total), desc="Filling", unit="images")

        try:
            uploads = [Path(name) for name in files or []]
            given = Path(mask) if mask else None
            cut = None if plane == STORED else plane
            results = self.filler.fill(uploads, given, missing, quality, cut, tell)
            taken = downloads(results)
        except BadInput as error:
            return {self.status: _message("bad", str(error)), self.results: None}
        paths = [getattr(taken, name) for name in DOWNLOADS]
        ready = [gr.update(value=path and str(path), visible=path is not None) for path in paths]
        count = results.images
        return {
            **dict(zip(self.downloads, ready, strict=True)),
            self.results: results,
            self.status: _message("good", _summary(results)),
            self.empty: gr.update(visible=False),
            self.shown: gr.update(visible=True),
            self.number: gr.update(maximum=max(count, 2), value=1, visible=count > 1),
            **self._turn(results, 1),
        }

    def _turn(self, results: Results | None, number: float) -> dict:
        """Show image `number`, counted from 1."""
        if results is None or not results.room.exists():
            return {self.caption: _message("bad", "the results are deleted: fill again")}
        item, index = results.locate(min(int(number), results.images) - 1)
        seen = view(item, index)
        marked, after, half = self.panels
        return {
            self.compare: (seen.before, seen.after),
            marked: seen.marked,
            after: seen.after,
            half: gr.update(value=seen.half, visible=seen.half is not None),
            self.caption: _caption(item, index, seen.top),
        }


def _remove(results: Results | None) -> None:
    if results is not None:
        results.remove()


def _head(here: bool) -> str:
    return f"""<h1>nogaps</h1>
<p>Fills the missing lines of head MRIs. Observed pixels come back unchanged, bit for bit; missing
ones are filled by networks that have learnt from synthetic heads of {LEARNT}×{LEARNT} pixels.</p>
<p class="care">Not a medical device: filled pixels are guesses, not measurements.
{HERE if here else AWAY}; they are deleted after an hour.</p>"""


def _message(kind: str, text: str) -> str:
    role = "alert" if kind == "bad" else "status"
    return f'<p class="{kind}" role="{role}">{html.escape(text)}</p>'


def _summary(results: Results) -> str:
    images, pixels = results.images, sum(item.report.missing_pixels for item in results.items)
    plural = "" if images == 1 else "s"
    return f"{images} image{plural}, {pixels:,} pixels filled"


def _caption(item: Item, index: int, top: float) -> str:
    height, width = item.report.height, item.report.width
    holes = int((~item.mask[index if len(item.mask) > 1 else 0]).sum())
    share = f"{holes:,} of {height * width:,} pixels filled ({holes / (height * width):.0%})"
    name = html.escape(item.name(index))
    of = f", {index + 1} of {item.report.images}" if not item.source.is_dir() else ""
    lines = [f"<p><b>{name}</b>{of}: {height}×{width}, {share}; blue in the input</p>"]
    if item.half is not None:
        stops = ", ".join(colour_stops())
        what = f"half-width of {item.level:.0%} intervals"
        bar = f'<i style="background: linear-gradient(90deg, {stops})"></i>'
        lines.append(f'<p class="bar small">{what}: 0{bar}{_number(top)}</p>')
    else:
        lines.append(_small("Uncertainty is shown for quality “best” of a calibrated imputer."))
    lines += [_small(html.escape(for_page(note, []))) for note in item.report.notes]
    return "".join(lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _small(text: str) -> str:
    return f'<p class="small">{text}</p>'
