"""From YAML to components: ranges, composition, what a foreign config may build. `component.py` is the public face."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """The names of `config.building`, imported when first asked for: components need `config.component` alone."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.building"), name)
