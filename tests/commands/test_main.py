"""What every command has in common, and the commands one after the other on small files."""

from __future__ import annotations

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
from nogaps.runtime.files import load_images

HEAVY = ("torch", "numpy", "scipy", "skimage", "matplotlib", "diffusers", "tqdm", "gradio", "rich")
HEAVY += ("accelerate", "huggingface_hub", "nbformat", "jupytext", "PIL")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


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


def test_starting_loads_nothing_heavy() -> None:
    assert len(COMMANDS) == 17
    code = f"""
import sys
from nogaps.commands.main import main
for line in ("--version", "--help", "fill --help", "prior --help"):
    sys.argv[1:] = line.split()
    try:
        main()
    except SystemExit as end:
        assert not end.code
print(sorted({{*{HEAVY}}} & {{*sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    version, *_, heavy = done.stdout.splitlines()
    assert version.startswith("nogaps ") and heavy == "[]", done.stderr


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


def done(folder: Path, line: str, code: int = 0) -> Done:
    """Call a command that must end with this code."""
    result = called(*line.split(), cwd=folder)
    assert result.code == code, result.err
    return result


@pytest.mark.parametrize(
    ("line", "module", "extra"),
    [("demo --no-browser", "gradio", "demo"), ("report . -o TMP/r.html", "nbconvert", "notebook")],
)
def test_a_missing_extra_is_one_line(
    line: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = done(ROOT, line.replace("TMP", str(tmp_path)), 2)
    advice = f"this installs it: pip install 'nogaps[{extra}]'"
    assert result.err == f"nogaps: {module} is not installed; {advice}\n" and not result.out
    assert not list(tmp_path.iterdir())


def test_test_set_fill_score(tmp_path: Path) -> None:
    done(tmp_path, "make-test-set --out y.npy --truth truth.npy")
    done(tmp_path, "fill y.npy -o filled.npy")
    x_hat, observed = load_images(tmp_path / "filled.npy"), standin.course_mask()
    assert np.array_equal(x_hat[:, :, observed], load_images(tmp_path / "y.npy")[:, :, observed])
    rows = json.loads(done(tmp_path, "score filled.npy truth.npy --mask-from y.npy --json").out)
    assert list(rows) == ["linear", "biharmonic", "kriging", "filled.npy"]
    assert rows["kriging"]["rmse"] == pytest.approx(0.0881, abs=0.004)
    assert rows["filled.npy"]["psnr"] > rows["kriging"]["psnr"] + 1


def test_all_stages_of_a_prior(frames_file: Path, tmp_path: Path) -> None:
    options = "--autoencoder-steps 1 --diffusion-steps 1 --copies 0 --refine-steps 0 --json"
    result = json.loads(done(tmp_path, f"prior train --frames {frames_file} --out q {options}").out)
    assert result == {"pipeline": "q/pipeline"}
    assert (tmp_path / "q/pipeline/model_index.json").exists()


def test_quiet_is_quiet_and_a_file_may_be_named_like_a_method(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    for name, array in (("kriging", x), ("x.npy", x), ("y.npy", x * (np.arange(8) % 4 != 2))):
        with open(tmp_path / name, "wb") as file:
            np.save(file, array)
    score = "score kriging x.npy --mask-from y.npy"
    quiet = done(tmp_path, f"-q {score}")
    assert (quiet.out, quiet.err) == ("", "")
    rows = json.loads(done(tmp_path, f"-q {score} --json").out)
    assert list(rows) == ["linear", "biharmonic", "kriging", "./kriging"]
    assert rows["./kriging"]["rmse"] == 0 < rows["kriging"]["rmse"]
    assert "./kriging" in done(tmp_path, score).out, "quiet must not outlive its command"
