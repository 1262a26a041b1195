"""Kills before each operation on files of a run: the process ends there, without a word, as by `kill -9`."""

import builtins
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SCENARIO, assert_same_run, command

MOST = 150


def killed_run(arguments: list[str], folder: Path, before: int) -> int:
    """Run `fedrobust` in a fork that ends before its operation number `before` on files; its exit code."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 99
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        left = [before]

        def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                if any(str(folder) in str(one) for one in args) or operation.__name__ == "fsync":
                    left[0] -= 1
                    if left[0] < 0:
                        os._exit(9)
                return operation(*args, **kwargs)

            return run

        for name in ("open", "replace", "unlink", "mkdir", "fsync", "truncate"):
            setattr(os, name, counted(getattr(os, name)))
        builtins.open = counted(builtins.open)  # type: ignore[assignment]
        from fedrobust.commands import cli

        try:
            cli.main(arguments)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    finally:
        os._exit(code)


@pytest.mark.fault(
    "Kills", "a run killed before one of its operations on files", "it goes on, or begins again, to the same bytes"
)
@pytest.mark.parametrize(
    "before", [pytest.param(k, marks=() if k % 10 == 0 else pytest.mark.slow) for k in range(0, MOST, 2)]
)
def test_a_new_run(tmp_path: Path, whole: Path, before: int, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    arguments = [*SCENARIO, f"hydra.run.dir={folder}"]
    code = killed_run(arguments, folder, before)
    assert code in (0, 9)
    if code == 9:
        again = [f"resume={folder}"] if (folder / "config.yaml").exists() else arguments
        code, said = command(again, capsys)
        assert code == 0, said
    assert_same_run(folder, whole)


@pytest.mark.fault(
    "Kills", "a resumed run killed before one of its operations on files", "it goes on to the same bytes"
)
@pytest.mark.parametrize(
    "before", [pytest.param(k, marks=() if k % 10 == 0 else pytest.mark.slow) for k in range(0, 90, 2)]
)
def test_a_resumed_run(half: Path, whole: Path, before: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = killed_run([f"resume={half}", "num_rounds=4"], half, before)
    assert code in (0, 9)
    code, said = command([f"resume={half}", "num_rounds=4"], capsys)
    assert code == 0, said
    assert_same_run(half, whole)
