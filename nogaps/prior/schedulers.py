"""The way from noise to image: which noise levels are visited, and by which solver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffusers import DPMSolverMultistepScheduler

from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import parsing

SOLVERS = {"ddim": (1, "dpmsolver++"), "ddpm": (1, "sde-dpmsolver++"), "dpm": (2, "dpmsolver++")}
SCHEDULERS = tuple(SOLVERS)
CONFIG = "scheduler_config.json"
LEVELS = 10_000  # of noise, at most
PREDICTIONS = ("epsilon", "v_prediction", "sample")
FORWARD_PROCESS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
LAMBDA_RANGE = 4.5  # of log(alpha/sigma): beyond it the image is all noise, or has none left
LAMBDA_MIN = -5.1  # least log(alpha/sigma) for epsilon: a cosine schedule ends far below


def make_scheduler(
    name: str, config: dict, steps: int, path: str | Path = CONFIG
) -> DPMSolverMultistepScheduler:
    """Return a scheduler for `steps` steps, from the noisiest level down to the image.

    ddim: arXiv 2010.02502, eta 0, deterministic; ddpm: the same with eta 1, which is ancestral
    sampling (ibid., section 4.1); dpm: DPM-Solver++ 2M (arXiv 2211.01095). The first two are its
    first order without and with fresh noise (arXiv 2206.00927, section 4.1).

    Args:
        name: One of SCHEDULERS.
        config: Of a diffusers scheduler; its forward process and prediction type count.
        steps: At most the number of noise levels.
        path: Of the config, for the message.

    Raises:
        BadInput: The config describes nothing that can be sampled, or there are too many steps.
    """
    order, algorithm = SOLVERS[name]
    forward = {key: config[key] for key in FORWARD_PROCESS if key in config}
    if forward.get("prediction_type", "epsilon") not in PREDICTIONS:
        problem = f"has prediction_type {forward['prediction_type']!r}"
        raise BadInput(problem, f"one of {', '.join(PREDICTIONS)}", path=path)
    with parsing(path, f"up to {LEVELS} noise levels"):
        levels = forward.get("num_train_timesteps", 1000)
        if type(levels) is not int or not 0 < levels <= LEVELS:
            raise ValueError(f"num_train_timesteps {levels!r:.20}")
        scheduler = DPMSolverMultistepScheduler(
            **forward, solver_order=order, algorithm_type=algorithm, final_sigmas_type="zero"
        )
        if len(scheduler.lambda_t) != levels or not scheduler.lambda_t.isfinite().all():
            raise ValueError("impossible betas")
    scheduler.set_timesteps(timesteps=_timesteps(scheduler, steps))
    return scheduler


def _timesteps(scheduler: DPMSolverMultistepScheduler, steps: int) -> np.ndarray:
    """`steps` falling noise levels; the last step then leads to the image.

    First order: evenly spaced in time, as diffusers' "trailing" means it. Second order: the
    noisiest, then evenly spaced in log(alpha/sigma), in which the solver expands (arXiv
    2211.01095, section 4): 20 of these come nearer to 200 than 50 that are even in time.
    """
    amount, levels = scheduler.lambda_t.double().numpy(), scheduler.config.num_train_timesteps
    if scheduler.config.prediction_type == "epsilon":
        # x0 gets epsilon's error divided by alpha there
        levels = int((amount >= LAMBDA_MIN).sum())
    if steps > levels:
        raise BadInput(f"num_inference_steps {steps}: the prior has {levels} noise levels")
    if scheduler.config.solver_order == 1 or steps == 1:
        # not diffusers' own: its stride is rounded, which for some numbers of steps adds a level -1
        return np.linspace(levels, 0, steps, endpoint=False).round().astype(np.int64) - 1
    high, low = min(LAMBDA_RANGE, amount[0]), max(-LAMBDA_RANGE, amount[levels - 1])
    at = np.abs(amount[:levels, None] - np.linspace(high, low, steps - 1)).argmin(0)
    # no level twice, however many are asked for
    order = np.arange(steps)
    free = np.maximum.accumulate(np.append(at, levels - 1) - order).clip(0, levels - steps)
    return (free + order)[::-1].copy()
