"""Imputers trained on different sets: equally long, continued, noticed when the data change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nogaps import Assessment
from nogaps.Assessment import PROFILES
from nogaps.evaluation import usefulness
from nogaps.evaluation.usefulness import compare_usefulness, plan, repeated


def test_every_set_is_trained_on_equally_long() -> None:
    assert plan(2) == (64, 1) and plan(64) == (2048, 1)
    assert plan(65) == (2048, 2) and plan(3840) == (2048, 60)
    x = torch.arange(5.0).view(5, 1, 1, 1)
    for n in (3, 5, 12):
        counts = repeated(x, n, seed=0).flatten().long().bincount(minlength=5)
        assert counts.sum() == n and counts.max() - counts.min() <= 1
    assert torch.equal(repeated(x, 12, 0), repeated(x, 12, 0))
    assert not torch.equal(repeated(x, 12, 0), repeated(x, 12, 1))


def test_it_continues_and_notices_other_data(
    tmp_path: Path, clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = {"heads": (clean[60:64], list("aabb"))}
    sets = {"real": clean[:20], "samples": clean[20:40]}
    epochs: list[int] = []
    real_epoch, real_train = Assessment.train_epoch, usefulness.train

    def counted(*arguments: object) -> float:
        epochs.append(1)
        return real_epoch(*arguments)

    def interrupted(*arguments: object) -> tuple:
        if epochs:
            raise KeyboardInterrupt
        return real_train(*arguments)

    def run(**other: torch.Tensor) -> dict:
        profile = PROFILES["smoke"]
        return compare_usefulness({**sets, **other}, val, tmp_path, 1, [0], profile)

    monkeypatch.setattr(Assessment, "train_epoch", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(usefulness, "train", interrupted)
        run()
    result = run()
    assert len(epochs) == 2, "a finished imputer was trained again"
    rows = result["scores"]
    assert list(rows) == ["kriging", "real, seed 0", "samples, seed 0"]
    lost = rows["real, seed 0"]["heads"]["psnr"] - rows["samples, seed 0"]["heads"]["psnr"]
    assert result["lost_db"]["samples"]["heads"][0] == pytest.approx(lost, abs=1e-4)
    assert result["steps"] == 1 and abs(lost) < 3 and rows["kriging"]["heads"]["psnr"] > 15
    assert np.isfinite(rows["real, seed 0"]["heads"]["rmse"])
    run(samples=clean[40:60])
    assert len(epochs) == 3, "other images were not trained on"
