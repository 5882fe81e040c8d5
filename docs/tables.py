"""The tables of the pages, each written from the results of one benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from scipy.stats import spearmanr

from benchmarks import ablations, filling, object_masks, sampling, scaling, training
from docs.numbers import SETS, Results, gain, percent
from nogaps.evaluation.comparison import as_text
from nogaps.tables import as_markdown, scores_table, with_interval

NOT_RUN = "not run"
METHODS = {  # rows of `benchmarks.imputers`, and their names in the README
    "kriging (synthetic)": "kriging",
    "coursework": "coursework recipe",
    "ours, fast": "`fast`, one network",
    "ours, best": "**`best`, the mean of three**",
}
MASKS = {
    "the course's": "the course's",
    "shifted": "shifted by 5 rows and 3 columns",
    "mirrored": "mirrored",
    "transposed": "transposed",
    "random half": "a random half",
    "every 4th row": "every fourth row",
}
GROUPS = {  # rows of the label-free score's table: how the names of their imputers begin
    "of ours: three networks, their mean, those of *Training to accuracy*": (
        "nogaps/",
        "runs/",
    ),
    "with the coursework's network, FRM and ASPP-FRM": (
        "nogaps/",
        "runs/",
        "coursework",
        "frm",
        "aspp",
    ),
    "with linear, biharmonic and kriging": ("",),
}


def readme_results(results: Results) -> str:
    """Return mean hole PSNR of four methods on each set."""
    tables = [results["imputers"]["tables"][heads] for heads in SETS.values()]
    rows = [
        [label, *(f"{rows[method]['psnr']:.2f}" if method in rows else NOT_RUN for rows in tables)]
        for method, label in METHODS.items()
    ]
    return as_markdown(["hole PSNR / dB", *(f"`{images}`" for images in SETS)], rows)


def accuracy(results: Results) -> str:
    """Return every row of `benchmarks.imputers`, with intervals."""
    tables = results["imputers"]["tables"].items()
    return "\n\n".join(f"{name}:\n\n{scores_table(rows)}" for name, rows in tables)


def gains(results: Results) -> str:
    """Return by how many dB `best` exceeds each method, with intervals."""
    tables, rows = results["imputers"]["tables"], []
    for method in tables["stand-in"]:
        if method != "ours, best":
            cells = (
                gain(results, method, images) if method in tables[heads] else NOT_RUN
                for images, heads in SETS.items()
            )
            rows.append([method, *cells])
    return as_markdown(["`best` exceeds, in dB", *(f"`{images}`" for images in SETS)], rows)


def masks(results: Results) -> str:
    """Return hole PSNR under masks that the networks were not trained for."""
    rows = []
    for mask, label in MASKS.items():
        one, other = (results["unseen"]["masks"][SETS[s]][mask] for s in ("val_t1", "stand-in"))
        rows.append([label, *_psnr(one, "ours", "kriging"), *_psnr(other, "ours", "kriging")])
    return as_markdown(["mask", "`val_t1`: ours", "kriging", "stand-in: ours", "kriging"], rows)


def wide_holes(results: Results) -> str:
    """Return hole PSNR and coverage of 90 % intervals in holes wider than lines."""
    rows = []
    for images, heads in SETS.items():  # none of the stand-in
        for hole, measured in results["unseen"]["holes"].get(heads, {}).items():
            values = _psnr(measured, "ours", "kriging", "biharmonic")
            more, *ends = measured["posterior_more_db"]
            values.append(with_interval(more, ends, sign="+"))
            rows.append([f"`{images}`, {hole}", *values, f"{percent(measured['coverage'])} %"])
    header = ["heads, hole", "ours", "kriging", "biharmonic", "posterior over ours", "covered"]
    return as_markdown(header, rows)


def sizes(results: Results) -> str:
    """Return hole PSNR on heads of other sizes and orientations."""
    rows = []
    shorts = {heads: f"`{short}`" for short, heads in SETS.items()}
    for name, by_gap in results["unseen"]["sizes"].items():
        stem, _, size = name.partition(", ")
        heads = f"{shorts.get(f'val of {stem}.npz', stem)}, {size}"
        for gaps, row in by_gap.items():
            values = _psnr(row, "ours", "biharmonic")
            values.append(max(_psnr(row, "kriging", "kriging, own size"), key=float))
            width = gaps.removeprefix("gaps of ").replace("pixels", "px")
            more, *ends = row["more_db"]
            covered = f"{percent(row['coverage'])} %"
            rows.append([heads, width, *values, with_interval(more, ends), covered])
    header = ["heads", "gaps", "ours", "biharmonic", "kriging", "gain", "covered"]
    return as_markdown(header, rows)


def _psnr(row: dict, *methods: str) -> list[str]:
    """Return the hole PSNR of methods in a row of `benchmarks.unseen`."""
    return [f"{row['rows'][method]['psnr']:.2f}" for method in methods]


def label_free(results: Results) -> str:
    """Return how well the score without labels ranks imputers."""
    rows = []
    for label, starts in GROUPS.items():
        values, count = [], 0
        for images in ("val", "val_t1"):
            models = results["label_free"][SETS[images]]["models"]
            chosen = [row for name, row in models.items() if name.startswith(starts)]
            pairs = [[row[key] for row in chosen] for key in ("hidden_psnr", "hole_psnr")]
            values, count = [*values, f"{spearmanr(*pairs).statistic:.2f}"], len(chosen)
        rows.append([f"{count} {label}", *values])
    return as_markdown(["imputers", "`val`", "`val_t1`"], rows)


def tiles(results: Results) -> str:
    """Return how the masks of pictures that share an input agree with those of single ones."""
    rows = [
        [
            name,
            f"{row['iou']:.2f}",
            f"{100 * row['with_object']:.0f} %",
            f"{row['cpu_seconds']:.2f}",
        ]
        for name, row in results["object_masks_tiles"]["tiles"].items()
    ]
    return as_markdown(["pictures in one input", "IoU", "with an object", "CPU s a picture"], rows)


def files(results: Results) -> str:
    """Return seconds, rate and memory of filling files from start to end."""
    rows = []
    for images in (100, 10_000, 100_000):
        run = results.file(images, "ours, fast", 2)
        rows.append([f"{images:,}", "1 × 2", *_run(images, run)])
    for run in results["scaling"]["processes"]:
        count = run["processes"]
        images = round(run["images_per_second"] * run["seconds"] / count)
        rows.append([f"{images:,}" + " each" * (count > 1), f"{count} × 1"])
        rows[-1] += _run(images * count, run)
    header = ["images of 64×64", "processes × threads", "seconds", "images/s"]
    return as_markdown([*header, "peak memory of each"], rows)


def _run(images: int, run: dict[str, float]) -> list[str]:
    seconds = run["seconds"]
    return [
        f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}",
        f"{images / seconds:.0f}",
        f"{run['peak_mb']:.0f} MB",
    ]


def _timed(name: str, results: Results) -> str:
    """Return a benchmark's own tables, and the machine that they were measured on."""
    machine = dict(results[name]["machine"])
    processor = machine.pop("processor")
    details = ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    return f"{TIMED[name].as_markdown(results[name])}\n\n*{processor}: {details}*"


OWN = (readme_results, accuracy, gains, masks, wide_holes, sizes, label_free, tiles, files)
TIMED = {"training": training, "sampling": sampling, "filling": filling, "scaling": scaling}
TABLES: dict[str, Callable[[Results], str]] = {
    **{function.__name__: function for function in OWN},
    **{name: partial(_timed, name) for name in TIMED},
    "objects": lambda results: object_masks.as_table(results["object_masks_cifar10"]["table"]),
    "ablations": lambda results: ablations.as_markdown(
        results["ablations"]["rows"], ["heads", "heads_t1"]
    ),
    "prior": lambda results: as_text(results["prior"]),
}
