"""The results of the benchmarks, as numbers and tables of the pages read them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nogaps.runtime.files import load_json

FOLDER = Path(__file__).parents[1] / "benchmarks" / "results"
SETS = {"val": "val of heads.npz", "val_t1": "val of heads_t1.npz", "stand-in": "stand-in"}


class Results:
    """`results["filling"]` is the content of `benchmarks/results/filling.json`."""

    @cache  # noqa: B019  one short-lived object
    def __getitem__(self, name: str) -> dict:
        """Return the content of a results file.

        Raises:
            BadInput: The file is missing or damaged.
        """
        return load_json(FOLDER / f"{name}.json")

    def score(self, method: str, images: str, score: str = "psnr") -> float:
        """Return a score of `benchmarks.imputers` for one of SETS."""
        return self["imputers"]["tables"][SETS[images]][method][score]

    def rate(self, imputer: str, precision: str, threads: int) -> float:
        """Return the images per second that an imputer fills in memory."""
        for row in self["filling"]["imputers"]:
            if (row["name"], row["precision"]) == (imputer, precision):
                return row["images_per_second"][str(threads)]["median"]
        raise KeyError(imputer)

    def file(self, images: int, method: str, threads: int) -> dict[str, float]:
        """Return the median run of `nogaps fill` on a file of so many images."""
        for row in self["filling"]["files"]:
            if (row["images"], row["method"], row["threads"]) == (images, method, threads):
                runs = sorted(row["runs"], key=lambda run: run["seconds"])
                return runs[len(runs) // 2]
        raise KeyError(method)
