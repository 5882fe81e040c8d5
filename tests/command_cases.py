"""One registry of commands on small files, which tests cross with shared properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fuzz_targets import make_imputer

IMAGES = np.random.default_rng(0).uniform(0.01, 1, (3, 1, 8, 6)).astype(np.float32)
MASK = np.arange(6) % 3 != 1

# X is the place of one input; the others are whole
INPUTS: dict[str, str] = {
    "fill": "fill X.npy -o out.npy --model m",
    "fill npz": "fill X.npz -o out.npz --model m",
    "fill nifti": "fill X.nii.gz -o out.nii.gz --model m",
    "fill png": "fill X.png -o out.png --model m",
    "fill mask": "fill y.npy -o out.npy --mask X.npy --model m",
    "fill model": "fill y.npy -o out.npy --model X.safetensors",
    "score": "score X.npy truth.npy --mask-from y.npy",
    "score truth": "score y.npy X.npy --mask-from y.npy",
    "score mask": "score y.npy truth.npy --mask-from X.npy",
    "check": "check . --test-set X.npy",
    "check truth": "check . --test-set y.npy --truth X.npy",
    "train": "train --images X.npy --test-set y.npy --out o",
    "train mask": "train --images truth.npy --test-set X.npy --out o",
    "prepare": "prior prepare --source X.png --out o.npz",
    "index": "prior prepare --source . --index X.csv --out o.npz",
    "autoencoder": "prior train-autoencoder --frames X.npz --out o",
    "diffusion": "prior train-diffusion --frames X.npz --out o",
    "evaluate": "prior evaluate --frames X.npz --out o",
    "report": "report X.ipynb -o o.html",
    "push": "push a/b --model X.safetensors --data b --dry-run o",
    "sample": "sample --out o --prior ./X",
}
# X is the place of an output
OUTPUTS: dict[str, str] = {
    "fill": "fill y.npy -o X.npy --model m",
    "make-test-set": "make-test-set --out X.npy",
    "check": "check empty --test-set y.npy --csv X.csv",
}
# what no file is needed for
USES: dict[str, str] = {
    "fill quality": "fill y.npy -o out.npy --model m --quality good",
    "fill missing": "fill y.npy -o out.npy --model m --missing -1",
    "fill uncalibrated": "fill y.npy -o out.npy --model m --uncertainty h.npy",
    "fill uncalibrated fast": "fill y.npy -o out.npy --quality fast --uncertainty h.npy",
    "fill complete": "fill truth.npy -o out.npy --model m",
    "fill NaN": "fill nan.npy -o out.npy --model m",
    "fill one image": "fill one.npy -o out.npy --model m",
    "fill into a file": "fill y.npy -o y.npy/out.npy --model m",
    "score shape": "score squeezed.npy truth.npy --mask-from y.npy",
    "score range": "score wide.npy truth.npy --mask-from y.npy",
    "sample steps": "sample --out s --steps 0",
    "sample scheduler": "sample --out s --scheduler euler",
    "sample course": "sample --out s --prior course",
    "train profile": "train --images truth.npy --test-set y.npy --out r --profile huge",
    "train mask": "train --images truth.npy --test-set truth.npy --out r",
    "run profile": "run --profile huge",
    "run folder": "run --folder empty",
    "run verify": "run --folder empty --verify",
    "make-test-set": "make-test-set --out y.npy/y.npy",
    "report folder": "report empty",
    "report name": "report y.npy -o y.txt",
}

# that work one after the other in an empty folder, X being a folder of inputs
WORKING: tuple[str, ...] = (
    "make-test-set --out test_set.npy --truth truth.npy",
    "sample --num-samples 3 --steps 2 --batch-size 2 --scheduler ddpm --out samples"
    " --prior X/prior --grid grid.png --film film.gif",
    "train --images X/images.npy --test-set X/y.npy --out run --profile smoke",
    "fill X/y.npy -o filled.npy --model run --uncertainty half.npy",
    "fill X/y.npz -o filled.npz --model run --quality fast",
    "fill X/pngs -o filled --model run",
    "fill X/y.nii.gz -o filled.nii.gz --model run",
    "score filled.npy X/images.npy --mask-from X/y.npy",
    "prior prepare --source X/pngs --out frames.npz --size 8 --preview preview.png",
)
# every stage of the prior's training, at its full size but a step long
STAGES: tuple[str, ...] = (
    "prior train-autoencoder --frames X/frames.npz --out p --steps 1 --batch-size 2",
    "prior train-diffusion --frames X/frames.npz --out p --steps 1 --batch-size 2 --copies 0",
    "prior refine --frames X/frames.npz --out p --steps 1 --batch-size 2 --samples 2",
    "prior train-autoencoder --frames X/frames.npz --out vq --steps 1 --batch-size 2"
    " --stage vqvae2",
)


def words(line: str, x: str = "X") -> list[str]:
    """Return the words of a command, `x` in the place of X."""
    return [word.replace("X", x) for word in line.split()]


def place(line: str) -> str:
    """Return the name in a command that holds X."""
    (name,) = (word for word in line.split() if "X" in word)
    return name


def write_files(folder: Path) -> None:
    """Write what the commands take, except X."""
    arrays = {"truth": IMAGES, "y": IMAGES * MASK, "squeezed": IMAGES[:, 0], "wide": 2 * IMAGES - 1}
    arrays |= {"one": IMAGES[:1] * MASK, "nan": np.where(IMAGES < 0.9, IMAGES, np.nan)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    for name in ("m", "empty"):
        (folder / name).mkdir()
    make_imputer(folder / "m")
