"""Volumes, arrays and pictures as grey levels, upright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frame_files import small
from image_files import refused, still, volume
from PIL import Image

from nogaps.prior.frames.files import load_frames

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 256, (16, 16, 16), dtype=np.uint8)  # axes: right, anterior, superior
UPRIGHT: dict[str, Callable[[int], np.ndarray]] = {  # superior or anterior up, x or y to the right
    "sagittal": lambda k: VOLUME[k].T[::-1],
    "coronal": lambda k: VOLUME[:, k].T[::-1],
    "axial": lambda k: VOLUME[:, :, k].T[::-1],
}


@pytest.mark.parametrize("plane", list(UPRIGHT))
def test_chosen_slices_of_volumes_are_upright(tmp_path: Path, plane: str) -> None:
    path = volume(tmp_path / "head.nii", VOLUME, "PIR")
    data = small([path], tmp_path / "o.npz", plane=plane, slices="3:9:2")
    expected = np.stack([UPRIGHT[plane](k) for k in (3, 5, 7)])
    assert data["images"].dtype == np.uint8 and np.array_equal(data["images"], expected)
    assert data["source_file"].tolist() == [f"head.nii#{plane} {k}" for k in (3, 5, 7)]
    assert set(data["group"]) == {"head"} and set(data["licence"]) == {""}


def test_sagittal_middle_with_the_nose_right_is_the_default(tmp_path: Path) -> None:
    head = np.zeros((15, 16, 16), np.int16)
    head[7, 13:, 4:6] = 900  # the nose: midline, anterior, low
    head[7, 2:5, 13:] = 500  # the vertex, at the back
    data = small([volume(tmp_path / "h.nii.gz", head, "IPL")], tmp_path / "o.npz", slices="0.06")
    (image,) = data["images"]
    assert data["source_file"].tolist() == ["h.nii.gz#sagittal 7"] and image.dtype == np.uint16
    assert (image[10:12, 13:] == 65535).all() and np.allclose(image[:3, 2:5], 65535 * 5 / 9, atol=1)
    assert np.count_nonzero(image) == 15
    named = small([tmp_path / "h.nii.gz"], tmp_path / "o.npz")["source_file"]
    assert [name.split()[1] for name in named] == ["6", "7", "8"]  # the middle fifth


@pytest.mark.parametrize(
    ("codes", "cut", "plane"), [("RAS", np.s_[:, :, 5:6], "axial"), ("PSR", np.s_[5:6], "sagittal")]
)
@pytest.mark.parametrize("flat", [True, False])
def test_one_slice_is_shown_in_its_own_plane(
    tmp_path: Path, codes: str, cut: object, plane: str, flat: bool
) -> None:
    path = volume(tmp_path / "a.nii", VOLUME[cut], codes)
    stored = nib.load(path)
    if flat:
        image = np.array(stored.dataobj[:, :, 0])  # no map of the file that is written next
        nib.Nifti1Image(image, stored.affine).to_filename(path)
    data = small([path], tmp_path / "o.npz")
    assert np.array_equal(data["images"][0], UPRIGHT[plane](5))
    assert data["source_file"].tolist() == ["a.nii"]
    message = refused(lambda: small([path], tmp_path / "o.npz", plane="coronal"))
    assert f"one {plane} slice" in message


def test_volumes_are_scaled_as_a_whole(tmp_path: Path) -> None:
    """By slope and intercept and the maximum of all slices, those not chosen included."""
    data = np.zeros((16, 16, 16), np.int16)
    data[8], data[3], data[3, 0, 0] = 40, 90, -10
    image = nib.Nifti1Image(data, np.eye(4))
    image.header.set_slope_inter(2, 5)
    image.to_filename(tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").dataobj.slope == 2  # values -15, 5, 85 and 185
    data = small([tmp_path / "a.nii"], tmp_path / "o.npz", slices="8:9")["images"]
    assert np.unique(data).tolist() == [round(65535 * 100 / 200)]


def test_voxel_sizes_count_for_the_aspect(tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii", VOLUME[:, :, :4], zooms=(1, 1, 4))
    assert small([path], tmp_path / "o.npz", slices="2:3")["images"].shape == (1, 16, 16)
    path = volume(path, VOLUME, zooms=(1, 1, 2))
    message = refused(lambda: small([path], tmp_path / "o.npz"))
    assert "16×16 pixels of 2×1 do not fill 16×16, expected --fit" in message
    padded = small([path], tmp_path / "o.npz", fit="pad", slices="2:3")["images"][0]
    assert not padded[:, :4].any() and not padded[:, 12:].any() and padded[:, 4:12].all()


def test_arrays(tmp_path: Path) -> None:
    one, many = VOLUME[0], VOLUME[:4]
    for values in (one, many, many[:, None]):
        np.save(tmp_path / "a.npy", values)
        data = small([tmp_path / "a.npy"], tmp_path / "o.npz")
        assert np.array_equal(data["images"], values.reshape(-1, 16, 16))
        assert set(data["group"]) == {"a"}
    assert data["source_file"].tolist() == [f"a.npy#{k}" for k in range(4)]
    np.save(tmp_path / "a.npy", (many / 255 - 1).astype(">f4"))
    data = small([tmp_path / "a.npy"], tmp_path / "o.npz")["images"]
    low, high = many.min() / 255 - 1, many.max() / 255 - 1
    expected = 65535 * (many / 255 - 1 - low) / (high - low)
    assert data.dtype == np.uint16 and np.abs(data - expected).max() < 1


def test_stills_of_8_and_16_bits(tmp_path: Path) -> None:
    """16-bit slices of one volume share a scale; with them 8 bits become 16."""
    deep = RNG.integers(0, 1000, (3, 16, 16)).astype(np.uint16)
    deep[0, 0, 0], deep[1, 0, 0] = 3000, 1500
    (tmp_path / "s").mkdir()
    for k, pixels in enumerate(deep):
        name = "b.png" if k == 2 else f"a_slice_{k}.png"
        Image.fromarray(pixels).save(tmp_path / "s" / name)
    data = small([tmp_path / "s"], tmp_path / "o.npz")
    top = np.array([3000, 3000, deep[2].max()])[:, None, None]
    assert data["images"].dtype == np.uint16
    assert np.abs(data["images"] - 65535 * (deep / top)).max() < 1
    pixels = np.asarray(Image.open(still(tmp_path / "s" / "c.png")))
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "s" / "d.jpg", quality=100)
    data = small([tmp_path / "s"], tmp_path / "o.npz")
    assert data["group"].tolist() == ["a", "a", "b", "c", "d"]
    assert np.array_equal(data["images"][3], pixels.astype(np.uint16) * 257)
    assert np.abs(data["images"][4] / 257 - pixels).mean() < 4
    x, _ = load_frames(tmp_path / "o.npz")
    assert x.shape == (5, 1, 16, 16) and x.dtype.is_floating_point
    assert float(x.min()) >= 0 and float(x.max()) == 1
