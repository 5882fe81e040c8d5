"""Exact resume of the prior's training: same bits at the end, wherever it was stopped.

A stop is a KeyboardInterrupt at a step; what is compared is every file that the run leaves, weights
and checkpoints, but for the times in its logs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nogaps.prior import training
from nogaps.prior.autoencoder import train_autoencoder
from nogaps.prior.diffusion import train_diffusion
from nogaps.prior.refine import refine_decoder
from nogaps.prior.training import Schedule, fit
from nogaps.runtime.checkpoint import load_state
from nogaps.runtime.files import sha256


def stop_at(
    patch: pytest.MonkeyPatch, place: object, name: str, calls: int
) -> Callable[[Callable[[], object]], None]:
    """Run something until `place.name` is called for the n-th time, counted from 1."""
    real, seen = getattr(place, name), []

    def counted(*arguments: object, **options: object) -> object:
        seen.append(1)
        if len(seen) == calls:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    def stopped(run: Callable[[], object]) -> None:
        with patch.context() as once, pytest.raises(KeyboardInterrupt):
            once.setattr(place, name, counted)
            run()

    return stopped


def weights(folder: Path) -> dict[str, str]:
    """sha256 of every file of weights, of calibration and of latents."""
    names = (path for pattern in ("*.json", "*.npy") for path in folder.rglob(pattern))
    files = [*names, *(p for p in folder.rglob("*.safetensors") if p.name != "state.safetensors")]
    return {str(path.relative_to(folder)): sha256(path) for path in files}


@pytest.mark.parametrize("kind", ["kl", pytest.param("vqvae2", marks=pytest.mark.slow)])
def test_stages_of_the_prior(
    frames_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every stage is stopped between two checkpoints."""
    monkeypatch.setattr(training, "save_curves", lambda *_: None)  # slow, and tested elsewhere
    schedule = Schedule(5, 4, 2e-3, validate_every=2, checkpoint_every=2)
    shape = {"latent_channels": 4, "widths": (8, 8, 8)}
    if kind == "vqvae2":
        shape = {"latent_channels": 6, "top_channels": 2, "width": 8, "inner_width": 4}

    def stages(out: Path) -> list[Callable[[], object]]:
        found = [
            lambda: train_autoencoder([frames_file], out, schedule, kind, **shape),
            lambda: train_diffusion([frames_file], out, schedule, 1, (16, 32)),
        ]
        refined = [lambda: refine_decoder([frames_file], out, schedule, samples=4)]
        return found + (refined if kind == "kl" else [])

    for run in stages(tmp_path / "straight"):
        run()
    for run in stages(tmp_path / "resumed"):
        stop_at(monkeypatch, training, "_train_step", 4)(run)
        run()
    one, other = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert one == other and len(one) > 5
    for folder in ("autoencoder", "diffusion") + (("refine",) if kind == "kl" else ()):
        a, b = (
            load_state(tmp_path / n / folder / "state.safetensors") for n in ("straight", "resumed")
        )
        for entry in ("model", "ema", "optimizer"):
            assert equal(a[entry], b[entry]), (folder, entry)
        assert [strip(row) for row in a["log"]] == [strip(row) for row in b["log"]]


def strip(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "seconds"}


def equal(a: object, b: object) -> bool:
    """Nested states, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("step", range(2, 14, 3))
def test_early_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Dropout, a best network that is not the last, losses in the middle of a line of the log."""
    monkeypatch.setattr(training, "save_curves", lambda *_: None)
    schedule = Schedule(20, 4, 0.1, validate_every=3, checkpoint_every=2, patience=2)

    def run(name: str) -> torch.nn.Module:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
        loss = lambda m, x, _: {"loss": (m(x) - x).square().mean()}  # noqa: E731
        away = lambda m: {"loss": abs(float(m[0].weight.detach()[0, 0]) - 0.4)}  # noqa: E731
        draw = lambda n, generator: torch.rand(n, 3, generator=generator)  # noqa: E731
        return fit(model, draw, loss, away, tmp_path / name, schedule, {})

    straight = run("straight")
    stop_at(monkeypatch, training, "_train_step", step)(lambda: run("resumed"))
    assert equal(dict(run("resumed").state_dict()), dict(straight.state_dict()))
    one, other = (load_state(tmp_path / n / "state.safetensors") for n in ("straight", "resumed"))
    for state in (one, other):
        state["log"] = [strip(row) for row in state["log"]]
    assert one["stopped"] and one["step"] < 20 and equal(one, other)
