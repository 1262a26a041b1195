"""The commit that a run records, against repositories made here."""

import subprocess
from pathlib import Path

import pytest

from fedrobust.records import environment


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _recorded(file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, bool | None]:
    monkeypatch.setattr(environment, "__file__", str(file))
    described = environment.describe_environment("cpu")
    assert ("git_reason" in described) == (described["git_commit"] is None)
    if described["git_commit"] is None:
        assert described["git_reason"].startswith("no git checkout tracks the sources, which are in /")
    return described["git_commit"], described["git_dirty"]


def test_only_the_checkout_that_tracks_the_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the .venv of another project's repository is not at that repository's commit."""
    tracked, installed = tmp_path / "module.py", tmp_path / "site-packages" / "module.py"
    installed.parent.mkdir()
    for file in (tracked, installed):
        file.write_text("x = 1\n")
    _git(tmp_path, "init")
    _git(tmp_path, "add", "module.py")
    _git(tmp_path, "commit", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert _recorded(tracked, monkeypatch) == (commit, False)
    assert _recorded(installed, monkeypatch) == (None, None)
    tracked.write_text("x = 2\n")
    assert _recorded(tracked, monkeypatch) == (commit, True)


def test_no_git_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _recorded(tmp_path / "module.py", monkeypatch) == (None, None)
