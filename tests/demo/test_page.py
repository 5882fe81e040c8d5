"""The demo's page: in a real browser, against a real server; and what is behind it."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import nibabel
import numpy as np
import pytest
from browser import errors_of, needs_browser, open_browser
from conftest import ROOT
from in_process import called
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from nogaps import standin
from nogaps.demo import work
from nogaps.demo.pictures import HOLE, downloads, view
from nogaps.demo.work import Filler
from nogaps.filling.files import fill_file
from nogaps.images.formats import open_images
from nogaps.imputers.loading import load_imputer
from nogaps.imputers.uncertainty import load_calibrated
from nogaps.runtime.files import BadInput

pytestmark = pytest.mark.xdist_group("demo")  # one server for all
UPLOAD_MB = 1


@dataclass(frozen=True)
class Served:
    """A running demo: its address, and the folder that it has for temporary files."""

    address: str
    temporary: Path

    def get(self, path: str, body: bytes | None = None, **headers: str) -> bytes:
        with urlopen(Request(self.address + path, body, headers), timeout=60) as answer:
            return answer.read()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "nogaps", "demo", "--no-browser", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--max-upload-mb", str(UPLOAD_MB)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert "Ctrl-C ends it" in line, process.stderr.read()
        yield Served(line.split(": open")[0], temporary)
        process.send_signal(signal.SIGINT)
        # a busy machine may need longer to leave than the grace of Signals
        assert process.wait(20) in (130, -signal.SIGALRM)
        assert "nogaps: interrupted" in process.stderr.read()
        assert not list(temporary.iterdir()), "files are left"
    finally:
        process.kill()
        process.communicate()


class Driven:
    """The page in a browser."""

    def __init__(self, served: Served, folder: Path, width: int = 1200) -> None:
        self.driver = open_browser(folder, width)
        self.folder, self.address = folder, served.address
        self.driver.get(served.address)
        self.until(lambda: self.one("#go").is_displayed())

    def one(self, selector: str) -> webdriver.remote.webelement.WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def until(self, true: Callable[[], object], seconds: int = 60) -> None:
        WebDriverWait(self.driver, seconds, 0.1, [Exception]).until(lambda _: true())

    def upload(self, *files: Path) -> None:
        self.driver.refresh()
        self.until(lambda: self.one("#go").is_displayed())
        self.one("#files input[type=file]").send_keys("\n".join(map(str, files)))
        self.until(
            lambda: self.one("#files").text.count(" B") + self.one("#files").text.count("KB")
        )

    def fill(self, *files: Path) -> str:
        """Upload files, click the button, and what the page says then."""
        self.upload(*files)
        self.one("#go").click()
        return self.said()

    def said(self) -> str:
        self.until(lambda: self.one("#status p").text)
        return self.one("#status p").text

    def download(self, name: str) -> bytes:
        """What the button `name` saves."""
        before = set(self.folder.glob("*"))
        self.until(lambda: self.one(f"#get-{name}").is_displayed())
        self.one(f"#get-{name}").click()
        new: list[Path] = []

        def finished() -> bool:
            # Chromium keeps the name by an empty file until the whole one takes its place
            new[:] = set(self.folder.glob("*")) - before
            whole = all(path.suffix not in (".crdownload", ".tmp") for path in new)
            return len(new) == 1 and whole and new[0].stat().st_size > 0

        self.until(finished)
        return new[0].read_bytes()

    def elsewhere(self) -> list[str]:
        """What the page has asked other hosts for."""
        script = "return performance.getEntriesByType('resource').map(one => one.name)"
        asked = self.driver.execute_script(script)
        assert asked
        return [one for one in asked if not one.startswith((self.address, "data:", "blob:"))]


@pytest.fixture(scope="module")
def page(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    driven = Driven(served, tmp_path_factory.mktemp("downloads"))
    yield driven
    driven.driver.quit()


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    path = tmp_path / "heads.npy"
    np.save(path, standin.corrupted_images()[:6])
    return path


@needs_browser
def test_page_fills_as_the_command_does(page: Driven, heads: Path) -> None:
    assert page.fill(heads) == "6 images, 12,438 pixels filled"
    out, half = heads.with_name("out.npy"), heads.with_name("half.npy")
    assert called("fill", heads, "-o", out, "--uncertainty", half).code == 0
    assert page.download("npy") == out.read_bytes()
    assert page.download("half") == half.read_bytes()
    with zipfile.ZipFile(io.BytesIO(page.download("png"))) as archive:
        assert archive.namelist() == [f"heads_filled_{k}.png" for k in range(6)]
        pixels = np.asarray(Image.open(archive.open("heads_filled_3.png")))
    assert np.array_equal(pixels, np.rint(65535 * np.load(out)[3, 0].astype(np.float64)))
    plain = heads.with_name("plain.npy")
    assert called("fill", heads, "-o", plain).code == 0
    assert plain.read_bytes() == out.read_bytes()
    shown = page.driver.find_elements(By.CSS_SELECTOR, "#compare img, #panels img")
    assert len(shown) == 5 and {image.get_property("naturalWidth") for image in shown} == {512}
    assert all(".png" in image.get_attribute("src") for image in shown)
    assert "90% intervals" in page.one("#caption").text
    assert not page.elsewhere() and not errors_of(page.driver)


@needs_browser
def test_example_of_pngs_and_its_pages(page: Driven) -> None:
    page.driver.refresh()
    page.until(lambda: page.one("#examples button").is_displayed())
    page.driver.find_elements(By.CSS_SELECTOR, "#examples button")[1].click()
    assert page.said() == "7 images, 14,511 pixels filled"
    page.until(lambda: page.one("#caption").text.startswith("head_0.png: 64×64"))
    first = page.one("#compare img").get_attribute("src")
    box = page.one("#number input[type=number]")
    page.driver.execute_script("arguments[0].select()", box)
    box.send_keys("5\n")
    page.until(lambda: page.one("#caption").text.startswith("head_4.png"))
    assert page.one("#compare img").get_attribute("src") != first
    with zipfile.ZipFile(io.BytesIO(page.download("png"))) as archive:
        assert archive.namelist() == [f"head_{k}.png" for k in range(7)]
    assert not page.elsewhere() and not errors_of(page.driver)


@needs_browser
def test_bad_files_get_one_line(page: Driven, served: Served, heads: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.npy"
    text.write_text("not an array")
    assert page.fill(text).startswith("text.npy: is damaged")
    assert page.one("#status p").get_attribute("role") == "alert"
    page.until(lambda: page.one("#go").is_enabled())
    assert not page.driver.find_elements(By.ID, "caption")
    np.save(tmp_path / "one.npy", np.load(heads)[:1])
    assert page.fill(tmp_path / "one.npy").endswith("expected a mask (under “Options”)")
    large = tmp_path / "large.npy"
    np.save(large, np.zeros((UPLOAD_MB << 20), np.uint8))
    page.one("#files button[aria-label*=lear]").click()
    page.one("#files input[type=file]").send_keys(str(large))
    page.until(lambda: "exceed the maximum allowed size" in page.one("body").text)
    page.upload(heads)
    for path in served.temporary.glob("*/cache/*/heads.npy"):
        path.unlink()  # as after an hour
    page.one("#go").click()
    assert page.said() == "heads.npy: cannot be read (No such file or directory), expected a file"
    page.until(lambda: page.one("#go").is_enabled())
    page.driver.get_log("browser")


@needs_browser
def test_phone(served: Served, tmp_path: Path) -> None:
    phone = Driven(served, tmp_path, 390)
    try:
        phone.driver.find_elements(By.CSS_SELECTOR, "#examples button")[2].click()
        assert phone.said() == "1 image, 2,073 pixels filled"
        phone.until(lambda: phone.one("#get-half").is_displayed())
        width = phone.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390
        assert "4.1 KB" in phone.one("#mask").text  # of mask.npy
        assert not phone.elsewhere() and not errors_of(phone.driver)
    finally:
        phone.driver.quit()


def refused(served: Served, path: str, **headers: str) -> int:
    with pytest.raises(HTTPError) as caught:
        served.get(path, **headers)
    caught.value.close()
    return caught.value.code


def test_one_machine_alone_is_served(served: Served) -> None:
    port = int(served.address.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), 5).close()
    with pytest.raises(ConnectionRefusedError):  # as from any other of its addresses
        socket.create_connection(("127.0.0.2", port), 5)
    assert b"nogaps" in served.get("/")
    assert refused(served, "/", Host="elsewhere.example") == 400
    with urlopen(served.address) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def upload(served: Served, content: bytes) -> str:
    """Send a file as the page does; where the server has put it."""
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.npy"\r\n\r\n'
    kind = {"Content-type": "multipart/form-data; boundary=x"}
    (path,) = json.loads(
        served.get("/gradio_api/upload", part + content + b"\r\n--x--\r\n", **kind)
    )
    return path


def test_uploads_are_limited(served: Served) -> None:
    path = upload(served, bytes((UPLOAD_MB << 20) - 1000))
    assert Path(path).is_relative_to(served.temporary)
    with pytest.raises(HTTPError) as caught:
        upload(served, bytes((UPLOAD_MB << 20) + 1000))
    assert caught.value.code == 413
    caught.value.close()


def outcome(served: Served, path: str) -> dict:
    """What comes of the page's own request to fill a file that was not uploaded."""
    config = json.loads(served.get("/config"))
    which = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == 5)
    file = {"path": path, "orig_name": "x.npy", "meta": {"_type": "gradio.FileData"}}
    session = f"session{abs(hash(path))}"
    body = {"data": [[file], None, "zero", "fast", "as stored"], "fn_index": which}
    body = json.dumps({**body, "session_hash": session}).encode()
    served.get("/gradio_api/queue/join", body, **{"Content-type": "application/json"})
    told = served.get(f"/gradio_api/queue/data?session_hash={session}")
    events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith(b"data: ")]
    return next(one for one in events if one["msg"] == "process_completed")


def test_only_uploads_are_read_and_nothing_is_fetched(served: Served, heads: Path) -> None:
    assert outcome(served, upload(served, heads.read_bytes()))["success"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.1)
        for path in (heads, ROOT / "test_set.npy", f"http://127.0.0.1:{other.getsockname()[1]}/"):
            assert not outcome(served, str(path))["success"]
        with pytest.raises(TimeoutError):
            other.accept()
    for path in (heads, ROOT / "pyproject.toml", "/etc/passwd"):
        assert refused(served, f"/gradio_api/file={path}") == 403


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Filler:
    return Filler(None, tmp_path_factory.mktemp("work"), "fast")


def stripes(path: Path, images: np.ndarray) -> Path:
    """Write images (N,H,W) to a file of the kind that its name tells."""
    if ".nii" in path.name:
        volume = np.moveaxis(images, 0, -1) if len(images) > 1 else images[0]
        volume = images if path.name == "cut.nii" else volume  # its first axis has length 1
        nibabel.Nifti1Image(volume, np.eye(4)).to_filename(path)
    elif path.suffix == ".npy":
        np.save(path, images[:, None])
    elif path.suffix == ".npz":
        np.savez_compressed(path, images=images)
    else:
        Image.fromarray(images[0]).save(path)
    return path


@pytest.mark.parametrize("name", ["volume.nii", "cut.nii", "slice.nii", "pngs.png", "y.npy"])
def test_half_widths_are_shown_where_they_belong(tmp_path: Path, name: str) -> None:
    grey = np.rint(255 * standin.corrupted_images()[3:5, 0, :, 8:56]).astype(np.uint8)
    grey = grey[:1] if name in ("cut.nii", "slice.nii", "pngs.png") else grey
    np.save(tmp_path / "mask.npy", standin.course_mask()[:, 8:56])
    results = Filler(None, tmp_path).fill([stripes(tmp_path / name, grey)], tmp_path / "mask.npy")
    seen = view(*results.locate(len(grey) - 1))
    assert seen.half.shape == seen.before.shape
    hole = (seen.marked == HOLE).all(-1)
    assert hole.any() and (seen.half[hole].sum(-1) > seen.half[~hole].sum(-1).max()).all()
    assert len(np.unique(seen.half[~hole])) <= 3  # the one colour of 0
    results.remove()


@pytest.mark.parametrize("name", ["volume.nii.gz", "several.npz"])
def test_other_kinds_come_back_as_they_came(filler: Filler, name: str, tmp_path: Path) -> None:
    images = np.rint(1000 * standin.corrupted_images()[:4, 0]).astype(np.int16)
    source = stripes(tmp_path / name, images)
    results = filler.fill([source], quality="fast")
    out = tmp_path / f"filled_{name}"
    fill_file(source, out, load_imputer(quality="fast"), progress=False)
    taken = downloads(results)
    assert taken.own.name == name.replace(".", "_filled.", 1)
    assert taken.own.read_bytes() == out.read_bytes() and taken.half is None
    with open_images(out) as expected:
        filled = expected.read(0, 4)
    assert np.array_equal(np.load(taken.npy), filled) and filled.dtype == np.int16
    with zipfile.ZipFile(taken.png) as archive:
        pixels = [np.asarray(Image.open(archive.open(one))) for one in archive.namelist()]
    assert np.array_equal(np.stack(pixels), np.rint(65535 / filled.max() * filled.astype(float)))
    results.remove()
    assert not list(filler.folder.iterdir())


def test_planes_of_volumes(filler: Filler, tmp_path: Path) -> None:
    """Slices that the page turns upright are those of the command; their half-widths too."""
    images = np.rint(1000 * standin.corrupted_images()[:5, 0, :40]).astype(np.int16)
    volume = np.moveaxis(images[:, ::-1], (0, 1, 2), (0, 2, 1))  # sagittal: right, front, up
    source, out, half = (tmp_path / name for name in ("scan.nii", "out.nii", "half.npy"))
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(source)
    best = load_calibrated(load_imputer())
    fill_file(source, out, best, progress=False, uncertainty=half, plane="sagittal")
    results = Filler(None, tmp_path).fill([source], plane="sagittal")
    taken = downloads(results)
    assert taken.own.read_bytes() == out.read_bytes()
    assert taken.half.read_bytes() == half.read_bytes()
    with open_images(out, plane="sagittal") as upright:
        assert np.array_equal(np.load(taken.npy), upright.read(0, 5))
    seen = view(*results.locate(3))
    assert seen.before.shape == seen.half.shape == (8 * 40, 8 * 64, 3)
    report = results.items[0].report
    assert "sagittal" in report.plane and any("64×64" in note for note in report.notes)
    results.remove()
    with pytest.raises(BadInput, match="under “Options”"):
        filler.fill([source], quality="fast", plane="axial")


def test_several_files_and_pngs_at_once(filler: Filler, tmp_path: Path) -> None:
    grey = np.rint(255 * standin.corrupted_images()[:7, 0]).astype(np.uint8)
    grey = np.maximum(grey, standin.course_mask().astype(np.uint8))  # no true zero is left
    pngs = [stripes(tmp_path / f"{k}.png", grey[k : k + 1]) for k in range(3)]
    npz = stripes(tmp_path / "rest.npz", grey[3:])
    told: list[tuple[int, int]] = []
    files = [pngs[2], npz, *pngs[:2]]
    results = filler.fill(files, quality="fast", tell=lambda *far: told.append(far))
    assert told == [(4, 7), (7, 7)]
    assert [results.locate(k)[0].name(results.locate(k)[1]) for k in (0, 3, 4, 6)] == [
        *("rest.npz", "rest.npz", "0.png", "2.png")
    ]
    taken = downloads(results)
    with zipfile.ZipFile(taken.npy) as archive:
        assert archive.namelist() == ["rest_filled.npy", "PNGs_filled.npy"]
        filled = np.load(archive.open("PNGs_filled.npy"))
    with zipfile.ZipFile(taken.png) as archive:
        assert archive.namelist()[4:] == ["0.png", "1.png", "2.png"]
        assert np.array_equal(np.asarray(Image.open(archive.open("1.png"))), filled[1])
    seen = view(*results.locate(5))
    mask = standin.course_mask().repeat(8, 0).repeat(8, 1)
    assert (seen.marked[~mask] == HOLE).all() and seen.half is None
    assert np.array_equal(seen.marked[mask], seen.before[mask])
    assert np.array_equal(seen.after[mask], seen.before[mask])
    with pytest.raises(IndexError):
        results.locate(7)
    results.remove()


def test_messages_name_files_alone(
    filler: Filler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = np.rint(255 * standin.corrupted_images()[:2, 0]).astype(np.uint8)
    good = stripes(tmp_path / "good.npz", grey)
    (tmp_path / "other").mkdir()
    (tmp_path / "text.png").write_text("no picture, though it is named so")
    wide, twin = tmp_path / "wide.png", stripes(tmp_path / "other" / "good.npz", grey)
    Image.new("RGB", (64, 64)).save(wide)
    (tmp_path / "notes.txt").write_text("no image")
    mask = tmp_path / "mask.npy"
    np.save(mask, np.ones((32, 32), bool))
    for files, given, line in (
        ([], None, "no file: expected .npy, .npz, PNG or NIfTI, or one of the examples"),
        ([good, twin], None, "good.npz: stands 2 times, expected files of different names"),
        ([tmp_path / "text.png"], None, "text.png: is not a PNG, expected one"),
        ([wide], None, "wide.png: is colour with 8 bits, expected grey with 8 or 16 bits"),
        ([good], mask, "mask.npy: has shape (1, 32, 32), expected (64, 64) or (2, 64, 64)"),
        ([tmp_path / "notes.txt"], None, "notes.txt: not a known kind, expected .npy, .npz, "),
    ):
        with pytest.raises(BadInput) as caught:
            filler.fill(files, given, quality="fast")
        assert str(caught.value).startswith(line)
    monkeypatch.setattr(work, "MOST_PIXELS", 2 * 64 * 64 - 1)
    with pytest.raises(BadInput, match=r"good\.npz: brings the pixels to 8,192, expected"):
        filler.fill([good])
    assert not list(filler.folder.iterdir()), "files of failed calls are left"


def test_demo_needs_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")
    done = called("demo", "--no-browser", "--port", 0)
    assert done.code == 2 and not done.out
    assert done.err == "nogaps: gradio: is not there, expected: pip install 'nogaps[demo]'\n"


def test_addresses_that_cannot_be_had(served: Served) -> None:
    port = served.address.rpartition(":")[2]
    done = called("demo", "--no-browser", "--port", port)
    assert done.code == 2 and done.err.startswith(f"nogaps: --host 127.0.0.1 --port {port}: cannot")
    done = called("demo", "--no-browser", "--host", "256.1.1.1")
    lines = done.err.splitlines()
    assert done.code == 2 and len(lines) == 2
    assert lines[0].startswith("nogaps: warning: --host 256.1.1.1: everyone who reaches it")
    assert lines[1].startswith("nogaps: --host 256.1.1.1: cannot be had")
