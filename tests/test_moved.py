"""Old names of modules still import, give the same module, and say where it is now."""

import importlib
import sys

import pytest

from fedrobust._moved import MOVED, new_name


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_new_module(old: str) -> None:
    new = importlib.import_module(f"fedrobust.{MOVED[old]}")
    sys.modules.pop(f"fedrobust.{old}", None)  # it warns once a process
    with pytest.warns(DeprecationWarning, match=rf"^fedrobust\.{old} has moved to fedrobust\.{MOVED[old]}$"):
        found = importlib.import_module(f"fedrobust.{old}")
    assert found is new


def test_what_lies_in_a_package_that_moved_has_moved_with_it() -> None:
    assert new_name("fedrobust.statistics.kernels.native") == "fedrobust._linalg.kernels.native"
    assert new_name("fedrobust.statistics") is None
    assert new_name("fedrobust.no_such_module") is None
    with pytest.warns(DeprecationWarning, match="kernels"):
        old = importlib.import_module("fedrobust.statistics.kernels.native")
    assert old is importlib.import_module("fedrobust._linalg.kernels.native")


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("fedrobust.statistics.no_such_module")


def test_the_names_of_the_old_modules_for_configs_are_there() -> None:
    from fedrobust.config import ConfigError, build, config_folder

    assert issubclass(ConfigError, ValueError)
    assert callable(build)
    assert config_folder().is_dir()
