"""Commands around the notebook and what is handed in. Heavy imports stay inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from nogaps.commands.options import CONTINUES, Json, ProfileName, TestSet, command, say
from nogaps.runtime.errors import BadInput


@command(f"{CONTINUES}, with --verify it starts again")
def run(
    profile: ProfileName = "auto",
    output: Annotated[
        Path | None, Option(help="Write there and leave the committed files alone.")
    ] = None,
    folder: Annotated[Path, Option(help="Folder of Assessment.ipynb.")] = Path("."),
    verify: Annotated[
        bool, Option("--verify", help="Run elsewhere and compare with what is here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Execute the notebook from top to bottom, then check the result.

    Example: nogaps run --profile cpu --output runs/mine
    """
    from nogaps import running, submission

    if profile not in ("auto", "smoke", "cpu", "full"):
        raise BadInput(f"--profile {profile} is unknown", "auto, smoke, cpu or full")
    if verify:
        comparison = running.verify(folder, profile)
        say(comparison, as_json, running.as_text(comparison))
        raise typer.Exit(0 if comparison["passed"] else 1)
    result = running.run(folder, profile, output)
    (row,) = submission.report([result.parent], folder / "test_set.npy")
    text = f"{result}: written\n{submission.as_text([row])}"
    say({"result": result, **row}, as_json, text)
    raise typer.Exit(0 if row["valid"] else 1)


@command()
def check(
    folders: Annotated[list[Path] | None, Argument(metavar="[DIR]...")] = None,
    test_set: TestSet = None,
    truth: Annotated[Path | None, Option(help="Score against these images (.npy).")] = None,
    table: Annotated[Path | None, Option("--csv", help="Write a line per DIR.")] = None,
    as_json: Json = False,
) -> None:
    """Is the submission in each DIR valid? Errors and notes, each with its fix; exit 1 for errors.

    Errors are breaches of the course's sheet, notes what a marker may like to know. Of several it
    also says which were filled the same way, or nearly so: where to look.

    Example: nogaps check handed-in/*/ --test-set test_set.npy --truth truth.npy --csv marks.csv
    """
    from nogaps import submission
    from nogaps.submission import similarity

    rows, like = submission.report(folders or [Path(".")], test_set), None
    if len(rows) > 1:
        like = similarity.compare_folders([row["dir"] for row in rows], test_set)
    if truth:
        submission.score_folders(rows, test_set, truth)
    if table:
        submission.write_csv(table, rows, like)
    text = submission.as_text(rows) + (f"\n{similarity.as_text(like)}" if like else "")
    say({"submissions": rows, "alike": like}, as_json, text)
    raise typer.Exit(0 if all(row["valid"] for row in rows) else 1)


@command()
def report(
    notebook: Annotated[Path, Argument(metavar="[NOTEBOOK_OR_FOLDER]")] = Path("."),
    output: Annotated[
        Path | None, Option("-o", "--output", help="Else report.html beside the notebook.")
    ] = None,
    test_set: TestSet = None,
    as_json: Json = False,
) -> None:
    """Write the executed notebook as one HTML page, with its results and what `check` finds.

    The page needs no network and runs nothing of the notebook's. Exit 1 if `check` finds an error.

    Example: nogaps report . -o report.html
    """
    from nogaps.report import write_report

    result = write_report(notebook, output, test_set)
    text = f"{result['report']}: written, {result['bytes'] / 1e6:.1f} MB, {result['check']}"
    say(result, as_json, text)
    raise typer.Exit(1 if result["valid"] is False else 0)


@command()
def make_test_set(
    out: Annotated[Path, Option(help="File to write.")] = Path("test_set.npy"),
    truth: Annotated[Path | None, Option(help="Write the clean images there too.")] = None,
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
