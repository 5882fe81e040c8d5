# ---
# jupyter:
#   jupytext:
#     formats: ipynb,nogaps//py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] id="contents"
# # Filling the missing lines of head MRIs
#
# - [Settings](#Settings)
# - [Question 1 (25 %)](#Question-1-(25-%25)): a synthetic data set
#   – [steps, scheduler and temperature](#Steps,-scheduler-and-temperature)
#   – [the synthetic heads](#The-synthetic-heads)
# - [Question 2 (25 %)](#Question-2-(25-%25)): the mask and the data sets
# - [Question 3 (50 %)](#Question-3-(50-%25)): the network
#   – [training](#Training)
#   – [the test set, filled](#The-test-set,-filled)
#   – [how good it is](#How-good-it-is)
#   – [what each part brings](#What-each-part-brings)
#   – [how sure it is](#How-sure-it-is)
#   – [the file that is handed in](#The-file-that-is-handed-in)
# - [Summary for the marker](#Summary-for-the-marker)
#
# In Colab: [settings](#scrollTo=settings), [Question 1](#scrollTo=question-1),
# [Question 2](#scrollTo=question-2), [Question 3](#scrollTo=question-3),
# [summary](#scrollTo=summary).

# %% [markdown]
# Some pixels are missing from every head image (64×64) of `test_set.npy`; in the course's file they
# are slanted stripes, about half of each image. This notebook fills them in with a network that has
# seen synthetic heads only:
#
# 1. **Question 1** samples heads from a latent diffusion model and saves them.
# 2. **Question 2** finds the mask of missing pixels and makes pairs of corrupted and clean images.
# 3. **Question 3** trains U-Nets on these pairs, fills the test set and saves the result as
#    `test_set_nogaps.npy`.
#
# Run it from top to bottom; Colab starts it with a GPU. Numbers in the text were measured once with
# the shipped model; the cells print the results of this run.
#
# | profile | heads | networks × epochs | time on two CPU cores with AVX-512 |
# |---|---|---|---|
# | `smoke`, for tests | 48 | 2 × 2 | <!--n:smoke_seconds-->10<!--/n--> s |
# | `cpu` | 2048 | 1 × 20 | <!--n:cpu_minutes-->5.7<!--/n--> min |
# | `full`, handed in | 2048 | 3 × 20 | <!--n:full_minutes-->90<!--/n--> min, without AVX-512 |
#
# The time of `cpu` was measured with an earlier optimiser. With a GPU `full` is chosen by itself;
# its time there is not measured, the last cell prints it.
#
# Words: `x` is a clean image, `y` a corrupted one, `mask` is True where a pixel was observed, the
# `hole` is the rest, `x_hat` is the filled image. Images are tensors (N, 1, 64, 64), float32, in
# [0, 1]. All figures draw them on one grey scale, from 0 (black) to 1 (white), and errors
# (`x_hat - x`) in colours from -0.3 (blue) over 0 (white) to 0.3 (red).

# %% [markdown] id="settings"
# ## Settings
#
# In Colab the settings are fields beside the next cell. `PRIOR` chooses the generative model:
# `shipped` (the model in this repository), `course` (the course's own), or a folder or Hub id. For
# `course`, `COURSE_FILES` is the path of its zip file, on Drive or here. `REPO_URL`, the address of
# your fork, is needed only where the notebook stands alone. Results go to `OUTPUT`; where that is
# empty, to `nogaps` on Drive if it is mounted, else beside the notebook.

# %% tags=["parameters", "active-ipynb"]
# # @title Settings
# import os
#
# PROFILE = "auto"  # @param ["auto", "smoke", "cpu", "full"]
# SEED = 0  # @param {type:"integer"}
# PRIOR = "shipped"  # @param ["shipped", "course"] {allow-input: true}
# COURSE_FILES = "MyDrive/cw1_files.zip"  # @param {type:"string"}
# MOUNT_DRIVE = False  # @param {type:"boolean"}
# REPO_URL = ""  # @param {type:"string"}
# TEST_SET = "test_set.npy"  # @param {type:"string"}
# OUTPUT = ""  # @param {type:"string"}
# # auto: full with a GPU, cpu without. Where these variables are set, they count:
# PROFILE = os.environ.get("NOGAPS_PROFILE", PROFILE)
# REPO_URL = os.environ.get("NOGAPS_REPO_URL", REPO_URL)
# OUTPUT = os.environ.get("NOGAPS_OUTPUT", OUTPUT)

# %% [markdown]
# The package `nogaps` holds what is not assessed (the generative model, figures, checkpoints). It
# is taken from the folder of this notebook, else from `nogaps` on a mounted Drive, else from
# `REPO_URL`. Only what is missing is installed.

# %% tags=["active-ipynb"]
# # @title The package, and where results go
# import subprocess
# import sys
# import warnings
# from importlib.util import find_spec
# from pathlib import Path
#
# DRIVE = Path("/content/drive")
# if MOUNT_DRIVE:
#     try:
#         from google.colab import drive
#     except ImportError:
#         print("not in Colab: there is no Drive to mount")
#     else:
#         drive.mount(str(DRIVE))
# ON_DRIVE, CLONE = DRIVE / "MyDrive" / "nogaps", Path("nogaps-source")
# places = [Path("."), ON_DRIVE, CLONE]
# if not any((place / "nogaps" / "__init__.py").exists() for place in places) and REPO_URL:
#     subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPO_URL, CLONE], check=True)
# sources = [place for place in places if (place / "nogaps" / "__init__.py").exists()]
# if not sources:
#     raise SystemExit("Set REPO_URL to the address of your fork of nogaps and run again.")
# SOURCE = sources[0]
# sys.path.insert(0, str(SOURCE.resolve()))
# OUTPUT = Path(OUTPUT or (ON_DRIVE if ON_DRIVE.parent.exists() else "."))
# needed = "accelerate diffusers filelock nbformat safetensors scipy skimage tqdm".split()
# missing = [name.replace("skimage", "scikit-image") for name in needed if not find_spec(name)]
# if missing:
#     subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
# warnings.filterwarnings("ignore", message="IProgress not found")  # no widgets are wanted here
# if PRIOR == "course":
#     from nogaps.prior.course import set_up
#     set_up(DRIVE / COURSE_FILES if (DRIVE / COURSE_FILES).exists() else COURSE_FILES)

# %%
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from nogaps.augmentation import random_affine, sharpen, uniform
from nogaps.interpolation import (
    LinearImputer,
    autocovariance,
    keep_observed,
    kriging_operator,
    observed_moments,
)
from nogaps.muon import Muon
from nogaps.runtime.checkpoint import Epochs, ema_of, run_settings
from nogaps.runtime.device import autocast, autocast_dtype


# %%
@dataclass(frozen=True)
class Profile:
    """Size of a run: `smoke` for tests, `cpu` for two cores, `full` for what is handed in."""

    num_samples: int  # synthetic heads
    inference_steps: int  # steps of the diffusion model
    epochs: int
    networks: int  # how many are trained; their mean fills
    widths: tuple[int, ...]  # channels of the U-Net's levels
    bottleneck: int  # channels at its bottom


PROFILES = {
    "smoke": Profile(48, 10, 2, 2, (8, 16), 32),
    "cpu": Profile(2048, 10, 20, 1, (32, 64, 128), 256),
    "full": Profile(2048, 10, 20, 3, (32, 64, 128), 256),
}


def choose_profile(name: str, device: torch.device) -> str:
    """Resolve "auto": "full" with a GPU, "cpu" without. Raises ValueError for unknown names."""
    if name == "auto":
        return "full" if device.type == "cuda" else "cpu"
    if name not in PROFILES:
        raise ValueError(f"profile {name!r}: expected auto, {', '.join(PROFILES)}")
    return name


# %% tags=["active-ipynb"]
# import json
# import time
#
# import matplotlib.pyplot as plt
#
# from nogaps.runtime.checkpoint import save_model
# from nogaps.runtime.device import name_of, pick_device, precision, versions
# from nogaps.figures import show_columns, show_crops, show_curves, show_mask, show_rows
# from nogaps.runtime.files import load_images, load_npy, save_json, save_npy, sha256
# from nogaps.interpolation import biharmonic, kriging, linear
# from nogaps.metrics import bootstrap, gradient_energy, hole_against_observed, hole_mse
# from nogaps.metrics import hole_scores, summarize
# from nogaps.standin import clean_images, kind_of, subjects
# from nogaps.tables import show_scores, show_table, with_interval
#
# STARTED = time.monotonic()
# device = pick_device()
# name = choose_profile(PROFILE, device)
# profile = PROFILES[name]
# TEST_SET = Path(TEST_SET) if Path(TEST_SET).exists() else SOURCE / TEST_SET
# RUN = OUTPUT / "runs" / name
# kind = kind_of(TEST_SET)
# seconds = {}  # how long each part took
# dtype, reason = precision(device)
# dtype = str(dtype or torch.float32).removeprefix("torch.")
# print(f"profile: {name}   generative model: {PRIOR}   device: {name_of(device)}")
# print(f"convolutions in {dtype}: {reason}")
# print(versions())
# print(f"test_set.npy: {kind}, sha256 {sha256(TEST_SET)}")
# print(f"seeds: {SEED} for samples, data and split; networks",
#       ", ".join(str(1000 * SEED + k) for k in range(profile.networks)))
# if device.type != "cuda":
#     print("WARNING: no GPU found. Everything runs on the CPU, several times more slowly.")

# %% [markdown] id="question-1"
# ## Question 1 (25 %)
#
# **A synthetic data set.** *Requirement: generate a data set of 2048 images with the given latent
# diffusion model, choosing the number of steps, the scheduler and the temperature; save it to disk;
# reload it; show ten generated images beside ten of the test set.*
#
# A latent diffusion model (LDM, Rombach et al. 2022) draws noise in the space of an autoencoder's
# codes, removes it step by step with a U-Net, and decodes the result to an image. `generate` takes
# the arguments of the course's own function: one line of the next cell changes with `PRIOR`, and so
# does, further down, the sharpening of training images. The shipped model gives
# every image its own seed (an idea of Karras et al. 2022): image *k* is the same in any batch size.
# The course's has one seed for a call, and its heads differ between batch sizes and kinds of GPU;
# it is called in chunks. With both an interrupted run goes on where it stopped.

# %% tags=["active-ipynb"]
# from nogaps.prior.course import as_text, describe
#
# if PRIOR == "course":
#     from nogaps.prior.course import generate
#     model = {}
# else:
#     from nogaps.prior.loading import load_prior
#     from nogaps.prior.sampling import generate
#     model = {"prior": load_prior(None if PRIOR == "shipped" else PRIOR, device)}
# test_images = torch.from_numpy(load_images(TEST_SET))
# print("test set:", tuple(test_images.shape), test_images.dtype,
#       f"in [{test_images.min():.3f}, {test_images.max():.3f}]")

# %% [markdown]
# ### Steps, scheduler and temperature
#
# The same seeds under each choice. The schedulers are DDIM (Song et al. 2021) and, where the model
# can take it, DPM-Solver++ (`dpm`, Lu et al. 2022). Each choice is compared with the reference in
# the last row, made from the same seeds. *Gradient energy*, the mean squared difference of
# neighbours over the variance, tells how sharp the heads are.

# %% tags=["active-ipynb"]
# few = 8 if name != "smoke" else 2
# def sample(steps, scheduler, temperature):
#     """A few images of the same seeds, (few, 1, 64, 64) on the CPU."""
#     batches = generate(few, steps, few, scheduler, temperature, seed=SEED, **model)
#     return torch.cat([batch.float().cpu() for batch in batches])
#
# most = 50 if PRIOR == "course" else 10 if name == "smoke" else 200
# reference, choices, rows = sample(most, "ddim", 1.0), {}, []
# for scheduler in ("ddim",) if PRIOR == "course" else ("dpm", "ddim"):
#     for steps in (10, 20, 40):
#         start = time.monotonic()
#         x = choices[f"{scheduler}, {steps}"] = sample(steps, scheduler, 1.0)
#         rms = 255 * float((x - reference).square().mean().sqrt())
#         values = [f"{time.monotonic() - start:.1f}", f"{rms:.2f}", f"{gradient_energy(x):.3f}"]
#         rows.append([scheduler, steps, *values])
# rows.append(["ddim", most, "", "0", f"{gradient_energy(reference):.3f}"])
# show_table(["scheduler", "steps", "seconds", f"RMS from {most}, of 255", "gradient energy"], rows)
# shown = {key: x[-3:] for key, x in (choices | {f"ddim, {most}": reference}).items()}
# show_columns(shown, "Three seeds under each scheduler and number of steps")
# plt.show()

# %% tags=["active-ipynb"]
# choices, rows = {}, []
# for temperature in (0.5, 0.8, 1.0):
#     x = choices[f"T = {temperature}"] = sample(profile.inference_steps, "ddim", temperature)
#     values = [x.mean(), x.std(), x.std(0).mean(), gradient_energy(x)]
#     rows.append([temperature, *(f"{value:.3f}" for value in values)])
# if torch.equal(choices["T = 0.5"], x):
#     print("The temperature changes nothing: with ddim this model adds no noise to scale.")
# else:
#     show_table(["temperature", "mean", "deviation", "between heads", "gradient energy"], rows)
#     show_columns(choices, "Two seeds at each temperature", count=2, zoom=4)
#     plt.show()

# %% [markdown]
# **Chosen:** DDIM, with the profile's number of steps, which the next cell prints. More steps come
# closer to what very many give (column *RMS*), and take longer. But the heads need not be
# converged: they must be like real ones in local detail, which is what a network learns. How near
# the heads of a first version of the shipped model are to real ones under each choice stands in
# `docs/benchmarks.md` (*Sampling*). The *temperature* stays 1, at which the model
# was trained: where it scales the noise, lower values make heads smoother and more alike (*between
# heads* is their mean deviation from each other), and a network that learns from smooth heads fills
# smoothly.

# %% [markdown]
# ### The synthetic heads
#
# The file that is saved here is read back in the next cell, and everything below uses what was
# read.

# %% tags=["active-ipynb"]
# SCHEDULER, TEMPERATURE, BATCH_SIZE = "ddim", 1.0, 64
# SAMPLES = RUN / "samples"
# there, start = (SAMPLES / "images.npy").exists(), time.monotonic()
# batches = generate(
#     profile.num_samples, profile.inference_steps, BATCH_SIZE, SCHEDULER, TEMPERATURE, seed=SEED,
#     out=SAMPLES, **model,
# )
# seconds["sampling"] = time.monotonic() - start
# made = "read back from" if there else f"in {seconds['sampling']:.0f} s, saved as"
# print(f"{SCHEDULER}, {profile.inference_steps} steps, temperature {TEMPERATURE}:",
#       f"{len(batches)} batches {made} images.npy")

# %% tags=["active-ipynb"]
# synthetic = torch.from_numpy(load_images(SAMPLES / "images.npy"))
# print("synthetic set:", tuple(synthetic.shape), synthetic.dtype,
#       f"in [{synthetic.min():.3f}, {synthetic.max():.3f}], mean {synthetic.mean():.3f},",
#       f"std {synthetic.std():.3f}, sha256 {sha256(SAMPLES / 'images.npy')[:16]}")
# print(as_text(describe(synthetic, test_images)))  # contrast beside the observed pixels
# show_rows({"synthetic": synthetic, "test set": test_images},
#           "Ten synthetic heads and ten of the test set", zoom=3, fold=5)
# plt.show()

# %% [markdown] id="question-2"
# ## Question 2 (25 %)
#
# **The mask and the data sets.** *Requirement: find the missing pixels of the test set; corrupt the
# synthetic images in the same way; build a `TensorDataset` and `DataLoader` of corrupted and clean
# images, split 80/20 into training and validation, and one for the test set; show ten of each.*
#
# Missing pixels are exactly 0, but an observed pixel can be 0 as well, or tiny; the next cells
# count both. So neither the zeros of one image nor a threshold give the mask. What is missing is
# missing in *every* image: a pixel counts as observed if any image is non-zero there.


# %%
def find_mask(y: torch.Tensor) -> torch.Tensor:
    """Mask shared by all images of y (N,1,H,W): (1,1,H,W) bool, True = observed.

    A pixel is missing where it is zero in every image. Raises ValueError if no pixel is missing,
    or none observed.
    """
    mask = (y != 0).any(dim=0, keepdim=True)
    if mask.all() or not mask.any():
        raise ValueError(f"{int(mask.sum())} of {mask.numel()} pixels observed: no mask to find")
    return mask


def corrupt(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Set the missing pixels of x (N,1,H,W) to 0; mask broadcasts to x's shape."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def make_datasets(
    x: torch.Tensor, mask: torch.Tensor, seed: int, validation_share: float = 0.2
) -> tuple[TensorDataset, TensorDataset]:
    """Pairs (corrupted, clean) of x (N,1,H,W), split at random into training and validation."""
    n_val = round(len(x) * validation_share)
    generator = torch.Generator().manual_seed(seed)
    train, val = random_split(range(len(x)), [len(x) - n_val, n_val], generator)
    parts = (x[list(part)] for part in (train, val))
    train_set, val_set = (TensorDataset(corrupt(part, mask), part) for part in parts)
    return train_set, val_set


# %% tags=["active-ipynb"]
# mask = find_mask(test_images)
# zeros = ((test_images == 0) & mask).flatten(1).any(1)  # of images: an observed pixel is 0
# tiny = (test_images > 0) & (test_images < 0.001)
# print(f"missing: {int((~mask).sum())} of {mask.numel()} pixels ({(~mask).float().mean():.1%})")
# print(f"{int(zeros.sum())} of {len(zeros)} images are 0 at an observed pixel as well;",
#       f"{int(tiny.sum())} observed values lie between 0 and 0.001")
# show_mask(mask, test_images[zeros.int().argmax()])
# plt.show()

# %% [markdown]
# The data sets hold pairs (corrupted, clean); the test set has no labels.

# %% tags=["active-ipynb"]
# LOADER_BATCH = 16
# train_set, val_set = make_datasets(synthetic, mask, SEED)
# train_loader = DataLoader(
#     train_set, LOADER_BATCH, shuffle=True, generator=torch.Generator().manual_seed(SEED)
# )
# val_loader = DataLoader(val_set, LOADER_BATCH)
# test_loader = DataLoader(TensorDataset(test_images), LOADER_BATCH)
# print(len(train_set), "training,", len(val_set), "validation,", len(test_images), "test images")
# y, x = next(iter(train_loader))
# show_rows({"corrupted": y, "clean (label)": x}, "Ten training pairs", zoom=3, fold=5)
# y, x = next(iter(val_loader))
# show_rows({"corrupted": y, "clean (label)": x}, "Ten validation pairs", zoom=3, fold=5)
# (y,) = next(iter(test_loader))
# show_rows({"corrupted": y}, "Ten test images (no labels)", zoom=3, fold=5)
# plt.show()

# %% [markdown] id="question-3"
# ## Question 3 (50 %)
#
# **The network.** *Requirement: define, explain and train a network that fills the missing pixels;
# show ten filled test images; save the filled test set as `test_set_nogaps.npy`.*
#
# **What it is.** A U-Net (Ronneberger et al. 2015): `EncBlock`s of two 3×3 convolutions, each
# followed by BatchNorm, SiLU and optional Dropout, halve the image by max-pooling; a bottleneck
# sees most of the image; `DecBlock`s double the size again by transposed convolutions and join what
# the encoder saw at that size, so that edges stay where they are. Around it stands `Imputer`, which
# does what the U-Net would otherwise have to learn: it standardises the image, fills it by kriging,
# lets the U-Net add to that, and puts the observed pixels back. The profile's number of such
# networks are trained here, from scratch, and their mean fills. The gaps are narrow, so local
# detail decides: a network has few weights (their number is printed below) and learns quickly, so
# that the time allows several.
#
# - *Standardised by the mean and deviation of the observed pixels*, and back at the end (as in
#   fastMRI's U-Net): the fill follows each image's own brightness and contrast. A network on
#   absolute intensities brings those of its synthetic images and compresses the range of real ones.
# - *Kriging first* (Cressie 1993): the best linear prediction of a pixel from the observed ones
#   nearest to it, by the covariance of the training images. The U-Net learns what no linear
#   prediction can know.
# - *The mask as second channel:* kriged pixels are told from observed ones.
# - *Observed pixels copied* (Wang et al. 2022): they are known, their error is 0, bit for bit.
# - *The mean of several networks* (Lakshminarayanan et al. 2017): their errors differ, and how far
#   they lie apart tells how sure they are. With one network, as in `cpu`, that spread is 0, and
#   *fast* and *best* below are the same.
#
# *Original here:* kriging as the first layer of the network, with weights for any mask that follow
# from the training images' covariance alone; an untrained `Imputer` is exactly kriging. Sources
# are listed in full in `References.md`.


# %%
class ConvBlock(nn.Sequential):
    """3×3 convolution, BatchNorm, SiLU, Dropout2d; (N,C_in,H,W) to (N,C_out,H,W)."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.SiLU(),
            nn.Dropout2d(dropout),
        )


class EncBlock(nn.Module):
    """Two ConvBlocks, then max-pooling; returns the features at full and at half size."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvBlock(channels_in, channels_out, dropout),
            ConvBlock(channels_out, channels_out, dropout),
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N,C_in,H,W) to the skip (N,C_out,H,W) and (N,C_out,H/2,W/2)."""
        skip = self.convs(h)
        return skip, self.pool(skip)


# %%
class DecBlock(nn.Module):
    """Transposed convolution to double size, concatenated skip, two ConvBlocks."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2)
        self.convs = nn.Sequential(
            ConvBlock(2 * channels_out, channels_out, dropout),
            ConvBlock(channels_out, channels_out, dropout),
        )

    def forward(self, h: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(N,C_in,H/2,W/2) and (N,C_out,H,W) to (N,C_out,H,W)."""
        return self.convs(torch.cat([self.up(h), skip], dim=1))


# %%
class UNet(nn.Module):
    """U-Net (arXiv 1505.04597) with SiLU, BatchNorm and Dropout.

    (N,channels_in,H,W) to (N,1,H,W); H and W divisible by 2 ** len(widths).
    dropout: after every activation; bottleneck_dropout: at the bottom only.
    """

    def __init__(
        self,
        channels_in: int = 2,
        widths: tuple[int, ...] = (32, 64, 128),
        bottleneck: int = 256,
        dropout: float = 0.0,
        bottleneck_dropout: float | None = None,
    ) -> None:
        super().__init__()
        bottom = dropout if bottleneck_dropout is None else bottleneck_dropout
        inputs = [channels_in, *widths[:-1]]
        self.encoder = nn.ModuleList(
            EncBlock(a, b, dropout) for a, b in zip(inputs, widths, strict=True)
        )
        self.bottleneck = ConvBlock(widths[-1], bottleneck, bottom)
        outputs = widths[::-1]
        self.decoder = nn.ModuleList(
            DecBlock(a, b, dropout)
            for a, b in zip([bottleneck, *outputs[:-1]], outputs, strict=True)
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(N,channels_in,H,W) to (N,1,H,W)."""
        skips = []
        for block in self.encoder:
            skip, h = block(h)
            skips.append(skip)
        h = self.bottleneck(h)
        for block in self.decoder:
            h = block(h, skips.pop())
        return self.head(h)


# %%
class Imputer(nn.Module):
    """`x_hat = imputer(y, mask)`: standardise, krige, add the U-Net's residual, copy the observed.

    covariance: from `autocovariance` of the training images; stored with the weights. Any image
    size: the network sees the image padded to a multiple of 2 ** levels.
    """

    def __init__(
        self,
        covariance: torch.Tensor,
        widths: tuple[int, ...] = (32, 64, 128),
        bottleneck: int = 256,
        bottleneck_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.config = {
            "lag": covariance.shape[0] // 2,
            "widths": list(widths),
            "bottleneck": bottleneck,
            "bottleneck_dropout": bottleneck_dropout,
        }
        self.register_buffer("covariance", covariance)
        self.unet = UNet(2, tuple(widths), bottleneck, 0.0, bottleneck_dropout)
        nn.init.zeros_(self.unet.head.weight)  # an untrained imputer is kriging
        nn.init.zeros_(self.unet.head.bias)
        self.unet.to(memory_format=torch.channels_last)
        self.interpolation = LinearImputer(self._operator)

    def _operator(self, mask: np.ndarray):
        return kriging_operator(self.covariance.cpu())(mask)

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """y (N,1,H,W) in [0,1], mask bool (1,1,H,W) or (N,1,H,W), True = observed: x_hat (N,1,H,W).

        Observed pixels are those of y, bit for bit; the hole is clipped to [0,1] unless training.
        """
        mean, std = observed_moments(y, mask)
        k = self.interpolation.fill((y - mean) / std, mask)
        h = torch.cat([k, mask.expand_as(k).to(k.dtype)], dim=1)
        x_hat = mean + std * (k + self._residual(h))
        return torch.where(mask, y, x_hat) if self.training else keep_observed(x_hat, y, mask)

    def _residual(self, h: torch.Tensor) -> torch.Tensor:
        height, width = h.shape[-2:]
        multiple = 2 ** len(self.config["widths"])
        pad = (0, -width % multiple, 0, -height % multiple)
        h = F.pad(h, pad, mode="replicate") if any(pad) else h
        with autocast(h.device, autocast_dtype(h.device)):  # statistics stay in fp32
            residual = self.unet(h.contiguous(memory_format=torch.channels_last))
        return residual.float()[..., :height, :width]


# %% [markdown]
# ### Training
#
# | setting | value | reason |
# |---|---|---|
# | loss | MSE over the hole | the observed pixels are known |
# | optimiser | Muon for kernels, AdamW for the rest, weight decay 1e-3 | learns in fewer epochs |
# | gradients | clipped at norm 1 | one odd batch cannot throw the weights off |
# | learning rate | rises to 4e-3, then a cosine to 0 | small last steps leave less noise |
# | batch | 16 | small enough for many steps an epoch, large enough for stable statistics |
# | epochs, widths, networks | see `PROFILES` | see the table of changes below |
# | dropout | 0.1, at the bottom only | the augmentation regularises already |
# | weights used | moving average (EMA) | less noisy than the last weights |
#
# After *n* steps the average's decay is (1+n)/(10+n), and at most 0.999: it looks back over about
# the last tenth of the steps. The decay that is reached at the end is printed below.
#
# *Muon* (Jordan et al. 2024) averages the gradients of a kernel, as other optimisers do, sees the
# average as a matrix, and moves the kernel about equally far in all of its directions, also in
# those that gradients seldom point to.
#
# Sources: AdamW, Loshchilov and Hutter 2019; cosine, the same 2017; EMA, Morales-Brotons et al.
# 2024; augmentation for MRI, Fabian et al. 2021.
#
# Each batch's clean images are turned, scaled and shifted a little, changed in gamma and lit
# unevenly (and sharpened, where the generative model is a soft one), and are then corrupted afresh,
# so that label and input always agree; `train` shuffles and batches `train_set` itself. The random
# numbers of epoch *e* depend on the seed and *e* only: a run that was interrupted continues from
# its last checkpoint, on a CPU to the very same weights.


# %%
def augment(x: torch.Tensor, generator: torch.Generator, sharpness: float = 0.0) -> torch.Tensor:
    """Random geometry, gamma and lighting of x (N,1,H,W) in [0,1]; same shape and range.

    sharpness: most of a random amount of unsharp masking, for training images that are too soft.
    """
    n = len(x)
    x = random_affine(x, generator, degrees=10, scale=0.12, shift=6, mode="bicubic")
    if sharpness:
        x = sharpen(x, uniform(0.0, sharpness, n, generator).view(n, 1, 1, 1).to(x.device))
    x = x.clamp(0, 1)
    gamma = torch.exp(uniform(-0.4, 0.4, n, generator)).view(n, 1, 1, 1).to(x.device)
    field = torch.randn(n, 1, 4, 4, generator=generator).to(x.device)
    field = F.interpolate(field, x.shape[-2:], mode="bicubic", align_corners=True)
    return (x**gamma * torch.exp(0.1 * field)).clamp(0, 1)


def learning_rate(step: int, steps: int, peak: float = 4e-3, warmup: float = 0.05) -> float:
    """Linear rise over the first share of the steps, then half a cosine down to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + np.cos(np.pi * (step - rise) / max(1, steps - rise)))


# %%
def train_epoch(
    imputer: Imputer,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Iterator[tuple[float, torch.Tensor]],
    mask: torch.Tensor,
) -> float:
    """One pass over (learning rate, clean images) pairs; returns the mean hole MSE."""
    imputer.train()
    total, count = 0.0, 0
    for rate, x in batches:
        for group in optimizer.param_groups:
            group["lr"] = rate
        y = corrupt(x, mask)
        x_hat = imputer(y, mask)
        loss = ((x_hat - x) ** 2).sum() / (~mask).sum() / len(x)  # observed pixels add nothing
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(imputer.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        ema.update_parameters(imputer)
        total, count = total + float(loss.detach()) * len(x), count + len(x)
    return total / count


@torch.no_grad()
def validate(imputer: nn.Module, loader: DataLoader, mask: torch.Tensor) -> float:
    """Mean hole MSE over the pairs of a loader."""
    imputer.eval()
    losses = []
    for y, x in loader:
        x_hat = imputer(y.to(mask.device), mask)
        losses.append(((x_hat - x.to(mask.device)) ** 2).sum((1, 2, 3)) / (~mask).sum())
    return float(torch.cat(losses).mean())


# %%
@dataclass(frozen=True)
class Options:
    """What the training of one network depends on, beside its images and its mask."""

    epochs: int
    seed: int = 0
    batch_size: int = 16
    sharpness: float = 0.0  # see `augment`


def training_batches(
    train_set: TensorDataset, epoch: int, options: Options, device: torch.device
) -> Iterator[tuple[float, torch.Tensor]]:
    """(learning rate, augmented clean images) of one epoch, shuffled; repeats for the same seed."""
    generator = torch.Generator().manual_seed(options.seed * 100_000 + epoch)
    size = options.batch_size
    whole = len(train_set) >= size  # BatchNorm is unstable with a small last batch
    loader = DataLoader(train_set, size, shuffle=True, generator=generator, drop_last=whole)
    for k, (_, x) in enumerate(loader):
        rate = learning_rate(epoch * len(loader) + k, options.epochs * len(loader))
        yield rate, augment(x.to(device), generator, options.sharpness)


# %%
def train(
    imputer: Imputer,
    train_set: TensorDataset,
    val_set: TensorDataset,
    mask: torch.Tensor,
    checkpoint: Path,
    options: Options,
) -> tuple[nn.Module, dict[str, list[float]]]:
    """Train on pairs (corrupted, clean); returns the averaged imputer and its loss curves.

    `Epochs` saves the state to `checkpoint` after every epoch; a second call with the same data
    and settings goes on from there, any other starts anew.
    """
    device = mask.device
    imputer = imputer.to(device)
    ema = ema_of(imputer)
    optimizer = Muon(imputer.parameters(), weight_decay=1e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype(device) == torch.float16)
    parts = {"imputer": imputer, "ema": ema, "optimizer": optimizer, "scaler": scaler}
    run = Epochs(checkpoint, run_settings(imputer, train_set.tensors[1], mask, options), parts)
    # a generator of its own: a loader without one draws from the global generator
    val_loader = DataLoader(val_set, 128, generator=torch.Generator())
    for epoch in run.remaining(options.epochs, options.seed, device):
        batches = training_batches(train_set, epoch, options, device)
        loss = train_epoch(imputer, ema, optimizer, scaler, batches, mask)
        run.note(training=loss, validation=validate(ema.module, val_loader, mask))
    return ema.module.eval(), run.history | {"seconds": run.seconds}


# %%
class Ensemble(nn.Module):
    """`x_hat = ensemble(y, mask)`: the mean of imputers that differ by their seeds."""

    def __init__(self, networks: list[Imputer]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        for network in networks[1:]:  # kriging's weights take a second per mask: once for all
            if torch.equal(network.covariance, networks[0].covariance):
                network.interpolation = networks[0].interpolation
        self.config = {"networks": [network.config for network in networks]}

    def members(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What each network makes of y (N,1,H,W): (K,N,1,H,W)."""
        return torch.stack([network(y, mask) for network in self.networks])

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Their mean (N,1,H,W); observed pixels are those of y, bit for bit."""
        return keep_observed(self.members(y, mask).mean(0), y, mask)


# %%
def new_imputer(profile: Profile, x: torch.Tensor, seed: int) -> Imputer:
    """An untrained imputer whose kriging knows the covariance of x (N,1,H,W)."""
    with torch.random.fork_rng([]):  # layers initialise themselves from the global generator
        torch.manual_seed(seed)
        return Imputer(autocovariance(x), profile.widths, profile.bottleneck)


def train_ensemble(
    profile: Profile,
    train_set: TensorDataset,
    val_set: TensorDataset,
    mask: torch.Tensor,
    folder: Path,
    options: Options,
) -> tuple[Ensemble, list[dict[str, list[float]]]]:
    """Train profile.networks imputers on the same pairs; returns them and their loss curves.

    Network k's seed is 1000 * options.seed + k, its checkpoint `folder/training-k.safetensors`.
    """
    networks, histories = [], []
    for k in range(profile.networks):
        own = replace(options, seed=1000 * options.seed + k)
        imputer = new_imputer(profile, train_set.tensors[1], own.seed)
        checkpoint = folder / f"training-{k}.safetensors"
        network, history = train(imputer, train_set, val_set, mask, checkpoint, own)
        networks.append(network)
        histories.append(history)
    return Ensemble(networks), histories


@torch.no_grad()
def fill(
    imputer: nn.Module, y: torch.Tensor, mask: torch.Tensor, batch_size: int = 128
) -> torch.Tensor:
    """Fill y (N,1,H,W) in [0,1] batch by batch on the mask's device; returns x_hat on the CPU."""
    parts = [imputer(batch.to(mask.device), mask).cpu() for batch in y.split(batch_size)]
    return torch.cat(parts)


# %% tags=["active-ipynb"]
# device_mask = mask.to(device)
# untrained = new_imputer(profile, train_set.tensors[1], SEED).to(device)
# weights = sum(p.numel() for p in untrained.parameters())
# print(f"{weights:,} weights a network")
# kriging_loss = validate(untrained, DataLoader(val_set, 128), device_mask)
# SHARPNESS = 1.2 if PRIOR == "course" else 0.0  # for a model whose heads are soft
# options = Options(profile.epochs, SEED, LOADER_BATCH, SHARPNESS)
# start = time.monotonic()
# trained, histories = train_ensemble(profile, train_set, val_set, device_mask, RUN, options)
# seconds["training"] = sum(sum(history["seconds"]) for history in histories)
# earlier = max(0, seconds["training"] - (time.monotonic() - start))  # of an interrupted run
# folders = [RUN]
# in_place = OUTPUT.resolve() == SOURCE.resolve()
# if in_place and (name, PRIOR) == ("full", "shipped"):  # what `nogaps fill` uses from now on
#     folders.append(SOURCE / "nogaps" / "weights" / "imputer")
# for folder in folders:
#     save_model(folder / "imputer.safetensors", trained, trained.config)
# steps = profile.epochs * (len(train_set) // LOADER_BATCH or 1)
# print(f"networks: {profile.networks}, epochs: {profile.epochs} each,",
#       f"{seconds['training']:.0f} s in all; decay of the average in the end:",
#       f"{min(0.999, (1 + steps) / (10 + steps)):.4f}")
# print(f"imputer.safetensors sha256: {sha256(RUN / 'imputer.safetensors')}")

# %% tags=["active-ipynb"]
# curves = {key: [history[key] for history in histories] for key in ("training", "validation")}
# count = profile.networks
# title = f"Loss of {count} networks (thin) and their mean (thick)" if count > 1 else "Loss"
# show_curves(curves, range(1, profile.epochs + 1), ("epoch", "hole MSE (log scale)"), title,
#             {"kriging on validation": kriging_loss})
# plt.show()
# first, (_, last) = trained.networks[0], [np.mean(lines, 0)[-1] for lines in curves.values()]
# ensemble_loss = validate(trained, DataLoader(val_set, 128), device_mask)
# plain = validate(first, DataLoader(train_set, 128), device_mask)
# print(f"hole MSE, validation images: kriging {kriging_loss:.5f}, one network {last:.5f},",
#       f"the mean of {count} {ensemble_loss:.5f}; training images as they are: {plain:.5f}")

# %% [markdown]
# The two losses are not of the same images: augmented images differ in sharpness from the
# originals, and smooth images are easier to fill. Whether a network has learnt its images by heart
# is seen from the printed line: then its error on training images *as they are* lies well below
# that on validation images.

# %% [markdown]
# ### The test set, filled

# %% tags=["active-ipynb"]
# x_hat = fill(trained, test_images, device_mask)
# show_rows({"corrupted": test_images, "filled": x_hat}, "Ten test images, filled", zoom=3, fold=5)
# plt.show()

# %% [markdown]
# ### How good it is
#
# Two tests without labels: the brightest values in the hole should reach those of the observed
# pixels (a network that compresses intensities fails this), and their means should agree. On the
# repository's stand-in for the course's test set the truth is known, real heads on which nothing
# was trained, chosen or tuned: root mean squared error, PSNR and SSIM over the hole, with 95 %
# bootstrap intervals over subjects, beside three fillings that need no network. *Ours, fast* is the
# first network alone, *ours, best* the mean of all, which is handed in.

# %% tags=["active-ipynb"]
# y, observed = test_images, mask.expand_as(test_images)
# kriged = kriging(train_set.tensors[1])(y, mask)
# top_ratio, mean_gap = hole_against_observed(x_hat, mask)
# print(f"99.5th percentile, hole / observed: {top_ratio:.3f}",
#       f"(kriging {hole_against_observed(kriged, mask)[0]:.3f})")
# print(f"mean, observed - hole: {mean_gap:+.4f}")
# scores, crops = {}, {"corrupted": y, "kriging": kriged, "ours": x_hat}
# if kind == "stand-in":
#     x = torch.from_numpy(clean_images())
#     fillings = {"linear": linear()(y, mask), "biharmonic": biharmonic(y, mask),
#                 "kriging": kriged, "ours, fast": fill(first, y, device_mask), "ours, best": x_hat}
#     scores = {key: summarize(filled, x, mask, subjects()) for key, filled in fillings.items()}
#     show_scores(scores)
#     psnr = [hole_scores(fillings[key], x, mask)["psnr"] for key in ("kriging", "ours, best")]
#     gain, *interval = bootstrap((psnr[1] - psnr[0]).astype(float), subjects())
#     print(f"ours, best, over kriging: {with_interval(gain, interval, 2)} dB")
#     crops |= {"truth": x, "error of ours": x_hat - x}
# else:
#     print("no ground truth belongs to this test set: no errors can be computed")
# show_crops({key: images[3:6] for key, images in crops.items()},
#            "Three test images, enlarged", errors=["error of ours"] if scores else [])
# plt.show()

# %% [markdown]
# Where the truth is known, the five images with the largest error are shown. Edges and fine texture
# are hardest: there the neighbours do not tell what lies between them.

# %% tags=["active-ipynb"]
# if scores:
#     rmse = hole_mse(x_hat, x, mask).sqrt()
#     worst = rmse.argsort(descending=True)[:5].tolist()
#     rows = {"corrupted": y, "filled": x_hat, "truth": x, "error": x_hat - x}
#     show_rows({key: images[worst] for key, images in rows.items()},
#               "The five worst images, and their hole RMSE", error_rows=["error"], zoom=3,
#               captions=[f"image {k}: {rmse[k]:.4f}" for k in worst])
#     plt.show()

# %% [markdown]
# ### What each part brings
#
# Measured once, not by this run, when networks still learnt by AdamW in batches of 32, from heads
# of an earlier version of the shipped model (`python -m benchmarks.ablations`): each row trains one
# network with one change on the same heads, for 10 epochs. Given is the hole PSNR in dB on real
# heads that nothing was trained on, `val` (100 slices, mostly of tumour patients) and `val_t1`
# (88 slices of healthy heads), and in brackets the difference to the default with its 95 %
# bootstrap interval over groups of heads; another training seed moves a row by about 0.05.
#
# *Half of the images warped*: only half are turned, scaled and shifted, which smooths; *half
# moved*: the other half by whole pixels. *Warped from twice the size*: read from an image that was
# enlarged without loss. *Every image at one contrast*: scaled to one deviation, so that all count
# alike in the loss. *Residual blocks*: each second block adds to what the first gives.
#
# <!--table:ablations-->
# | change                       |                        `val` |                     `val_t1` |
# | ---------------------------- | ---------------------------: | ---------------------------: |
# | default                      |                        25.07 |                        24.60 |
# | half of the images warped    | 25.27 (+0.20 [+0.14, +0.27]) | 24.53 (-0.06 [-0.17, +0.03]) |
# | half moved instead of warped | 25.21 (+0.14 [+0.09, +0.20]) | 24.52 (-0.07 [-0.15, -0.00]) |
# | warped from twice the size   | 25.15 (+0.08 [+0.02, +0.14]) | 24.52 (-0.08 [-0.15, -0.02]) |
# | 1.5 times as wide            | 25.20 (+0.13 [+0.10, +0.16]) | 24.63 (+0.04 [+0.01, +0.07]) |
# | every image at one contrast  | 25.07 (+0.01 [-0.02, +0.03]) | 24.52 (-0.07 [-0.13, -0.01]) |
# | residual blocks              | 25.05 (-0.02 [-0.05, +0.02]) | 24.54 (-0.05 [-0.10, -0.01]) |
# <!--/table-->
#
# What gains in 10 epochs need not gain in a longer training: an image that is not warped comes
# again in every epoch, and a network that is also wider learns such images by heart. So the default
# stays. Muon and batches of 16 came later. In the committed run of `full` the first network has
# <!--n:fast_val-->25.56<!--/n--> and <!--n:fast_val_t1-->24.87<!--/n--> dB, the mean of all three
# <!--n:best_val-->25.67<!--/n--> and <!--n:best_val_t1-->24.93<!--/n-->, and their spread tells how
# sure they are.

# %% [markdown]
# ### How sure it is
#
# An interval for every filled pixel. Its half-width grows with the spread of the networks, with the
# contrast around and with the brightness, and is scaled until a share of the hole pixels of the
# validation images, which the cell prints, lies within (conformal risk control, Angelopoulos et al.
# 2022). Those are synthetic heads; how many pixels of real heads lie within can only be measured
# where the truth is known.

# %% tags=["active-ipynb"]
# from nogaps.imputers.uncertainty import (
#     CALIBRATION, calibrate_ensemble, coverage_by_group, rank_correlation, save_calibration)
#
# level = 0.9 if name != "smoke" else 0.5  # a few images are too few for 90 %
# pairs = [t.to(device) for t in val_set.tensors]
# intervals = calibrate_ensemble(trained, *pairs, device_mask, level)
# for folder in folders:
#     save_calibration(folder / CALIBRATION, intervals.calibration, "on synthetic heads")
# with torch.no_grad():
#     half = intervals.with_half_width(test_images.to(device), device_mask)[1].cpu()
# maps = {"filled": x_hat, "half-width": half}
# print(f"half-widths of {level:.0%} intervals in the holes: mean {half[~observed].mean():.3f}")
# if scores:
#     covered = coverage_by_group(x_hat, half, x, mask, subjects())
#     print(f"of the stand-in's hole pixels {np.mean(list(covered.values())):.1%} lie within,",
#           f"by subject {min(covered.values()):.1%} to {max(covered.values()):.1%};",
#           f"rank correlation with the error {rank_correlation(half, x_hat - x, mask):.2f}")
#     maps["|error|"] = (x_hat - x).abs()
# title = f"Half-width of the {level:.0%} interval" + " beside the error" * bool(scores)
# show_rows(maps, title, 5, zoom=3, size_rows=list(maps)[1:])
# plt.show()

# %% [markdown]
# ### The file that is handed in

# %% tags=["active-ipynb"]
# RESULT = OUTPUT / "test_set_nogaps.npy"
# save_npy(RESULT, x_hat.numpy())
# saved = load_npy(RESULT)
# assert saved.shape == tuple(test_images.shape) and saved.dtype == np.float32
# assert np.isfinite(saved).all() and saved.min() >= 0 and saved.max() <= 1
# identical = saved[observed.numpy()] == test_images.numpy()[observed.numpy()]
# assert identical.all(), "an observed pixel was changed"
# print(f"shape {saved.shape}, {saved.dtype}, in [{saved.min():.3f}, {saved.max():.3f}];",
#       f"{identical.size} observed pixels, all identical to the input")
# print(f"test_set_nogaps.npy sha256: {sha256(RESULT)}")

# %% [markdown] id="summary"
# ## Summary for the marker

# %% tags=["active-ipynb"]
# seconds["everything"] = time.monotonic() - STARTED + earlier
# summary = {
#     "profile": name,
#     "generative model": {"name": PRIOR, "scheduler": SCHEDULER, "temperature": TEMPERATURE,
#                          "steps": profile.inference_steps},
#     "training": {"networks": profile.networks, "epochs": profile.epochs,
#                  "batch": LOADER_BATCH, "sharpness": SHARPNESS},
#     "device": name_of(device),
#     "test set": {"kind": kind, "sha256": sha256(TEST_SET)},
#     "synthetic images": {"shape": list(synthetic.shape),
#                          "sha256": sha256(SAMPLES / "images.npy")},
#     "missing pixels": int((~mask).sum()),
#     "weights": {"sha256": sha256(RUN / "imputer.safetensors")},
#     "result": {"shape": list(saved.shape), "sha256": sha256(RESULT)},
#     "99.5th percentile, hole / observed": round(top_ratio, 3),
#     "mean, observed - hole": round(mean_gap, 4),
#     "hole PSNR / dB": {key: round(row["psnr"], 2) for key, row in scores.items()},
#     "hole RMSE": {key: round(row["rmse"], 4) for key, row in scores.items()},
#     "seconds": {key: round(value) for key, value in seconds.items()},
#     "seed": SEED,
# }
# for folder in folders:
#     save_json(folder / "summary.json", summary)
# print(json.dumps(summary, indent=1))
