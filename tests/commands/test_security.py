"""What the code never does, read off its source; and what a stranger's model cannot do."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from huggingface_hub.utils import filter_repo_objects
from nbclient import NotebookClient
from PIL import Image, ImageFile
from safetensors.torch import load_file, save_file

from nogaps import running
from nogaps.imputers.loading import SHIPPED, load_imputer
from nogaps.prior.loading import FILES, WEIGHTS, load_prior
from nogaps.runtime import hub
from nogaps.runtime.checkpoint import load_tensors, save_tensors
from nogaps.runtime.errors import BadInput

UNPICKLERS = {"pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml"}
NETWORK = {"urllib.request", "urllib3", "requests", "httpx", "http", "socket", "ftplib", "aiohttp"}
FORBIDDEN = UNPICKLERS | NETWORK | {"ctypes", "huggingface_hub"}
OPTIONS = {  # call: the keywords that it must have, and the only values of these
    "np.load": {"allow_pickle": False},
    "np.save": {"allow_pickle": False},
    "torch.load": {"weights_only": True},
    "from_pretrained": {"use_safetensors": True, "local_files_only": True},
}
ALLOWED = {  # module: the rule that it may break, and why
    "nogaps/runtime/hub.py": "huggingface_hub",  # the one way to the network
    "nogaps/demo/server.py": "socket",  # asks whether an address is free
}


def faults_of_call(node: ast.Call) -> Iterator[str]:
    name, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
    last = name.rpartition(".")[2]
    required = OPTIONS.get(name) or OPTIONS.get(last) or {}
    yield from (key for key, value in required.items() if options.get(key) != str(value))
    if options.get("trust_remote_code", "False") != "False":
        yield "trust_remote_code"
    if last == "import_module" and not isinstance(node.args[0], ast.Constant):
        yield last
    if last == "load_state_dict" and (len(node.args) > 1 or "strict" in options):
        yield "strict"


def faults(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of the rules that a source breaks and ruff does not know."""
    for node in ast.walk(ast.parse(source)):
        broken: Iterable[str] = ()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            parts = [f"{start}{alias.name}".split(".") for alias in node.names]
            broken = {".".join(part[:n]) for part in parts for n in (1, 2)} & FORBIDDEN
        elif isinstance(node, ast.Call):
            broken = faults_of_call(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            broken = {node.attr} & {"MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES"}
        yield from ((node.lineno, rule) for rule in broken)


def test_the_source_keeps_the_rules() -> None:
    """Ruff's rules S find eval, shells, downloads and temporary names; these are the others."""
    paths = sorted((*(ROOT / "nogaps").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")))
    assert len(paths) > 40
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        broken = [fault for fault in faults(path.read_text()) if fault[1] != ALLOWED.get(name)]
        assert not broken, f"{name}: {broken}"
    assert Image.MAX_IMAGE_PIXELS and not ImageFile.LOAD_TRUNCATED_IMAGES


def test_kernel_talks_through_files_of_one_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict = {}

    def execute(self: NotebookClient, **_: object) -> None:
        seen.update(self.config["KernelManager"])
        seen["mode"] = stat.S_IMODE(Path(seen["ip"]).parent.stat().st_mode)

    monkeypatch.setattr(NotebookClient, "execute", execute)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    nbformat.write(notebook, tmp_path / running.NOTEBOOK)
    running.execute(tmp_path, "smoke", tmp_path / "out")
    assert seen["transport"] == "ipc" and seen["mode"] == 0o700


class Bomb:
    """A pickle that leaves a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """The file that a Bomb leaves, which it must not have left in the end."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "armed")))
    assert (tmp_path / "armed").exists()
    yield tmp_path / "mark"
    assert not (tmp_path / "mark").exists()


@pytest.fixture
def folder(prior_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prior_folder, tmp_path / "prior")


Spoil = Callable[[Path, Path], object]


def config(part: str, **changes: object) -> Spoil:
    def spoil(folder: Path, _: Path) -> None:
        path = folder / part
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def weights(change: Callable[[dict], object]) -> Spoil:
    def spoil(folder: Path, _: Path) -> None:
        tensors = load_file(folder / "unet" / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / "unet" / WEIGHTS)

    return spoil


def pickled(name: str) -> Spoil:
    def spoil(folder: Path, mark: Path) -> None:
        (folder / "unet" / WEIGHTS).unlink()
        (folder / "unet" / name).write_bytes(pickle.dumps(Bomb(mark)))

    return spoil


REFUSED: dict[str, Spoil] = {
    "pickle": pickled("diffusion_pytorch_model.bin"),
    "pickle under another name": pickled(WEIGHTS),
    "class of the denoiser": config("unet/config.json", _class_name="os.system"),
    "module of the denoiser": config("unet/config.json", _class_name=["evil", "Model"]),
    "class of the first stage": config("vqvae/config.json", _class_name="evil.Model"),
    "extra tensor": weights(lambda tensors: tensors.update(extra=torch.zeros(1))),
    "missing tensor": weights(lambda tensors: tensors.popitem()),
    "other shape": weights(lambda t: t.update({"conv_in.bias": torch.zeros(3)})),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_hostile_priors_are_one_line(name: str, folder: Path, mark: Path) -> None:
    REFUSED[name](folder, mark)
    with pytest.raises(BadInput, match=str(folder)):
        load_prior(folder)


def test_code_in_a_prior_is_never_run(
    folder: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a pipeline of its own, nor modules, nor what asks diffusers to trust them."""
    for name in ("pipeline.py", "evil.py", "unet/unet.py", "vqvae/__init__.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w')\n")
    index = {"_class_name": ["pipeline", "Evil"], "unet": ["evil", "Model"]}
    config("model_index.json", **index)(folder, mark)
    options = {"auto_map": {"AutoModel": "evil.Model"}, "trust_remote_code": True}
    config("unet/config.json", **options)(folder, mark)
    monkeypatch.chdir(folder)
    with suppress(BadInput):
        load_prior(folder)


@pytest.mark.parametrize("name", ["../absent/prior", "..", "a/..", "a b/c", "a/b/../../c", "~/x"])
def test_names_of_priors_lead_nowhere_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput):
        load_prior(name)


def test_only_weights_and_configs_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **options: asked.update(options))
    with pytest.raises(TypeError):  # nothing was fetched: there is no folder
        hub.locate("owner/name", FILES, "v1")
    files = ["model_index.json", "unet/config.json", f"unet/{WEIGHTS}"]
    others = ["unet/x.bin", "x.pkl", "x.pt", "x.ckpt", "pipeline.py", "unet/m.py", "x.msgpack"]
    kept = filter_repo_objects([*files, *others], allow_patterns=asked["allow_patterns"])
    assert list(kept) == files and asked["revision"] == "v1"


def test_imputers_load_strictly_and_without_pickle(tmp_path: Path, mark: Path) -> None:
    tensors, meta = load_tensors(SHIPPED / "imputer.safetensors")
    path, last = tmp_path / "imputer.safetensors", next(reversed(tensors))
    others = {name: value for name, value in tensors.items() if name != last}
    extra, other_shape = {**tensors, "extra": np.zeros(1)}, {**others, last: np.zeros(7)}
    for changed in (others, extra, other_shape):
        save_tensors(path, {k: torch.as_tensor(v) for k, v in changed.items()}, meta)
        with pytest.raises(BadInput, match=str(path)):
            load_imputer(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BadInput, match="expected a readable safetensors"):
        load_imputer(path)
