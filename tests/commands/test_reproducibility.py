"""The same call twice gives the same bits, whatever else is going on in process and machine.

Between the two calls of a test differ: the generators that a process shares, the clock, the order
in which folders are listed, and whether torch may use other than deterministic algorithms (if not,
it also fills fresh memory with NaN).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_cases import STAGES, WORKING, words
from conftest import ROOT
from in_process import called
from nibabel import Nifti1Image
from PIL import Image
from torch import nn

from nogaps import interpolation as classical
from nogaps.evaluation import realism, scoring
from nogaps.imputers import refinement
from nogaps.imputers.loading import load_imputer
from nogaps.imputers.posterior import Posterior
from nogaps.prior import sampling
from nogaps.prior.autoencoder import train_autoencoder
from nogaps.prior.diffusion import train_diffusion
from nogaps.prior.loading import Prior, load_prior
from nogaps.prior.refine import refine_decoder
from nogaps.prior.training import Schedule
from nogaps.runtime.files import sha256

WINDOW = (..., slice(20, 44), slice(16, 40))
NEVER_THE_SAME = re.compile(r"log\.csv|(state|training-\d)\.(safetensors|previous)")  # seconds


@pytest.fixture
def given(
    tmp_path: Path,
    prior: Prior,
    prior_folder: Path,
    frames_file: Path,
    clean: torch.Tensor,
    corrupted: torch.Tensor,
    mask: torch.Tensor,
) -> SimpleNamespace:
    """What the calls below work on: small images, in memory and in files of every kind."""
    x, y = clean[WINDOW][:20], corrupted[WINDOW]
    inputs = tmp_path / "inputs"
    (inputs / "pngs").mkdir(parents=True)
    np.save(inputs / "images.npy", clean[WINDOW].numpy())
    np.save(inputs / "y.npy", y.numpy())
    np.savez(inputs / "y.npz", images=y.numpy(), ages=np.arange(3))
    grey = (255 * y[:6, 0]).round().byte().numpy()
    for name, image in zip("badfce", grey, strict=True):
        Image.fromarray(image).save(inputs / "pngs" / f"{name}.png")
    Nifti1Image(np.moveaxis(grey, 0, -1), np.eye(4)).to_filename(inputs / "y.nii.gz")
    with np.load(frames_file, allow_pickle=False) as archive:
        np.savez(inputs / "frames.npz", **{name: archive[name][12:20:2] for name in archive})
    own = {"x": x, "mask": mask[WINDOW], "linear": classical.linear()}
    own |= {"prior": prior, "frames": [inputs / "frames.npz"], "whole": (corrupted[:1], mask)}
    (inputs / "prior").symlink_to(prior_folder)
    return SimpleNamespace(**own, inputs=inputs, folder=tmp_path, new=tmp_path)


def first_stage(g: SimpleNamespace, kind: str, **shape: object) -> nn.Module:
    train_autoencoder(g.frames, g.new, Schedule(1, 2), kind, **shape)
    return g.new / "vqvae"


def all_stages(g: SimpleNamespace) -> Path:
    first_stage(g, "kl", widths=(8, 8, 8), latent_channels=4)
    train_diffusion(g.frames, g.new, Schedule(1, 2), 1, (16, 32))
    refine_decoder(g.frames, g.new, Schedule(1, 2), samples=2)
    return g.new / "refined"


def shipped(g: SimpleNamespace) -> list:
    """The networks that come with the package."""
    y, mask = g.whole
    x = sampling.generate(1, 2, 1, prior=load_prior())
    return [x, load_imputer()(y, mask)]


def command_line(g: SimpleNamespace) -> Path:
    for line in WORKING:
        before, done = states(), called(*words(line, str(g.inputs)), "--json", cwd=g.new)
        assert done.code == 0 and states() == before, (line, done)
        assert isinstance(json.loads(done.out), dict), line
        if line.startswith("score"):
            (g.new / "scores.json").write_text(done.out)
    return g.new


CALLS: dict[str, Callable[[SimpleNamespace], object]] = {
    "posterior": lambda g: Posterior(g.linear, g.prior, 2, num_inference_steps=2)(*g.whole),
    "hidden pixels": lambda g: scoring.hidden_folds(g.mask),
    "FRM": lambda g: refinement.build_refined_unet("frm", widths=(8, 16), bottleneck=16),
    "VQ-VAE-2": partial(first_stage, kind="vqvae2", width=16, inner_width=8, num_codes=16),
    "prior": all_stages,
    "features": lambda g: realism.feature_space(g.x)(1 - g.x),
    "shipped networks": shipped,
    "command line": command_line,
}


def states() -> dict[str, str]:
    """Digests of the generators that a process shares."""
    generators = {"random": random.getstate, "numpy": np.random.get_state}
    generators |= {"torch": torch.random.get_rng_state}
    return {name: digest(state()) for name, state in generators.items()}


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    """What a process shares is after a test as if it had not been."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([]):
        yield
    torch.use_deterministic_algorithms(False)
    random.setstate(before[0])
    np.random.set_state(before[1])


def files(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder but those that hold times."""
    paths = (p for p in sorted(folder.rglob("*")) if not NEVER_THE_SAME.fullmatch(p.name))
    return {p.relative_to(folder).as_posix(): sha256(p) for p in paths if p.is_file()}


def digest(value: object) -> str:
    """Hex sha256 of anything that a function returns, files and weights included."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, Path):
        value = files(value)
    if isinstance(value, dict):
        value = [[key, digest(part)] for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        value = [digest(part) for part in value]
    elif isinstance(value, (torch.Tensor, np.ndarray)):
        value = (tuple(value.shape), str(value.dtype), np.asarray(value).tobytes())
    return hashlib.sha256(repr(value).encode()).hexdigest()


class Listing(contextlib.nullcontext):
    """The entries of `os.scandir`, in alphabetical order or the other way round."""

    def __init__(self, scandir: Callable, backwards: bool, path: object = ".") -> None:
        with scandir(path) as entries:
            order = sorted(entries, key=lambda entry: entry.name, reverse=backwards)
        super().__init__(self)
        self.entries = iter(order)

    def __iter__(self) -> Iterator[os.DirEntry]:
        return self.entries

    def __next__(self) -> os.DirEntry:
        return next(self.entries)


@pytest.mark.parametrize("name", list(CALLS))
def test_a_second_call_gives_the_same_bits(
    given: SimpleNamespace, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, now, scandir = [], time.time, os.scandir
    for k in (1, 2):
        random.seed(k)
        np.random.seed(k)
        torch.manual_seed(k)
        torch.use_deterministic_algorithms(k == 2)
        monkeypatch.setattr(os, "scandir", partial(Listing, scandir, k == 2))
        monkeypatch.setattr(time, "time", lambda k=k: now() - 1e8 * k)
        given.new = given.folder / ("new" * k)
        given.new.mkdir()
        before, result = states(), CALLS[name](given)
        assert states() == before, "a generator that the process shares was drawn from"
        results.append(result)
    if isinstance(results[0], Path):
        assert files(results[0]) == files(results[1]) and files(results[0])
    assert digest(results[0]) == digest(results[1])


PROGRAM = """
import json, sys
from nogaps.commands.main import app
for command in json.loads(sys.argv[1]):
    assert app(command, standalone_mode=False) in (None, 0), command
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [WORKING, STAGES], ids=["working", "stages"])
def test_two_processes_write_the_same_files(
    given: SimpleNamespace, lines: tuple[str, ...], tmp_path: Path
) -> None:
    """Processes of their own, with other hash seeds, time zones and folders."""
    contents = []
    for k in (1, 2):
        folder = tmp_path / ("new" * k)
        folder.mkdir()
        own = {"PYTHONHASHSEED": str(k), "TZ": f"UTC{k}", "PYTHONPATH": str(ROOT)}
        calls = [words(line, str(given.inputs)) for line in lines]
        call = [sys.executable, "-c", PROGRAM, json.dumps(calls)]
        options = {"cwd": folder, "env": {**os.environ, **own}}
        done = subprocess.run(call, capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr
        contents.append(files(folder))
    assert contents[0] == contents[1] and len(contents[0]) > 8
