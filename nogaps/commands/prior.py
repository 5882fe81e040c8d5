"""Commands that sample from, measure and publish the generative model. Heavy imports inside."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from nogaps.commands.options import (
    CONTINUES,
    Branch,
    Json,
    PriorPath,
    Private,
    RepoId,
    Revision,
    Seed,
    Yes,
    command,
    confirm,
    say,
)
from nogaps.runtime import processes
from nogaps.runtime.errors import BadInput

if TYPE_CHECKING:
    from nogaps.prior.frames import Prepared


@command(CONTINUES, shared=True)
def sample(
    out: Annotated[Path, Option(help="Folder for images.npy and manifest.json.")],
    num_samples: Annotated[int, Option(help="How many images.")] = 2048,
    prior: Annotated[
        str | None, Option(help="Diffusers folder, Hub id, or 'course'; else the shipped.")
    ] = None,
    revision: Revision = None,
    scheduler: Annotated[
        str | None, Option(help="ddim, ddpm or dpm. Else dpm; ddim for 'course'.")
    ] = None,
    steps: Annotated[int, Option(help="Steps of the reverse process.")] = 20,
    temperature: Annotated[float, Option(help="Scale of the noise, 0 to 2.")] = 1.0,
    batch_size: Annotated[int, Option(help="Images at a time.")] = 64,
    seed: Annotated[int, Option(help="Image k depends on the seed and k only.")] = 42,
    precision: Annotated[str, Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    grid: Annotated[Path | None, Option(help="Draw the first images: .png.")] = None,
    film: Annotated[Path | None, Option(help="Draw how the first images form: .gif.")] = None,
    test_set: Annotated[
        Path | None, Option(help="Compare the contrast with this test set (.npy).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sample synthetic heads; the same command continues an interrupted run.

    Example: nogaps sample --num-samples 2048 --out runs/samples --grid runs/samples.png
    """
    import torch

    from nogaps.prior import course, sampling
    from nogaps.runtime.files import load_images, load_npy

    sampling.check_names(grid, film)
    y = None if test_set is None else torch.from_numpy(load_images(test_set))
    scheduler = scheduler or ("ddim" if prior == "course" else "dpm")
    settings = (num_samples, steps, batch_size, scheduler, temperature, seed)
    if prior == "course":
        _check_course(film, revision, precision)
        course.generate(*settings, out=out)
    else:
        _sample_prior(out, settings, film, prior, revision, precision)
    if not processes.is_main():
        return
    images = out / "images.npy"
    if grid is not None:
        first = load_npy(images, mmap=True)[: sampling.GRID_IMAGES].copy()
        sampling.save_grid(grid, torch.from_numpy(first))
    result = {"images": images, "num_samples": num_samples, "grid": grid, "film": film}
    lines = [f"{images}: {num_samples} images"]
    if prior == "course" or y is not None:
        result["found"] = course.describe(torch.from_numpy(load_npy(images)), y)
        lines.append(course.as_text(result["found"]))
    lines += [f"{path}: drawn" for path in (grid, film) if path is not None]
    say(result, as_json, "\n".join(lines))


def _check_course(film: Path | None, revision: str | None, precision: str) -> None:
    processes.refuse_several("the course's model")
    if film is not None:
        raise BadInput("--film: the course's model does not show its steps, use another prior")
    if revision is not None or precision != "auto":
        warnings.warn("the course's model takes no --revision or --precision", stacklevel=1)


def _sample_prior(
    out: Path,
    settings: tuple,
    film: Path | None,
    prior: str | None,
    revision: str | None,
    precision: str,
) -> None:
    from nogaps.prior.loading import load_prior
    from nogaps.prior.sampling import Process, record, sample_to, save_film

    with processes.main_process_first():
        model = load_prior(prior, revision=revision)
    sample_to(out, *settings, prior=model, precision=precision)
    if film is not None and processes.is_main():
        count, steps, _, scheduler, temperature, seed = settings
        process = Process(steps, scheduler, temperature, precision)
        save_film(film, record(model, seed, count, process))


@command()
def prepare(
    source: Annotated[
        list[Path], Option(help="Folder or file of PNG, JPG, NIfTI or .npy; repeat it.")
    ],
    out: Annotated[Path, Option(help="The .npz file of frames to write.")],
    index: Annotated[
        Path | None,
        Option(help="CSV with the landmarks of each slice, to frame heads like the test set"),
    ] = None,
    size: Annotated[
        str | None, Option(help="Training images: H or HxW, as 256x128. Else 64.")
    ] = None,
    fit: Annotated[
        str | None, Option(help="pad, crop or stretch images of another aspect.")
    ] = None,
    plane: Annotated[
        str | None, Option(help="NIfTI: sagittal, coronal or axial. Else sagittal.")
    ] = None,
    slices: Annotated[
        str | None,
        Option(help="NIfTI: START:STOP[:STEP], or a share around the middle. Else 0.2."),
    ] = None,
    val_share: Annotated[
        float | None, Option(help="Share of the groups (patients) for val. Else 0.1.")
    ] = None,
    skip_bad: Annotated[
        bool, Option("--skip-bad", help="Leave out files that cannot be read or fitted.")
    ] = False,
    preview: Annotated[Path | None, Option(help="Draw some frames there (.png).")] = None,
    as_json: Json = False,
) -> None:
    """Make frames for training: of any images, or with --index of heads, like the test set.

    Example: nogaps prior prepare --source slices --out runs/frames/mine.npz --fit pad
    --preview runs/frames/mine.png
    """
    from nogaps.prior.frames import heads, load_some
    from nogaps.prior.frames.prepare import check_preview, prepare_images

    if preview:
        from nogaps.prior import sampling

        sampling.check_names(preview, None)
        check_preview(preview, source)
    options = {"size": size, "fit": fit, "plane": plane, "slices": slices}
    options |= {"val_share": val_share, "skip_bad": skip_bad or None}
    options = {name: value for name, value in options.items() if value is not None}
    if index:
        if options or len(source) > 1:
            raise BadInput(f"--index {index}: expected one --source, and none of --size, --fit, …")
        prepared = heads.prepare(source[0], index, out)
    else:
        prepared = prepare_images(source, out, **options)
    result = {"frames": out, **prepared._asdict()}
    if preview:
        sampling.save_grid(preview, load_some(out, sampling.GRID_IMAGES))
        result["preview"] = preview
    for line in prepared.skipped:
        typer.echo(f"left out: {line}", err=True)
    say(result, as_json, f"{out}: {_as_text(prepared)}")


def _as_text(prepared: Prepared) -> str:
    """The images and groups of each split, and what was left out, with its first names."""
    counts, groups = prepared.counts, prepared.groups
    lines = [", ".join(f"{n} {split} (groups: {groups[split]})" for split, n in counts.items())]
    if counts == groups:
        lines.append("note: no name or folder tells a patient: every image is a group of its own")
    for kind, names in prepared.left_out.items():
        some = ", ".join(names[:3]) + ", …" * (len(names) > 3)
        lines.append(f"left out: {len(names)} {kind} ({some})")
    return "\n".join(lines)


@command("the same command measures again; samples and imputers that were made are kept")
def evaluate(
    out: Annotated[Path, Option(help="Folder for evaluation.json, .png, samples and imputers.")],
    frames: Annotated[
        list[Path],
        Option(help="Frame file; repeat it for several, or to count one twice in training."),
    ],
    prior: PriorPath = None,
    samples: Annotated[
        Path | None, Option(help=".npy, or folder of `sample`; else samples are drawn.")
    ] = None,
    inception: Annotated[
        Path | None, Option(help="Inception weights of torch-fidelity (.pth), for FID.")
    ] = None,
    num_samples: Annotated[int, Option(min=4, help="How many samples to draw.")] = 2048,
    steps: Annotated[int, Option(help="Steps of the reverse process.")] = 20,
    usefulness_steps: Annotated[
        int, Option(min=0, help="Optimiser steps of each imputer that is trained; 0: none.")
    ] = 0,
    seeds: Annotated[
        list[int] | None, Option(help="Seed of an imputer; repeat it. Else 0 and 1.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure the first stage, the realism of samples, and what training on them costs.

    Example: nogaps prior evaluate --frames runs/frames/heads.npz --out runs/evaluation
    """
    from nogaps.evaluation import prior as evaluation
    from nogaps.evaluation.comparison import as_text

    sizes = {"num_samples": num_samples, "steps": steps, "usefulness_steps": usefulness_steps}
    seeds = tuple(seeds or (0, 1))
    inputs = (frames, out, prior, samples, inception)
    result = evaluation.evaluate(*inputs, **sizes, seeds=seeds, seed=seed)
    page = f"\n\n{out / 'evaluation.json'}, {out / 'evaluation.png'}: written"
    say(result, as_json, as_text(result) + page)


@command()
def push(
    repo_id: RepoId,
    folder: Annotated[
        Path | None, Option(help="Folder of the prior with its card; else the shipped one.")
    ] = None,
    private: Private = False,
    revision: Branch = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Upload a prior with its model card to the Hub.

    Example: nogaps prior push owner/name --folder runs/prior/pipeline --private
    """
    from nogaps.prior.loading import files_to_push
    from nogaps.runtime.hub import upload

    place, names = files_to_push(folder)
    if not yes:
        confirm(repo_id, names, private)
    address = upload(repo_id, place, names, "Upload a prior of nogaps", private, revision)
    say({"repo_id": repo_id, "commit": address}, as_json, f"{repo_id}: uploaded, {address}")
