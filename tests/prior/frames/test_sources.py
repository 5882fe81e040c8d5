"""Which files of a folder are images, and which group and split each has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from frame_files import read_frames, small
from image_files import refused, still, volume
from in_process import called

from nogaps.prior.frames.groups import group_names
from nogaps.prior.frames.prepare import prepare_images
from nogaps.runtime.files import sha256

VOLUME = np.random.default_rng(0).integers(1, 256, (16, 16, 16), dtype=np.uint8)


def oasis(root: Path) -> Path:
    for split, cases in (("train", (1, 2, 3)), ("validate", (4,)), ("test", (5,))):
        for case in cases:
            for k in range(2):
                name = f"{case:03}_slice_{k}.nii.png"
                still(root / f"keras_png_slices_{split}" / f"case_{name}", seed=case)
                still(root / f"keras_png_slices_seg_{split}" / f"seg_{name}")
    return root


def test_oasis_brings_its_splits(tmp_path: Path) -> None:
    root, out = oasis(tmp_path / "oasis"), tmp_path / "o.npz"
    done = called("prior", "prepare", "--source", root, "--out", out, "--size", 8, "--json")
    result = json.loads(done.out)
    assert done.code == 0 and result["counts"] == {"test": 2, "train": 6, "val": 2}
    assert result["groups"] == {"test": 1, "train": 3, "val": 1} and not result["skipped"]
    assert {kind: len(names) for kind, names in result["left_out"].items()} == {"label images": 10}
    data = read_frames(out)
    by_split = {s: set(data["group"][data["split"] == s]) for s in ("train", "val", "test")}
    assert by_split["train"] == {"case_001", "case_002", "case_003"}
    assert by_split["val"] == {"case_004"} and by_split["test"] == {"case_005"}
    assert data["source_file"][0] == "oasis/keras_png_slices_test/case_005_slice_0.nii.png"
    done = called("prior", "prepare", "--source", root, "--out", out, "--size", 8)
    assert "left out: 10 label images" in done.out and "Traceback" not in done.err
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
    left_out = {"hidden files": [".cache", ".x.png"], "other files": ["notes.txt"]}
    left_out = {kind: [f"{tmp_path}/a/{n}" for n in names] for kind, names in left_out.items()}
    assert result.left_out == left_out | {"repeated files": [f"{tmp_path}/a/x0.png"]}
    assert result.counts == {"train": 5, "val": 1}
    names = read_frames(tmp_path / "o.npz")["source_file"].tolist()
    assert names[0] == "a/again.png" and names[3:] == [f"link/deep/y{k}.JPG" for k in range(3)]
    assert all(sha256(path) == digest for path, digest in before.items())


def test_what_lies_beside_images_is_left_out_and_named(tmp_path: Path) -> None:
    names = ("images/b.png", "masks/b.png", "Segmentations/deep/b.png", "images/b_mask.png")
    for name in (*names, "images/a.png", "images/b-seg.png", "unmasked/a_masked.png"):
        still(tmp_path / "s" / name)
    for name in ("Thumbs.db", "a.txt", "b.txt", "c.txt"):
        (tmp_path / "s" / name).write_text("x")
    command = ("prior", "prepare", "--source", tmp_path / "s", "--size", 8, "--fit", "pad")
    done = called(*command, "--out", tmp_path / "o.npz")
    s = tmp_path / "s"
    assert done.out.splitlines() == [
        f"{tmp_path / 'o.npz'}: 2 train (groups: 2), 1 val (groups: 1)",
        "note: no name or folder tells a patient: every image is a group of its own",
        f"left out: 4 other files ({s}/Thumbs.db, {s}/a.txt, {s}/b.txt, …)",
        f"left out: 4 label images ({s}/Segmentations/deep/b.png, {s}/images/b-seg.png, "
        f"{s}/images/b_mask.png, …)",
    ]
    chosen = small([tmp_path / "s" / "masks"], tmp_path / "o.npz")
    assert chosen["source_file"].tolist() == ["masks/b.png"], "a folder that was asked for"


def test_a_source_of_another_format_has_the_line_that_converts_it(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    path = tmp_path / "s" / "1"
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
    assert group_names(names, [False] * len(names)) == list(expected.values())


def test_groups_are_patients(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        still(tmp_path / "s" / patient / "001.png")
        volume(tmp_path / "s" / patient / "T1.nii.gz", VOLUME)
    for name in ("sub-07_T1w.nii.gz", "sub-07_T2w.nii", "other.nii"):
        volume(tmp_path / "s" / name, VOLUME)
    still(tmp_path / "s" / "p2" / "002.png")
    data = small([tmp_path / "s"], tmp_path / "o.npz", slices="8:9")
    groups = dict(zip(data["source_file"].tolist(), data["group"].tolist(), strict=True))
    assert groups["s/p1/001.png"] == groups["s/p1/T1.nii.gz#sagittal 8"] == "s/p1"
    assert groups["s/p2/002.png"] == groups["s/p2/T1.nii.gz#sagittal 8"] == "s/p2"
    assert groups["s/sub-07_T1w.nii.gz#sagittal 8"] == "sub-07"
    assert sorted(set(groups.values())) == ["other", "s/p1", "s/p2", "sub-07"]
