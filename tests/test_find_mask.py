"""The notebook's own functions that find a mask, corrupt and split."""

from __future__ import annotations

import pytest
import torch

from nogaps.Assessment import corrupt, find_mask, make_datasets


def test_mask_of_the_stand_in_is_the_courses(corrupted: torch.Tensor, mask: torch.Tensor) -> None:
    assert torch.equal(find_mask(corrupted), mask)
    for value in (0.0, 0.5):
        with pytest.raises(ValueError, match="no mask to find"):
            find_mask(torch.full((3, 1, 8, 8), value))


def test_corrupt_keeps_observed_bits_and_does_not_touch_its_input(mask: torch.Tensor) -> None:
    x = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    y = corrupt(x, mask)
    assert torch.equal(x, before)
    assert torch.equal(y[mask.expand_as(y)], x[mask.expand_as(x)])
    assert (y[~mask.expand_as(y)] == 0).all()


def test_datasets_are_disjoint_pairs_that_agree(clean: torch.Tensor, mask: torch.Tensor) -> None:
    x = clean + torch.arange(len(clean)).view(-1, 1, 1, 1)  # each image recognisable
    train, val = make_datasets(x, mask, seed=3)
    assert (len(train), len(val)) == (80, 20)
    seen = torch.cat([part.tensors[1].amin((1, 2, 3)).floor() for part in (train, val)])
    assert sorted(seen.tolist()) == list(range(100))
    for part in (train, val):
        assert torch.equal(part.tensors[0], corrupt(part.tensors[1], mask))
    again, _ = make_datasets(x, mask, seed=3)
    assert torch.equal(again.tensors[1], train.tensors[1])
