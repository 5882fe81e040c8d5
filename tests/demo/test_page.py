"""The demo's page in a real browser, against a real server; and whom the server refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from browser import errors_of, free_port, needs_browser, open_browser
from conftest import ROOT
from in_process import called
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from nogaps import standin

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
    command = [sys.executable, "-m", "nogaps", "demo", "--no-browser", "--port", str(free_port())]
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
        assert process.wait(20) == 130
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

    def until(self, true: Callable[[], Any]) -> Any:
        """Wait until a call returns something true and raises nothing, and return it."""
        return WebDriverWait(self.driver, 60, 0.1, [Exception]).until(lambda _: true())

    def upload(self, *files: Path) -> None:
        self.driver.refresh()
        self.until(lambda: self.one("#go").is_displayed())
        self.one("#files input[type=file]").send_keys("\n".join(map(str, files)))
        self.until(lambda: any(unit in self.one("#files").text for unit in (" B", "KB")))

    def fill(self, *files: Path) -> str:
        """Upload files, click the button, and return what the page says then."""
        self.upload(*files)
        self.one("#go").click()
        return self.said()

    def said(self) -> str:
        return self.until(lambda: self.one("#status p").text)

    def download(self, name: str) -> bytes:
        """What the button `name` saves; a click before the page is ready saves nothing."""
        pattern = {"npy": "*_filled*.npy", "half": "*_half_width*.npy", "png": "*.zip"}[name]
        before = set(self.folder.glob(pattern))
        self.until(lambda: self.one(f"#get-{name}").is_displayed())

        def saved() -> bytes:
            # Chromium keeps the name by an empty file until the whole one takes its place
            new = set(self.folder.glob(pattern)) - before
            return b"".join(path.read_bytes() for path in new)

        for _ in range(4):
            self.one(f"#get-{name}").click()
            with contextlib.suppress(TimeoutException):
                return WebDriverWait(self.driver, 20, 0.1, [Exception]).until(lambda _: saved())
        raise TimeoutException(f"nothing was saved by {name}")

    def elsewhere(self) -> list[str]:
        """Return what the page has asked other hosts for."""
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        asked = self.driver.execute_script(script)
        assert asked
        return [name for name in asked if not name.startswith((self.address, "data:", "blob:"))]


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
def test_page_may_not_load_from_elsewhere(page: Driven) -> None:
    """The policy forbids it, also for what a hostile file name would bring into the page."""
    script = """const done = arguments[0];
        document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));
        const image = new Image(); image.src = 'http://127.0.0.1:1/x.png';
        image.onload = () => done('loaded');"""
    assert page.driver.execute_async_script(script) == "img-src"
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


def refused(call: Callable[[], object]) -> int:
    """Return the code of an HTTP error."""
    with pytest.raises(HTTPError) as caught:
        call()
    caught.value.close()
    return caught.value.code


def test_one_machine_alone_is_served(served: Served) -> None:
    port = int(served.address.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), 5).close()
    with pytest.raises(ConnectionRefusedError):  # as from any other of its addresses
        socket.create_connection(("127.0.0.2", port), 5)
    assert b"nogaps" in served.get("/")
    assert refused(lambda: served.get("/", Host="elsewhere.example")) == 400


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
    assert refused(lambda: upload(served, bytes((UPLOAD_MB << 20) + 1000))) == 413


def outcome(served: Served, path: str) -> dict:
    """What comes of the page's own request to fill a file that was not uploaded."""
    config = json.loads(served.get("/config"))
    which = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == 5)
    file = {"path": path, "orig_name": "x.npy", "meta": {"_type": "gradio.FileData"}}
    session = f"session{abs(hash(path))}"
    body = {"data": [[file], None, "zero", "fast", "as stored"], "fn_index": which}
    body = json.dumps({**body, "session_hash": session}).encode()
    served.get("/gradio_api/queue/join", body, **{"Content-type": "application/json"})
    answer = served.get(f"/gradio_api/queue/data?session_hash={session}")
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith(b"data: ")]
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
        assert refused(lambda path=path: served.get(f"/gradio_api/file={path}")) == 403


def test_addresses_that_are_not_available(served: Served) -> None:
    port = served.address.rpartition(":")[2]
    done = called("demo", "--no-browser", "--port", port)
    line = f"nogaps: --host 127.0.0.1 --port {port}: not available (Address already in use)"
    assert done.code == 2 and done.err == f"{line}, expected a free address\n"
    done = called("demo", "--no-browser", "--host", "256.1.1.1")
    warning, line = done.err.splitlines()
    assert done.code == 2 and line.startswith("nogaps: --host 256.1.1.1: not available")
    assert warning.startswith("nogaps: warning: --host 256.1.1.1: everyone who reaches it")
