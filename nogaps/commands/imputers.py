"""Commands that train, use, score, show and publish imputers. Heavy imports stay inside them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from nogaps.commands.options import (
    Branch,
    Json,
    ModelPath,
    Private,
    ProfileName,
    RepoId,
    Revision,
    Yes,
    command,
    confirm,
    say,
)
from nogaps.runtime import processes


@command("--resume continues where it stopped")
def train(
    images: Annotated[Path, Option(help="Clean images: .npy, or a folder of `sample`.")],
    out: Annotated[Path, Option(help="Folder for the imputer and its checkpoints.")],
    test_set: Annotated[Path, Option(help="The corrupted test set (.npy).")] = Path("test_set.npy"),
    profile: ProfileName = "auto",
    seed: Annotated[int, Option(help="Seed of split, weights and augmentation.")] = 0,
    resume: Annotated[bool, Option("--resume", help="Continue an interrupted run.")] = False,
    as_json: Json = False,
) -> None:
    """Train an imputer for the mask of a test set.

    Example: nogaps train --images runs/samples --out runs/imputer --profile cpu
    """
    from nogaps.training import train_imputer

    result = train_imputer(images, test_set, out, profile, seed, resume)
    say(result, as_json, f"{result['imputer']}: validation hole RMSE {result['rmse']:.4f}")


@command("the same command fills what is left", shared=True)
def fill(
    source: Annotated[Path, Argument(metavar="INPUT", help=".npy, .npz, NIfTI, PNG, folder.")],
    output: Annotated[Path, Option("-o", "--output", help="File or folder to write.")],
    model: ModelPath = None,
    revision: Revision = None,
    mask: Annotated[
        Path | None,
        Option(
            help="Bool .npy, (H,W) or (N,1,H,W), True = observed; or a picture, a folder of them "
            "with the names of the images, or a NIfTI, black or 0 = missing."
        ),
    ] = None,
    plane: Annotated[
        str | None,
        Option(help="NIfTI: sagittal, coronal or axial slices, upright. Else as stored."),
    ] = None,
    missing: Annotated[str, Option(help="What marks missing pixels: zero or nan.")] = "zero",
    quality: Annotated[
        str, Option(help="best: the mean of all its networks; fast: the first alone.")
    ] = "best",
    uncertainty: Annotated[
        Path | None,
        Option(help="Write half-widths there (.npy), calibrated for the course's mask."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fill the missing pixels of any number of images.

    Of a NIfTI, --plane sagittal fills upright slices; the mask may be a NIfTI in the same space.

    The report notes where the images are unlike those that the networks were trained for.

    Example: nogaps fill test_set.npy -o filled.npy
    """
    from nogaps.filling.files import fill_file
    from nogaps.imputers.loading import load_imputer
    from nogaps.runtime.device import pick_device

    with processes.main_process_first():
        imputer = load_imputer(model, pick_device(), quality, revision)
        level = None if uncertainty is None else imputer.calibration.level
    options = {"mask": mask, "missing": missing, "uncertainty": uncertainty, "plane": plane}
    report = fill_file(source, output, imputer, **options)
    result = {"output": output, **vars(report)}
    text = f"{output}: {report.images} images, {report.missing_pixels} pixels filled"
    if level is not None:
        result |= {"uncertainty": uncertainty, "level": level}
        text += f"\n{uncertainty}: half-widths of {level:.0%} intervals"
    text += "".join(f"\nnote: {note}" for note in report.notes)
    say(result, as_json, text)


@command()
def score(
    output: Annotated[Path, Argument(help="The filled images (.npy).")],
    truth: Annotated[Path, Argument(help="The complete images (.npy).")],
    mask_from: Annotated[Path, Option(help="The corrupted images (.npy).")],
    as_json: Json = False,
) -> None:
    """Score filled images against the truth, over the hole, beside the classical fillings.

    Example: nogaps score test_set_nogaps.npy truth.npy --mask-from test_set.npy
    """
    from nogaps.evaluation.scoring import score_files
    from nogaps.tables import scores_table

    rows = score_files(output, truth, mask_from)
    say(rows, as_json, scores_table(rows))


@command()
def demo(
    model: ModelPath = None,
    revision: Revision = None,
    quality: Annotated[str, Option(help="What the page begins with: best or fast.")] = "best",
    host: Annotated[
        str, Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, Option(min=1, max=65535, help="Else the first free one from 7860.")
    ] = None,
    max_upload_mb: Annotated[int, Option(min=1, help="Largest file, in megabytes.")] = 100,
    open_page: Annotated[
        bool, Option("--open/--no-browser", help="Open the page in your browser.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Serve a page on this machine: upload images, fill them, look at them, download them.

    Example: nogaps demo --port 7860
    """
    from nogaps.demo.server import LOOPBACK, serve

    def ready(address: str) -> None:
        say({"address": address}, as_json, f"{address}: open it in a browser; Ctrl-C ends it")
        sys.stdout.flush()

    if host not in LOOPBACK:
        warnings.warn(f"--host {host}: everyone who reaches it can use the page", stacklevel=1)
    serve(ready, model, quality, host, port, max_upload_mb, open_page, revision)


@command()
def push(
    repo_id: RepoId,
    model: ModelPath = None,
    results: Annotated[
        Path | None, Option(help="JSON of `benchmarks.imputers`, for the model card.")
    ] = None,
    data: Annotated[str, Option(help="What it learnt from, for the model card: a sentence.")] = "",
    licence: Annotated[str, Option(help="Of the weights. Else cc-by-sa-4.0.")] = "",
    dry_run: Annotated[
        Path | None, Option(help="Write what would be published there, and stop.")
    ] = None,
    private: Private = False,
    revision: Branch = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Upload an imputer with its model card to the Hub, for `--model owner/name`.

    The card is the README.md beside the weights, or else is written from what was measured.

    Example: nogaps push owner/name --model runs/imputer --data "Samples of our own prior" --private
    """
    import tempfile

    from nogaps.imputers.hub import write_folder
    from nogaps.runtime.hub import upload

    with tempfile.TemporaryDirectory() as room:
        folder = dry_run or Path(room) / "imputer"
        names = write_folder(folder, model, results, licence, data)
        if dry_run:
            text = f"{folder}: {', '.join(names)}; nothing was uploaded"
            say({"repo_id": repo_id, "folder": folder, "files": names}, as_json, text)
            return
        if not yes:
            confirm(repo_id, names, private)
        message = "Upload an imputer of nogaps"
        address = upload(repo_id, folder, names, message, private, revision)
    say({"repo_id": repo_id, "commit": address}, as_json, f"{repo_id}: uploaded, {address}")
