"""The course's own model: in the place of ours, checked, and through the command line."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner

from nogaps.commands.main import app
from nogaps.prior import course
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images


def fake_course(value: torch.Tensor) -> types.ModuleType:
    module = types.ModuleType("ese_invldm")

    def generate(num_samples, num_inference_steps, batch_size, scheduler, temperature, seed=42):
        return list(value[:num_samples].split(batch_size))

    module.generate = generate
    return module


def test_it_takes_our_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 1.02 - 0.01
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(value))
    batches = course.generate(5, 10, 2, "ddim", 1.0, seed=0, out=tmp_path)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(load_images(tmp_path / "images.npy"), value.clamp(0, 1))
    monkeypatch.setitem(sys.modules, "ese_invldm", fake_course(value * 0))
    again = course.generate(5, 10, 2, "ddim", 1.0, seed=0, out=tmp_path)
    assert torch.equal(torch.cat(again), value.clamp(0, 1)), "the saved set was made again"
    with pytest.raises(BadInput, match="num_inference_steps 10, not 20"):
        course.generate(5, 20, 2, "ddim", 1.0, seed=0, out=tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        None,
        torch.ones(5, 64, 64),
        torch.ones(3, 1, 64, 64),
        2 * torch.arange(5.0)[:, None, None, None].expand(5, 1, 64, 64) - 1,
        torch.full((5, 1, 64, 64), torch.nan),
    ],
)
def test_it_is_checked(value: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ese_invldm", value if value is None else fake_course(value))
    text = "not installed" if value is None else "ese_invldm: returned"
    with pytest.raises(BadInput, match=text):
        course.generate(5, 10, 2)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"scheduler": "dpm"}, "'dpm', expected ddim or ddpm, as the course's"),
        ({"num_inference_steps": 9}, "expected 10 to 50, as"),
        ({"num_inference_steps": 51}, "expected 10 to 50, as"),
        ({"temperature": 1.01}, "expected 0 to 1, as"),
        ({"num_samples": 0}, "num_samples"),
    ],
)
@pytest.mark.filterwarnings("ignore:temperature")
def test_settings_that_it_does_not_take(settings: dict, text: str) -> None:
    with pytest.raises(BadInput, match=text):
        course.generate(**{"num_samples": 5, **settings})


COURSE = """
import torch

def generate(num_samples, num_inference_steps, batch_size, scheduler, temperature, seed=42):
    generator = torch.Generator().manual_seed(seed)
    x = 0.62 * torch.rand(num_samples, 1, 64, 64, generator=generator) - 0.02
    return list((temperature * x).double().requires_grad_().split(batch_size))
"""


def test_its_package_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ese_invldm").mkdir()
    (tmp_path / "ese_invldm/__init__.py").write_text(COURSE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "ese_invldm", None)  # put back afterwards
    del sys.modules["ese_invldm"]
    options = ["--out", tmp_path / "s", "--num-samples", 5, "--batch-size", 2]
    options += ["--test-set", ROOT / "test_set.npy", "--grid", tmp_path / "grid.png"]
    call = ["sample", "--prior", "course", *map(str, options)]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    generator = torch.Generator().manual_seed(42)
    raw = 0.62 * torch.rand(5, 1, 64, 64, generator=generator) - 0.02
    np.testing.assert_array_equal(load_images(tmp_path / "s/images.npy"), raw.clamp(0, 1))
    y = np.load(ROOT / "test_set.npy")
    seen = y[:, (y != 0).any(0)]
    assert f"samples: in [-0.020, 0.600], mean {raw.clamp(0, 1).mean():.3f}" in done.stdout
    ratio = raw.clamp(0, 1)[:, (y != 0).any(0)].std() / seen.std()
    assert f"the samples' is {ratio:.2f} times that" in done.stdout
    assert f"{(seen > float(raw.max())).mean():.2%} of the observed" in done.stdout
    assert Image.open(tmp_path / "grid.png").size == (3 * 130 + 2, 2 * 130 + 2)
