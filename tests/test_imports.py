"""Who may import whom, read from the source: nothing is run."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedrobust

PACKAGE = Path(fedrobust.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules (or of what is taken from them) that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(folders: set[str] | None, forbidden: tuple[str, ...], allowed: set[str] = frozenset()) -> list[str]:
    """Files below `folders` (None: all), except `allowed` ones, that import something below `forbidden`."""
    found = []
    for path in MODULES:
        top = path.relative_to(PACKAGE).parts[0]
        if (folders is not None and top not in folders) or top in allowed:
            continue
        for name in imported(path):
            if any(name == one or name.startswith(f"{one}.") for one in forbidden):
                found.append(f"{path.relative_to(PACKAGE)}: {name}")
    return found


def test_there_is_something_to_check() -> None:
    """The three rules below would hold for an empty list of files, or a blind reader of imports."""
    tops = {path.relative_to(PACKAGE).parts[0] for path in MODULES}
    assert {"_linalg", "aggregators", "statistics", "evaluation", "attacks", "flower", "engines"} <= tops
    assert offenders({"flower"}, ("flwr",))
    assert offenders({"evaluation"}, ("fedrobust.attacks",))


def test_every_package_imports_only_what_stands_below_it() -> None:
    """The layers stand in pyproject.toml, `[tool.importlinter]`; a package that is in none of them breaks them."""
    check = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*check, "--no-cache"], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("folder", ["_linalg", "aggregators", "filters", "statistics"])
def test_rules_know_nothing_of_who_attacks(folder: str) -> None:
    assert offenders({folder}, ("fedrobust.attacks", "fedrobust.evaluation", "fedrobust.clients")) == []


def test_the_library_does_not_import_experiments_or_benchmarks() -> None:
    assert offenders(None, ("experiments", "benchmarks", "tests")) == []


def test_flower_its_app_and_engines_alone_import_flwr_and_ray() -> None:
    assert offenders(None, ("flwr", "ray"), allowed={"flower", "flower_app", "engines"}) == []


@pytest.mark.parametrize(
    "wanted", ["fedrobust.aggregators", "fedrobust._linalg.gram", "fedrobust.filters.filtering", "fedrobust.statistics"]
)
def test_a_rule_does_not_wait_for_what_it_does_not_use(wanted: str) -> None:
    """In a process of its own: what is imported with the rules, or with the names of the statistics."""
    code = f"import sys, {wanted}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert wanted in loaded
    assert loaded.isdisjoint({"scipy.stats", "sklearn", "matplotlib", "matplotlib.pyplot", "flwr", "ray", "hydra"})
