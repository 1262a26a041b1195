"""What a run ran on, so that its numbers can be traced and repeated."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fedrobust.config.secrets import masked
from fedrobust.records.versions import PACKAGES, version_of


def describe_environment(device: str) -> dict[str, Any]:
    """Python, platform, package versions, git commit, device, threads and command line, as plain JSON values.

    Args:
        device: the torch device of the run, such as `"cpu"` or `"cuda:0"`.
    """
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "command_line": shlex.join(masked(sys.argv)),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": _device_name(torch.device(device)),
        "cuda": torch.version.cuda,
        "packages": {name: version_of(name) for name in PACKAGES},
        **_commit(Path(__file__)),
    }


def versions() -> dict[str, str]:
    """Python's version, those of the packages that figures depend on, and the commit where there is one."""
    found = {"python": platform.python_version(), **{name: str(version_of(name)) for name in PACKAGES}}
    return {**found, "git_commit": str(_commit(Path(__file__))["git_commit"])}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _commit(file: Path) -> dict[str, Any]:
    """The commit of the checkout that tracks `file`, and whether that checkout has uncommitted changes; or why not."""
    # An installed package may lie inside somebody else's repository (a .venv in a project), whose commit says nothing.
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        # Such as a bundle of `flwr run`, which has no repository in it; the name of its folder ends in its hash.
        why = f"no git checkout tracks the sources, which are in {file.parent.parent}"
        return {"git_commit": None, "git_dirty": None, "git_reason": why}
    changes = _git(file, "status", "--porcelain", "--untracked-files=no")
    return {"git_commit": _git(file, "rev-parse", "HEAD"), "git_dirty": None if changes is None else changes != ""}


def _git(file: Path, *arguments: str) -> str | None:
    """What git prints in `file`'s folder, or `None` where there is no git, no repository or no answer."""
    command = ["git", "-C", str(file.parent), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
