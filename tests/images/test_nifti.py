"""NIfTI as researchers have it: any orientation, several volumes, one slice, no affine."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from image_files import refused, store, volume

from nogaps.images.formats import open_images
from nogaps.images.nifti import open_nifti

nib = pytest.importorskip("nibabel")
HEAD = np.random.default_rng(3).uniform(0.1, 1, (6, 9, 11)).astype(np.float32)  # in RAS+
UPRIGHT = {"sagittal": (0, 2, 1), "coronal": (1, 2, 0), "axial": (2, 1, 0)}


def sliced(head: np.ndarray, plane: str) -> np.ndarray:
    """(N,H,W): superior or anterior up, anterior or right to the right."""
    return head.transpose(UPRIGHT[plane])[:, ::-1]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "ASL", "IPL"])
@pytest.mark.parametrize("plane", list(UPRIGHT))
def test_planes_are_upright_and_written_back(tmp_path: Path, plane: str, codes: str) -> None:
    path = volume(tmp_path / "y.nii", HEAD, codes, (3, 1, 1.5))
    other = volume(tmp_path / "z.nii", 1 - HEAD, codes, (3, 1, 1.5))
    with open_nifti(path, plane=plane) as source:
        images = source.read(0, 99)
        assert np.array_equal(images, sliced(HEAD, plane))
        assert (source.plane, source.upright) == (plane, True)
        zooms = [(3, 1, 1.5)[axis] for axis in UPRIGHT[plane]]
        assert source.spacing() == pytest.approx(tuple(zooms[1:]))
        source.save(tmp_path / "x.nii.gz", 1 - images)
    assert gzip.decompress((tmp_path / "x.nii.gz").read_bytes()) == other.read_bytes()


@pytest.mark.parametrize("plane", [None, "axial", "sagittal"])
def test_several_volumes_come_one_after_the_other(tmp_path: Path, plane: str | None) -> None:
    many = np.stack([HEAD, HEAD / 2, HEAD / 3], -1)
    path = volume(tmp_path / "y.nii", many)
    with open_nifti(path, plane=plane) as source:
        images = source.read(0, source.shape[0])
        for k, part in enumerate(np.split(images, 3)):
            expected = HEAD / np.float32(k + 1)
            expected = sliced(expected, plane) if plane else np.moveaxis(expected, 2, 0)
            assert np.array_equal(part, expected) and source.slices == len(part)
        source.save(tmp_path / "x.nii", images)
    assert (tmp_path / "x.nii").read_bytes() == path.read_bytes()


def test_oblique_volumes_go_to_the_closest_axes(tmp_path: Path) -> None:
    angle, affine = np.deg2rad(20), np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:, 0] *= -1
    nib.Nifti2Image(HEAD[::-1], affine).to_filename(tmp_path / "a.nii.gz")
    with open_nifti(tmp_path / "a.nii.gz", plane="sagittal") as source:
        assert np.array_equal(source.read(0, 99), sliced(HEAD, "sagittal"))


def test_one_slice_is_one_image_wherever_its_axis_lies(tmp_path: Path) -> None:
    path = tmp_path / "y.nii"
    for axis, shape in enumerate([(1, 9, 11), (9, 1, 11), (9, 11, 1), (9, 11)]):
        nib.Nifti1Image(HEAD[0].reshape(shape), np.eye(4)).to_filename(path)
        with open_images(path) as source:
            assert source.shape == (1, 9, 11) and np.array_equal(source.read(0, 1)[0], HEAD[0])
        other = next(plane for plane in UPRIGHT if UPRIGHT[plane][0] != min(axis, 2))
        assert "one " in refused(lambda other=other: open_images(path, plane=other))


def with_sform(path: Path, data: np.ndarray, sform: np.ndarray) -> Path:
    """Write a NIfTI with an affine that nibabel would not take."""
    image = nib.Nifti1Image(np.ascontiguousarray(data), None)
    image.header.set_sform(sform, 2)
    image.to_filename(path)
    return path


def test_a_flat_image_may_lack_its_normal(tmp_path: Path) -> None:
    affine = np.eye(4)[[0, 2, 1, 3]] * (1, 1, 0, 1)
    path = with_sform(tmp_path / "a.nii", HEAD[:, 5], affine)
    with open_nifti(path, plane="coronal") as source:
        assert np.array_equal(source.read(0, 1)[0], HEAD[:, 5].T[::-1])


def test_what_a_plane_and_an_axis_need(tmp_path: Path) -> None:
    array, path = store(tmp_path / "a.npy", HEAD), volume(tmp_path / "y.nii", HEAD)
    assert "is for NIfTI" in refused(lambda: open_images(array, plane="axial"))
    assert "sagittal, coronal, axial" in refused(lambda: open_images(path, plane="up"))
    with_sform(path, HEAD, np.diag([1, 0, 0, 1]))
    assert "tell the axes apart" in refused(lambda: open_images(path, plane="axial"))
    with open_images(path) as source:  # as stored: no affine is needed
        assert source.plane == "" and source.shape == (11, 6, 9)
    with_sform(path, HEAD[:1, :1], np.diag([0, 1, 1, 1]))
    with open_nifti(path, plane="coronal") as source:
        assert "voxels of 1×0" in refused(source.spacing)


def test_what_nibabel_corrects_is_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its logger writes a line to stderr for each field; the stored header stays as it is."""
    image = nib.Nifti1Image(HEAD, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept"))
    image.to_filename(path := tmp_path / "y.nii")
    data = bytearray(path.read_bytes())
    data[254:256] = (77).to_bytes(2, "little")  # sform_code
    path.write_bytes(data)
    with open_images(path) as source:
        source.save(tmp_path / "x.nii", source.read(0, 99))
    assert not caplog.records and (tmp_path / "x.nii").read_bytes() == data


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1)])
def test_an_orientation_that_no_code_vouches_for_is_not_claimed(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    image = nib.Nifti1Image(HEAD, np.eye(4))
    image.set_sform(image.affine, codes[0])
    image.set_qform(image.affine, codes[1])
    image.to_filename(path := tmp_path / "z.nii")
    with open_nifti(path) as source:
        assert bool(source.plane) == any(codes)
    if not any(codes):
        line = refused(lambda: open_nifti(path, plane="axial"))
        assert "does not tell its orientation" in line and "no --plane" in line
