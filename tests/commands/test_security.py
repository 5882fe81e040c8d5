"""What the code never does, read off its source; and what a stranger's model folder cannot do."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
import stat
from collections.abc import Callable, Iterator
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
from nogaps.runtime.files import BadInput

UNPICKLERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}
NETWORK = {"urllib.request", "urllib3", "requests", "httpx", "http", "socket", "ftplib", "aiohttp"}
IMPORTS = UNPICKLERS | NETWORK | {"yaml", "ctypes", "pty", "tarfile", "xmlrpc", "telnetlib"}
BUILTINS = {"eval", "exec", "compile", "__import__", "execfile"}
SHELLS = ("os.system", "os.popen", "os.exec", "os.spawn", "subprocess.getoutput", "pty.")
UNPACKING = {"extractall", "extract", "unpack_archive", "mktemp", "read_pickle", "loads_pickle"}
DOWNLOADS = {"load_state_dict_from_url", "download_url_to_file", "urlopen", "urlretrieve"}
OPTIONS = {  # keyword: the only value it may have
    "shell": False,
    "verify": True,
    "trust_remote_code": False,
    "weights_only": True,
    "allow_pickle": False,
    "use_safetensors": True,
    "safe_serialization": True,
}
REQUIRED = {"torch.load": "weights_only", "np.load": "allow_pickle", "np.save": "allow_pickle"}
SWITCHES = {"MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES"}
ALLOWED = {  # module: a rule that it may break, and why
    "nogaps/prior/loading.py": "import_module",  # of a name that stands in STAGES
    "nogaps/hub.py": "huggingface_hub",  # the one way to the network
    "nogaps/device.py": "ctypes",  # numbers for mallopt of the C library that is loaded anyway
    "nogaps/demo/server.py": "socket",  # it listens, on 127.0.0.1 unless told otherwise
    "nogaps/running.py": "subprocess",  # jupytext, by the interpreter that runs
    "nogaps/submission/notes.py": "subprocess",  # git ls-tree
    "benchmarks/processes.py": "subprocess",  # what is measured, by the interpreter that runs
    "Assessment.ipynb": "subprocess",  # git clone of REPO_URL, pip install: only in Colab
}


def dotted(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def faults_of_import(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "", *(f"{node.module}.{name}" for name in names)]
    for name in names:
        parts = {name, name.split(".")[0], ".".join(name.split(".")[:2])}
        yield from parts & (IMPORTS | {"huggingface_hub", "subprocess"})


def faults_of_call(node: ast.Call) -> Iterator[str]:
    name = dotted(node.func)
    last = name.rpartition(".")[2]
    options = {one.arg: getattr(one.value, "value", one.value) for one in node.keywords}
    if name in BUILTINS or name.startswith(SHELLS) or last in UNPACKING | DOWNLOADS:
        yield name
    if last == "import_module" and not isinstance(node.args[0], ast.Constant):
        yield last
    yield from (key for key in options.keys() & OPTIONS.keys() if options[key] != OPTIONS[key])
    if REQUIRED.get(name) not in (None, *options):
        yield name
    if last == "load_state_dict" and (
        len(node.args) > 1 or options.get("strict", True) is not True
    ):
        yield "not strict"
    if last == "from_pretrained" and not {"use_safetensors", "local_files_only"} <= set(options):
        yield last


def faults(source: str) -> Iterator[str]:
    """Rules that a source breaks, with the line."""
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += faults_of_import(node)
        elif isinstance(node, ast.Call):
            found += faults_of_call(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found += {node.attr} & SWITCHES
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("/tmp/", "/var/tmp/")):
            found += ["a fixed temporary name"]
        yield from (f"{node.lineno}: {one}" for one in found)


def sources() -> Iterator[tuple[str, str]]:
    for folder in ("nogaps", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()
    cells = nbformat.read(ROOT / "Assessment.ipynb", 4).cells
    yield "Assessment.ipynb", "\n".join(c.source for c in cells if c.cell_type == "code")


def test_the_source_keeps_the_rules() -> None:
    checked = dict(sources())
    assert len(checked) > 40
    for name, source in checked.items():
        allowed = ALLOWED.get(name)
        found = [one for one in faults(source) if one.split(": ")[1] != allowed]
        assert not found, f"{name}: {found}"


BROKEN = """
import pickle
from urllib.request import urlopen
from yaml import safe_load
torch.load(path)
torch.load(path, weights_only=False)
np.load(path)
np.load(path, allow_pickle=True)
np.save(path, a)
model.load_state_dict(state, strict=False)
model.load_state_dict(state, False)
subprocess.run(text, shell=True)
os.system(text)
eval(text)
requests.get(url, verify=False)
AutoModel.from_pretrained(name)
AutoModel.from_pretrained(name, use_safetensors=True, local_files_only=True, trust_remote_code=True)
archive.extractall(path)
tempfile.mktemp()
Image.MAX_IMAGE_PIXELS = None
open("/tmp/nogaps.txt", "w")
torch.hub.load_state_dict_from_url(url)
importlib.import_module(name)
"""


def test_every_rule_can_be_broken() -> None:
    """The search above can fail: each line of BROKEN does."""
    lines = {int(one.split(":")[0]) for one in faults(BROKEN)}
    assert lines == set(range(2, len(BROKEN.splitlines()) + 1))
    good = "np.load(path, allow_pickle=False)\nsubprocess.run([git], check=True)\nre.compile(x)\n"
    assert not list(faults(good + "imputer.eval()\nmodel.load_state_dict(state)\n"))


def test_images_keep_their_guards() -> None:
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


def test_the_pickle_is_armed(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


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
def test_hostile_priors_are_one_line(name: str, prior_folder: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "prior", tmp_path / "mark"
    shutil.copytree(prior_folder, folder)
    REFUSED[name](folder, mark)
    with pytest.raises(BadInput, match=str(folder)) as caught:
        load_prior(folder)
    assert "\n" not in str(caught.value) and not mark.exists()


def test_code_in_a_prior_is_never_run(prior_folder: Path, tmp_path: Path) -> None:
    """Neither a pipeline of its own, nor modules, nor what asks diffusers to trust them."""
    folder, mark = tmp_path / "prior", tmp_path / "mark"
    shutil.copytree(prior_folder, folder)
    code = f"open({str(mark)!r}, 'w')\n"
    for name in ("pipeline.py", "evil.py", "unet/unet.py", "vqvae/__init__.py"):
        (folder / name).write_text(code)
    index = {"_class_name": ["pipeline", "Evil"], "unet": ["evil", "Model"]}
    config("model_index.json", **index)(folder, mark)
    config("unet/config.json", auto_map={"AutoModel": "evil.Model"}, trust_remote_code=True)(
        folder, mark
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            load_prior(folder)
        except BadInput as error:
            assert "\n" not in str(error)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../absent/prior", "..", "a/..", "a b/c", "a/b/../../c", "~/x"])
def test_names_of_priors_lead_nowhere_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput) as caught:
        load_prior(name)
    assert "\n" not in str(caught.value)


def test_only_weights_and_configs_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **options: asked.update(options))
    with pytest.raises(TypeError):  # nothing was fetched: there is no folder
        hub.locate("owner/name", FILES, "v1")
    files = ["model_index.json", "unet/config.json", f"unet/{WEIGHTS}"]
    others = ["unet/x.bin", "x.pkl", "x.pt", "x.ckpt", "pipeline.py", "unet/m.py", "x.msgpack"]
    kept = filter_repo_objects([*files, *others], allow_patterns=asked["allow_patterns"])
    assert list(kept) == files and asked["revision"] == "v1"


def test_imputers_load_strictly_and_without_pickle(tmp_path: Path) -> None:
    tensors, meta = load_tensors(SHIPPED / "imputer.safetensors")
    path, mark = tmp_path / "imputer.safetensors", tmp_path / "mark"
    last = next(reversed(tensors))
    others = {name: value for name, value in tensors.items() if name != last}
    for changed in (others, {**tensors, "extra": np.zeros(1)}, {**others, last: np.zeros(7)}):
        save_tensors(path, {k: torch.as_tensor(v) for k, v in changed.items()}, meta)
        with pytest.raises(BadInput, match=str(path)):
            load_imputer(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BadInput, match="expected a readable safetensors"):
        load_imputer(path)
    assert not mark.exists()
