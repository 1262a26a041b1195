"""Versions of what figures depend on, without importing any of it."""

import importlib.metadata
import platform

PACKAGES = ("fedrobust", "torch", "torchvision", "flwr", "numpy", "hydra-core")


def version_of(distribution: str) -> str | None:
    """The installed version, or `None`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def version_line() -> str:
    """What `--version` prints: ours first, and what it stands on."""
    others = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "flwr", "hydra-core"))
    return f"fedrobust {version_of('fedrobust')} ({others}, Python {platform.python_version()})"
