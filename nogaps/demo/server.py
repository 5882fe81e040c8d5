"""Serve the page with Gradio's own server: to this machine alone unless told otherwise."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nogaps.runtime.errors import BadInput, require

if TYPE_CHECKING:
    from gradio import Blocks

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (  # the page may load from, and talk to, the server that it came from
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "form-action 'self'; base-uri 'self'; object-src 'none'"
)


def serve(
    ready: Callable[[str], None],
    model: str | Path | None,
    quality: str,
    host: str,
    port: int | None,
    upload_mb: int,
    open_page: bool,
    revision: str | None,
) -> None:
    """Serve the page until a signal ends the process, and leave no file behind.

    `ready` is called with the page's address as soon as the page can be opened; the other arguments
    are the options of `nogaps demo`.

    Raises:
        BadInput: Gradio is missing, the model is invalid, or the address is not free.
    """
    require("demo", "gradio")
    _check_address(host, port)
    with tempfile.TemporaryDirectory(prefix="nogaps-demo-") as name:
        folder = Path(name).resolve()
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "cache")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = os.environ["GRADIO_RUN_HISTORY"] = "False"
        from nogaps.demo.page import CSS, Page, theme
        from nogaps.demo.uploads import Filler, write_examples

        filler = Filler(model, folder, quality, revision)
        page = Page(filler, write_examples(folder), quality, host in LOOPBACK)
        options = {"server_port": port, "max_file_size": upload_mb << 20, "inbrowser": open_page}
        try:
            address = _launch(page.blocks, host, theme=theme(), css=CSS, **options)
            ready(address.rstrip("/"))
            page.blocks.block_thread()
        finally:
            page.blocks.close(verbose=False)


def _launch(blocks: Blocks, host: str, **options: object) -> str:
    """Start Gradio's own server in a thread; return the page's address."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A foreign name that leads to this machine is a trick to get past the browser. "[" is what
    # Starlette takes for the name in "[::1]:7860".
    names = [*LOOPBACK, "["] if host in LOOPBACK else ["*"]
    _, address, _ = blocks.launch(
        server_name=f"[{host}]" if ":" in host else host,
        prevent_thread_lock=True,
        share=False,
        quiet=True,
        enable_monitoring=False,
        ssr_mode=False,
        footer_links=[],
        head=f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=names)]},
        **options,
    )
    return address


def _check_address(host: str, port: int | None) -> None:
    """Raise BadInput if nothing can listen there; Gradio would try for minutes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port or 0))
    except OSError as error:
        option = f"--host {host}" + ("" if port is None else f" --port {port}")
        raise BadInput(f"{option}: not available ({error.strerror})", "a free address") from error
