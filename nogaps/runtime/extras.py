"""Optional packages: `pip install nogaps` brings only what Colab has anyway."""

from __future__ import annotations

from importlib.util import find_spec

from nogaps.runtime.errors import BadInput


def require(extra: str, *modules: str) -> None:
    """Raise BadInput unless the modules of an extra of nogaps are installed."""
    for name in modules:
        if find_spec(name) is None:
            advice = f"pip install 'nogaps[{extra}]'"
            raise BadInput(f"{name} is not installed; this installs it: {advice}")
