"""What every command has in common: quick to start, plain text, quiet and JSON modes, progress."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import ROOT
from in_process import called

from nogaps import standin
from nogaps.commands import main as cli
from nogaps.runtime import progress

HEAVY = ("torch", "numpy", "scipy", "skimage", "matplotlib", "diffusers", "tqdm", "gradio", "rich")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def commands(group: object = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple, object]]:
    """Every command with the words that call it."""
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_starting_loads_nothing_heavy() -> None:
    code = (
        "import sys, nogaps, nogaps.commands.main; print(sorted({*sys.argv[1:]} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_command_has_json_and_an_example() -> None:
    found = dict(commands())
    assert len(found) >= 15 and ("prior", "push") in found
    for path, command in found.items():
        options = {name for parameter in command.params for name in parameter.opts}
        assert "--json" in options, path
        assert f"Example: nogaps {' '.join(path)}" in command.help, path
        for parameter in command.params:
            assert parameter.param_type_name != "option" or parameter.help, (path, parameter.name)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    standin.write_test_set(tmp_path / "y.npy")
    np.save(tmp_path / "truth.npy", standin.clean_images())
    np.save(tmp_path / "few.npy", standin.clean_images()[:24])
    return tmp_path


def test_json_is_all_that_stdout_holds(files: Path, prior_folder: Path) -> None:
    calls = [
        ("make-test-set", "--out", "made.npy"),
        ("fill", "y.npy", "-o", "filled.npy", "--quality", "fast"),
        ("score", "filled.npy", "truth.npy", "--mask-from", "y.npy"),
        ("check", ".", "--test-set", "y.npy"),
        ("sample", "--num-samples", 2, "--steps", 1, "--out", "s", "--prior", prior_folder),
        ("prior", "prepare", "--source", "few.npy", "--out", "few.npz", "--val-share", 0),
    ]
    for call in calls:
        for quiet in ((), ("--quiet",)) if call[0] in ("score", "check") else ((),):
            done = called(*quiet, *call, "--json", cwd=files)
            assert done.code == (call[0] == "check"), done.err
            assert isinstance(json.loads(done.out), dict), call
    done = called("--quiet", "score", "filled.npy", "truth.npy", "--mask-from", "y.npy", cwd=files)
    assert (done.code, done.out, done.err) == (0, "", "")
    done = called("-q", "score", "absent.npy", "truth.npy", "--mask-from", "y.npy", cwd=files)
    assert done.code == 2 and done.err.startswith("nogaps: absent.npy: ")
    done = called("score", "filled.npy", "truth.npy", "--mask-from", "y.npy", cwd=files)
    assert "kriging" in done.out, "quiet must not outlive its command"


def on_terminal(*command: str) -> str:
    """What a command writes to a terminal of 80 columns that claims to know colours."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
    )
    os.close(theirs)
    text = b""
    try:
        while block := os.read(mine, 4096):
            text += block
    except OSError:  # how Linux says that nobody writes any more
        pass
    process.wait()
    os.close(mine)
    return text.decode()


WORK = """
import time
from nogaps.runtime.progress import progress
for _ in progress(range(30), "walking"):
    time.sleep(0.05)
"""


def test_terminals_show_a_bar_and_no_colours() -> None:
    text = on_terminal(sys.executable, "-c", WORK)
    assert "walking" in text and text.count("\r") > 1 and "30/30" in text
    for arguments in ((), ("fill", "--help"), ("fill",), ("make-test-set", "--out", "/dev/null")):
        text = on_terminal(sys.executable, "-m", "nogaps", *arguments)
        assert "nogaps" in text and "\x1b" not in text


def test_logs_get_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def walk(steps: int, seconds: float, **options: object) -> list[str]:
        bar = progress.progress(range(steps), "walking", **options)
        for step in bar:
            now[0] += seconds
            bar.set_postfix({"loss": step})
        err = capsys.readouterr().err
        assert "\r" not in err
        return err.splitlines()

    assert walk(1000, 0.001) == [], "what takes a second needs no line"
    lines = walk(1000, 0.1)
    assert len(lines) == 10
    assert lines[0] == "walking:  10% (100 of 1000) after 0:10, about 1:30 left, loss 99"
    assert lines[-1] == "walking: 100% (1000 of 1000) after 1:40, loss 999"
    assert len(walk(100, 60)) == 100, "a line at least at each step that takes longer than 30 s"
    assert len(walk(1000, 6)) == 200, "every 30 s where a tenth takes longer"
    assert walk(10, 1, initial=90, total=100)[-1].startswith("walking: 100% (100 of 100)")
    assert walk(1000, 0.1, disable=True) == []
    progress.set_quiet(True)
    try:
        assert walk(1000, 0.1) == []
    finally:
        progress.set_quiet(False)
    with pytest.raises(ZeroDivisionError), progress.progress(desc="falling", total=4) as bar:
        now[0] += 3
        bar.update()
        now[0] += 1
        bar.update(1 // 0)
    assert capsys.readouterr().err == "falling:  25% (1 of 4) after 0:03, about 0:09 left\n"


def test_notebooks_show_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's stderr is no terminal; what tells it is the shell that IPython names."""
    import IPython

    assert isinstance(progress.progress(range(3)), progress.Lines)
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": 1})())
    bar = progress.progress(total=3, disable=False)
    assert not isinstance(bar, progress.Lines)
    bar.close()


def test_a_shell_completes_commands_and_options() -> None:
    def complete(*words: str) -> list[str]:
        asked = {"_NOGAPS_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words)}
        asked |= {"COMP_CWORD": str(len(words) - 1)}
        code = "import sys; sys.argv = ['nogaps']; from nogaps.commands.main import main; main()"
        command = [sys.executable, "-c", code]
        environment = {**ENVIRONMENT, **asked}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.stdout.split()

    assert complete("nogaps", "fi") == ["fill"]
    assert {"prepare", "evaluate"} <= {*complete("nogaps", "prior", "")}
    assert "--uncertainty" in complete("nogaps", "fill", "--u")
