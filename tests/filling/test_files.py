"""Filling files and arrays: observed values bit for bit, any type, range, layout and mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import NAMES, contents, load, refused, store, volume

from nogaps.filling import Filling
from nogaps.filling.arrays import Span, fill_array, rounded
from nogaps.filling.files import fill_file
from nogaps.filling.survey import FillReport
from nogaps.interpolation import linear

RNG = np.random.default_rng(0)
MASK = RNG.random((8, 10)) > 0.4
MASK[0] = True
CLEAN = RNG.uniform(0.05, 1, (5, 8, 10)).astype(np.float32)
HOLED = CLEAN * MASK


def spy(seen: list) -> Filling:
    """The linear imputer, which notes what it is given."""
    impute = linear()

    def call(y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert y.dtype == torch.float32 and mask.dtype == torch.bool
        assert mask.shape in (y.shape, (1, *y.shape[1:])) and y.min() >= 0 and y.max() <= 1
        assert (y[~mask.expand_as(y)] == 0).all()
        seen.append((y, mask))
        return impute(y, mask)

    return call


def filled(path: Path, **settings: object) -> tuple[np.ndarray, FillReport]:
    """The filled images; checks that the input did not change and nothing else was written."""
    before = contents(path)
    output = path.parent / "out" / path.name
    report = fill_file(path, output, spy([]), progress=False, **settings)
    assert contents(path) == before
    assert [f.name for f in output.parent.iterdir()] == [path.name]
    return load(output), report


def same_bits(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> bool:
    mask = np.broadcast_to(mask, a.shape)
    return a.dtype == b.dtype and a.shape == b.shape and a[mask].tobytes() == b[mask].tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", NAMES)
def test_every_format(tmp_path: Path, name: str, dtype: type) -> None:
    images = (HOLED * np.iinfo(dtype).max).astype(dtype)
    x_hat, report = filled(store(tmp_path / name, images), batch_size=2)
    plane = "axial" if "nii" in name else ""
    assert report == FillReport(5, 8, 10, 5 * int((~MASK).sum()), 1, True, plane, report.notes)
    assert same_bits(x_hat, images, MASK)
    top = images.max((1, 2), keepdims=True)
    y, mask = torch.from_numpy((images / top).astype("f4")), torch.from_numpy(MASK[None, None])
    error = np.abs(x_hat - linear()(y[:, None], mask)[:, 0].numpy() * top)
    assert error.max() < 0.52, "not rounded to the nearest"


def test_floats_in_range_go_to_the_imputer_as_they_are() -> None:
    seen: list = []
    images, mask = np.tile(HOLED[:, None], (1, 1, 16, 16)), np.tile(MASK, (1, 1, 16, 16))
    (x_hat,) = fill_array(images, mask, spy(seen), batch_size=10)
    assert [len(y) for y, _ in seen] == [2, 2, 1], "images of 128×160 come in smaller batches"
    assert np.array_equal(torch.cat([y for y, _ in seen]).numpy(), images)
    expected = linear()(torch.from_numpy(images), torch.from_numpy(mask))
    np.testing.assert_allclose(x_hat, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(("batch_size", "which"), [(1, 0), (1, 4), (5, 2)])
def test_one_value_out_of_range_has_all_images_scaled(batch_size: int, which: int) -> None:
    images, seen = HOLED[:, None].copy(), []
    images[which, 0, 0, 0] = 1.5
    fill_array(images, MASK[None, None], spy(seen), batch_size=batch_size)
    y = torch.cat([y for y, _ in seen]).numpy()
    np.testing.assert_allclose(y, images / images.max((1, 2, 3), keepdims=True), rtol=1e-6)


def test_nan_that_is_observed_is_neither_missing_nor_a_number(tmp_path: Path) -> None:
    """NaN around a head stays, also in the lines; the other missing pixels are filled."""
    images = HOLED.copy()
    images[:, :, :3] = np.nan
    images[2] = np.nan  # a slice beyond the head
    np.save(tmp_path / "mask.npy", MASK)
    x_hat, report = filled(store(tmp_path / "a.npy", images), mask=tmp_path / "mask.npy")
    assert np.array_equal(np.isnan(x_hat), np.isnan(images))
    assert report.missing_pixels == 4 * (~MASK[:, 3:]).sum() and not report.scaled
    holes = ~MASK & ~np.isnan(images)
    assert (x_hat[holes] > 0).all() and same_bits(x_hat[~holes], images[~holes], np.array(True))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (5, 9), (-3, 70), (-1e308, 1e308), (0, 5e-324)])
def test_observed_values_come_to_0_1_and_back(low: float, high: float) -> None:
    share, observed = RNG.random((2, 3, 8, 10))
    values = np.where(observed > 0.4, low * (1 - share) + high * share, 0)
    span = Span(values, observed > 0.4)
    unit = span.down(values)
    assert unit.min() >= 0 and unit.max() <= 1
    largest = max(abs(low), abs(high))
    np.testing.assert_allclose(span.up(unit) / largest, values / largest, atol=1e-12)
    with np.errstate(over="ignore"):
        assert (span.up(np.full_like(values, 7.0)) <= values.max((1, 2), keepdims=True)).all()


@pytest.mark.parametrize("dtype", ["<i8", ">u8", "<u4", "|i1", "|u1", ">i2"])
def test_integers_are_rounded_within_their_type(dtype: str) -> None:
    info = np.iinfo(dtype)
    whole = rounded(np.array([0.49, 0.51, -1e30, 1e30]), np.dtype(dtype))
    assert whole.dtype == np.dtype(dtype) and whole[:3].tolist() == [0, 1, info.min]
    assert float(whole[3]) == pytest.approx(float(info.max), rel=1e-9)


def changed(at: tuple, value: float) -> np.ndarray:
    images = HOLED.copy()
    images[at] = value
    return images


BAD = {
    "one image": (HOLED[:1], {}, "holds one image"),
    "nothing missing": (CLEAN, {}, "zero in every image"),
    "all missing": (CLEAN * 0, {}, "every pixel"),
    "no nan": (CLEAN, {"missing": "nan"}, "no pixel is NaN"),
    "only nan": (changed((1,), np.nan), {"missing": "nan"}, "every pixel of image 1 is NaN"),
    "nan": (changed((4, 0, 0), np.nan), {}, "NaN"),
    "infinite": (changed((4, 0, 0), np.inf), {}, "infinite"),
    "missing": (HOLED, {"missing": "blue"}, "zero or nan"),
    "batch": (HOLED, {"batch_size": 0}, "at least 1"),
    "mask shape": (HOLED, {"mask": MASK.T}, "(8, 10)"),
    "mask count": (HOLED, {"mask": MASK[None].repeat(4, 0)}, "(5, 8, 10)"),
    "mask dtype": (HOLED, {"mask": MASK.astype("u1")}, "bool"),
    "mask full": (HOLED, {"mask": MASK | True}, "no pixel is False in"),
    "mask empty": (HOLED, {"mask": MASK & False}, "every pixel of image 0 is False in"),
    "mask inverted": (HOLED, {"mask": ~MASK}, "calls observed only what is missing in image 0"),
    "mask one image empty": (HOLED, {"mask": (np.arange(5)[:, None, None] != 3) & MASK}, "image 3"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_line_and_leaves_the_earlier_result(tmp_path: Path, case: str) -> None:
    images, settings, expected = BAD[case]
    if "mask" in settings:
        np.save(tmp_path / "mask.npy", settings["mask"])
        settings = {**settings, "mask": tmp_path / "mask.npy"}
    path, output = store(tmp_path / "a.npy", images), store(tmp_path / "b.npy", CLEAN)
    before = contents(output)
    assert expected in refused(lambda: fill_file(path, output, linear(), **settings))
    assert contents(output) == before


def test_a_mask_is_not_written_over(tmp_path: Path) -> None:
    path, mask = store(tmp_path / "a.npy", HOLED), tmp_path / "mask.npy"
    np.save(mask, MASK)
    assert "another name" in refused(lambda: fill_file(path, mask, linear(), mask))
    assert np.array_equal(np.load(mask), MASK)


def test_stored_zeros_that_are_not_zero_ask_for_a_mask(tmp_path: Path) -> None:
    images = (HOLED * 99).astype(">i2")
    path = volume(tmp_path / "a.nii", np.moveaxis(images, 0, -1), scaling=(0.5, -1000))
    line = refused(lambda: filled(path))
    assert "stand for -1000, not for 0 and no mask is given (--mask)" in line
    assert "expected the plane of the slices (--plane" in line, "another may show lines"
    np.save(tmp_path / "mask.npy", MASK)
    assert same_bits(filled(path, mask=tmp_path / "mask.npy")[0], images, MASK)


def test_an_imputer_that_fails_writes_nothing(tmp_path: Path) -> None:
    path, output = store(tmp_path / "a.npy", HOLED), tmp_path / "b.npy"
    assert "NaN" in refused(lambda: fill_file(path, output, lambda y, mask: y * torch.nan))
    with pytest.raises(ValueError, match="the imputer gave"):
        fill_file(path, output, lambda y, mask: y[:1])
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.npy"]
    fill_file(path, output, lambda y, mask: y + 3)  # observed pixels are not its own to change
    x_hat = load(output)
    assert same_bits(x_hat, HOLED, MASK) and (x_hat[:, ~MASK] == 1).all()


def test_what_a_folder_leaves_out_is_said_and_junk_stops_nothing(tmp_path: Path) -> None:
    folder = store(tmp_path / "y", (255 * HOLED).astype(np.uint8))
    for name in ("a.jpg", "notes.txt", ".DS_Store"):
        (folder / name).write_bytes(b"other")
    output = tmp_path / "out"
    output.mkdir()
    (output / ".DS_Store").write_bytes(b"of a file manager")
    report = fill_file(folder, output, linear(), progress=False)
    assert report.images == 5 and "left out: 2 files (a.jpg, notes.txt)" in report.notes
    np.save(tmp_path / "masks.npy", np.repeat(MASK[None], 5, 0))
    report = fill_file(folder, tmp_path / "x", linear(), tmp_path / "masks.npy", progress=False)
    assert any("paired in this order: 0.png, 1.png" in note for note in report.notes)
    (output / "mine.txt").write_text("kept")
    assert "mine.txt" in refused(lambda: fill_file(folder, output, linear(), progress=False))
    assert (output / "mine.txt").read_text() == "kept"


def test_masks_among_the_images_are_refused_and_the_advice_works(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    images, masks = tmp_path / "set" / "images", tmp_path / "set" / "masks"
    store(images, (255 * HOLED).astype(np.uint8))
    store(masks, 255 * np.repeat(MASK[None], 5, 0).astype(np.uint8))
    line = refused(lambda: fill_file(tmp_path / "set", tmp_path / "x", linear()))
    assert f"expected {images} with --mask {masks}" in line
    report = fill_file(images, tmp_path / "x", linear(), masks, progress=False)
    assert report.images == 5
