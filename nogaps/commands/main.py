"""The command line. Heavy imports stay inside the commands."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from nogaps.commands import imputers as imputers
from nogaps.commands.options import Json, ProfileName, say
from nogaps.commands.prior import app as prior_app
from nogaps.commands.report import report
from nogaps.commands.signals import Signals
from nogaps.runtime import processes, progress
from nogaps.runtime.errors import BadInput, Elsewhere
from nogaps.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(prior_app, name="prior")
for command in (imputers.train, imputers.fill, imputers.score, report):
    app.command()(command)
app.command()(imputers.push)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nogaps {__version__}")
        raise typer.Exit


@app.callback()
def nogaps(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", help="Before COMMAND: no progress, no result but --json's."),
    ] = False,
) -> None:
    """Fill the missing lines of 64×64 head MRIs, learnt from synthetic heads.

    Exit codes: 0 done, 1 findings, 2 bad use or bad input.
    """
    progress.set_quiet(quiet)


@app.command()
def run(
    profile: ProfileName = "auto",
    output: Annotated[
        Path | None, typer.Option(help="Write there and leave the committed files alone.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder of Assessment.ipynb.")] = Path("."),
    verify: Annotated[
        bool, typer.Option("--verify", help="Run elsewhere and compare with what is here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Execute the notebook from top to bottom, then check the result.

    Example: nogaps run --profile cpu --output runs/mine
    """
    from nogaps import running, submission, verifying

    if profile not in ("auto", "smoke", "cpu", "full"):
        raise BadInput(f"--profile {profile}: expected auto, smoke, cpu or full")
    if verify:
        found = running.verify(folder, profile)
        say(found, as_json, verifying.as_text(found))
        raise typer.Exit(0 if found["passed"] else 1)
    if running.sync_twin(folder):
        typer.echo("nogaps/Assessment.py: brought in step with Assessment.ipynb", err=True)
    result = running.run(folder, profile, output)
    test_set = folder / "test_set.npy"
    (row,) = submission.report([result.parent], test_set)
    text = f"{result}: written\n{submission.as_text([row])}"
    say({"result": result, **row}, as_json, text)
    raise typer.Exit(0 if row["valid"] else 1)


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder for images.npy and manifest.json.")],
    num_samples: Annotated[int, typer.Option(help="How many images.")] = 2048,
    prior: Annotated[
        str | None, typer.Option(help="Diffusers folder, Hub id, or 'course'; else the shipped.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a Hub id.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="ddim, ddpm or dpm. Else dpm; ddim for 'course'.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the reverse process.")] = 20,
    temperature: Annotated[float, typer.Option(help="Scale of the noise, 0 to 2.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 64,
    seed: Annotated[int, typer.Option(help="Image k depends on the seed and k only.")] = 42,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    grid: Annotated[Path | None, typer.Option(help="Draw the first images: .png.")] = None,
    film: Annotated[
        Path | None, typer.Option(help="Draw how the first images form: .gif, or .png as a strip.")
    ] = None,
    test_set: Annotated[
        Path | None, typer.Option(help="Compare the contrast with this test set (.npy).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sample synthetic heads; the same command continues an interrupted run.

    Example: nogaps sample --num-samples 2048 --out runs/samples --grid runs/samples.png
    """
    import torch

    from nogaps.prior import course, pictures
    from nogaps.runtime.files import load_images, load_npy

    pictures.check_names(grid, film)
    y = None if test_set is None else torch.from_numpy(load_images(test_set))
    scheduler = scheduler or ("ddim" if prior == "course" else "dpm")
    settings = (num_samples, steps, batch_size, scheduler, temperature, seed)
    if prior == "course":
        processes.refuse_several("the course's model")
        if film is not None:
            raise BadInput("--film: the course's model does not show its steps, use another prior")
        if revision is not None or precision != "auto":
            warnings.warn("the course's model takes no --revision or --precision", stacklevel=1)
        course.generate(*settings, out=out)
    else:
        from nogaps.prior.loading import load_prior
        from nogaps.prior.sampling import sample_to

        model = load_prior(prior, revision=revision)
        sample_to(out, *settings, prior=model, precision=precision)
        if not processes.is_leader():
            return
        if film is not None:
            n = min(num_samples, pictures.FILM_IMAGES)
            process = (steps, scheduler, temperature, precision)
            pictures.save_film(film, pictures.record(model, seed, n, *process))
    if grid is not None:
        images = load_npy(out / "images.npy", mmap=True)[: pictures.GRID_IMAGES]
        pictures.save_grid(grid, torch.from_numpy(images.copy()))
    result = {"images": out / "images.npy", "num_samples": num_samples, "grid": grid, "film": film}
    lines = [f"{out / 'images.npy'}: {num_samples} images"]
    if prior == "course" or y is not None:
        result["found"] = course.describe_folder(out, y)
        lines.append(course.as_text(result["found"]))
    lines += [f"{path}: drawn" for path in (grid, film) if path is not None]
    say(result, as_json, "\n".join(lines))


@app.command()
def check(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[DIR]...")] = None,
    test_set: Annotated[Path | None, typer.Option(help="Else the test_set.npy of DIR.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Score against these images (.npy).")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Write a line per DIR.")] = None,
    as_json: Json = False,
) -> None:
    """Is the submission in each DIR valid? Every finding with its mend; exit 1 if there is one.

    Of several it also says which were filled the same way, or nearly so: where to look.

    Example: nogaps check handed-in/*/ --test-set test_set.npy --truth truth.npy --csv marks.csv
    """
    from nogaps import submission
    from nogaps.submission import similarity as alike

    rows = submission.report(folders or [Path(".")], test_set)
    like = alike.compare_folders([row["dir"] for row in rows], test_set) if len(rows) > 1 else None
    if truth or table:
        from nogaps.submission.marks import score_folders, write_csv

        if truth:
            score_folders(rows, test_set, truth)
        if table:
            write_csv(table, rows, like)
    text = [submission.as_text(rows), alike.as_text(like) if like else ""]
    say({"submissions": rows, "alike": like}, as_json, "\n".join(filter(None, text)))
    raise typer.Exit(0 if all(row["valid"] for row in rows) else 1)


@app.command()
def make_test_set(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("test_set.npy"),
    truth: Annotated[Path | None, typer.Option(help="Write the clean images there too.")] = None,
    as_json: Json = False,
) -> None:
    """Write the stand-in test set, bit for bit the same on every machine.

    Example: nogaps make-test-set --out test_set.npy
    """
    from nogaps.runtime.files import save_npy, sha256
    from nogaps.standin import clean_images, write_test_set

    write_test_set(out)
    if truth:
        save_npy(truth, clean_images())
    digest = sha256(out)
    say({"test_set": out, "truth": truth, "sha256": digest}, as_json, f"{out}: sha256 {digest}")


@app.command()
def demo(
    model: imputers.ModelPath = None,
    revision: imputers.Revision = None,
    quality: Annotated[str, typer.Option(help="What the page begins with: best or fast.")] = "best",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Else the first free one from 7860.")
    ] = None,
    max_upload_mb: Annotated[int, typer.Option(min=1, help="Largest file, in megabytes.")] = 100,
    open_page: Annotated[
        bool, typer.Option("--open/--no-browser", help="Open the page in your browser.")
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


def _warn(message: Warning | str, *_: object) -> None:
    if processes.is_leader():
        print(f"nogaps: warning: {message}", file=sys.stderr)


def _what_then(arguments: list[str]) -> str:
    """What an interrupted command did not lose."""
    name, *rest = [*(word for word in arguments if word not in ("-q", "--quiet")), ""]
    if name == "fill":
        return "the same command fills what is left"
    kept = name in ("sample", "train") or (name == "run" and "--verify" not in rest)
    if not kept and not (name == "prior" and rest[0].startswith(("train", "refine", "evaluate"))):
        return "the same command starts again"
    option = " with --resume" if name == "train" and "--resume" not in rest else ""
    return f"the same command{option} continues where it stopped"


def _check_processes(arguments: list[str]) -> None:
    """Raise BadInput if several processes were started for a command that they cannot share."""
    name, *rest = [*arguments, ""]
    if name == "prior":
        name = f"prior {rest[0]}"
    if not name.startswith(("sample", "fill", "prior train", "prior refine")):
        processes.refuse_several(name)


def main() -> None:
    """Entry point: bad input becomes one line on stderr and exit code 2, a signal 128 + n."""
    warnings.showwarning = _warn
    for stream in (sys.stdout, sys.stderr):  # names need not be text
        stream.reconfigure(errors="backslashreplace")
    text = f"nogaps: interrupted; {_what_then(sys.argv[1:])}"
    signals = Signals(text if processes.is_leader() else "")
    signals.install()
    try:
        _check_processes(sys.argv[1:])
        app()
    except BaseException as error:  # whatever a signal has become on its way up
        text, full = " ".join(str(error).split()), os.strerror(errno.ENOSPC)
        known = isinstance(error, BadInput) or (isinstance(error, Exception) and full in text)
        if not signals.code and not known:
            raise
        said = isinstance(error, Elsewhere)
    # outside of `except`: what the error held is closed by now, progress bars too
    if not signals.code:
        if not said and processes.speaks():
            where = "" if processes.is_leader() else f"process {processes.number()}: "
            print(f"nogaps: {where}{text}", file=sys.stderr)
        raise SystemExit(2)
    signals.say()
    raise SystemExit(signals.code)


if __name__ == "__main__":
    main()
