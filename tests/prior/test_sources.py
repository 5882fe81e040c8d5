"""`nogaps prior prepare` without an index: people's own images become frames."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nogaps.images import arrays
from nogaps.prior.frames import prepare as frames
from nogaps.prior.frames.files import load_frames, to_size, unit_range
from nogaps.prior.frames.heads import prepare
from nogaps.prior.frames.prepare import assign_splits, fit_to, prepare_images, save_preview
from nogaps.runtime.files import BadInput, sha256

nib = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(1, 256, (16, 16, 16), dtype=np.uint8)  # axes: right, anterior, superior
UPRIGHT: dict[str, Callable[[int], np.ndarray]] = {  # superior or anterior up, x or y to the right
    "sagittal": lambda k: VOLUME[k].T[::-1],
    "coronal": lambda k: VOLUME[:, k].T[::-1],
    "axial": lambda k: VOLUME[:, :, k].T[::-1],
}
Command = Callable[..., object]


def still(path: Path, shape: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def volume(path: Path, data: np.ndarray = VOLUME, codes: str = "RAS", zooms: object = 1) -> Path:
    """`data`, given in RAS+, stored with its axes in another order and direction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    orientation = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    affine = np.diag([*np.broadcast_to(zooms, 3), 1.0])
    affine[:3, 3] = -7, 3, 11
    affine = affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)
    stored = nib.orientations.apply_orientation(data, orientation)
    nib.Nifti1Image(stored, affine).to_filename(path)
    return path


def made(out: Path) -> dict[str, np.ndarray]:
    with np.load(out, allow_pickle=False) as archive:
        return dict(archive)


def small(sources: list[Path], out: Path, **options: object) -> dict[str, np.ndarray]:
    """The frame file for training images of 8×8, of one group or several."""
    prepare_images(sources, out, **{"size": "8", "val_share": 0.0, **options})
    return made(out)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL", "SRA", "IPL"])
@pytest.mark.parametrize("plane", list(UPRIGHT))
def test_volumes_are_upright_however_they_are_stored(
    tmp_path: Path, plane: str, codes: str
) -> None:
    path = volume(tmp_path / "head.nii", codes=codes)
    stored = nib.load(path)
    assert nib.aff2axcodes(stored.affine) == tuple(codes)
    assert np.array_equal(nib.as_closest_canonical(stored).dataobj, VOLUME)
    found = small([path], tmp_path / "o.npz", plane=plane, slices="3:9:2")
    expected = np.stack([UPRIGHT[plane](k) for k in (3, 5, 7)])
    assert found["images"].dtype == np.uint8 and np.array_equal(found["images"], expected)
    assert found["source_file"].tolist() == [f"head.nii#{plane} {k}" for k in (3, 5, 7)]
    assert set(found["group"]) == {"head"} and set(found["licence"]) == {""}


def test_sagittal_middle_with_the_nose_right_is_the_default(tmp_path: Path) -> None:
    head = np.zeros((15, 16, 16), np.int16)
    head[7, 13:, 4:6] = 900  # the nose: midline, anterior, low
    head[7, 2:5, 13:] = 500  # the vertex, at the back
    found = small([volume(tmp_path / "h.nii.gz", head, "IPL")], tmp_path / "o.npz", slices="0.06")
    (image,) = found["images"]
    assert found["source_file"].tolist() == ["h.nii.gz#sagittal 7"] and image.dtype == np.uint16
    assert (image[10:12, 13:] == 65535).all() and np.allclose(image[:3, 2:5], 65535 * 5 / 9, atol=1)
    assert np.count_nonzero(image) == 15
    named = small([tmp_path / "h.nii.gz"], tmp_path / "o.npz")["source_file"]
    assert [name.split()[1] for name in named] == ["6", "7", "8"]  # the middle fifth


def test_oblique_volumes_go_to_the_closest_axes(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:, 0] *= -1
    nib.Nifti2Image(VOLUME[::-1], affine).to_filename(tmp_path / "a.nii.gz")
    found = small([tmp_path / "a.nii.gz"], tmp_path / "o.npz", slices="4:5")
    assert np.array_equal(found["images"][0], UPRIGHT["sagittal"](4))


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
    found = small([path], tmp_path / "o.npz")
    assert np.array_equal(found["images"][0], UPRIGHT[plane](5))
    assert found["source_file"].tolist() == ["a.nii"]
    message = refused(lambda: small([path], tmp_path / "o.npz", plane="coronal"))
    assert f"one {plane} slice" in message


def test_a_flat_image_may_lack_its_normal(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ascontiguousarray(VOLUME[:, 5]), None)
    affine = np.zeros((4, 4))
    affine[0, 0] = affine[2, 1] = affine[3, 3] = 1
    image.header.set_sform(affine, 2)
    image.to_filename(tmp_path / "a.nii")
    found = small([tmp_path / "a.nii"], tmp_path / "o.npz")
    assert np.array_equal(found["images"][0], UPRIGHT["coronal"](5))


def test_volumes_are_scaled_as_a_whole(tmp_path: Path) -> None:
    """By slope and intercept and the maximum of all slices, those not chosen included."""
    data = np.zeros((16, 16, 16), np.int16)
    data[8], data[3], data[3, 0, 0] = 40, 90, -10
    image = nib.Nifti1Image(data, np.eye(4))
    image.header.set_slope_inter(2, 5)
    image.to_filename(tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").dataobj.slope == 2  # values -15, 5, 85 and 185
    found = small([tmp_path / "a.nii"], tmp_path / "o.npz", slices="8:9")["images"]
    assert np.unique(found).tolist() == [round(65535 * 100 / 200)]


def test_voxel_sizes_count_for_the_aspect(tmp_path: Path) -> None:
    path = volume(tmp_path / "a.nii", VOLUME[:, :, :4], zooms=(1, 1, 4))
    assert small([path], tmp_path / "o.npz", slices="2:3")["images"].shape == (1, 16, 16)
    path = volume(path, zooms=(1, 1, 2))
    message = refused(lambda: small([path], tmp_path / "o.npz"))
    assert "16×16 pixels of 2×1 do not fill 16×16, expected --fit" in message
    padded = small([path], tmp_path / "o.npz", fit="pad", slices="2:3")["images"][0]
    assert not padded[:, :4].any() and not padded[:, 12:].any() and padded[:, 4:12].all()


def test_arrays(tmp_path: Path) -> None:
    one, many = VOLUME[0], VOLUME[:4]
    for values in (one, many, many[:, None]):
        np.save(tmp_path / "a.npy", values)
        found = small([tmp_path / "a.npy"], tmp_path / "o.npz")
        assert np.array_equal(found["images"], values.reshape(-1, 16, 16))
        assert set(found["group"]) == {"a"}
    assert found["source_file"].tolist() == [f"a.npy#{k}" for k in range(4)]
    np.save(tmp_path / "a.npy", (many / 255 - 1).astype(">f4"))
    found = small([tmp_path / "a.npy"], tmp_path / "o.npz")["images"]
    low, high = many.min() / 255 - 1, many.max() / 255 - 1
    expected = 65535 * (many / 255 - 1 - low) / (high - low)
    assert found.dtype == np.uint16 and np.abs(found - expected).max() < 1


def test_stills_of_8_and_16_bits(tmp_path: Path) -> None:
    """16-bit slices of one volume share a scale; with them 8 bits become 16."""
    deep = RNG.integers(0, 1000, (3, 16, 16)).astype(np.uint16)
    deep[0, 0, 0], deep[1, 0, 0] = 3000, 1500
    (tmp_path / "s").mkdir()
    for k, pixels in enumerate(deep):
        name = "b.png" if k == 2 else f"a_slice_{k}.png"
        Image.fromarray(pixels).save(tmp_path / "s" / name)
    found = small([tmp_path / "s"], tmp_path / "o.npz")
    top = np.array([3000, 3000, deep[2].max()])[:, None, None]
    assert found["images"].dtype == np.uint16
    assert np.abs(found["images"] - 65535 * (deep / top)).max() < 1
    pixels = np.asarray(Image.open(still(tmp_path / "s" / "c.png")))
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "s" / "d.jpg", quality=100)
    found = small([tmp_path / "s"], tmp_path / "o.npz")
    assert found["group"].tolist() == ["a", "a", "b", "c", "d"]
    assert np.array_equal(found["images"][3], pixels.astype(np.uint16) * 257)
    assert np.abs(found["images"][4] / 257 - pixels).mean() < 4
    x, _ = load_frames(tmp_path / "o.npz")
    assert x.shape == (5, 1, 16, 16) and x.dtype.is_floating_point
    assert float(x.min()) >= 0 and float(x.max()) == 1


def oasis(root: Path) -> Path:
    for split, cases in (("train", (1, 2, 3)), ("validate", (4,)), ("test", (5,))):
        for case in cases:
            for k in range(2):
                name = f"{case:03}_slice_{k}.nii.png"
                still(root / f"keras_png_slices_{split}" / f"case_{name}", seed=case)
                still(root / f"keras_png_slices_seg_{split}" / f"seg_{name}")
    return root


def test_oasis_brings_its_splits(nogaps: Command, tmp_path: Path) -> None:
    root, out = oasis(tmp_path / "oasis"), tmp_path / "o.npz"
    done = nogaps("prior", "prepare", "--source", root, "--out", out, "--size", 8, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["counts"] == {"test": 2, "train": 6, "val": 2}
    assert result["left_out"] == {"label images": 10} and not result["skipped"]
    found = made(out)
    by_split = {s: set(found["group"][found["split"] == s]) for s in ("train", "val", "test")}
    assert by_split["train"] == {"case_001", "case_002", "case_003"}
    assert by_split["val"] == {"case_004"} and by_split["test"] == {"case_005"}
    assert found["source_file"][0] == "oasis/keras_png_slices_test/case_005_slice_0.nii.png"
    done = nogaps("prior", "prepare", "--source", root, "--out", out, "--size", 8)
    assert "left out: 10 label images" in done.stdout and "Traceback" not in done.stderr
    labels = root / "keras_png_slices_seg_train"
    assert "6 label images" in refused(lambda: small([labels], out))
    alone = small([root / "keras_png_slices_train"], out, val_share=0.1)
    assert sorted(set(alone["split"])) == ["train", "val"]


def test_merged_folders_hidden_files_links_and_loops(tmp_path: Path) -> None:
    for k in range(3):
        still(tmp_path / "a" / f"x{k}.png", seed=k)
        still(tmp_path / "b" / "deep" / f"y{k}.JPG", seed=k)
    still(tmp_path / "a" / ".x.png")
    (tmp_path / "a" / ".cache").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "again.png").symlink_to(tmp_path / "a" / "x0.png")
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    before = {p: sha256(p) for p in tmp_path.rglob("*") if p.is_file()}
    result = prepare_images([tmp_path / "a", tmp_path / "link"], tmp_path / "o.npz", "8")
    assert result.left_out == {"hidden files": 2, "other files": 1, "repeated files": 1}
    assert result.counts == {"train": 5, "val": 1}
    names = made(tmp_path / "o.npz")["source_file"].tolist()
    assert names[0] == "a/again.png" and names[3:] == [f"link/deep/y{k}.JPG" for k in range(3)]
    assert all(sha256(path) == digest for path, digest in before.items())


def test_groups_are_patients(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        still(tmp_path / "s" / patient / "001.png")
        volume(tmp_path / "s" / patient / "T1.nii.gz")
    for name in ("sub-07_T1w.nii.gz", "sub-07_T2w.nii", "other.nii"):
        volume(tmp_path / "s" / name)
    still(tmp_path / "s" / "p2" / "002.png")
    found = small([tmp_path / "s"], tmp_path / "o.npz", slices="8:9")
    groups = dict(zip(found["source_file"].tolist(), found["group"].tolist(), strict=True))
    assert groups["s/p1/001.png"] == groups["s/p1/T1.nii.gz#sagittal 8"] == "s/p1"
    assert groups["s/p2/002.png"] == groups["s/p2/T1.nii.gz#sagittal 8"] == "s/p2"
    assert groups["s/sub-07_T1w.nii.gz#sagittal 8"] == "sub-07"
    assert sorted(set(groups.values())) == ["other", "s/p1", "s/p2", "sub-07"]


def test_splits_keep_groups_whole_in_any_order() -> None:
    groups = [f"g{k % 20}" for k in range(60)]
    splits = assign_splits(groups, [""] * 60, 0.1)
    val = {g for g, s in zip(groups, splits, strict=True) if s == "val"}
    assert len(val) == 2 and splits.count("val") == 6
    again = assign_splits(groups[::-1], [""] * 60, 0.1)
    assert again == splits[::-1]
    assert assign_splits(["a", "b"], ["", ""], 0.01).count("val") == 1
    assert assign_splits(["a", "b"], ["", ""], 0.99).count("val") == 1
    assert assign_splits(["a", "b"], ["", ""], 1.0) == ["val", "val"]
    assert assign_splits(["a"], [""], 0.0) == ["train"]
    assert "only group" in refused(lambda: assign_splits(["a", "a"], ["", ""], 0.5))
    mixed = assign_splits(["a", "b", "c", "a"], ["train", "val", "", ""], 0.1)
    assert mixed == ["train", "val", "train", "train"]
    assert assign_splits(["a", "b", "c"], ["train", "train", "test"], 0.1).count("val") == 1


def test_fit_pad_crop_stretch() -> None:
    image = np.zeros((40, 20), np.uint8)
    image[10:30] = 100
    padded = fit_to(image, (16, 16), "pad")
    assert (
        not padded[:, :4].any() and not padded[:, 12:].any() and (padded[6:10, 4:12] == 100).all()
    )
    cropped = fit_to(image, (16, 16), "crop")
    assert (cropped[2:14] == 100).all()  # only the middle 20 rows are left
    stretched = fit_to(image, (16, 16), "stretch")
    assert (stretched[6:10] == 100).all() and not stretched[:2].any() and not stretched[14:].any()
    assert np.array_equal(fit_to(image.T, (16, 16), "pad"), padded.T)
    assert np.array_equal(fit_to(image.T, (16, 16), "crop"), cropped.T)
    assert np.array_equal(fit_to(image, (40, 20)), image)
    assert "--fit" in refused(lambda: fit_to(image, (16, 16)))
    assert "40×21" in refused(lambda: fit_to(np.zeros((40, 21), np.uint8), (40, 20)))


def test_shrinking_does_not_alias_and_growing_stays_in_range() -> None:
    fine = (np.indices((256, 256)).sum(0) % 2 * 200).astype(np.uint8)
    assert np.abs(fit_to(fine, (32, 32)).astype(float)[4:-4, 4:-4] - 100).max() <= 2
    edge = np.zeros((8, 8), np.uint16)
    edge[:, 4:] = 5000
    grown = fit_to(edge, (32, 32))
    assert grown.min() == 0 and grown.max() == 5000  # bicubic overshoots are cut


def test_frames_need_not_be_square(tmp_path: Path) -> None:
    for k in range(4):
        still(tmp_path / "s" / f"{k}.png", (64, 32), seed=k)
    small([tmp_path / "s"], tmp_path / "o.npz", size="16x8")
    x, groups = load_frames(tmp_path / "o.npz")
    assert x.shape == (4, 1, 32, 16) and to_size(x).shape == (4, 1, 16, 8) and len(groups) == 4
    small([tmp_path / "s"], tmp_path / "p.npz", fit="stretch")
    message = refused(lambda: load_frames([tmp_path / "o.npz", tmp_path / "p.npz"]))
    assert "16×16, expected 32×16" in message
    save_preview(tmp_path / "o.npz", tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as picture:
        pixels = np.asarray(picture.convert("L"))
        assert picture.format == "PNG" and pixels.std() > 10


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (7, 6), (100, 24)])
def test_preview_shows_evenly_spaced_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, shown: int
) -> None:
    np.save(tmp_path / "a.npy", RNG.integers(0, 256, (count, 16, 16), dtype=np.uint8))
    small([tmp_path / "a.npy"], tmp_path / "o.npz")
    texts: list[str] = []
    monkeypatch.setattr(frames, "CELL", 32)
    monkeypatch.setattr(
        "matplotlib.axes.Axes.text", lambda *a, **k: texts.append(a[3]), raising=True
    )
    save_preview(tmp_path / "o.npz", tmp_path / "o.png")
    assert len(texts) == shown and texts[0].startswith("a.npy")
    if count > 1:
        assert texts[0].endswith("#0") and texts[-1].endswith(f"#{count - 1}")


def text(path: Path) -> None:
    path.write_text("hello\n" * 9)


def four_axes(path: Path) -> None:
    nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)).to_filename(path)


def truncated(write: Callable[[Path], object]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    return cut


def not_finite(path: Path) -> None:
    volume(path, np.where(VOLUME > 250, np.nan, VOLUME).astype(np.float32))


def flat_affine(path: Path) -> None:
    image = nib.Nifti1Image(VOLUME, np.eye(4))
    image.header["sform_code"], image.header["srow_x"] = 1, 0
    image.to_filename(path)
    data = bytearray(path.read_bytes())
    data[280:296] = bytes(16)  # srow_x
    path.write_bytes(data)


def wrong_checksum(path: Path) -> None:
    data = bytearray(still(path).read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "4-D": ("bad.nii.gz", four_axes, "shape (4, 4, 4, 2)"),
    "text as NIfTI": ("bad.nii.gz", text, "a NIfTI image"),
    "truncated NIfTI": ("bad.nii.gz", truncated(volume), "a NIfTI image"),
    "NaN": ("bad.nii", not_finite, "NaN"),
    "no orientation": ("bad.nii", flat_affine, "affine"),
    "truncated PNG": ("bad.png", truncated(still), "a PNG or JPEG"),
    "text as PNG": ("bad.png", text, "not a PNG or JPEG"),
    "wrong checksum": ("bad.png", wrong_checksum, "a PNG or JPEG"),
    "another size": ("bad.png", lambda path: still(path, (32, 32)), "32×32, expected 16×16"),
    "truncated npy": ("bad.npy", truncated(lambda p: np.save(p, VOLUME)), "a .npy array"),
    "nothing but zeros": ("bad.npy", lambda p: np.save(p, np.zeros((3, 9, 9))), "0 to 0"),
    "pipe": ("bad.jpg", os.mkfifo, "not a regular file"),
    "broken link": ("bad.png", lambda p: p.symlink_to("absent"), "cannot be read"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_files_are_one_line_or_skipped(tmp_path: Path, case: str) -> None:
    name, write, reason = BAD[case]
    for k in range(3):
        still(tmp_path / "s" / f"{k}.png", seed=k)
    write(tmp_path / "s" / name)
    message = refused(lambda: small([tmp_path / "s"], tmp_path / "o.npz"))
    assert message.startswith(f"{tmp_path / 's' / name}: ") and reason in message
    assert "; 1 of 4 files cannot be used, --skip-bad" in message and "expected" in message
    assert not (tmp_path / "o.npz").exists()
    result = prepare_images([tmp_path / "s"], tmp_path / "o.npz", "8", skip_bad=True)
    assert result.counts == {"train": 2, "val": 1}
    assert len(result.skipped) == 1 and name in result.skipped[0]
    (tmp_path / "s" / name).rename(tmp_path / name)
    alone = [tmp_path / name]
    if case != "another size":
        message = refused(lambda: small(alone, tmp_path / "p.npz", skip_bad=True, fit="pad"))
        assert name in message


@pytest.mark.parametrize("case", ["4-D", "text as NIfTI", "truncated PNG", "another size"])
def test_bad_files_through_the_command(nogaps: Command, tmp_path: Path, case: str) -> None:
    name, write, reason = BAD[case]
    for k in range(2):
        still(tmp_path / "s" / f"{k}.png", seed=k)
    write(tmp_path / "s" / name)
    arguments = ("prior", "prepare", "--source", tmp_path / "s", "--out", tmp_path / "o.npz")
    done = nogaps(*arguments, "--size", 8)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("nogaps: ") and name in done.stderr and reason in done.stderr
    assert not (tmp_path / "o.npz").exists()
    if case == "4-D":
        done = nogaps(*arguments, "--size", 8, "--skip-bad")
        assert done.returncode == 0 and "left out:" in done.stderr and name in done.stderr


def test_wrong_use_is_one_line(nogaps: Command, tmp_path: Path) -> None:
    source = still(tmp_path / "s" / "0.png").parent
    (tmp_path / "empty").mkdir()
    (tmp_path / "text" / "deep").mkdir(parents=True)
    (tmp_path / "text" / "deep" / "a.txt").write_text("x")
    good = {"paths": [source], "out": tmp_path / "o.npz"}
    for change, reason in (
        ({"paths": [tmp_path / "empty"]}, "holds no images (nothing)"),
        ({"paths": [tmp_path / "text"]}, "(1 other files)"),
        ({"paths": [source, tmp_path / "absent"]}, "absent"),
        ({"paths": [tmp_path / "text" / "deep" / "a.txt"]}, "not an image file"),
        ({"out": source / "0.png"}, ".npz"),
        ({"size": "0"}, "--size 0"),
        ({"size": "64x"}, "--size 64x"),
        ({"fit": "squeeze"}, "--fit squeeze"),
        ({"plane": "oblique"}, "--plane oblique"),
        ({"slices": "5"}, "--slices 5"),
        ({"slices": "1:2:0"}, "--slices 1:2:0"),
        ({"slices": "a:b"}, "--slices a:b"),
        ({"val_share": float("nan")}, "--val-share"),
        ({"size": "64x32"}, "--fit"),
        ({}, "only group"),
    ):
        options = {**good, **change}
        assert reason in refused(lambda options=options: prepare_images(**options)), change
    path = volume(tmp_path / "v.nii")
    assert "16 slices" in refused(lambda: small([path], tmp_path / "o.npz", slices="16:20"))
    preview = ("--preview", source / "p.png")
    done = nogaps("prior", "prepare", "--source", source, "--out", tmp_path / "o.npz", *preview)
    assert done.returncode == 2 and "lies in a source" in done.stderr
    assert sorted(os.listdir(source)) == ["0.png"] and not (tmp_path / "o.npz").exists()


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", VOLUME)
    monkeypatch.setattr(frames, "FRAME_PIXELS", 5 * 16 * 16)
    message = refused(lambda: small([tmp_path / "a.npy"], tmp_path / "o.npz", skip_bad=True))
    assert "1280 pixels" in message
    monkeypatch.setattr(arrays, "IMAGE_PIXELS", 200)
    for path in (tmp_path / "a.npy", volume(tmp_path / "v.nii"), still(tmp_path / "s.png")):
        message = refused(lambda path=path: small([path], tmp_path / "o.npz"))
        assert "16×16, expected at most 200 pixels" in message


def test_files_repeat_to_the_byte(tmp_path: Path) -> None:
    for k in range(4):
        still(tmp_path / "s" / f"{k}.png", seed=k)
    for name in ("a.npz", "b.npz"):
        prepare_images([tmp_path / "s"], tmp_path / name, "8")
    assert sha256(tmp_path / "a.npz") == sha256(tmp_path / "b.npz")


def test_unit_range_of_16_bits_is_that_of_8() -> None:
    deep = unit_range(VOLUME.astype(np.uint16) * 257)
    assert np.allclose(unit_range(VOLUME), deep, rtol=1e-6)


def test_an_index_frames_as_ever(nogaps: Command, tmp_path: Path) -> None:
    rows = "source_file,flip_left_right,skull_top_row,occiput_col,forehead_col,group,split\n"
    for k in range(3):
        still(tmp_path / "s" / f"{k}.png", (90, 80), seed=k)
        rows += f"{k}.png,{k % 2},{5 + k},{8.5 + k},{70 - k},g{k},{'val' if k == 2 else 'train'}\n"
    index, out = tmp_path / "i.csv", tmp_path / "o.npz"
    index.write_text(rows)
    arguments = ("prior", "prepare", "--source", tmp_path / "s", "--index", index, "--out", out)
    preview = tmp_path / "p.png"
    done = nogaps(*arguments, "--json", "--preview", preview)
    assert done.returncode == 0, done.stderr
    found = {"frames": str(out), "counts": {"train": 2, "val": 1}, "preview": str(preview)}
    assert json.loads(done.stdout) == found
    with Image.open(preview) as picture:
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 10
    prepare(tmp_path / "s", index, tmp_path / "p.npz")
    assert sha256(out) == sha256(tmp_path / "p.npz")
    assert made(out)["images"].shape == (3, 128, 128)
    for more in (("--fit", "pad"), ("--source", tmp_path)):
        done = nogaps(*arguments, *more)
        assert done.returncode == 2 and "--index" in done.stderr
