"""Serve the page: to this machine alone unless told otherwise, leaving nothing behind."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nogaps.runtime.errors import BadInput

if TYPE_CHECKING:
    import uvicorn

    from nogaps.demo.work import Filler

PORTS = range(7860, 7960)  # tried in this order
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (  # what the page may load and talk to: the server it came from
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guarded:
    """An ASGI application whose answers carry HEADERS."""

    def __init__(self, app: Callable) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass everything on."""

        async def send_guarded(message: dict) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await self.app(scope, receive, send_guarded)


def serve(
    ready: Callable[[str], None],
    model: str | Path | None = None,
    quality: str = "best",
    host: str = LOOPBACK[0],
    port: int | None = None,
    upload_mb: int = 100,
    open_page: bool = False,
    revision: str | None = None,
) -> None:
    """Serve the page until a signal ends the process.

    ready: called with the page's address once it can be opened. model, revision: as `load_imputer`
    takes them. host: what to listen on; the default is reached from this machine alone. port: None
    for the first free one from 7860, 0 for any free one. upload_mb: the largest file, in units of
    2^20 bytes. Uploads and results lie in a private temporary folder, which is removed at the end.
    Raises BadInput: no Gradio, a bad model, an address that cannot be had.
    """
    with (
        tempfile.TemporaryDirectory(prefix="nogaps-demo-") as name,
        _listen(host, port) as listener,
    ):
        folder = Path(name).resolve()
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(folder / "cache"))
        tempfile.tempdir = str(folder)  # what others write lies there too
        _require_gradio()
        import uvicorn

        from nogaps.demo.work import Filler

        filler = Filler(model, folder, quality, revision)
        app = _application(filler, quality, host in LOOPBACK, upload_mb)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        ready(address)
        if open_page:  # a browser of text would keep the server from starting
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        _run(uvicorn.Server(config), listener)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run in a thread, so that signals end this one as they end every command."""
    ended = threading.Event()  # an interrupted join takes the thread for ended

    def run() -> None:
        try:
            server.run([listener])
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        ended.wait()
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # pages are cut off
        server.should_exit = True
        ended.wait(5)


def _application(filler: Filler, quality: str, here: bool, upload_mb: int) -> Callable:
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.middleware.trustedhost import TrustedHostMiddleware

    from nogaps.demo.examples import write_examples
    from nogaps.demo.page import Page
    from nogaps.demo.style import look, supported

    examples = filler.folder / "examples"
    examples.mkdir()
    page = Page(filler, write_examples(examples), quality, here)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    closed = {"enable_monitoring": False, "ssr_mode": False, "pwa": False, "show_error": False}
    newer = supported(
        gr.mount_gradio_app, run_history=False, mcp_server=False, footer_links=[], **look()
    )
    limit = upload_mb << 20
    gr.mount_gradio_app(app, page.blocks, "/", max_file_size=limit, **closed, **newer)
    # as `launch` sets them: until then Gradio takes any file of this machine for an upload
    page.blocks.has_launched = page.blocks.is_running = True
    gr.processing_utils.async_ssrf_protected_download = _fetch_nothing
    if here:  # a name that leads here from elsewhere is a trick to get past the browser
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "["])
    return Guarded(app)


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    """In place of Gradio's function, for URLs that are sent instead of uploads."""
    raise ValueError("a URL was sent in place of a file")


def _require_gradio() -> None:
    try:
        import gradio
    except ImportError as error:
        raise BadInput("gradio: is not there, expected: pip install 'nogaps[demo]'") from error
    if not hasattr(gradio, "ImageSlider"):
        found = f"gradio {gradio.__version__}: is too old"
        raise BadInput(f"{found}, expected 5.27 or newer: pip install -U gradio")


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens on `port` of `host`, or on the first free one of PORTS."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    error = OSError()
    for one in PORTS if port is None else [port]:
        try:
            return socket.create_server((host, one), family=family)
        except (OSError, OverflowError) as found:
            error = found
    place = f"--host {host}" + ("" if port is None else f" --port {port}")
    reason = getattr(error, "strerror", None) or error
    raise BadInput(f"{place}: cannot be had ({reason}), expected a free address") from error
