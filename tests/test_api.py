"""`from nogaps import …` does what the command does, to the bit, on arrays and tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import nogaps
from nogaps import BadInput, fill, generate, load_imputer, standin
from nogaps.filling.files import fill_file
from nogaps.interpolation import biharmonic
from nogaps.prior.loading import Prior

Y = standin.corrupted_images()[:9]
MASK = standin.course_mask()
NAN = np.where(MASK, Y, np.nan)


def of_type(dtype: object, scale: float = 1.0) -> np.ndarray:
    """Y in another type and range; missing pixels are 0 and the observed ones are not."""
    values = np.maximum(Y * scale, np.finfo(np.float32).tiny)
    values = values if np.dtype(dtype).kind == "f" else np.maximum(np.rint(values), 1)
    return np.where(MASK, values, 0).astype(dtype)


IMAGES = {
    "of 12 bits": of_type(np.int16, 4095),
    "big-endian, beyond 1": of_type(">f4", 37.5),
    "half precision": of_type(np.float16),
    "without channels": Y[:, 0],
}


@pytest.mark.parametrize("name", IMAGES)
def test_same_bits_as_the_command(tmp_path: Path, name: str) -> None:
    y, imputer = IMAGES[name], load_imputer(quality="fast")
    np.save(tmp_path / "y.npy", y)
    fill_file(tmp_path / "y.npy", tmp_path / "filled.npy", imputer)
    x_hat, expected = fill(y, quality="fast"), np.load(tmp_path / "filled.npy")
    assert x_hat.dtype == y.dtype and x_hat.shape == y.shape
    assert x_hat.tobytes() == expected.tobytes()
    assert np.array_equal(x_hat[..., MASK], y[..., MASK])
    assert fill(y, MASK, model=imputer).tobytes() == expected.tobytes()


def test_half_widths_are_those_of_the_command(tmp_path: Path) -> None:
    y, imputer = of_type(np.int32, 900), load_imputer()
    np.save(tmp_path / "y.npy", y)
    half = tmp_path / "half.npy"
    fill_file(tmp_path / "y.npy", tmp_path / "filled.npy", imputer, uncertainty=half)
    expected = np.load(tmp_path / "filled.npy"), np.load(half)
    for images, model in ((y, None), (y, imputer), (torch.from_numpy(y), imputer)):
        results = fill(images, model=model, half_width=True)
        assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))
        assert isinstance(results[1], type(images))
        assert results[0].dtype == images.dtype and str(results[1].dtype).endswith("float32")
    with pytest.raises(BadInput, match="quality='best'"):
        fill(y, quality="fast", half_width=True)
    with pytest.raises(BadInput, match="no calibration"):
        fill(y, model=biharmonic, half_width=True)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "uint8"])
def test_tensors_come_back_as_they_were(dtype: str) -> None:
    kind, scale = getattr(torch, dtype), 200 if dtype == "uint8" else 1
    mask = torch.from_numpy(MASK)
    y = (torch.from_numpy(Y) * scale).clamp(min=0.005 * scale).to(kind) * mask
    x_hat = fill(y.requires_grad_(y.is_floating_point()), quality="fast")
    assert x_hat.dtype == kind and x_hat.device == y.device and not x_hat.requires_grad
    assert torch.equal(x_hat[..., mask], y[..., mask])
    assert torch.equal(x_hat, fill(y, mask[None], quality="fast"))


def test_shapes_and_masks(tmp_path: Path) -> None:
    fast = load_imputer(quality="fast")
    whole = fill(Y, model=fast)
    one = fill(Y[3, 0], MASK, model=fast)
    assert one.shape == (64, 64) and np.abs(one - whole[3, 0]).max() < 1e-5  # other batches
    for shape in ((1, 64, 64), (1, 1, 64, 64)):
        assert np.array_equal(fill(Y, MASK.reshape(shape), model=fast), whole)
    assert np.array_equal(fill(Y, np.repeat(MASK[None], 9, 0), model=fast), whole)
    own = np.repeat(MASK[None, None], 9, 0)
    own[4, 0, 0, 0] = ~own[4, 0, 0, 0]
    assert (fill(Y, own, model=fast)[own] == Y[own]).all()
    assert np.array_equal(fill(NAN, missing="nan", model=fast), whole.astype(NAN.dtype))
    assert fill(Y.tolist(), model=fast).shape == Y.shape
    turned = Y.transpose(0, 1, 3, 2)
    assert np.array_equal(fill(turned, MASK.T, model=fast)[..., MASK.T], turned[..., MASK.T])


BAD = {
    "shape": (dict(y=Y[None]), r"shape \(1, 9, 1, 64, 64\), expected \(H,W\)"),
    "channels": (dict(y=np.repeat(Y, 2, 1)), r"\(9, 2, 64, 64\)"),
    "axes": (dict(y=np.zeros((64, 64, 40))), "whether the images come first or last"),
    "text": (dict(y=np.array([["a"]])), "expected"),
    "one image": (dict(y=Y[0, 0]), r"y: .*\(mask=\)"),
    "nothing missing": (dict(y=Y + 0.1), r"expected a mask \(mask=\)"),
    "nan": (dict(y=NAN), "missing='nan'"),
    "mask of numbers": (dict(y=Y, mask=MASK.astype(int)), "expected bool"),
    "mask of another size": (dict(y=Y, mask=MASK[:32]), r"\(32, 64\), expected bool"),
    "missing": (dict(y=Y, missing="zeros"), "'zeros': is unknown"),
    "quality": (dict(y=Y, quality="good"), "fast or best"),
    "model": (dict(y=Y, model="absent"), "absent: .*No such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str) -> None:
    arguments, words = BAD[name]
    with pytest.raises(ValueError, match=words) as caught:
        fill(**arguments)
    assert isinstance(caught.value, BadInput)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_generate_is_the_course_s_call(prior: Prior) -> None:
    batches = generate(3, 2, 2, "ddim", 1.0, seed=5, prior=prior)
    assert [tuple(batch.shape[:2]) for batch in batches] == [(2, 1), (1, 1)]


def test_the_package_offers_what_it_names() -> None:
    assert {"fill", "generate", "load_imputer", "BadInput"} <= {*dir(nogaps)}
    assert all(getattr(nogaps, name) for name in nogaps.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fil'"):
        _ = nogaps.fil
    assert (Path(nogaps.__file__).parent / "py.typed").exists()
