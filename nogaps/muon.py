"""Muon, an optimiser for the kernels of convolutions."""

from __future__ import annotations

import torch

MOMENTUM = 0.95  # decay of a kernel's average gradient
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of each of five iterations, by Jordan et al.
RMS = 0.2  # of AdamW's usual step, in learning rates (arXiv 2502.16982, section 2.2)


class Muon(torch.optim.AdamW):
    """AdamW, except that kernels of convolutions step along their orthogonalised momentum.

    Such a step moves a kernel, seen as a matrix with a row for each entry of its first axis, about
    equally far in all directions, also in those that gradients seldom point to. Its size is that of
    AdamW's, so that one learning rate serves both. Other parameters, and a kernel with one row,
    are AdamW's. The arguments are those of AdamW.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters that have a gradient; a kernel's is then None."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim == 4 and len(p) > 1 and p.grad is not None:
                    self._step_kernel(p, group["lr"], group["weight_decay"])
                    p.grad = None  # AdamW has nothing to do here
        super().step()

    def _step_kernel(self, p: torch.Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[p]
        if not state:  # AdamW expects a "step" of every parameter when a state is loaded
            state |= {"step": torch.zeros(()), "average": torch.zeros_like(p)}
        state["average"].lerp_(p.grad, 1 - MOMENTUM)
        update = orthogonal(p.grad.lerp(state["average"], MOMENTUM).flatten(1))
        p.mul_(1 - lr * weight_decay)
        p.sub_(update.view(p.shape), alpha=RMS * lr * max(update.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return roughly the semi-orthogonal matrix nearest to a matrix (M,N).

    Five Newton-Schulz iterations bring its singular values to between 0.68 and 1.21, save those
    that are far below the largest.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    x = x.mT if len(x) > x.shape[1] else x
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if len(matrix) > matrix.shape[1] else x
