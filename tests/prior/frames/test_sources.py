"""Which files of a folder are images, and which group and split each has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from frame_files import read_frames, small
from image_files import refused, still, volume
from in_process import called

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
    assert result["left_out"] == {"label images": 10} and not result["skipped"]
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
    assert result.left_out == {"hidden files": 2, "other files": 1, "repeated files": 1}
    assert result.counts == {"train": 5, "val": 1}
    names = read_frames(tmp_path / "o.npz")["source_file"].tolist()
    assert names[0] == "a/again.png" and names[3:] == [f"link/deep/y{k}.JPG" for k in range(3)]
    assert all(sha256(path) == digest for path, digest in before.items())


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
