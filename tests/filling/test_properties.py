"""Any array, mask and layout through readers and `fill`: a right answer or one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import contents, load, store
from mask_pairs import agree

from nogaps.filling import PlainMethod
from nogaps.filling.arrays import fill_array
from nogaps.filling.files import fill_file
from nogaps.runtime.errors import BadInput
from nogaps.runtime.files import load_images, load_npy

FILLED = [np.dtype(c).newbyteorder(o) for c in "bBhHiIlLefd" for o in "<>"] + [np.dtype("g")]
OTHERS = [np.dtype(d) for d in ("?", "<c8", ">c16", "S3", "U2", "<M8[s]", ">m8[D]", "V5", "O")]
OTHERS += [np.dtype([("x", "<f4")]), np.dtype(("<f4", (2,)))]
SHAPES = [(), (7,), (0, 1, 4, 4), (2, 3, 4, 5), (1, 1, 2, 3, 4), (2, 1, 0, 4)]
AXES = st.tuples(st.integers(1, 4), st.just(1), st.integers(1, 9), st.integers(1, 9))
IMAGES = st.one_of(AXES, AXES.map(lambda s: (s[0], *s[2:])), AXES.map(lambda s: s[2:]))


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples * int(os.environ.get("NOGAPS_EXAMPLES", 1)),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def values(dtype: np.dtype, shape: tuple, how: str, seed: int) -> np.ndarray:
    """Values of this dtype, native; how: "unit" or "bits", anything that the type can hold."""
    rng, native = np.random.default_rng(seed), dtype.newbyteorder("=")
    if dtype.kind == "b":
        return rng.random(shape) > 0.5
    if dtype.kind not in "iuf" or how == "bits":
        if dtype.kind == "O" or dtype.char == "g":
            return rng.integers(0, 9, shape).astype(native)
        data = rng.bytes(int(np.prod(shape)) * dtype.itemsize)
        return np.frombuffer(data, native.base).reshape((*shape, *native.shape)).copy()
    real = dtype.kind == "f"
    array = np.asarray(rng.random(shape) * (1 if real else 250)).astype(native)
    info = np.finfo(native) if real else np.iinfo(native)
    tiny = info.smallest_subnormal if real else 1
    special = {"unit": [0, 0, 1, tiny], "wide": [0, -0.0, info.max, info.min, 1, tiny]}
    if real:
        special |= {"holes": [np.nan, np.nan, 0, 1], "broken": [np.inf, -np.inf, np.nan, 0]}
    picks = np.asarray(rng.choice(np.array(special.get(how, [0]), native), shape))
    return np.where(rng.random(shape) < 0.3, picks, array)


@st.composite
def any_array(draw: st.DrawFn, usual: float = 0.8) -> np.ndarray:
    """Any dtype, byte order, memory layout, shape and values; `usual`: share of images."""
    seed = draw(st.integers(0, 2**32 - 1))
    plain = np.random.default_rng(seed).random() < usual
    dtype = draw(st.sampled_from(FILLED if plain else FILLED + OTHERS))
    shape = draw(IMAGES if plain else st.one_of(IMAGES, st.sampled_from(SHAPES)))
    how = draw(st.sampled_from(["unit", "wide", "holes", "broken", "bits"]))
    array = values(dtype, shape, how, seed).astype(dtype.base)
    layout = draw(st.sampled_from(["C", "F", "reversed", "strided"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed" and array.ndim:
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, -1)[..., ::2]
    return array


def with_holes(array: np.ndarray, value: float, seed: int) -> np.ndarray:
    """A copy of images in which the same pixels of all are `value`; other arrays as they are."""
    out = array.copy()
    if as_images(array) is not None and (array.dtype.kind == "f" or value == 0):
        out[..., np.random.default_rng(seed).random(array.shape[-2:]) > 0.6] = value
    return out


@st.composite
def any_mask(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """A mask for images of this shape, or for others; of one value, or of any other type."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    many = shape[0] if len(shape) > 2 else 1
    size = tuple(shape[-2:])
    sizes = [size, (1, *size), (1, 1, *size), (many, *size), (many, 1, *size)]
    wrong = [(), size[:1], size[::-1], (2, *size), (many, 2, *size), (0, *size)]
    at = draw(st.integers(0, 11))
    mask = np.asarray(rng.random((sizes * 2 + wrong)[at]) > draw(st.sampled_from([0.5, 0.1, 0, 1])))
    mask = mask if draw(st.integers(0, 9)) else mask.astype("u1")
    return np.asfortranarray(mask) if draw(st.booleans()) else mask


def same_values(*arrays: np.ndarray | None) -> bool:
    """Bit for bit, or no array each; padding of the longest floats excepted."""
    a, b = (x if x is None else (x.dtype, x.shape, repr(x.tolist())) for x in arrays)
    return a == b


def one_line(error: BadInput, path: Path) -> bool:
    message = str(error)
    return message.startswith(str(path)) and "\n" not in message and "expected" in message


def answer(read: Callable[..., np.ndarray], path: Path, **options: bool) -> np.ndarray | None:
    """What a reader returns; None if it refuses in one line."""
    try:
        return np.array(read(path, **options))
    except BadInput as error:
        assert one_line(error, path), str(error)
        return None


def as_images(array: np.ndarray) -> np.ndarray | None:
    """(N,H,W), or None if these are no images for `fill`."""
    shape = array.shape
    if array.dtype.kind not in "iuf" or 0 in shape or not 2 <= len(shape) <= 4:
        return None
    if min(shape[-2:]) < 4 or (len(shape) == 3 and shape[0] == shape[1] > 1):
        return None  # other axes than those of images
    if len(shape) == 4:
        return array[:, 0] if shape[1] == 1 else None
    return array[None] if len(shape) == 2 else array


@bounded(150)
@given(array=any_array(0.6), name=st.sampled_from(["a.npy", "a.npz"]))
def test_what_was_written_is_read(array: np.ndarray, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        (np.save if name == "a.npy" else np.savez_compressed)(path, array)
        before = contents(path)
        assert same_values(answer(load, path), as_images(array))
        if name == "a.npy":
            assert same_values(answer(load_images, path), as_network_input(array))
            readable = None if array.dtype.hasobject else array
            assert same_values(answer(load_npy, path), readable)
            mapped = answer(load_npy, path, mmap=True)
            assert same_values(mapped, readable if array.size else None)
        assert contents(path) == before and os.listdir(folder) == [name]


def as_network_input(array: np.ndarray) -> np.ndarray | None:
    """(N,1,H,W) float32 in [0,1], or None: also where float32 would make 0 of a value."""
    if array.ndim != 4 or array.shape[1] != 1 or not array.size or array.dtype.kind != "f":
        return None
    with np.errstate(all="ignore"):
        single, unit = array.astype("f4"), ((array >= 0) & (array <= 1)).all()
    return single if unit and ((single != 0) == (array != 0)).all() else None


def middle(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Each hole gets the middle of its image's observed values; exact, whatever the batch."""
    seen = mask.expand_as(y)
    assert y.dtype == torch.float32 and mask.dtype == torch.bool
    assert y.min() >= 0 and y.max() <= 1 and not y[~seen].any()
    low, high = torch.where(seen, y, 2.0), torch.where(seen, y, -1.0)
    centre = (low.amin((1, 2, 3), keepdim=True) + high.amax((1, 2, 3), keepdim=True)) / 2
    return torch.where(seen, y, centre)


class Sure(PlainMethod):
    """A function, with half-widths."""

    def with_half_width(self, y: torch.Tensor, mask: torch.Tensor) -> tuple:
        return self(y, mask), torch.where(mask, 0.0, 0.25).expand_as(y)


def fill_and_check(array: np.ndarray, path: Path, **options: object) -> np.ndarray | None:
    """The filled file, or None if it was refused in one line; the input is as it was."""
    folder, out = path.parent, path.parent / f"out{''.join(path.suffixes)}"
    before, names = contents(path), sorted(os.listdir(folder))
    try:
        fill_file(path, out, Sure(middle), progress=False, **options)
    except BadInput as error:
        named = [path, *filter(None, [options.get("mask")])]
        assert any(one_line(error, p) for p in named), str(error)
        assert sorted(os.listdir(folder)) == names and contents(path) == before
        return None
    made = [out.name] + ["half.npy"] * ("uncertainty" in options)
    assert sorted(os.listdir(folder)) == sorted([*names, *made]) and contents(path) == before
    x_hat = load(out)
    if out.suffix == ".npy":
        whole = np.load(out)
        assert (whole.dtype, whole.shape) == (array.dtype, array.shape)
        assert whole.flags.f_contiguous == np.load(path).flags.f_contiguous
    return x_hat


def check_filled(images: np.ndarray, x_hat: np.ndarray, seen: np.ndarray) -> None:
    """images, x_hat: (N,H,W); seen: bool, True = observed, of the same shape."""
    assert same_values(x_hat[seen], images[seen]), "observed values changed"
    assert np.isfinite(x_hat).all()
    values = images[seen]
    unit = images.dtype.kind == "f" and values.min() >= 0 and values.max() <= 1
    for image, filled, mask in zip(images, x_hat, seen, strict=True):
        low, high = (0, 1) if unit else (min(0, image[mask].min()), image[mask].max())
        if not mask.all():
            assert filled[~mask].min() >= low and filled[~mask].max() <= high


@bounded(150)
@given(data=st.data(), array=any_array(0.95), batch=st.integers(1, 5))
def test_filling_with_a_mask(data: st.DataObject, array: np.ndarray, batch: int) -> None:
    images = as_images(array)
    shape = (4, 4) if images is None else array.shape
    mask = data.draw(any_mask(shape))
    with tempfile.TemporaryDirectory() as folder:
        path, mask_path = Path(folder, "a.npy"), Path(folder, "mask.npy")
        np.save(path, array)
        np.save(mask_path, mask)
        x_hat = fill_and_check(array, path, mask=mask_path, batch_size=batch)
        flat = mask.reshape(-1, *mask.shape[-2:]) if mask.size and mask.ndim > 1 else None
        fits = images is not None and mask.dtype == bool and flat is not None
        fits = fits and (mask.ndim < 4 or mask.shape[1] == 1)
        if not (fits and flat.shape[1:] == images.shape[1:] and len(flat) in (1, len(images))):
            assert x_hat is None, "filled with a mask that does not fit"
            return
        seen = np.broadcast_to(flat, images.shape)
        if np.isnan(images).any():  # it stays where it is observed
            assert x_hat is None or same_values(x_hat[seen], images[seen])
            return
        usable = bool(seen.any((1, 2)).all() and not seen.all() and np.isfinite(images).all())
        assert (x_hat is not None) == (usable and agree(images, flat))
        if x_hat is not None:
            check_filled(images, x_hat, seen)
            (again,) = fill_array(images[:, None], flat[:, None], middle, batch_size=len(images))
            assert same_values(again[:, 0], x_hat), "another batch size, another answer"


@bounded(150)
@given(
    array=any_array(0.95),
    missing=st.sampled_from(["nan", "zero"]),
    holes=st.one_of(st.none(), st.integers(0, 99)),
    batch=st.integers(1, 5),
)
def test_filling_what_is_nan_or_zero(
    array: np.ndarray, missing: str, holes: int | None, batch: int
) -> None:
    if holes is not None:
        array = with_holes(array, np.nan if missing == "nan" else 0, holes)
    with tempfile.TemporaryDirectory() as folder:
        np.save(path := Path(folder, "a.npy"), array)
        x_hat = fill_and_check(array, path, missing=missing, batch_size=batch)
    images = as_images(array)
    if missing == "nan":
        floats = images is not None and images.dtype.kind == "f"
        seen = ~np.isnan(images) if floats else np.ones((1, 1, 1), bool)
        usable = floats and not np.isinf(images).any()
        assert (x_hat is not None) == bool(usable and not seen.all() and seen.any((1, 2)).all())
    elif x_hat is not None:
        seen = images != 0
        filled = ~seen & (x_hat != 0)
        assert seen.any() and not seen.all() and not np.isnan(images).any()
        seen = ~filled if filled.any() else seen
    if x_hat is not None:
        check_filled(images, x_hat, seen)


@bounded(60)
@given(
    seed=st.integers(0, 999),
    name=st.sampled_from(["a.npz", "a.nii", "a.nii.gz", "a"]),
    dtype=st.sampled_from(["|u1", "<u2", "<i2", ">i2", "<f4", ">f8"]),
    holes=st.sampled_from([0.0, 0.5, 1.0]),
    shared=st.booleans(),
)
def test_filling_other_formats(
    seed: int, name: str, dtype: str, holes: float, shared: bool
) -> None:
    rng = np.random.default_rng(seed)
    dtype = "|u1" if name == "a" and dtype != "<u2" else dtype
    images = rng.uniform(1, 250, rng.integers((1, 4, 4), (4, 9, 9))).astype(dtype)
    mask = rng.random((1 if shared else len(images), *images.shape[1:])) >= holes
    with tempfile.TemporaryDirectory() as folder:
        path, mask_path = store(Path(folder, name), images), Path(folder, "mask.npy")
        np.save(mask_path, mask)
        half = Path(folder, "half.npy")
        x_hat = fill_and_check(images, path, mask=mask_path, batch_size=2, uncertainty=half)
        seen = np.broadcast_to(mask, images.shape)
        usable = seen.any((1, 2)).all() and not seen.all() and agree(images, mask)
        assert (x_hat is not None) == usable
        if x_hat is not None:
            check_filled(load(path), x_hat, seen)
            width = np.load(half)
            width = np.moveaxis(width, -1, 0) if "nii" in name else width
            assert width.dtype == np.float32 and np.array_equal(width > 0, ~seen)
