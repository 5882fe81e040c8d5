"""Evaluation of the prior: every measure against a known answer, the command, resume, bad input."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ortho_group

from nogaps import standin
from nogaps.Assessment import PROFILES
from nogaps.commands import prior as cli
from nogaps.commands.main import main
from nogaps.evaluation import inception as inception_module
from nogaps.evaluation import prior as evaluation
from nogaps.evaluation import usefulness as useful
from nogaps.evaluation.comparison import compare_inception, nearness
from nogaps.evaluation.inception import (
    WEIGHTS,
    features,
    find_inception,
    library_distances,
    load_network,
)
from nogaps.evaluation.page import as_text
from nogaps.evaluation.prior import Settings, evaluate, evaluate_first_stage, read_frames
from nogaps.evaluation.realism import (
    Heads,
    classifier_auc,
    feature_space,
    frechet_distance,
    halves,
    kernel_distance,
    neighbours,
    normalise,
    power_spectrum,
    precision_recall,
    roc_auc,
)
from nogaps.runtime.files import BadInput, load_json

Command = Callable[..., object]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(n: int, side: int = 16, seed: int = 0, prefix: str = "a") -> Heads:
    x = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Heads(x, np.array([f"{prefix}/{k}" for k in range(n)]), np.arange(n))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame file with subjects: 16 train images of 8, 8 val images of 4."""
    path = tmp_path_factory.mktemp("frames") / "heads.npz"
    images = standin.clean_images()[:96:4, 0].repeat(2, 1).repeat(2, 2)
    split = np.array(["train"] * 16 + ["val"] * 8)
    group = np.array([f"s{k // 2}" for k in range(24)])
    np.savez(path, images=(255 * images).astype(np.uint8), split=split, group=group)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("samples") / "images.npy"
    np.save(path, standin.clean_images()[1:97:8])
    return path


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's hub cache, empty: nobody's Inception weights are found in it."""
    folder = tmp_path_factory.mktemp("torch")
    monkeypatch.setenv("TORCH_HOME", str(folder))
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    return folder / "hub" / "checkpoints"


def loaded(name: str) -> ModuleType:
    """An optional library, if it loads beside this torch."""
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another build
        pytest.skip(f"{name}: {error}")


@pytest.fixture(scope="session")
def torchmetrics() -> ModuleType:
    return loaded("torchmetrics")


class TinyNetwork(torch.nn.Module):
    """Means of 16 cells of the first channel; what it was given is kept in `seen`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.cpu())
        return torch.nn.functional.adaptive_avg_pool2d(x[:, :1].float() / 255, 4).flatten(1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> TinyNetwork:
    """Stands where Inception's weights would be loaded."""
    network = TinyNetwork()
    monkeypatch.setattr(inception_module, "load_network", lambda path: network)
    return network


def test_auc_is_the_share_of_pairs_in_order() -> None:
    assert roc_auc(np.array([3.0, 4]), np.array([1.0, 2])) == 1
    assert roc_auc(np.array([1.0, 2]), np.array([3.0, 4])) == 0
    assert roc_auc(np.array([1.0, 2]), np.array([1.0, 2])) == 0.5
    assert roc_auc(np.array([2.0, 5]), np.array([2.0, 1, 7])) == pytest.approx(3.5 / 6)


def test_classifier_tells_sets_apart_if_they_differ() -> None:
    a, b = noise(160), noise(160, seed=1, prefix="b")
    state = torch.random.get_rng_state()
    same = classifier_auc(a, b, steps=20)
    assert same == pytest.approx(0.5, abs=0.1)
    assert same == classifier_auc(a, b, steps=20), "not deterministic"
    assert torch.equal(state, torch.random.get_rng_state())
    smooth = Heads(torch.nn.functional.avg_pool2d(b.x, 3, 1, 1), b.groups, b.ids)
    assert classifier_auc(a, smooth, steps=20) > 0.99


def test_halves_keep_groups_together_and_sets_even() -> None:
    groups = np.array([f"t1/{k // 10}" for k in range(100)] + [f"x/{k}" for k in range(60)] * 2)
    sets = np.repeat([0, 0, 1], [100, 60, 60])
    for seed in range(5):
        half = halves(groups, sets, rng(seed))
        assert not set(groups[half]) & set(groups[~half])
        for s, file in ((0, "t1"), (0, "x"), (1, "x")):
            part = half[(sets == s) & (np.char.partition(groups, "/")[:, 0] == file)]
            assert part.mean() == pytest.approx(0.5, abs=0.1)
    lonely = np.array(["a/0", "b/0", "c/0", "d/0"])
    assert halves(lonely, np.zeros(4), rng()).sum() == 2


def test_frechet_distance_of_gaussians() -> None:
    a = rng().normal(size=(500, 6)) @ np.diag([1, 2, 3, 1, 1, 1])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    shift = np.array([1.0, -2, 0, 0, 0.5, 0])
    assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum())
    deviation = np.sqrt(np.linalg.eigvalsh(np.cov(a, rowvar=False)))
    assert frechet_distance(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(
        (4 * deviation**2).sum()
    )
    turn = ortho_group.rvs(6, random_state=0)
    b = rng(1).normal(size=(400, 6)) + 1
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_kernel_distance_is_unbiased() -> None:
    draws = rng().normal(size=(400, 2, 20, 8))
    values = np.array([kernel_distance(a, b) for a, b in draws])
    assert abs(values.mean()) < 3 * values.std() / 20 and values.min() < 0
    assert kernel_distance(draws[0, 0], draws[0, 1] + 1) > 5 * values.std()
    a, b = draws[0]
    k = np.array([[(x @ y / 8 + 1) ** 3 for y in [*a, *b]] for x in [*a, *b]])
    apart = ~np.eye(20, dtype=bool)
    expected = k[:20, :20][apart].mean() + k[20:, 20:][apart].mean() - 2 * k[:20, 20:].mean()
    assert kernel_distance(a, b) == pytest.approx(expected)


def test_precision_and_recall() -> None:
    real = rng().normal(size=(60, 4))
    assert all(part.all() for part in precision_recall(real, real))
    assert not any(part.any() for part in precision_recall(real, real + 100))
    modes = np.concatenate([real, real + 100])
    precise, recalled = precision_recall(modes, real)  # the fake ones lack a mode
    assert precise.all() and recalled.tolist() == [True] * 60 + [False] * 60


def test_planted_copies_are_found() -> None:
    train = noise(12)
    found = neighbours(noise(5, seed=1), train)
    assert found.distance.min() > 0.5 and found.ratio.min() > 0.5
    x = noise(5, seed=1).x
    x[2] = 0.5 * train.x[7] + 0.1  # darker and lighter: still the same picture
    x[3] = train.x[4]
    found = neighbours(Heads(x, np.array(list("abcde")), np.arange(5)), train)
    assert found.index[[2, 3]].tolist() == [7, 4]
    assert found.distance[[2, 3]] == pytest.approx(0, abs=1e-5)
    assert found.ratio[3] < 1e-6 and found.ratio[[0, 1, 4]].min() > 0.5
    assert nearness(Heads(x, np.array(list("abcde")), np.arange(5)), train)["memorised"] == 1


def test_second_nearest_is_of_another_group() -> None:
    train = noise(6)
    x = torch.cat([train.x, train.x[:1] + 0.01])  # the next slice of the first subject
    train = Heads(x, np.array([*train.groups, train.groups[0]]), np.arange(7))
    copy = Heads(x[:1], np.array(["s/0"]), np.arange(1))
    assert neighbours(copy, train).ratio[0] < 1e-6


def test_near_duplicates_are_counted_but_not_an_image_with_itself() -> None:
    part = noise(10)
    assert nearness(part, part)["near_duplicates"] == 0
    part.x[8] = part.x[1] + 0.001
    summary = nearness(part, part)
    assert summary["near_duplicates"] == 2 and summary["distance"][2] < 1e-4
    twice = part[np.repeat(np.arange(8), 2)]  # a file given twice holds no near-duplicates
    assert nearness(twice, twice)["near_duplicates"] == 0


def test_draws_hold_each_image_once() -> None:
    part = noise(10)[np.repeat(np.arange(10), 2)]
    for n in (4, 10, 99):
        ids = part.ids[part.distinct(n, rng(n))]
        assert len(ids) == len(set(ids)) == min(n, 10)


def test_spectrum_peaks_at_the_frequency_of_a_wave() -> None:
    columns = torch.arange(64) * 2 * torch.pi / 64
    for cycles in (3, 20):
        wave = (0.5 + 0.4 * torch.cos(cycles * columns)).expand(1, 1, 32, 64)
        assert power_spectrum(wave).shape == (16,)
        square = wave.repeat(1, 1, 2, 1)
        assert power_spectrum(square).argmax() == cycles - 1
        assert power_spectrum(square.mT)[cycles - 1] == pytest.approx(
            power_spectrum(square)[cycles - 1], rel=1e-4
        )


def test_normalising_removes_brightness(clean: torch.Tensor) -> None:
    x = normalise(clean[:4])
    torch.testing.assert_close(normalise(0.3 * clean[:4]), x)
    assert x.max() == 1 and (x == 1).float().mean() < 0.01


def test_features_see_blur(clean: torch.Tensor) -> None:
    x = clean[::4]
    space = feature_space(x)
    features = space(x)
    assert features.shape[1] <= 64
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    assert np.square(features).mean() == pytest.approx(1)
    blurred = space(torch.nn.functional.avg_pool2d(x, 3, 1, 1))
    halved = kernel_distance(features[::2], features[1::2])
    assert kernel_distance(blurred, features) > halved + 0.2


def test_every_set_is_trained_on_equally_long() -> None:
    assert useful.plan(2) == (64, 1) and useful.plan(64) == (2048, 1)
    assert useful.plan(65) == (2048, 2) and useful.plan(3840) == (2048, 60)
    x = torch.arange(5.0).view(5, 1, 1, 1)
    for n in (3, 5, 12):
        counts = useful.repeated(x, n, seed=0).flatten().long().bincount(minlength=5)
        assert counts.sum() == n and counts.max() - counts.min() <= 1
    assert torch.equal(useful.repeated(x, 12, 0), useful.repeated(x, 12, 0))
    assert not torch.equal(useful.repeated(x, 12, 0), useful.repeated(x, 12, 1))


def test_usefulness_continues_and_notices_other_data(
    tmp_path: Path, clean: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    val = {"heads": (clean[60:66], list("aabbcc"))}
    sets = {"real": clean[:20], "samples": clean[20:40]}
    done: list[int] = []
    whole_train = useful.train

    def train(*arguments: object) -> tuple:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(1)
        return whole_train(*arguments)

    def run(**other: torch.Tensor) -> dict:
        return useful.compare_usefulness(
            {**sets, **other}, val, tmp_path, 2, [0], PROFILES["smoke"]
        )

    monkeypatch.setattr(useful, "train", train)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(useful, "train", lambda *a: (done.append(1), whole_train(*a))[1])
    found = run()
    assert len(done) == 2, "a finished run was trained again"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".json"]
    rows = found["scores"]
    assert list(rows) == ["kriging", "real, seed 0", "samples, seed 0"]
    lost = rows["real, seed 0"]["heads"]["psnr"] - rows["samples, seed 0"]["heads"]["psnr"]
    assert found["lost_db"]["samples"]["heads"][0] == pytest.approx(lost, abs=1e-4)
    assert found["steps"] == 2 and abs(lost) < 3 and rows["kriging"]["heads"]["psnr"] > 15
    run(samples=clean[40:60])
    assert len(done) == 3, "other images were not trained on"


def test_command(
    nogaps: Command, prior_folder: Path, frames: Path, samples: Path, tmp_path: Path
) -> None:
    common = ("--frames", frames, "--frames", frames, "--classifier-steps", 2)
    arguments = (*common, "--prior", prior_folder, "--samples", samples, "--out", tmp_path)
    done = nogaps("prior", "evaluate", *arguments)
    assert done.returncode == 0, done.stderr
    assert "Inception distances: not available (" in done.stdout and "--inception" in done.stdout
    for words in ("heads ", "reconstructions vs train", "samples to train", "evaluation.png"):
        assert words in done.stdout
    result = load_json(tmp_path / "evaluation.json")
    assert result["inception"]["pairs"] is None and WEIGHTS in result["inception"]["reason"]
    assert result["sets"]["train"]["images"] == 32 and result["sets"]["val"]["images"] == 8
    assert result["sets"]["samples"]["images"] == 12 and "usefulness" not in result
    assert result["nearest"]["train to train"]["distance"][2] > 1e-3, "an image met its own copy"
    with Image.open(tmp_path / "evaluation.png") as page:
        assert page.width > 1000 and page.height > 1000
    assert len(list((tmp_path / "pairs").glob("*.png"))) == 16


def test_samples_are_drawn_and_imputers_trained(
    prior_folder: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = partial(useful.compare_usefulness, profile=PROFILES["smoke"])
    monkeypatch.setattr(evaluation, "compare_usefulness", small)
    settings = Settings(4, sampling_steps=1, classifier_steps=1, usefulness_steps=1, seeds=(3,))
    result = evaluate([frames], tmp_path, settings, prior_folder)
    assert result["sets"]["samples"]["images"] == 4
    assert (tmp_path / "samples" / "images.npy").exists()
    names = [f"{name}, seed 3" for name in ("real", "reconstructions", "samples")]
    assert list(result["usefulness"]["scores"]) == ["kriging", *names]
    text = as_text(result)
    assert "lost with samples" in text and all(name in text for name in names)


def test_options_reach_the_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple] = []

    def record(*arguments: object) -> dict:
        calls.append(arguments)
        return {"first_stage": {}}

    monkeypatch.setattr(evaluation, "evaluate", record)
    options = {"seeds": [5, 7], "usefulness_steps": 9, "steps": 3, "num_samples": 8, "seed": 2}
    files = {"samples": Path("s.npy"), "inception": Path("i.pth")}
    cli.evaluate(tmp_path, [Path("a.npz")], **files, **options)
    expected = Settings(8, 3, usefulness_steps=9, seeds=(5, 7), seed=2)
    assert calls == [([Path("a.npz")], tmp_path, expected, None, *files.values())]


def test_first_stage_alone_on_a_folder_of_pictures(
    prior_folder: Path, frames: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    images = (255 * standin.clean_images()[:3, 0, :48]).astype(np.uint8)
    for k, image in enumerate(images):
        Image.fromarray(image).save(pictures / f"{k}.png")
    out = tmp_path / "out"
    result = evaluate_first_stage([frames], out, prior_folder / "vqvae", pictures)
    assert list(result["first_stage"]) == ["heads", "pictures"]
    assert result["first_stage"]["pictures"]["images"] == 3
    with Image.open(out / "pairs" / "pictures_000_original.png") as original:
        assert original.size == (64, 48) and original.mode == "L"
        assert np.corrcoef(np.asarray(original).ravel(), images[0].ravel())[0, 1] > 0.999
    assert (out / "pairs" / "pictures_002_reconstruction.png").exists()
    assert (out / "evaluation.png").exists()


def test_known_reconstruction_scores(
    prior_folder: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("evaluation", "autoencoder"):
        monkeypatch.setattr(f"nogaps.prior.{module}.reconstruct", lambda model, x: x)
    result = evaluate_first_stage([frames], tmp_path, prior_folder / "vqvae", None)
    row = result["first_stage"]["heads"]
    assert row["ssim"] == pytest.approx(1) and row["gradient_energy"] == pytest.approx(1)
    assert row["psnr"] == 100, "a lossless stage must not leave infinity in the JSON"


def test_frames_given_twice_count_twice_in_training_only(frames: Path) -> None:
    once, twice = read_frames([frames]), read_frames([frames, frames])
    assert len(once.x) == len(twice.x) == 16 and len(twice.index) == 32
    assert np.bincount(twice.index).tolist() == [2] * 16
    assert len(twice.val["heads"][0]) == 8


def test_bad_input_is_one_line(
    prior_folder: Path,
    frames: Path,
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent, out = tmp_path / "absent.npz", tmp_path / "out"
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main() sets it
    found = ["--frames", str(frames), "--prior", str(prior_folder), "--inception", "absent.pth"]
    for name, options in {"absent.npz": ["--frames", str(absent)], "absent.pth": found}.items():
        monkeypatch.setattr(
            "sys.argv", ["nogaps", "prior", "evaluate", "--out", str(out), *options]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1 and name in error
        assert not out.exists()
    small = tmp_path / "small.npy"
    np.save(small, np.zeros((5, 1, 32, 32), np.float32))
    blank = tmp_path / "blank.npy"
    np.save(blank, np.zeros((5, 64, 64), np.float32))
    odd = tmp_path / "odd.npy"
    np.save(odd, rng().random((2, 63, 64)))
    one = tmp_path / "one.npz"
    with np.load(frames) as archive:
        np.savez(one, images=archive["images"], split=archive["split"], group=archive["split"])
    stage = prior_folder / "vqvae"
    cases: dict[str, Callable[[], object]] = {
        r"small\.npy.*expected": lambda: evaluate(
            [frames], tmp_path, Settings(), prior_folder, small
        ),
        r"one\.npz.*expected at least 4": lambda: evaluate(
            [one], tmp_path, Settings(), prior_folder, samples
        ),
        "classifier_steps 0": lambda: Settings(classifier_steps=0),
        "nothing to reconstruct": lambda: evaluate_first_stage([], tmp_path, stage, None),
        r"blank\.npy": lambda: evaluate_first_stage([], tmp_path, stage, blank),
        r"odd\.npy": lambda: evaluate_first_stage([], tmp_path, stage, odd),
        "expected 64×64": lambda: useful.check_size(torch.zeros(1, 1, 32, 64), "x.npz"),
    }
    for message, call in cases.items():
        with pytest.raises(BadInput, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    for options in (
        {"stage": tmp_path, "prior": "x"},
        {"stage": tmp_path, "usefulness_steps": 1},
        {"stage": tmp_path, "inception": tmp_path},
        {"frames": [tmp_path], "images": tmp_path},
        {},
    ):
        with pytest.raises(BadInput, match=r"--stage|--images|--frames"):
            cli.evaluate(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_distances_are_those_of_torchmetrics(torchmetrics: ModuleType) -> None:
    a, b = rng().normal(size=(200, 24)), rng(1).normal(size=(200, 24)) * 1.2 + 0.1
    state = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = library_distances(a, b, subsets=2, subset_size=200, seed=0)
    assert found["frechet"] == pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert found["kid"] == pytest.approx(kernel_distance(a, b), rel=1e-6)
    assert found["kid_std"] == pytest.approx(0, abs=1e-9), "two subsets of all images differ"
    drawn = [library_distances(a, b, 3, 20, seed)["kid"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2], "the seed is not what decides on subsets"
    assert torch.equal(state, torch.random.get_rng_state())


def test_inception_sees_8_bit_images_in_three_channels(tiny: TinyNetwork, hub_cache: Path) -> None:
    (hub_cache / WEIGHTS).write_bytes(b"weights")
    found = find_inception()
    assert found.space and WEIGHTS in found.about and "sha256 " in found.about
    x = noise(40).x
    x[0] = 1
    row = found.space(x)
    assert row.shape == (40, 16) and row.dtype == np.float64
    np.testing.assert_allclose(row[0], 1)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1).numpy()
    np.testing.assert_allclose(row, expected, atol=0.002)  # half a grey level
    assert [len(batch) for batch in tiny.seen] == [32, 8]
    assert tiny.seen[0].dtype == torch.uint8 and tiny.seen[0].shape[1:] == (3, 16, 16)
    assert torch.equal(tiny.seen[0][:, 0], tiny.seen[0][:, 2])


def test_inception_sees_colour_on_the_models_own_device(
    tiny: TinyNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception_module, "pick_device", lambda: torch.device("meta"))
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert features(tiny, x).shape == (2, 16)
    assert torch.equal(tiny.seen[0], (255 * x).round().byte())
    tiny.weight = torch.nn.Parameter(torch.zeros(1))
    features(tiny, x)
    tiny.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))
    with pytest.raises(NotImplementedError):  # the images went to the model: meta has no values
        features(tiny, x)


def test_inception_distances_of_pairs(
    tiny: TinyNetwork, torchmetrics: ModuleType, hub_cache: Path
) -> None:
    (hub_cache / WEIGHTS).write_bytes(b"weights")
    part = noise(60)
    dark = Heads(part.x / 2, part.groups, part.ids)
    twice = dark[np.repeat(np.arange(60), 2)]
    pairs = {"same": (part, part), "darker": (part, dark), "twice": (part, twice)}
    result = compare_inception(pairs, find_inception(), most=60, seed=0)
    rows = result["pairs"]
    assert list(rows) == list(pairs) and result["reason"] is None
    assert {row["images"] for row in rows.values()} == {60}, "an image was looked at twice"
    assert rows["same"]["frechet"] == pytest.approx(0, abs=1e-6)
    of = [features(tiny, heads.x) for heads in (part, dark)]
    assert rows["darker"]["frechet"] == pytest.approx(frechet_distance(*of), rel=1e-6)
    assert rows["twice"]["frechet"] == pytest.approx(rows["darker"]["frechet"], rel=1e-6)
    assert abs(rows["same"]["kid"]) < rows["darker"]["kid"] / 10
    assert (
        compare_inception(pairs, find_inception(), most=7, seed=0)["pairs"]["same"]["images"] == 7
    )


def test_inception_stands_beside_the_stated_space(
    tiny: TinyNetwork,
    torchmetrics: ModuleType,
    prior_folder: Path,
    frames: Path,
    samples: Path,
    tmp_path: Path,
) -> None:
    weights = tmp_path / "given.pth"
    weights.write_bytes(b"weights")
    settings = Settings(classifier_steps=1)
    result = evaluate([frames], tmp_path, settings, prior_folder, samples, weights)
    assert load_json(tmp_path / "evaluation.json")["inception"] == result["inception"]
    rows = result["inception"]["pairs"]
    assert list(rows) == list(result["pairs"])
    assert [row["images"] for row in rows.values()] == [
        row["images"] for row in result["pairs"].values()
    ]
    text = as_text(result)
    assert "not available" not in text and "given.pth" in text
    assert all(f"{row['frechet']:.3f}" in text for row in rows.values())


def test_without_inception_the_reason_is_stated(
    hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_inception()
    assert found.space is None and WEIGHTS in found.about and "--inception" in found.about
    result = compare_inception({"a vs b": (noise(4), noise(4))}, found, most=4, seed=0)
    assert result == {"features": None, "pairs": None, "reason": found.about}
    path = hub_cache / WEIGHTS
    path.write_bytes(b"half a download")
    damaged = find_inception()
    assert damaged.space is None and "damaged" in damaged.about, (
        "cached weights stopped the command"
    )
    torch.save({"fc.weight": torch.zeros(3)}, path)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)  # as if not installed
    assert "extra `study`" in find_inception().about
    with pytest.raises(BadInput, match="extra `study`"):
        find_inception(path)


class Payload:
    """Pickled code that, when it is run, leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_inception_weights_are_checked(tmp_path: Path) -> None:
    run = tmp_path / "run"
    contents = {
        "damaged or more than tensors": {"fc.weight": Payload(run)},
        "no state dict": [torch.zeros(3)],
        "NaN": {"fc.weight": torch.tensor([0, torch.nan])},
    }
    path = tmp_path / "weights.pth"
    for message, value in contents.items():
        torch.save(value, path)
        with pytest.raises(BadInput, match=message) as caught:
            find_inception(path)
        assert str(caught.value).startswith(f"{path}: ") and WEIGHTS in str(caught.value)
    assert not run.exists(), "code in the file was run"
    with pytest.raises(BadInput, match=r"cannot be read.*expected"):
        find_inception(tmp_path)


@pytest.fixture(scope="module")
def inception_weights(torchmetrics: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State dict of an untrained Inception, in the older of torch's two formats."""
    network = loaded("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3

    class Untrained(network):
        def load_state_dict(self, *arguments: object, **options: object) -> None:
            pass

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = Untrained("untrained", ["2048"], nothing)
    path = tmp_path_factory.mktemp("inception") / "untrained.pth"
    torch.save(untrained.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.slow
def test_network_is_that_of_torchmetrics(inception_weights: Path, tmp_path: Path) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    state = torch.random.get_rng_state()
    network = load_network(inception_weights)
    assert torch.equal(state, torch.random.get_rng_state()) and not network.training
    whole = FrechetInceptionDistance(feature_extractor_weights_path=str(inception_weights))
    x = noise(3, side=64).x
    grey = (255 * x).round().byte().repeat(1, 3, 1, 1)
    expected = whole.inception(grey).numpy()
    assert expected.std(0).mean() > 0
    np.testing.assert_allclose(features(network, x), expected, rtol=1e-5)
    other = torch.load(inception_weights, weights_only=True)
    other["another.weight"] = other.pop("fc.weight")
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(BadInput, match="tensors of another network"):
        load_network(tmp_path / "other.pth")


@pytest.mark.slow
def test_command_with_inception_weights(
    nogaps: Command,
    inception_weights: Path,
    prior_folder: Path,
    frames: Path,
    samples: Path,
    tmp_path: Path,
) -> None:
    files = ("--prior", prior_folder, "--samples", samples, "--inception", inception_weights)
    options = ("--frames", frames, "--classifier-steps", 1, "--out", tmp_path)
    done = nogaps("prior", "evaluate", *options, *files)
    assert done.returncode == 0, done.stderr
    assert "2048 features of Inception v3 (untrained.pth" in done.stdout
    rows = load_json(tmp_path / "evaluation.json")["inception"]["pairs"]
    assert all(np.isfinite(list(row.values())).all() for row in rows.values()) and len(rows) == 5
