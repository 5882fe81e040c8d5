"""Submissions that were filled alike are named, in whatever clothes; honest ones are not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import called
from scipy.ndimage import gaussian_filter
from submissions import MASK, TRUTH, Y, write_submission

from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import biharmonic, keep_observed, linear
from nogaps.submission import similarity
from nogaps.submission.arrays import RESULT

COUNT = 24
Fillings = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def fillings() -> Fillings:
    """What three networks that differ by their seeds, their means, and no network make of Y."""
    y, mask = torch.from_numpy(Y[:COUNT]), torch.from_numpy(MASK)[None, None]
    imputer = load_imputer()
    first, second, third = imputer.members(y, mask)
    filled = {"first": first, "second": second, "third": third, "two": (second + third) / 2}
    filled |= {"best": (first + second + third) / 3, "linear": linear()(y, mask)}
    filled |= {"biharmonic": biharmonic(y, mask), "kriging": imputer.kriging(y, mask)}
    return {name: keep_observed(x_hat, y, mask).numpy() for name, x_hat in filled.items()}


def compared(fillings: Fillings, *others: np.ndarray) -> similarity.Likeness:
    plain = [fillings[name] for name in ("linear", "biharmonic", "kriging")]
    return similarity.compare_fillings(others, plain, MASK)


def test_honest_networks_are_not_listed(fillings: Fillings) -> None:
    """The nearest known: the same recipe on the same images, one network and the mean of three."""
    likeness = compared(fillings, *(fillings[n] for n in ("first", "second", "third", "best")))
    assert likeness.pairs() == [] and not likeness.alike[~np.eye(4, dtype=bool)].any()
    assert compared(fillings, fillings["first"], fillings["two"]).pairs() == []
    for scale in (0.01, 0.03, 0.05, 0.1):
        rng = np.random.default_rng(0)
        pair = [fillings[n] + rng.normal(0, scale, Y[:COUNT].shape) for n in ("first", "second")]
        assert compared(fillings, *pair).pairs() == []


def swapped(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[[3, 4]] = x[[4, 3]]
    return x


def noisy(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x + np.random.default_rng(1).normal(0, scale, x.shape)


CLOTHES: dict[str, Callable[..., np.ndarray]] = {
    "itself": lambda x: x,
    "rounded to 8 bits": lambda x: np.round(x * 255) / 255,
    "half precision": lambda x: x.astype(np.float16),
    "rescaled": lambda x: 0.95 * x + 0.01,
    "in [-1, 1]": lambda x: 2 * x - 1,
    "in integers": lambda x: np.round(x * 65535).astype(np.uint16),
    "brighter": lambda x: x**0.95,
    "noise": noisy(0.01),
    "more noise": noisy(0.03),
    "blurred": lambda x: gaussian_filter(x, (0, 0, 0.5, 0.5)),
    "two images exchanged": swapped,
    "without an image": lambda x: np.where(np.arange(COUNT)[:, None, None, None] == 2, np.nan, x),
}


@pytest.mark.parametrize("name", CLOTHES)
def test_copies_are_listed(fillings: Fillings, name: str) -> None:
    first = fillings["first"]
    copy = CLOTHES[name](first)
    likeness = compared(fillings, first, fillings["second"], copy)
    assert likeness.pairs() == [(0, 2)]
    if name == "two images exchanged":
        assert likeness.identical[0, 2] == COUNT - 2
    if name == "itself":
        assert likeness.identical[0, 2] == COUNT


def test_blends_and_parts_are_listed(fillings: Fillings) -> None:
    first, second = fillings["first"], fillings["second"]
    parts = np.concatenate([first[:3], second[3:]])
    for blend in (
        0.5 * first + 0.5 * fillings["kriging"],
        0.3 * first + 0.7 * fillings["biharmonic"],
        0.8 * first + 0.2 * second,
        parts,
    ):
        assert (0, 1) in compared(fillings, first, blend).pairs()
    assert compared(fillings, first, parts).identical[0, 1] == 3


def test_what_needs_no_network_accuses_nobody(fillings: Fillings) -> None:
    rng = np.random.default_rng(2)
    average = 0.5 * fillings["kriging"] + 0.5 * fillings["linear"]
    near = fillings["kriging"] + rng.normal(0, 0.001, average.shape)
    empty = [fillings["kriging"], average, near, Y[:COUNT], fillings["kriging"], fillings["best"]]
    likeness = compared(fillings, *empty)
    assert likeness.pairs() == []
    assert likeness.plain.tolist() == [True] * 5 + [False]


def hand_in(folder: Path, x_hat: np.ndarray, y: np.ndarray = Y[:COUNT]) -> str:
    folder.mkdir()
    write_submission(folder, y, np.clip(x_hat, 0, 1).astype(np.float32))
    return folder.name


def test_the_command_compares_folders(fillings: Fillings, tmp_path: Path) -> None:
    x = fillings
    arrays = {"anna": x["first"], "ben": x["first"], "carl": 0.9 * x["first"] + 0.05}
    arrays |= {"dora": x["second"], "emil": x["best"], "fay": x["kriging"], "gus": x["third"]}
    arrays |= {"hal": x["first"][:, 0]}
    names = [hand_in(tmp_path / name, x_hat) for name, x_hat in arrays.items()]
    (tmp_path / "gus" / RESULT).write_bytes(b"no array")
    np.save(tmp_path / "truth.npy", TRUTH[:COUNT])
    arguments = ("--test-set", "anna/test_set.npy", "--truth", "truth.npy", "--csv", "m.csv")
    done = called("check", *names, *arguments, "--json", cwd=tmp_path)
    result = json.loads(done.out)["alike"]
    copies = ["anna", "ben", "carl", "hal", "nogaps fill --quality fast"]  # hal has other axes
    expected = {pair: 0 if "carl" in pair else COUNT for pair in combinations(copies, 2)}
    expected[("emil", "nogaps fill")] = COUNT
    assert {tuple(pair["dirs"]): pair["identical"] for pair in result["pairs"]} == expected
    assert done.code == 1 and result["plain"] == ["fay"] and [*result["not_compared"]] == ["gus"]
    text = similarity.as_text(result)
    assert text.count("\n") == 15 and "the reason is not known; look" in text
    assert "emil and nogaps fill: 24 of 24 images, to the bit in 24" in text
    rows = list(csv.DictReader((tmp_path / "m.csv").open(newline="")))
    assert list(rows[0])[:4] == ["dir", "valid", "errors", "notes"]
    same, nearly = ([row[name] for row in rows] for name in ("same_as", "nearly_same_as"))
    assert same[:3] == [
        "ben; hal; nogaps fill --quality fast",
        "anna; hal; nogaps fill --quality fast",
        "",
    ]
    assert nearly[:2] == ["carl", "carl"] and nearly[3:7] == ["", "", "(interpolation)", ""]
    assert [row["errors"] for row in rows] == ["", "", "scaled", "", "", "", "unreadable", ""]
    assert float(rows[0]["rmse"]) < float(rows[0]["kriging_rmse"]) and rows[6]["rmse"] == ""
    one = called("check", "dora", "--json", cwd=tmp_path)
    assert one.code == 0 and json.loads(one.out)["alike"] is None


def test_folders_of_other_test_sets_are_not_compared(
    fillings: Fillings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similarity, "_references", lambda y, mask: ([fillings["linear"]], {}))
    hand_in(tmp_path / "anna", fillings["first"])
    hand_in(tmp_path / "ida", fillings["first"], Y[COUNT : 2 * COUNT])
    (tmp_path / "jim").mkdir()
    result = similarity.compare_folders([tmp_path / name for name in ("anna", "ida", "jim")])
    assert result["pairs"] == [] and [*result["not_compared"]] == [str(tmp_path / "jim")]
