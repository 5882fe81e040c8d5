"""Which files of a folder are images, and which group and split each has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from frame_files import read_frames, small
from image_files import refused, still, volume
from in_process import called

from nogaps.prior.frames.prepare import prepare_images
from nogaps.prior.frames.sources import group_names
from nogaps.runtime.files import sha256

VOLUME = np.random.default_rng(0).integers(1, 256, (16, 16, 16), dtype=np.uint8)


def test_merged_folders_hidden_files_links_and_loops(tmp_path: Path) -> None:
    for k in range(3):
        still(tmp_path / "a" / f"x{k}.png", seed=k)
        still(tmp_path / "b" / "deep" / f"y{k}.JPG", seed=k)
    still(tmp_path / "a" / ".x.png")
    still(tmp_path / "a" / ".cache" / "x.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "a" / "again.png").symlink_to(tmp_path / "a" / "x0.png")
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    before = {p: sha256(p) for p in tmp_path.rglob("*") if p.is_file()}
    result = prepare_images([tmp_path / "a", tmp_path / "link"], tmp_path / "o.npz", "8")
    left_out = {"hidden files": ["a/.cache/x.png", "a/.x.png"], "repeated files": ["a/x0.png"]}
    left_out["other files"] = ["a/notes.txt", "link/loop"]
    assert result.left_out == {k: [f"{tmp_path}/{n}" for n in v] for k, v in left_out.items()}
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
        f"left out: 4 label images ({s}/Segmentations/deep/b.png, {s}/images/b-seg.png, "
        f"{s}/images/b_mask.png, …)",
        f"left out: 4 other files ({s}/Thumbs.db, {s}/a.txt, {s}/b.txt, …)",
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
    assert group_names(names) == list(expected.values())


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
