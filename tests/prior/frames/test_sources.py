"""Which files are images, the group and split of each, and their content as upright grey levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from frame_files import read_frames, small
from image_files import refused, still, volume
from in_process import called
from PIL import ExifTags, Image

from nogaps.prior.frames import load_frames
from nogaps.prior.frames.prepare import prepare_images
from nogaps.prior.frames.sources import group_names

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 256, (16, 16, 16), dtype=np.uint8)  # axes: right, anterior, superior


def test_merged_folders_hidden_files_links_and_loops(tmp_path: Path) -> None:
    a, b, link = tmp_path / "a", tmp_path / "b", tmp_path / "link"
    for k in range(3):
        still(a / f"x{k}.png", seed=k)
        still(b / "deep" / f"y{k}.JPG", seed=k)
    still(a / ".x.png")
    still(a / ".cache" / "x.png")
    (a / "notes.txt").write_text("x")
    (a / "again.png").symlink_to(a / "x0.png")
    (b / "loop").symlink_to(b)
    link.symlink_to(b)
    result = prepare_images([a, link], tmp_path / "o.npz", "8")
    left_out = {"hidden files": ["a/.cache/x.png", "a/.x.png"], "repeated files": ["a/x0.png"]}
    left_out["other files"] = ["a/notes.txt", "link/loop"]
    assert result.left_out == {k: [f"{tmp_path}/{n}" for n in v] for k, v in left_out.items()}
    assert result.counts == {"train": 5, "val": 1}
    names = read_frames(tmp_path / "o.npz")["source_file"].tolist()
    assert names[0] == "a/again.png" and names[3:] == [f"link/deep/y{k}.JPG" for k in range(3)]


def test_what_lies_beside_images_is_left_out_and_named(tmp_path: Path) -> None:
    s, out = tmp_path / "s", tmp_path / "o.npz"
    names = ("images/b.png", "masks/b.png", "Segmentations/deep/b.png", "images/b_mask.png")
    for name in (*names, "images/a.png", "images/b-seg.png", "unmasked/a_masked.png"):
        still(s / name)
    for name in ("Thumbs.db", "a.txt", "b.txt", "c.txt"):
        (s / name).write_text("x")
    done = called("prior", "prepare", "--source", s, "--size", 8, "--fit", "pad", "--out", out)
    assert done.out.splitlines() == [
        f"{out}: 2 train (groups: 2), 1 val (groups: 1)",
        "note: no name or folder tells a patient: every image is a group of its own",
        f"left out: 4 label images ({s}/Segmentations/deep/b.png, {s}/images/b-seg.png, "
        f"{s}/images/b_mask.png, …)",
        f"left out: 4 other files ({s}/Thumbs.db, {s}/a.txt, {s}/b.txt, …)",
    ]
    chosen = small([s / "masks"], out)
    assert chosen["source_file"].tolist() == ["masks/b.png"], "a folder that was asked for"


def test_a_source_of_another_format_has_the_line_that_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "s" / "1"
    path.parent.mkdir()
    path.write_bytes(bytes(128) + b"DICM")
    for source in (path, path.parent):
        message = refused(lambda source=source: small([source], tmp_path / "o.npz"))
        assert f"{path}: is DICOM" in message and "dcm2niix" in message


GROUPS: list[dict[str, str]] = [  # what each file is a group of; sources of one kind each
    {"patient0_1": "patient0", "patient0_2": "patient0", "patient1_1": "patient1"},
    {"a/patient0_1": "patient0", "b/patient0-2": "patient0", "b/patient0 (3)": "patient0"},
    {"10_1": "10", "10_2": "10", "11_1": "11"},
    {"IM-0001-0001": "IM-0001", "IM-0001-0002": "IM-0001", "IM-0002-0001": "IM-0002"},
    {"s01_t1_z12": "s01", "s01_t1_z13": "s01", "s02_t1_z12": "s02"},
    {
        "case_001_slice_0": "case_001",
        "case_001_slice_1": "case_001",
        "case_002_slice_0": "case_002",
    },
    {"a_slice_1": "a", "a slice2": "a", "b-slice-1": "b"},
    {"x_sub-01_T1w_3": "x_sub-01", "x_sub-01_T2w_3": "x_sub-01", "x_sub-02_3": "x_sub-02"},
    {"IXI002-Guys-0828-T1": "IXI002-Guys-0828", "IXI002-Guys-0828-T2": "IXI002-Guys-0828"},
    {
        "BraTS20_Training_001_t1ce": "BraTS20_Training_001",
        "BraTS20_Training_002_flair": "BraTS20_Training_002",
    },
    {"Patient_A_1": "Patient_A", "Patient_A_2": "Patient_A", "Patient_B_1": "Patient_B"},
    {"p1/a": "s/p1", "p1/b": "s/p1", "p2/c": "s/p2"},
    {"p01/2020-01/x": "s/p01", "p01/2021-01/T1/y": "s/p01", "p02/2020-02/z": "s/p02"},
    {"anna/T1": "s/anna", "anna/T2": "s/anna", "bob/T1": "s/bob"},
    # a name that numbers images only: every file is a group
    {name: name.rpartition("/")[2] for name in ("img_1", "img_2", "img_10")},
    {name: name.rpartition("/")[2] for name in ("set1_0001", "set1_0002", "set1_0003")},
    {name: name.rpartition("/")[2] for name in ("T1_0001", "T1_0002", "T2_0001")},
    {name: name.rpartition("/")[2] for name in ("train/Tr-gl_1", "train/Tr-no_1", "test/Te-gl_2")},
    {name: name.rpartition("/")[2] for name in ("1/23", "2/24", "2/25")},
]


@pytest.mark.parametrize("expected", GROUPS, ids=lambda groups: next(iter(groups)))
def test_names_and_folders_tell_patients(expected: dict[str, str]) -> None:
    names = [f"s/{name}.nii.png" for name in expected]
    assert group_names(names) == list(expected.values())


def test_groups_are_patients(tmp_path: Path) -> None:
    s, expected = tmp_path / "s", dict[str, str]()
    for patient in ("p1", "p2"):
        still(s / patient / "001.png")
        volume(s / patient / "T1.nii.gz", VOLUME)
        expected |= {f"s/{patient}/{name}": f"s/{patient}" for name in ("001.png", "T1.nii.gz")}
    for name in ("sub-07_T1w.nii.gz", "sub-07_T2w.nii", "other1.nii"):
        volume(s / name, VOLUME)
        expected[f"s/{name}"] = name[:6]
    data = small([s], tmp_path / "o.npz", slices="8:9")
    names = [name.removesuffix("#sagittal 8") for name in data["source_file"].tolist()]
    assert dict(zip(names, data["group"].tolist(), strict=True)) == expected


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
    deep = RNG.integers(0, 3000, (16, 16)).astype(np.uint16)
    pixels = np.asarray(Image.open(still(tmp_path / "s" / "b.png")))
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "s" / "c.jpg", quality=100)
    Image.fromarray(deep).save(tmp_path / "s" / "a.png")
    images = small([tmp_path / "s"], tmp_path / "o.npz")["images"]
    assert images.dtype == np.uint16
    assert np.array_equal(images[:2], np.stack([deep, pixels]))
    assert np.abs(images[2].astype(int) - pixels).mean() < 4
    x, groups = load_frames(tmp_path / "o.npz")
    assert groups == ["o/a", "o/b", "o/c"] and float(x.min()) >= 0 and float(x.max()) == 1


LEFT = np.where(np.arange(16) < 8, 200, 50).astype(np.uint8) * np.ones((16, 1), np.uint8)
CLEAR = (np.arange(16) % 4 > 0) * np.ones((16, 1), bool)  # False: transparent


def shown(picture: Image.Image, path: Path, **options: object) -> np.ndarray:
    path.parent.mkdir(exist_ok=True)
    picture.save(path, **options)
    return small([path], path.parent / "o.npz")["images"][0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_exif_turns_pictures_as_viewers_do(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = shown(Image.fromarray(LEFT), tmp_path / name, exif=exif)
    bright = np.argwhere(data > 100).mean(0) - 7.5  # where the bright half now lies
    there = {1: (0, -4), 2: (0, 4), 3: (0, 4), 4: (0, -4), 5: (-4, 0), 6: (-4, 0)}
    assert np.allclose(bright, there.get(orientation, (4, 0)))


def palette(pixels: np.ndarray) -> Image.Image:
    """The levels as entries of a palette in another order."""
    picture = Image.fromarray(255 - pixels).convert("P")
    picture.putpalette([value for k in range(255, -1, -1) for value in (k, k, k)])
    return picture


def with_alpha(picture: Image.Image) -> Image.Image:
    picture.putalpha(Image.fromarray(np.where(CLEAR, 255, 0).astype(np.uint8)))
    return picture


PICTURES: dict[str, tuple[Image.Image, dict, np.ndarray]] = {  # with what they must become
    "palette": (palette(LEFT), {}, LEFT),
    "colours": (Image.fromarray(LEFT).convert("RGB"), {}, LEFT),
    "1 bit": (Image.fromarray(LEFT > 100), {}, np.where(LEFT > 100, 255, 0)),
    "alpha of grey": (with_alpha(Image.fromarray(LEFT)), {}, LEFT * CLEAR),
    "alpha of colours": (with_alpha(Image.fromarray(LEFT).convert("RGB")), {}, LEFT * CLEAR),
    "a transparent entry": (palette(LEFT), {"transparency": 255 - 200}, LEFT * (LEFT != 200)),
    "a transparent level": (Image.fromarray(LEFT), {"transparency": 200}, LEFT * (LEFT != 200)),
    "16 bits": (Image.fromarray(LEFT * np.uint16(300)), {}, LEFT * 300.0),
}


@pytest.mark.parametrize("case", list(PICTURES))
def test_pictures_are_read_as_viewers_show_them_on_black(tmp_path: Path, case: str) -> None:
    picture, options, expected = PICTURES[case]
    assert np.abs(shown(picture, tmp_path / "a.png", **options) - expected).max() <= 1
