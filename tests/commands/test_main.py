"""What every command has in common, and the commands one after the other on small files."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import ROOT
from in_process import Done, called

from nogaps import standin
from nogaps.commands.main import app
from nogaps.runtime.files import load_images, sha256

HEAVY = ("torch", "numpy", "scipy", "skimage", "matplotlib", "diffusers", "tqdm", "gradio", "rich")
HEAVY += ("accelerate", "huggingface_hub", "nbformat")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ENTRY = "import sys; from nogaps.commands.main import main\n"


def commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple, object]]:
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_every_command_has_json_an_example_and_help(path: tuple[str, ...]) -> None:
    command, help_page = COMMANDS[path], called(*path, "--help")
    assert help_page.code == 0 and "Usage" in help_page.out
    assert f"Example: nogaps {' '.join(path)}" in " ".join(help_page.out.split())
    assert "--json" in {name for parameter in command.params for name in parameter.opts}
    for parameter in command.params:
        assert parameter.param_type_name != "option" or parameter.help, parameter.name


def python(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, text=True)
    return done.stdout


def test_starting_loads_nothing_heavy() -> None:
    assert len(COMMANDS) == 17
    code = f"{ENTRY}sys.argv[1:] = ['--version']\n"
    code += f"try: main()\nfinally: print(sorted({{*{HEAVY}}} & {{*sys.modules}}))"
    version, heavy = python(code).splitlines()
    assert version.startswith("nogaps ") and heavy == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nogaps", "prior", ""), {"prepare", "evaluate"}),
        (("nogaps", "fill", "--u"), {"--uncertainty"}),
    ],
)
def test_a_shell_completes_commands_and_options(words: tuple[str, ...], expected: set) -> None:
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    asked |= {"_NOGAPS_COMPLETE": "complete_bash"}
    assert expected <= {*python(f"{ENTRY}sys.argv = ['nogaps']; main()", **asked).split()}


def on_terminal(*command: str) -> str:
    """Return what a command writes to a terminal of 80 columns that claims to know colours."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "NO_COLOR": "1"}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, env=environment, cwd=ROOT, **streams):
        os.close(theirs)
        text = b""
        try:
            while block := os.read(mine, 4096):
                text += block
        except OSError:  # how Linux says that nobody writes any more
            os.close(mine)
    return text.decode()


def test_terminals_show_a_bar_and_no_colours() -> None:
    work = "import time\nfrom nogaps.runtime.progress import progress\n"
    work += "for _ in progress(range(30), 'walking'): time.sleep(0.05)"
    text = on_terminal(sys.executable, "-c", work)
    assert "walking" in text and text.count("\r") > 1 and "30/30" in text
    text = on_terminal(sys.executable, "-m", "nogaps", "fill", "--help")
    assert "nogaps" in text and "\x1b" not in text


@pytest.fixture
def files(tmp_path: Path) -> Path:
    standin.write_test_set(tmp_path / "test_set.npy")
    np.save(tmp_path / "truth.npy", standin.clean_images())
    np.save(tmp_path / "few.npy", standin.clean_images()[:40])
    return tmp_path


def done(folder: Path, line: str, code: int = 0) -> Done:
    """Call a command that must end with this code."""
    result = called(*line.split(), cwd=folder)
    assert result.code == code, result.err
    return result


def test_json_is_all_that_stdout_holds_and_quiet_means_quiet(
    files: Path, prior_folder: Path
) -> None:
    score = "score filled.npy truth.npy --mask-from test_set.npy"
    for line in (
        "make-test-set --out made.npy",
        "fill test_set.npy -o filled.npy --quality fast",
        score,
        f"--quiet {score}",
        f"sample --num-samples 2 --steps 1 --out s --prior {prior_folder}",
        "prior prepare --source few.npy --out few.npz --val-share 0",
    ):
        assert isinstance(json.loads(done(files, f"{line} --json").out), dict), line
    quiet = done(files, f"-q {score}")
    assert (quiet.out, quiet.err) == ("", "")
    assert "kriging" in done(files, score).out, "quiet must not outlive its command"


def test_test_set_fill_score(tmp_path: Path) -> None:
    done(tmp_path, "make-test-set --out y.npy --truth truth.npy")
    if standin.kind_of(ROOT / "test_set.npy") == "stand-in":
        assert sha256(tmp_path / "y.npy") == sha256(ROOT / "test_set.npy")
    done(tmp_path, "fill y.npy -o filled.npy")
    x_hat, observed = load_images(tmp_path / "filled.npy"), standin.course_mask()
    assert np.array_equal(x_hat[:, :, observed], load_images(tmp_path / "y.npy")[:, :, observed])
    rows = json.loads(done(tmp_path, "score filled.npy truth.npy --mask-from y.npy --json").out)
    assert list(rows) == ["linear", "biharmonic", "kriging", "filled.npy"]
    assert rows["kriging"]["rmse"] == pytest.approx(0.0881, abs=0.004)
    assert rows["filled.npy"]["psnr"] > rows["kriging"]["psnr"] + 1


def test_sample_then_train_then_fill(prior_folder: Path, files: Path) -> None:
    sample = f"sample --out s --num-samples 12 --steps 2 --batch-size 5 --prior {prior_folder}"
    done(files, sample)
    assert load_images(files / "s" / "images.npy").shape == (12, 1, 64, 64)
    before = sha256(files / "s" / "images.npy")
    assert "seed" in done(files, f"{sample} --seed 1", 2).err
    assert sha256(files / "s" / "images.npy") == before
    train = "train --images s --out r --profile smoke"
    done(files, train)
    weights = sha256(files / "r" / "imputer.safetensors")
    assert "--resume" in done(files, train, 2).err
    for quality in ("best", "fast"):
        done(files, f"fill test_set.npy -o {quality}.npy --model r --quality {quality}")
    assert sha256(files / "best.npy") != sha256(files / "fast.npy")
    done(files, f"{train} --resume")
    other = done(files, "train --images few.npy --out r --profile smoke --resume", 2)
    assert "other images or settings" in other.err
    assert sha256(files / "r" / "imputer.safetensors") == weights


def test_all_stages_of_a_prior(frames_file: Path, tmp_path: Path) -> None:
    common = f"--frames {frames_file} --out p --steps 1 --batch-size 2"
    done(tmp_path, f"prior train-autoencoder {common}")
    done(tmp_path, f"prior train-diffusion {common} --copies 0")
    assert (tmp_path / "p" / "pipeline" / "model_index.json").exists()
    options = "--autoencoder-steps 1 --diffusion-steps 1 --copies 0 --refine-steps 0 --json"
    result = json.loads(done(tmp_path, f"prior train --frames {frames_file} --out q {options}").out)
    assert result == {"pipeline": "q/pipeline"} and (tmp_path / "q/pipeline").is_dir()


def test_check_scores_and_writes_a_table(files: Path) -> None:
    np.save(files / "test_set_nogaps.npy", np.load(files / "truth.npy"))
    (files / "other").mkdir()
    options = "--test-set test_set.npy --truth truth.npy --csv marks.csv --json"
    rows = json.loads(done(files, f"check . other {options}", 1).out)["submissions"]
    assert not any(row["valid"] for row in rows)
    with open(files / "marks.csv", newline="") as file:
        good, bad = csv.DictReader(file)
    assert list(good)[:4] == ["dir", "valid", "errors", "notes"]
    assert good["valid"] == "false" and "missing-file" in good["errors"]  # no notebook there
    assert float(good["rmse"]) == 0 and float(good["kriging_rmse"]) > 0.08
    assert bad["rmse"] == "" and bad["valid"] == "false"


def test_a_file_that_is_named_like_a_method(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    for name, array in (("kriging", x), ("x.npy", x), ("y.npy", x * (np.arange(8) % 4 != 2))):
        with open(tmp_path / name, "wb") as file:
            np.save(file, array)
    rows = json.loads(done(tmp_path, "score kriging x.npy --mask-from y.npy --json").out)
    assert list(rows) == ["linear", "biharmonic", "kriging", "./kriging"]
    assert rows["./kriging"]["rmse"] == 0 < rows["kriging"]["rmse"]
