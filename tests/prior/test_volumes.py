"""NIfTI as researchers have it: any orientation, type and scaling, several volumes, own masks."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import contents, refused, store
from in_process import called
from PIL import Image

from nogaps import standin
from nogaps.filling.files import fill_file
from nogaps.filling.method import PlainMethod
from nogaps.images.formats import open_images
from nogaps.interpolation import linear
from tests.filling.test_files import same_bits, spy

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(3)
HEAD = RNG.uniform(0.1, 1, (6, 9, 11)).astype(np.float32)  # axes: right, anterior, superior
MASK = RNG.random(HEAD.shape) > 0.4
MASK[:, :, 0] = MASK[:, 0] = MASK[0] = True
ZOOMS = (3, 1, 1.5)
UPRIGHT = {"sagittal": (0, 2, 1), "coronal": (1, 2, 0), "axial": (2, 1, 0)}


def stored(path: Path, data: np.ndarray, codes: str = "RAS", **header: object) -> Path:
    """`data`, given in RAS+ (a fourth axis are volumes), with its axes in another order."""
    codes_of = nib.orientations.axcodes2ornt
    orientation = nib.orientations.ornt_transform(codes_of("RAS"), codes_of(codes))
    affine = np.diag([*ZOOMS, 1.0])
    affine[:3, 3] = -7, 3, 11
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, data.shape[:3])
    turned = nib.orientations.apply_orientation(data, orientation)
    slope, inter = header.pop("scaling", (None, None))
    endian = "<" if data.dtype.isnative else ">"
    image = nib.Nifti1Image(turned, affine, nib.Nifti1Header(endianness=endian), dtype=data.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    image.header["descrip"] = b"kept"
    image.header.set_slope_inter(slope, inter)
    image.to_filename(path)
    return path


def in_ras(path: Path) -> np.ndarray:
    """Stored values (no scaling) in RAS+."""
    image = nib.load(path)
    return nib.orientations.apply_orientation(
        np.asarray(image.dataobj.get_unscaled()), nib.io_orientation(image.affine)
    )


def sliced(volume: np.ndarray, plane: str) -> np.ndarray:
    """(N,H,W): superior or anterior up, anterior or right to the right."""
    return volume.transpose(UPRIGHT[plane])[:, ::-1]


def header_of(path: Path) -> bytes:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.name.endswith(".gz") else data
    return data[: int(nib.load(path).dataobj.offset)]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "ASL"])
@pytest.mark.parametrize("plane", list(UPRIGHT))
def test_planes_are_filled_upright_and_written_back(tmp_path: Path, plane: str, codes: str) -> None:
    """The imputer sees one upright slice after the other, whatever the order of the axes."""
    seen: list = []
    path, output = stored(tmp_path / "y.nii.gz", HEAD * MASK, codes), tmp_path / "x.nii.gz"
    mask = stored(tmp_path / "m.nii", MASK.astype(np.uint8), codes)
    report = fill_file(path, output, spy(seen), mask, plane=plane, progress=False, batch_size=9)
    y = torch.cat([y for y, _ in seen])[:, 0].numpy()
    assert np.array_equal(y, sliced(HEAD * MASK, plane)) and report.plane == plane
    observed = torch.from_numpy(sliced(MASK, plane).copy())[:, None]
    expected = linear()(torch.from_numpy(y)[:, None], observed)[:, 0].numpy()
    assert np.array_equal(sliced(in_ras(output), plane), expected)
    assert header_of(output) == header_of(path)
    turned = any("upright" in note for note in report.notes)
    assert not turned and any("sagittal ones" in n for n in report.notes) == (plane != "sagittal")


def test_the_header_says_what_it_said(tmp_path: Path) -> None:
    path = stored(tmp_path / "y.nii", HEAD * MASK, "PIR")
    mask = stored(tmp_path / "m.nii.gz", MASK.astype(np.float64), "PIR")
    fill_file(path, tmp_path / "x.nii.gz", linear(), mask, plane="coronal", progress=False)
    before, after = nib.load(path).header, nib.load(tmp_path / "x.nii.gz").header
    for key in ("pixdim", "sform_code", "qform_code", "xyzt_units", "datatype", "descrip"):
        assert np.array_equal(before[key], after[key]), key
    assert np.array_equal(before.get_sform(), after.get_sform()) and after["sform_code"] == 2


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f8", ">f4", "<u2"])
def test_scaled_and_swapped_types(tmp_path: Path, dtype: str) -> None:
    """Values stay as stored; a mask may be scaled, too."""
    data = (HEAD * (1000 if dtype[1] != "f" else 700)).astype(dtype)
    path = stored(tmp_path / "y.nii.gz", data, "LAS", scaling=(0.5, -100))
    mask = stored(tmp_path / "m.nii.gz", (MASK * 255).astype("u1"), "LAS", scaling=(1 / 255, 0))
    output = tmp_path / "x.nii.gz"
    fill_file(path, output, linear(), mask, plane="sagittal", progress=False)
    filled = in_ras(output)
    assert same_bits(filled.astype(dtype), data, MASK) and not np.array_equal(filled, data)
    assert header_of(output) == header_of(path)
    assert nib.load(output).dataobj.inter == -100
    hole = sliced(filled, "sagittal")[2][~sliced(MASK, "sagittal")[2]]
    assert hole.min() >= 0 and hole.max() <= data[2][MASK[2]].max()


@pytest.mark.parametrize("plane", [None, "axial", "sagittal"])
@pytest.mark.parametrize("volumes", [1, 3])
def test_several_volumes_come_one_after_the_other(
    tmp_path: Path, volumes: int, plane: str | None
) -> None:
    data = np.stack([HEAD * (k + 1) / volumes for k in range(volumes)], -1)
    path = stored(tmp_path / "y.nii", (data * MASK[..., None]).astype(np.float32))
    one = stored(tmp_path / "m.nii", MASK.astype(np.uint8))
    every = stored(tmp_path / "n.nii", np.repeat(MASK[..., None], volumes, -1).astype(np.uint8))
    for mask, batch in ((one, 4), (every, 100)):
        report = fill_file(
            path, tmp_path / "x.nii", linear(), mask, plane=plane, batch_size=batch, progress=False
        )
        filled = nib.load(tmp_path / "x.nii").get_fdata(dtype=np.float32)
        assert report.images == volumes * HEAD.shape[UPRIGHT[plane or "axial"][0]]
        assert filled.shape == data.shape and (filled[~MASK] > 0).all()
        single = stored(tmp_path / "a.nii", (data[..., -1] * MASK).astype(np.float32))
        fill_file(single, tmp_path / "b.nii", linear(), one, plane=plane, progress=False)
        assert np.array_equal(filled[..., -1], nib.load(tmp_path / "b.nii").get_fdata())


def test_half_widths_lie_in_the_volume_like_the_images(tmp_path: Path) -> None:
    class Sure(PlainMethod):
        def with_half_width(self, y: torch.Tensor, mask: torch.Tensor) -> tuple:
            return linear()(y, mask), torch.where(mask, 0.0, 0.25).expand_as(y)

    path = stored(tmp_path / "y.nii", HEAD * MASK, "PIR")
    mask = stored(tmp_path / "m.nii", MASK.astype(np.uint8), "PIR")
    options = {"plane": "sagittal", "uncertainty": tmp_path / "half.npy", "progress": False}
    fill_file(path, tmp_path / "x.nii", Sure(linear()), mask, **options)
    observed = np.asarray(nib.load(mask).dataobj) == 1
    assert np.array_equal(np.load(tmp_path / "half.npy"), np.where(observed, 0, 0.25))


def test_one_slice_is_one_image_wherever_its_axis_lies(tmp_path: Path) -> None:
    for axis, shape in enumerate([(1, 9, 11), (9, 1, 11), (9, 11, 1)]):
        path = tmp_path / "y.nii"
        nib.Nifti1Image(HEAD[0].reshape(shape), np.eye(4)).to_filename(path)
        with open_images(path) as source:
            assert source.shape == (1, 9, 11) and np.array_equal(source.read(0, 1)[0], HEAD[0])
        other = [plane for plane in UPRIGHT if UPRIGHT[plane][0] != axis]
        assert "one " in refused(lambda p=path, o=other: open_images(p, plane=o[0]))


def moved(path: Path, by: float) -> Path:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += by
    nib.Nifti1Image(np.array(image.dataobj), affine).to_filename(path)
    return path


BAD_MASKS = {
    "shape": (lambda at: stored(at, MASK[1:].astype("u1")), "has (5, 9, 11) voxels"),
    "orientation": (lambda at: stored(at, MASK.astype("u1"), "LAS"), "the same affine"),
    "moved": (lambda at: moved(stored(at, MASK.astype("u1")), 0.5), "lies up to 0.5 away"),
    "values": (lambda at: stored(at, MASK.astype("u1") * 2), "holds 2, expected 0"),
    "nan": (lambda at: stored(at, np.where(MASK, np.nan, 0)), "holds nan"),
    "volumes": (lambda at: stored(at, MASK[..., None].repeat(2, -1).astype("u1")), "or a NIfTI"),
}


@pytest.mark.parametrize("case", list(BAD_MASKS))
def test_masks_of_another_space_are_refused(tmp_path: Path, case: str) -> None:
    make, text = BAD_MASKS[case]
    path, mask = stored(tmp_path / "y.nii", HEAD), make(tmp_path / "m.nii")
    assert text in refused(
        lambda: fill_file(path, tmp_path / "x.nii", linear(), mask, plane="sagittal")
    )
    assert not (tmp_path / "x.nii").exists()


def test_a_mask_that_is_nearly_in_place_is_taken(tmp_path: Path) -> None:
    path = stored(tmp_path / "y.nii", HEAD)
    mask = moved(stored(tmp_path / "m.nii", MASK.astype("u1")), 1e-4)  # as rounding moves it
    assert fill_file(path, tmp_path / "x.nii", linear(), mask, progress=False).masks > 1


def test_what_a_plane_needs(tmp_path: Path) -> None:
    path = store(tmp_path / "a.npy", HEAD)
    assert "is for NIfTI" in refused(lambda: open_images(path, plane="axial"))
    volume = stored(tmp_path / "y.nii", HEAD)
    assert "sagittal, coronal, axial" in refused(lambda: open_images(volume, plane="up"))
    masks = stored(tmp_path / "m.nii", MASK.astype("u1"))
    assert "is a NIfTI" in refused(lambda: fill_file(path, tmp_path / "b.npy", linear(), masks))
    image = nib.Nifti1Image(HEAD, None)
    image.header.set_sform(np.diag([1, 0, 0, 1]), 2)
    image.to_filename(volume)
    assert "tell the axes apart" in refused(lambda: open_images(volume, plane="axial"))
    with open_images(volume) as source:  # as stored: no affine is needed
        assert source.plane == "" and source.shape == (11, 6, 9)
    image = nib.Nifti1Image((HEAD * 9).astype("i2"), np.eye(4))
    image.header.set_slope_inter(-1, 0)
    image.to_filename(volume)
    assert "scl_slope -1" in refused(lambda: open_images(volume))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_one_png_with_a_mask_that_is_one(tmp_path: Path, dtype: type) -> None:
    top = np.iinfo(dtype).max
    image = (HEAD[0] * top).astype(dtype)
    Image.fromarray(image * MASK[1]).save(tmp_path / "y.png")
    for name, white in (("white.png", 255), ("one.png", 1)):
        Image.fromarray(MASK[1].astype(np.uint8) * np.uint8(white)).save(tmp_path / name)
        output = tmp_path / "out" / name
        fill_file(tmp_path / "y.png", output, linear(), tmp_path / name, progress=False)
        x_hat = np.asarray(Image.open(output)).astype(dtype)
        assert same_bits(x_hat, image, MASK[1]) and (x_hat[~MASK[1]] > 0).all()
        assert Image.open(output).mode == ("L" if dtype == np.uint8 else "I;16")
    assert "holds one image" in refused(lambda: fill_file(tmp_path / "y.png", output, linear()))
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "grey.png")
    assert "expected 0 (missing)" in refused(
        lambda: fill_file(tmp_path / "y.png", output, linear(), tmp_path / "grey.png")
    )


def test_folders_within_folders(tmp_path: Path) -> None:
    images = (HEAD * MASK[1] * 255).astype(np.uint8)
    for k, image in enumerate(images):
        path = tmp_path / "y" / f"p{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "y" / "p0" / ".thumbs").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "y" / "p0" / ".thumbs" / "0.png")
    np.save(tmp_path / "m.npy", MASK[1])
    for _ in range(2):  # the second time over the first result
        fill_file(tmp_path / "y", tmp_path / "x", linear(), tmp_path / "m.npy", progress=False)
        found = sorted(p.relative_to(tmp_path / "x").as_posix() for p in tmp_path.rglob("x/p*/*"))
        assert found == ["p0/0.png", "p0/2.png", "p0/4.png", "p1/1.png", "p1/3.png", "p1/5.png"]
        x_hat = np.asarray(Image.open(tmp_path / "x/p1/3.png"))
        assert same_bits(x_hat, images[3], MASK[1]) and (x_hat > 0).all()
    (tmp_path / "x" / "p1" / "notes.txt").write_text("mine")
    before = contents(tmp_path / "x" / "p1")
    assert "holds other files" in refused(
        lambda: fill_file(tmp_path / "y", tmp_path / "x", linear(), tmp_path / "m.npy")
    )
    assert contents(tmp_path / "x" / "p1") == before


@pytest.mark.parametrize("size", [(64, 64), (2, 1), (3, 5), (7, 70), (33, 65)])
def test_any_size_is_filled_at_its_own(tmp_path: Path, size: tuple[int, int]) -> None:
    """By the shipped networks; the report says where they were trained for something else."""
    mask = np.resize(standin.course_mask(), size)
    mask[0] = True
    mask[-1] = size[0] > 2 and mask[-1]
    images = np.full((2, *size), 0.5, np.float32)
    np.save(tmp_path / "y.npy", images * mask)
    np.save(tmp_path / "m.npy", mask)
    arguments = (tmp_path / "y.npy", "-o", tmp_path / "x.npy", "--mask", tmp_path / "m.npy")
    done = called("fill", *arguments, "--quality", "fast", "--json")
    assert done.code == 0, done.err
    found, x_hat = json.loads(done.out), np.load(tmp_path / "x.npy")
    assert x_hat.shape == images.shape and np.abs(x_hat - 0.5).max() < 0.1
    assert (found["height"], found["width"]) == size
    note = "images of {}×{}: the networks were trained for 64×64, under one mask".format(*size)
    if size == (64, 64):
        note = "the mask is not the one that the networks were trained for"  # its first row is seen
    assert found["notes"] == [note]


def test_another_mask_is_noted(tmp_path: Path) -> None:
    images = standin.corrupted_images()
    np.save(tmp_path / "y.npy", images[:3])
    other = np.roll(standin.course_mask(), 1, axis=0)
    for name, mask, count in (("a", other, 1), ("b", np.stack([other] * 2 + [~other]), 2)):
        np.save(tmp_path / f"{name}.npy", mask)
        arguments = ("-o", tmp_path / "x.npy", "--mask", tmp_path / f"{name}.npy")
        done = called("fill", tmp_path / "y.npy", *arguments, "--quality", "fast")
        which = "the mask is not" if count == 1 else "2 of 2 masks are not"
        assert done.code == 0, done.err
        assert f"\nnote: {which} the one that the networks were trained for\n" in done.out
    np.save(tmp_path / "a.npy", standin.course_mask())
    arguments = ("-o", tmp_path / "x.npy", "--mask", tmp_path / "a.npy", "--quality", "fast")
    assert "note:" not in called("fill", tmp_path / "y.npy", *arguments).out
    np.save(tmp_path / "a.npy", other)
    arguments = ("--uncertainty", tmp_path / "half.npy", "--mask", tmp_path / "a.npy")
    done = called("fill", tmp_path / "y.npy", "-o", tmp_path / "x.npy", *arguments)
    assert "note: the intervals are calibrated for that size and mask" in done.out
