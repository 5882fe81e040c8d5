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


def raw_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "ASL", "IPL"])
@pytest.mark.parametrize("plane", list(UPRIGHT))
def test_planes_are_upright_and_written_back(tmp_path: Path, plane: str, codes: str) -> None:
    path = volume(tmp_path / "y.nii.gz", HEAD, codes, (3, 1, 1.5))
    other = volume(tmp_path / "z.nii", 1 - HEAD, codes, (3, 1, 1.5))
    with open_nifti(path, plane=plane) as source:
        images = source.read(0, 99)
        assert np.array_equal(images, sliced(HEAD, plane))
        assert (source.plane, source.upright) == (plane, True)
        zooms = [(3, 1, 1.5)[axis] for axis in UPRIGHT[plane]]
        assert source.spacing() == pytest.approx(tuple(zooms[1:]))
        source.save(tmp_path / "x.nii.gz", 1 - images)
    assert raw_bytes(tmp_path / "x.nii.gz") == raw_bytes(other)


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
    for axis, shape in enumerate([(1, 9, 11), (9, 1, 11), (9, 11, 1), (9, 11)]):
        path = tmp_path / "y.nii"
        nib.Nifti1Image(HEAD[0].reshape(shape), np.eye(4)).to_filename(path)
        with open_images(path) as source:
            assert source.shape == (1, 9, 11) and np.array_equal(source.read(0, 1)[0], HEAD[0])
        other = [plane for plane in UPRIGHT if UPRIGHT[plane][0] != min(axis, 2)]
        assert "one " in refused(lambda p=path, o=other: open_images(p, plane=o[0]))


def test_a_flat_image_may_lack_its_normal(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ascontiguousarray(HEAD[:, 5]), None)
    affine = np.zeros((4, 4))
    affine[0, 0] = affine[2, 1] = affine[3, 3] = 1
    image.header.set_sform(affine, 2)
    image.to_filename(tmp_path / "a.nii")
    with open_nifti(tmp_path / "a.nii", plane="coronal") as source:
        assert np.array_equal(source.read(0, 1)[0], HEAD[:, 5].T[::-1])


def test_what_a_plane_and_an_axis_need(tmp_path: Path) -> None:
    array = store(tmp_path / "a.npy", HEAD)
    assert "is for NIfTI" in refused(lambda: open_images(array, plane="axial"))
    path = volume(tmp_path / "y.nii", HEAD)
    assert "sagittal, coronal, axial" in refused(lambda: open_images(path, plane="up"))
    image = nib.Nifti1Image(HEAD, None)
    image.header.set_sform(np.diag([1, 0, 0, 1]), 2)
    image.to_filename(path)
    assert "tell the axes apart" in refused(lambda: open_images(path, plane="axial"))
    with open_images(path) as source:  # as stored: no affine is needed
        assert source.plane == "" and source.shape == (11, 6, 9)
    image = nib.Nifti1Image(HEAD[:1, :1], None)
    image.header.set_sform(np.diag([0, 1, 1, 1]), 2)
    image.to_filename(path)
    with open_nifti(path, plane="coronal") as source:
        assert "voxels of 1×0" in refused(source.spacing)


def test_what_nibabel_corrects_is_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its logger writes a line to stderr for each field; the stored header stays as it is."""
    path = volume(tmp_path / "y.nii", HEAD)
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
    path = volume(tmp_path / "y.nii", HEAD, "RAS", (3, 1, 1.5))
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    image.set_sform(image.affine, codes[0])
    image.set_qform(image.affine, codes[1])
    image.to_filename(tmp_path / "z.nii")
    with open_nifti(tmp_path / "z.nii") as source:
        assert bool(source.plane) == any(codes)
    if not any(codes):
        line = refused(lambda: open_nifti(tmp_path / "z.nii", plane="axial"))
        assert "does not tell its orientation" in line and "no --plane" in line
