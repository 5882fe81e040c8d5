"""A full disk: one line, what was there is kept, and the same call goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import killing
import numpy as np
import pytest
import torch
from killing import end

from nogaps.prior.loading import Prior
from nogaps.prior.sampling import sample_to
from nogaps.runtime.checkpoint import save_state
from nogaps.runtime.files import BadInput, save_json, save_npy, save_npz, sha256


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


FULL = r"cannot be written \((No space left on device|.*is the disk full\?)\)"


def test_a_full_disk_is_said_and_keeps_what_was_there(small_disk: Path) -> None:
    noise = np.random.default_rng(0).random(100_000).astype(np.float32)
    save = {
        "a.npy": lambda path, n: save_npy(path, noise[:n]),
        "a.npz": lambda path, n: save_npz(path, noise=noise[:n]),
        "a.json": lambda path, n: save_json(path, noise[:n].tolist()),
        "a.safetensors": lambda path, n: save_state(path, {"w": torch.from_numpy(noise[:n])}),
    }
    for name, write in save.items():
        write(small_disk / name, 100)
    before = killing.digests(small_disk, save)
    for name, write in save.items():
        with pytest.raises(BadInput, match=f"{name}: {FULL}"):
            write(small_disk / name, 100_000)
        assert not killing.leftovers(small_disk)
    assert killing.digests(small_disk, save) == before


def test_sampling_on_a_full_disk_continues_when_there_is_room(
    prior: Prior, small_disk: Path, tmp_path: Path
) -> None:
    """The second time all batches fit, but not the file that joins them."""
    settings = {"num_inference_steps": 2, "batch_size": 2, "prior": prior}
    straight = sample_to(tmp_path / "straight", 10, **settings)
    ballast = small_disk / "ballast"
    for size in (180_000, 1_000):
        ballast.write_bytes(bytes(size))
        with pytest.raises(BadInput, match=FULL):
            sample_to(small_disk / "s", 10, **settings)
        assert not (small_disk / "s" / "images.npy").exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert sha256(sample_to(small_disk / "s", 10, **settings)) == sha256(straight)


def test_commands_on_a_full_disk_give_one_line(
    small_disk: Path, tmp_path: Path, clean: torch.Tensor, corrupted: torch.Tensor
) -> None:
    save_npy(tmp_path / "x.npy", clean[:20].numpy())
    save_npy(tmp_path / "y.npy", corrupted.numpy())  # 1.6 MB
    (small_disk / "filled.npy").write_bytes(b"earlier")
    train = ("train", "--images", tmp_path / "x.npy", "--profile", "smoke")
    fill = ("fill", tmp_path / "y.npy", "--quality", "fast")
    for command in (
        (*train, "--out", small_disk / "run"),
        (*fill, "-o", small_disk / "filled.npy"),
    ):
        assert end(killing.start(tmp_path / "log", *command)) == 2
        *_, last = (tmp_path / "log").read_text().splitlines()
        assert last.startswith(f"nogaps: {small_disk}") and "No space left on device" in last
        assert "Traceback" not in (tmp_path / "log").read_text()
    assert (small_disk / "filled.npy").read_bytes() == b"earlier"
    assert not killing.leftovers(small_disk)
