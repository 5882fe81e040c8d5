from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LDMPipeline
from fake_hub import hub  # noqa: F401 (a fixture)
from in_process import bounded, called  # noqa: F401 (a fixture)

from nogaps import standin
from nogaps.prior.autoencoder import build_autoencoder
from nogaps.prior.diffusion import FORWARD, build_denoiser
from nogaps.prior.loading import Prior, load_prior

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)
# in the background, or under nohup, tests would inherit that signals are ignored, and pass it on
signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, signal.SIG_DFL)


@pytest.fixture(scope="session")
def mask() -> torch.Tensor:
    return torch.from_numpy(standin.course_mask())[None, None]


@pytest.fixture(scope="session")
def clean() -> torch.Tensor:
    return torch.from_numpy(standin.clean_images())


@pytest.fixture(scope="session")
def corrupted() -> torch.Tensor:
    return torch.from_numpy(standin.corrupted_images())


@pytest.fixture(scope="session")
def prior_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained prior in diffusers' layout."""
    folder = tmp_path_factory.mktemp("prior")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vqvae = build_autoencoder((8, 8, 8), 4)
        unet = build_denoiser(4, 16, (16, 32))
    vqvae.register_to_config(scaling_factor=0.7)
    scheduler = DDIMScheduler.from_config(FORWARD.config)
    LDMPipeline(vqvae, unet, scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prior(prior_folder: Path) -> Prior:
    return load_prior(prior_folder)


@pytest.fixture(scope="session")
def frames_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame file as `nogaps prior prepare` writes it, made of the stand-in's clean heads."""
    path = tmp_path_factory.mktemp("frames") / "frames.npz"
    heads = standin.clean_images()[:24, 0].repeat(2, 1).repeat(2, 2)
    split = np.array(["train"] * 16 + ["val"] * 8)
    np.savez(path, images=(255 * heads).astype(np.uint8), split=split, group=split)
    return path


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the notebook in this repository."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    done = called("report", ROOT, "-o", path)
    assert done.code in (0, 1), done.err
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a full disk cannot be tested: no right to mount a small one here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
