"""Assemble docs/benchmarks.md from the JSON files of the benchmarks; measures nothing.

    python -m benchmarks.page

The same files give the same page. What has no file is "not measured".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import changes, filling, limit, run, sampling, scaling, training
from benchmarks.timing import NOT_MEASURED, RESULTS, ROOT
from nogaps.evaluation.scoring import as_table
from nogaps.runtime.files import BadInput, atomic, load_json

PAGE = ROOT / "docs" / "benchmarks.md"
FRAMES = "runs/frames/heads.npz runs/frames/heads_t1.npz"
HEAD = """# Benchmarks

What `make bench` measured, each table by the command above it. All rows of a table come from one
run on one machine, in turns (A B C, A B C, …): medians, and in brackets the quartiles. Rows of one
table are compared at equal precision unless a row says otherwise.
`python -m benchmarks.page` writes this page from `benchmarks/results/*.json`.
"""

GPU = f"""## On a GPU

The benchmarks above compute on the processor. On a GPU: {NOT_MEASURED}."""


@dataclass(frozen=True)
class Section:
    """One part of the page: its JSON, its command, what to know, and its tables."""

    title: str
    file: str
    command: str
    text: str
    tables: Callable[[dict], str]


def accuracy(found: dict) -> str:
    """The tables of `benchmarks.imputers`."""
    return "\n\n".join(f"{k}:\n\n```\n{as_table(v)}\n```" for k, v in found["tables"].items())


SECTIONS = (
    Section(
        "Training to accuracy",
        "training",
        f"python -m benchmarks.training runs/full/samples/images.npy {FRAMES}",
        "Hole PSNR on real heads that nothing was trained on, against training time, for one"
        " network of ours and for the coursework's recipe on the same images. Each schedule is a"
        " training of its own, with its own learning rate. Times are epochs by the seconds of an"
        " epoch, which are measured for both in turns.",
        lambda found: f"{training.as_markdown(found)}\n\n![Curves](training.png)",
    ),
    Section(
        "Sampling",
        "sampling",
        f"python -m benchmarks.sampling {FRAMES}",
        "On the same weights and from the same noise. The pipeline has no other precision than"
        " that of its weights, fp32; ours stands there in fp32 as well. The best score of a"
        " distance is that of real heads among themselves, not 0; KID and AUC (0.5: not told"
        " apart) as in `nogaps prior evaluate`.",
        sampling.as_markdown,
    ),
    Section(
        "Filling",
        "filling",
        "python -m benchmarks.filling",
        "In memory (100 images of 64×64, networks in batches of 32), then on files by `nogaps"
        " fill`, from the start of the process to its end, then how long things take to start. Rows"
        " without precision compute in float32 or float64; untrained networks have no accuracy."
        " 100,000 images: with `--large`, which takes an hour; `--minutes` leaves the longest out.",
        filling.as_markdown,
    ),
    Section(
        "Scaling",
        "scaling",
        "python -m benchmarks.scaling",
        "`--quality fast`. Files are filled by processes of their own, start included.",
        scaling.as_markdown,
    ),
    Section(
        "The limit",
        "limit",
        "python -m benchmarks.limit",
        "What the processor does in dense 3×3 convolutions by themselves, what part of it a"
        " filling and a training step reach (operations of the network's convolutions per second"
        " of the whole work), and where the time goes (one thread)."
        " Filling does BatchNorm and SiLU inside its convolutions.",
        limit.as_markdown,
    ),
    Section(
        "What each choice brings",
        "changes",
        "python -m benchmarks.changes",
        "Every row undoes one choice of the first; in brackets, how many times faster the work is"
        " as it is. Tried and not kept: `torch.compile` fuses the same operations after 13 s of"
        " compiling, as long as filling 8,000 images takes.",
        changes.as_markdown,
    ),
    Section(
        "Accuracy of every imputer",
        "imputers",
        f"python -m benchmarks.imputers {FRAMES} --published runs/published",
        "Over the holes; intervals over subjects.",
        accuracy,
    ),
)


def about(found: dict) -> str:
    """The machine's line."""
    where = dict(found["machine"])
    name = where.pop("processor", where.pop("machine", "?"))
    rest = ", ".join(f"{key} {value}" for key, value in where.items() if value is not None)
    return f"{name}: {rest}"


def section(one: Section, results: Path) -> str:
    """One part of the page."""
    path = results / f"{one.file}.json"
    parts = [f"## {one.title}", f"`{one.command}`", one.text]
    if not path.exists():
        return "\n\n".join([*parts, NOT_MEASURED])
    found = load_json(path)
    try:
        return "\n\n".join([*parts, one.tables(found), f"*{about(found)}*"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        text = f"{path}: is not what its benchmark writes now ({error!r}), expected a new run"
        raise BadInput(text) from error


def main(
    results: Annotated[Path, typer.Option(help="Folder of the JSON files.")] = RESULTS,
    out: Annotated[Path, typer.Option(help="Page to write.")] = PAGE,
) -> None:
    """Write the page."""
    parts = [HEAD.strip(), *[section(one, results) for one in SECTIONS], GPU]
    with atomic(out) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", "utf-8")
    print(f"{out}: written")


if __name__ == "__main__":
    run(main)
