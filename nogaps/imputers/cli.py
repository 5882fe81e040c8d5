"""`nogaps adapt`. Heavy imports stay inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nogaps.errors import BadInput
from nogaps.prior.train_cli import Json, say


def adapt(
    test_set: Annotated[Path, typer.Argument(metavar="TEST_SET", help="Corrupted images (.npy).")],
    images: Annotated[Path, typer.Option(help="Clean images: .npy, or a folder of `sample`.")],
    out: Annotated[Path, typer.Option(help="Folder for the imputer and its report.")],
    model: Annotated[
        Path | None, typer.Option(help="Run folder or .safetensors; else the shipped imputer.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of fine-tuning, 300 to 800 as a rule.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of batches and hidden pixels.")] = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune an imputer on a test set's own observed pixels, or leave it as it was.

    The observed pixels of the test set then train what fills it: say so wherever you show results.
    A twentieth of them is kept apart and decides, without labels, whether anything is changed. It
    takes twice the steps: a control learns from synthetic images alone, and must be beaten. The
    same command continues an interrupted run.

    Example: nogaps adapt test_set.npy --images runs/samples --out runs/adapted
    """
    from nogaps.imputers.adaptation import Settings, adapt_file
    from nogaps.imputers.loading import SHIPPED, WEIGHTS

    source = SHIPPED if model is None else model
    source = source / WEIGHTS if source.is_dir() else source
    if (out / WEIGHTS).exists() and source.exists() and (out / WEIGHTS).samefile(source):
        raise BadInput(f"--out {out}: holds the imputer to adapt, expected another folder")
    found = adapt_file(test_set, images, out, model, Settings(steps=steps, seed=seed))
    gain, low, high = found["gain_db"]["over_control"]
    gained = f"{gain:+.2f} dB [{low:+.2f}, {high:+.2f}] over the control on pixels kept apart"
    say(found, as_json, f"{found['imputer']}: {gained}; {found['disclosure']}")
