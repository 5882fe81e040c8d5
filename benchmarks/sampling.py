"""How fast heads are sampled, beside diffusers' `LDMPipeline` on the same weights, and how good.

    python -m benchmarks.sampling runs/frames/heads.npz runs/frames/heads_t1.npz
    (about 6 minutes on two cores)

Every row draws the same images (the same noise), batch by batch in turns: what is timed is what is
scored. Scores: gradient energy and quantiles beside those of real heads, Fréchet and kernel
distance, precision and recall in the feature space of `nogaps prior evaluate`, against the `train`
split of the frame files. "RMS": how far images lie from those of many steps from the same noise.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from diffusers import DDIMScheduler, LDMPipeline
from tqdm.auto import tqdm

from benchmarks import harness
from benchmarks.harness import cell, native_precision
from nogaps import tables
from nogaps.evaluation.comparison import compare, describe
from nogaps.evaluation.realism import Features, Heads, feature_space, heads
from nogaps.prior.frames import load_frames, to_size
from nogaps.prior.loading import Prior, load_prior
from nogaps.prior.sampling import Process, image_generators, sample_batch
from nogaps.runtime.files import save_json

RESULTS = harness.RESULTS / "sampling.json"
PIPELINE = "diffusers LDMPipeline"
BATCHES = 8, 32  # turns of every row, and images of each
SEED = 7  # of images that no notebook and no card shows


class Way(NamedTuple):
    """One way to sample."""

    name: str
    scheduler: str
    steps: int
    precision: str


def ways(small: bool) -> list[Way]:
    """Return the rows of the table, diffusers' pipeline first."""
    fast, dpm, ddim = native_precision(), (20, 5, 10, 15, 40), (10, 20, 50)
    if small:
        dpm, ddim = (2,), (4,)
    rows = [Way(PIPELINE, "ddim", ddim[-1], "fp32"), Way("ours", "dpm", dpm[0], "fp32")]
    rows += [Way("ours", "dpm", steps, fast) for steps in dpm]
    rows += [Way("ours", "ddim", steps, fast) for steps in ddim]
    return list(dict.fromkeys(rows))


@torch.no_grad()
def draw(prior: Prior, way: Way, generators: list[torch.Generator]) -> torch.Tensor:
    """Draw a batch (N,1,64,64) in [0,1] on the CPU, one image per generator."""
    if way.name != PIPELINE:
        process = Process(way.steps, way.scheduler, precision=way.precision)
        return sample_batch(prior, generators, process).cpu()
    pipeline = LDMPipeline(prior.vqvae, prior.unet, DDIMScheduler.from_config(prior.scheduler))
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": way.steps, "output_type": "np", "eta": 0.0}
    images = pipeline(batch_size=len(generators), generator=generators, **options).images
    return torch.from_numpy(images[..., :1]).permute(0, 3, 1, 2).float()


def sample_in_turns(
    prior: Prior, plan: list[Way], batches: int, batch_size: int
) -> tuple[list[list[float]], list[torch.Tensor]]:
    """Return seconds of each batch and all images, per way. Batch k has the same noise in all."""
    seconds: list[list[float]] = [[] for _ in plan]
    images: list[list[torch.Tensor]] = [[] for _ in plan]
    for way in plan:  # one turn that does not count, of a few images
        draw(prior, way, image_generators(SEED, 0, min(4, batch_size)))
    for k in tqdm(range(batches), desc="sampling in turns", disable=batches == 1):
        for way, times, parts in zip(plan, seconds, images, strict=True):
            generators = image_generators(SEED, k * batch_size, batch_size)
            start = time.perf_counter()
            parts.append(draw(prior, way, generators))
            times.append(time.perf_counter() - start)
    return seconds, [torch.cat(parts) for parts in images]


def score(x: torch.Tensor, real: Heads, space: Features) -> dict:
    """Return the realism of samples x (N,1,H,W) beside real heads; space: of `feature_space`."""
    samples = heads(x, [f"samples/{k}" for k in range(len(x))])
    most = min(len(samples), len(np.unique(real.ids)))
    return describe(x, real.x) | compare(samples, real, space, most, seed=0)


def as_markdown(results: dict) -> str:
    """Return one row per way."""
    size, rows = results["batch_size"], []
    header = ["sampler", "steps", "computed in", f"images/s, batches of {size}"]
    header += ["times the pipeline's", "RMS / 255", "gradient energy", "99.9 %", "Fréchet"]
    header += ["KID × 1000", "precision", "recall"]
    slowest = results["rows"][0]["images_per_second"]["median"]
    for row in results["rows"]:
        way, scores, rate = row["way"], row["scores"], row["images_per_second"]
        rows.append(
            [
                f"{way['name']}, {way['scheduler']}",
                way["steps"],
                way["precision"],
                cell(rate, 2),
                f"{rate['median'] / slowest:.1f}",
                f"{255 * row['rms']:.2f}",
                f"{scores['gradient_energy_ratio']:.3f}",
                f"{scores['quantiles']['0.999']:.3f}",
                f"{scores['frechet']:.3f}",
                f"{1000 * scores['kid']:.1f} ± {1000 * scores['kid_std']:.1f}",
                *(f"{scores[key][0]:.2f}" for key in ("precision", "recall")),
            ]
        )
    quantile = results["real"]["quantiles"]["0.999"]
    text = "Gradient energy is a share of that of train frames, whose 99.9 % quantile is "
    text += f"{quantile:.3f}. {results['images']} images per row."
    return f"{tables.as_markdown(header, rows)}\n\n{text}"


def main(
    frames: harness.Frames,
    prior: Annotated[Path | None, typer.Option(help="Diffusers folder; else the shipped.")] = None,
    smoke: harness.Smoke = False,
    out: harness.Out = RESULTS,
) -> None:
    """Print the table and write it as JSON."""
    machine, (batches, batch_size) = harness.machine(), (1, 4) if smoke else BATCHES
    loaded, plan = load_prior(prior, harness.CPU), ways(smoke)
    x, groups = load_frames(frames, "train")
    real = heads(to_size(x), groups)
    many = Way("reference", "dpm", 10 if smoke else 200, "fp32")
    reference = draw(loaded, many, image_generators(SEED, 0, batch_size))
    rows, space = [], feature_space(real.x)
    sampled = sample_in_turns(loaded, plan, batches, batch_size)
    for way, seconds, x in zip(plan, *sampled, strict=True):
        row = {"way": way._asdict(), "images_per_second": harness.rate(seconds, batch_size)}
        row["rms"] = float((x[:batch_size] - reference).square().mean().sqrt())
        rows.append(row | {"scores": score(x, real, space)})
    results = {"machine": machine, "threads": torch.get_num_threads(), "batch_size": batch_size}
    results |= {"images": batches * batch_size, "real": describe(real.x, real.x), "rows": rows}
    save_json(out, results)
    print(as_markdown(results))


if __name__ == "__main__":
    harness.run(main)
