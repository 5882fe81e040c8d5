"""What keeps it fast, counted instead of timed: calls, passes over the input, memory."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.recipes import CourseworkNet
from nogaps import Assessment
from nogaps.Assessment import PROFILES, corrupt, make_datasets, new_imputer
from nogaps.filling.arrays import fill_array
from nogaps.filling.files import fill_file
from nogaps.images.arrays import ArrayFile
from nogaps.imputers.loading import load_imputer
from nogaps.interpolation import LinearImputer
from nogaps.prior.loading import Prior
from nogaps.prior.sampling import generate

SMOKE = PROFILES["smoke"]


@contextmanager
def counted(*modules: nn.Module) -> Iterator[list[list[int]]]:
    """Batch sizes that each network was called with."""
    calls: list[list[int]] = [[] for _ in modules]
    with ExitStack() as stack:
        for module, sizes in zip(modules, calls, strict=True):
            note = lambda _, inputs, sizes=sizes: sizes.append(len(inputs[0]))  # noqa: E731
            stack.callback(module.register_forward_pre_hook(note).remove)
        yield calls


def noted(owner: type, name: str) -> AbstractContextManager[mock.MagicMock]:
    """A method that does what it did, and notes its calls."""
    return mock.patch.object(owner, name, autospec=True, side_effect=getattr(owner, name))


@pytest.fixture
def source(tmp_path: Path, corrupted: torch.Tensor) -> Path:
    np.save(tmp_path / "y.npy", corrupted[:20].numpy())
    return tmp_path / "y.npy"


def test_filling_calls_each_network_once_per_image(
    source: Path, clean: torch.Tensor, mask: torch.Tensor
) -> None:
    sure = load_imputer()
    half = source.with_name("half.npy")
    networks = [network.unet for network in sure.networks]
    with counted(*networks) as calls, noted(LinearImputer, "_square") as weights:
        out = source.with_name("x_hat.npy")
        fill_file(source, out, sure, batch_size=8, progress=False, uncertainty=half)
    assert len(calls) > 1 and calls == [[8, 8, 4]] * len(calls), "computed twice, or cut"
    assert weights.call_count == 1, "kriging's weights belong to the mask: once for all networks"
    masks = torch.cat([mask.flip(-1), mask.flip(-2)]).repeat(4, 1, 1, 1)
    with noted(LinearImputer, "_square") as weights:
        fill_array(corrupt(clean[:8], masks).numpy(), masks.numpy(), sure, batch_size=4)
    assert weights.call_count == 2


@pytest.mark.parametrize("given", [True, False])
def test_passes_over_the_input(given: bool, source: Path, mask: torch.Tensor) -> None:
    np.save(mask_path := source.with_name("mask.npy"), mask[0, 0].numpy())
    options = {"mask": mask_path if given else None, "batch_size": 8, "progress": False}
    with noted(ArrayFile, "read") as reading:
        fill_file(source, source.with_name("x_hat.npy"), lambda y, mask: y, **options)
    calls = (call.args for call in reading.call_args_list)
    read = Counter(k for file, *ends in calls if file.path == source for k in range(*ends))
    assert set(read) == set(range(20))
    assert max(read.values()) <= (2 if given else 3), "to check, to fill, and to find the masks"


@pytest.mark.parametrize("scheduler", ["dpm", "ddim"])
def test_sampling_calls_the_denoiser_once_per_step(prior: Prior, scheduler: str) -> None:
    with counted(prior.unet) as (calls,), noted(type(prior.vqvae), "decode") as decode:
        generate(6, 20, 4, scheduler, prior=prior, precision="fp32")
    assert calls == [4] * 20 + [2] * 20
    assert decode.call_count == 2, "one decoding per batch"


def test_a_training_step_is_one_forward_pass(
    clean: torch.Tensor, mask: torch.Tensor, tmp_path: Path
) -> None:
    train_set, val_set = make_datasets(clean, mask, 0)
    size = replace(SMOKE, epochs=2)
    imputer = new_imputer(size, clean, 0)
    with counted(imputer.unet) as (calls,), noted(LinearImputer, "_square") as weights:
        options = Assessment.Options(epochs=2)
        Assessment.train(imputer, train_set, val_set, mask, tmp_path / "checkpoint", options)
    assert calls == [*[16] * 5, 20] * 2, "five whole batches of 80 images, then 20 to validate"
    assert weights.call_count <= 2, "once for the network, once for its average"


def test_shipped_network_costs_a_fifth_of_the_courseworks() -> None:
    config = load_imputer().networks[0].config
    with torch.device("meta"):  # operations are counted, not done
        ours = Assessment.UNet(2, tuple(config["widths"]), config["bottleneck"])
        rival, y = CourseworkNet().unet, torch.empty(1, 1, 64, 64)
        operations = []
        for network, channels in ((ours, 2), (rival, 1)):
            with FlopCounterMode(display=False) as counter:
                network.eval()(y.expand(1, channels, 64, 64))
            operations.append(counter.get_total_flops())
    assert 0 < 5 * operations[0] < operations[1], "a rate of five times as much cannot be expected"


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from nogaps import standin
from nogaps.filling.files import fill_file
from nogaps.interpolation import linear

def private():  # what the process has for itself: files that are mapped to be read do not count
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData"))

folder, few, many, more = Path(sys.argv[1]), *map(int, sys.argv[2:5])
lines, used = linear(), [0]

def impute(y, mask):
    used[0] = max(used[0], private())
    return lines(y, mask)

for name, count in (("few", few), ("many", many)):
    np.save(folder / f"{name}.npy", np.resize(standin.corrupted_images(), (count, 1, 64, 64)))
for name in ("few", "few", "few", "many"):
    if name == "many":
        resource.setrlimit(resource.RLIMIT_DATA, (used[0] + more, resource.RLIM_INFINITY))
    source = folder / f"{name}.npy"
    fill_file(source, folder / "x_hat.npy", impute, batch_size=64, progress=False)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_six_times_the_images_take_no_more_memory(tmp_path: Path) -> None:
    """A process that may have a quarter of them fills them."""
    few, many = 600, 3600
    arguments = [tmp_path, few, many, many * 64 * 64 * 4 // 4]
    line = [sys.executable, "-c", MEMORY, *map(str, arguments)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
