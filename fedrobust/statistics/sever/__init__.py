"""SEVER: any estimator of scikit-learn's form, or any module, fitted although some of the data is bad."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "Sever":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.sever").Sever
