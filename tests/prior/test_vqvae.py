"""VQ-VAE-2: quantisers, codebooks that follow by moving averages, latents, folders, resume."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from nogaps.prior.autoencoder import reconstruct, vqvae_loss
from nogaps.prior.loading import load_part
from nogaps.prior.vqvae import EPSILON, VQVAE2, VectorQuantizer
from nogaps.runtime.checkpoint import ema_of
from nogaps.runtime.errors import BadInput

SMALL = {"width": 16, "inner_width": 8, "blocks": 1, "num_codes": 16, "bottom_heads": 2}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**more: object) -> VQVAE2:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return VQVAE2(**{**SMALL, **more})


def quantizer(**more: object) -> VectorQuantizer:
    settings = {"channels": 4, "heads": 2, "num_codes": 8, "decay": 0.9, "restart_after": 50}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return VectorQuantizer(**{**settings, **more})


def images(n: int = 8, height: int = 16, width: int = 16) -> torch.Tensor:
    """Smooth random images in [0,1]."""
    coarse = torch.rand(n, 1, height // 4, width // 4, generator=seeded(1))
    return F.interpolate(coarse, size=(height, width), mode="bilinear")


def changed(a: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """The names of what is another than before in a state."""
    return {name for name, value in a.state_dict().items() if not torch.equal(value, before[name])}


@pytest.fixture(scope="module")
def trained() -> VQVAE2:
    """After a few steps: codebooks that differ from their start, in every level."""
    model, losses = small().train(), []
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for k in range(30):
        optimizer.zero_grad()
        parts = vqvae_loss(model, images(), seeded(k))
        parts["loss"].backward()
        optimizer.step()
        losses.append(float(parts["reconstruction"].detach()))
        assert all(1 <= parts[f"perplexity_{level}"] <= 16 for level in ("bottom", "top"))
    assert losses[-1] < 0.5 * losses[0]
    return model.eval().requires_grad_(False)


def test_sizes_that_the_strides_divide_and_others(trained: VQVAE2) -> None:
    for height, width in ((64, 64), (256, 128), (4, 12)):
        x = 2 * images(2, height, width) - 1
        z = trained.encode(x).latent_dist.mean
        assert z.shape == (2, 12, height // 2, width // 2) and z.dtype == torch.float32
        assert trained.decode(z).sample.shape == x.shape
    with pytest.raises(BadInput, match=r"\(66, 64\).*multiples of 4"):
        trained.encode(torch.zeros(1, 1, 66, 64))
    for shape in ((1, 11, 8, 8), (1, 12, 7, 8)):
        with pytest.raises(BadInput, match=r"expected \(N,12,h,w\)"):
            trained.decode(torch.zeros(shape))
    with pytest.raises(BadInput, match="8 channels, expected a multiple of 3 heads"):
        VQVAE2(bottom_heads=3)


def test_the_nearest_code_is_found() -> None:
    """Against brute force, over more vectors than are looked at at once, under autocast too."""
    part = quantizer(num_codes=37).eval()
    z = torch.randn(2, 4, 50, 60, generator=seeded())
    vectors = z.permute(0, 2, 3, 1).reshape(-1, 2, 2)
    nearest = torch.cdist(vectors.double().swapaxes(0, 1), part.codes.double()).argmin(2)
    expected = torch.stack([part.codes[h, nearest[h]] for h in (0, 1)], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = part(z)
    assert torch.equal(result.vectors.permute(0, 2, 3, 1).reshape(-1, 2, 2), expected)
    assert float(result.distance) == pytest.approx(float(F.mse_loss(expected, vectors)), rel=1e-5)


def test_codebooks_are_moving_averages() -> None:
    """Appendix A.1 of arXiv 1711.00937, on five vectors of one channel."""
    part = quantizer(channels=1, heads=1, num_codes=2).train()
    part.updates.fill_(1)  # not the first batch: the codes stay where they are put
    part.cluster_size.copy_(torch.tensor([[2.0, 3.0]]))
    part.code_sum.copy_(torch.tensor([[[-2.0], [6.0]]]))  # codes -1 and 2
    part(torch.tensor([-1.5, -0.5, 0.0, 3.0, 4.0]).view(1, 1, 1, 5), seeded())
    size = torch.tensor([0.9 * 2 + 0.1 * 3, 0.9 * 3 + 0.1 * 2])
    total = torch.tensor([0.9 * -2 + 0.1 * -2.0, 0.9 * 6 + 0.1 * 7.0])
    torch.testing.assert_close(part.cluster_size[0], size)
    torch.testing.assert_close(part.code_sum[0, :, 0], total)
    smoothed = (size + EPSILON) / (size.sum() + 2 * EPSILON) * size.sum()
    torch.testing.assert_close(part.codes[0, :, 0], total / smoothed)


def test_the_first_batch_makes_the_codebook() -> None:
    part, z = quantizer(decay=1.0).train(), torch.randn(4, 4, 6, 6, generator=seeded(3)) + 9
    part(z, seeded())
    for head in (0, 1):
        vectors = z[:, 2 * head : 2 * head + 2].movedim(1, -1).reshape(-1, 2)
        distance = torch.cdist(part.codes[head].double(), vectors.double())
        assert distance.amin(1).max() < 1e-3


def test_dead_codes_restart_from_the_generator() -> None:
    def run(seed: int, updates: int) -> VectorQuantizer:
        part = quantizer(restart_after=3).train()
        part.updates.fill_(1000)  # patience has grown to `restart_after`
        part.code_sum[:, 5:] = 1e3  # far from everything: codes 5, 6 and 7 are never used
        for k in range(updates):
            part(torch.randn(4, 4, 6, 6, generator=seeded(k)), seeded(seed + k))
        return part

    early, once, other = run(0, 2), run(0, 3), run(1, 3)
    assert (early.idle[:, 5:] == 2).all() and (early.codes[:, 5:] > 100).all()
    assert (once.idle == 0).all() and (once.codes.abs() < 9).all()
    assert not changed(run(0, 3), once.state_dict())
    assert torch.equal(once.codes[:, :5], other.codes[:, :5])
    assert not torch.equal(once.codes[:, 5:], other.codes[:, 5:])


def test_perplexity_counts_the_codes_in_use() -> None:
    part = quantizer(channels=1, heads=1).eval()
    part.code_sum.copy_(torch.arange(8.0).view(1, 8, 1))
    for used in (1, 2, 8):
        z = torch.arange(64).remainder(used).float().view(1, 1, 8, 8)
        assert float(part(z).perplexity) == pytest.approx(used, rel=1e-5)


def test_the_loss_moves_what_it_should() -> None:
    """Codebooks in training alone, by no gradient; commitment the encoder only."""
    model, x = small(), images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vqvae_loss(model.eval(), x, seeded())
    model.encode(x)
    assert not changed(model, before)
    losses = vqvae_loss(model.train(), x, seeded())
    levels = ("quantizer_top.", "quantizer_bottom.")
    learnt = {level + name for level in levels for name in ("cluster_size", "code_sum", "updates")}
    names = changed(model, before)
    assert learnt <= names and all(name.startswith((*levels, "to_top.1.")) for name in names)
    losses["commitment"].backward(retain_graph=True)
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {"encoder_bottom", "encoder_top", "to_top", "top_to_bottom", "to_bottom"}
    total = losses["reconstruction"] + 0.25 * losses["commitment"]
    assert float(losses["loss"].detach()) == pytest.approx(float(total.detach()))


def test_latents_hold_both_levels_and_decoding_snaps_to_their_codes(trained: VQVAE2) -> None:
    x = 2 * images(32) - 1
    z, (direct, bottom, top) = trained.encode(x).latent_dist.mean, trained(x)
    mean, std = trained.quantizer_bottom.moments()
    torch.testing.assert_close(z[:, :8] * std + mean, bottom.vectors)
    mean, std = trained.quantizer_top.moments()
    repeated = top.vectors.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(z[:, 8:] * std + mean, repeated)
    for near in (z, z + 1e-4 * torch.randn(z.shape, generator=seeded())):
        torch.testing.assert_close(trained.decode(near).sample, direct)


def test_standardised_codes_have_mean_zero_and_variance_one() -> None:
    part, scale = quantizer().train(), torch.tensor([3.0, 1.0, 2.0, 1.0]).view(1, 4, 1, 1)
    z = scale * torch.randn(4, 4, 8, 8, generator=seeded(), requires_grad=True) + 5
    for k in range(60):
        part(z.detach(), seeded(k))
    codes = part.eval()(z).vectors
    standard = part.standardize(codes.detach())
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(4), atol=0.02, rtol=0)
    variance = standard.var((0, 2, 3))
    assert float(variance.mean()) == pytest.approx(1, abs=0.02)
    assert variance[0] > 3 * variance[1]  # one scale per level: distances keep their proportions
    torch.testing.assert_close(part.snap(standard), codes.detach())
    factor = torch.randn(z.shape, generator=seeded(1))
    (gradient,) = torch.autograd.grad((codes * factor).sum(), z)
    assert torch.equal(gradient, factor), "gradients pass straight through"


def test_folder_round_trip(trained: VQVAE2, tmp_path: Path) -> None:
    """Strictly, and with halved weights, whose codebooks stay in fp32."""
    trained.save_pretrained(tmp_path / "whole")
    again = load_part(tmp_path / "whole", VQVAE2)
    assert not changed(again, trained.state_dict())
    again.register_to_config(scaling_factor=0.5)
    again.half().save_pretrained(tmp_path / "half")
    again = load_part(tmp_path / "half", VQVAE2)
    assert again.config.scaling_factor == 0.5 and again.config.latent_channels == 12
    assert not changed(again.quantizer_bottom, trained.quantizer_bottom.state_dict())
    x_hat = reconstruct(again, images())
    torch.testing.assert_close(x_hat, reconstruct(trained, images()), atol=0.02, rtol=0)


def test_the_average_of_models_has_a_codebook_of_its_own() -> None:
    """Codes of the average are the averaged sums over the averaged sizes."""
    model = small().train()
    ema = ema_of(model, 0.5)
    for k in range(4):
        vqvae_loss(model, images(), seeded(k))
        ema.update_parameters(model)
    part, averaged = model.quantizer_bottom, ema.module.quantizer_bottom
    assert not torch.equal(averaged.codes, part.codes)
    assert torch.equal(averaged.updates, part.updates) and torch.equal(averaged.idle, part.idle)


def _train_in_parallel(rank: int, folder: Path, z: torch.Tensor) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/met", rank=rank, world_size=2)
    part = quantizer(restart_after=2).train()
    for k in range(5):
        part(z[rank::2] + k, seeded(100 * rank + k))  # generators differ, restarts must not
    torch.save(part.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_processes_share_one_codebook(tmp_path: Path) -> None:
    z = torch.randn(6, 4, 5, 5, generator=seeded())
    ranks = [(k, tmp_path, z) for k in (0, 1)]
    with multiprocessing.get_context("fork").Pool(2) as pool:  # no second import of torch
        pool.starmap_async(_train_in_parallel, ranks, 1).get(60)
    one, other = (torch.load(tmp_path / f"{k}.pt", weights_only=True) for k in (0, 1))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    vectors = 6 * 5 * 5  # of both processes together: sizes are 1 at first, then follow
    assert float(one["cluster_size"].sum()) > 0.1 * 2 * vectors
