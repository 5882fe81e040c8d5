"""The training loop: early stopping, exact resume, one gradient of several processes."""

from __future__ import annotations

import csv
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from browser import free_port

from nogaps.prior import training
from nogaps.prior.training import Schedule, fit, step_generator
from nogaps.runtime.checkpoint import load_state
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import sha256


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "save_curves", lambda *_: None)  # slow, and tested elsewhere


def logged(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "log.csv") as file:
        return list(csv.DictReader(file))


def test_the_rate_rises_and_falls() -> None:
    rates = [Schedule(100, learning_rate=2.0, warmup=0.1).rate(step) for step in range(100)]
    assert rates[0] == 0.2 and rates[9] == 2.0 == max(rates) and 0 < rates[-1] < 0.01
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_is_logged_and_goes_on_for_longer_but_not_with_other_settings(tmp_path: Path) -> None:
    """It fits y = w x."""
    run_dir = tmp_path / "run"

    def fitted(steps: int, seed: int = 0, **config: object) -> None:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(model.weight)
        schedule = Schedule(steps, 4, 0.1, validate_every=2, seed=seed)
        loss = lambda m, x, _: {"loss": (m(x) - 3 * x).square().mean()}  # noqa: E731
        draw = lambda n, generator: torch.rand(n, 1, generator=generator)  # noqa: E731
        validate = lambda m: {"loss": float(m.training)}  # noqa: E731
        fit(model, draw, loss, validate, run_dir, schedule, config)

    fitted(3, kind="a", _private={1, 2})
    fitted(5, kind="a")
    rows = logged(run_dir)
    assert [row["step"] for row in rows] == ["2", "3", "4", "5"]
    assert list(rows[0]) == ["step", "seconds", "loss", "val_loss"]
    assert {row["val_loss"] for row in rows} == {"0.0"}, "scores are those of evaluation mode"
    x = [torch.rand(4, 1, generator=step_generator(0, step)) for step in range(2)]
    first, second = (float((3 * batch).square().mean()) for batch in x)
    assert first / 2 < float(rows[0]["loss"]) < (first + second) / 2
    assert (run_dir / "log.png").exists()
    with pytest.raises(BadInput, match=r"run: holds .*other settings \(kind, seed\)"):
        fitted(5, seed=1, kind="b")


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize("stop", range(1, 10, 4))
def test_an_interrupted_run_continues_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Dropout, and losses in the middle of a line of the log.

    Every other step the clock strikes: what it saved is at most two steps old.
    """
    schedule = Schedule(11, 4, 0.1, validate_every=3)
    step, now = training._train_step, [0.0]

    def timed(number: int, *rest: object) -> dict:
        now[0] = (training.SAVE + 1) * (number // 2)
        return step(number, *rest)

    def run(name: str) -> Path:
        now[0] = 0.0
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
        loss = lambda m, x, _: {"loss": (m(x) - x).square().mean()}  # noqa: E731
        weight = lambda m: {"weight": float(m[0].weight.detach()[0, 0])}  # noqa: E731
        draw = lambda n, generator: torch.rand(n, 3, generator=generator)  # noqa: E731
        fit(model, draw, loss, weight, tmp_path / name, schedule, {})
        return tmp_path / name / "state.safetensors"

    def interrupted(number: int, *rest: object) -> dict:
        if number == stop:
            raise KeyboardInterrupt
        return timed(number, *rest)

    add_row = training.Run.add_row
    monkeypatch.setattr(training.Run, "add_row", lambda run, _, row: add_row(run, 0.0, row))
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(training, "_train_step", timed)
    straight = run("straight")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_train_step", interrupted)
        run("resumed")
    kept = load_state(tmp_path / "resumed" / "state.safetensors")
    assert stop - 2 <= (kept["step"] if kept else 0) <= stop
    assert sha256(run("resumed")) == sha256(straight)


def _share_gradients(rank: int, port: int, out: Path) -> None:
    AcceleratorState._reset_state(True)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["ACCELERATE_USE_CPU"] = "1"
    model = torch.nn.Linear(3, 1)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)

    def draw(n: int, _: torch.Generator) -> torch.Tensor:
        return torch.full((n, 3), 1.0 + rank)

    def loss(model: torch.nn.Module, x: torch.Tensor, _: torch.Generator) -> dict:
        return {"loss": model(x).sum() / len(x)}

    def validate(_: torch.nn.Module) -> dict[str, float]:
        return {"loss": float(rank)}

    schedule = Schedule(1, 2, 1.0, warmup=0, weight_decay=0, ema_decay=0)
    fit(model, draw, loss, validate, out, schedule, {})
    assert torch.distributed.get_world_size() == 2
    torch.save(model.weight.grad, out / f"grad{rank}.pt")


@pytest.mark.usefixtures("no_curves")
def test_two_processes_share_their_gradients(tmp_path: Path) -> None:
    """The gradient of w.x is x: with batches of ones and of twos both processes must see 1.5."""
    port = free_port()
    ranks = [(k, port, tmp_path) for k in (0, 1)]
    with multiprocessing.get_context("fork").Pool(2) as pool:  # no second import of torch
        pool.starmap_async(_share_gradients, ranks, 1).get(120)
    # clipped to length 1 after averaging: (1.5, 1.5, 1.5, bias 1) / sqrt(7.75)
    expected = torch.full((1, 3), 1.5 / 7.75**0.5)
    for rank in (0, 1):
        grad = torch.load(tmp_path / f"grad{rank}.pt", weights_only=True)
        torch.testing.assert_close(grad, expected, atol=2e-3, rtol=0)
    (row,) = logged(tmp_path)
    assert float(row["val_loss"]) == 0, "the numbers of another process than 0 were taken"
