"""docs/reliability.md names the faults that tests/faults causes, and what is promised for each."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def faults_in_tests() -> set[tuple[str, ...]]:
    """(area, title, promised) of every `@pytest.mark.fault` in tests/faults; constants of the file stand for texts."""
    found = set()
    for file in sorted((ROOT / "tests" / "faults").glob("test_*.py")):
        tree = ast.parse(file.read_text())
        known = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fault":
                texts = [known[one.id] if isinstance(one, ast.Name) else ast.literal_eval(one) for one in node.args]
                found.add(tuple(texts))
    return found


def faults_on_the_page() -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    area = ""
    for line in (ROOT / "docs" / "reliability.md").read_text().splitlines():
        if line.startswith("## "):
            area = line[3:]
        elif line.startswith("| ") and not line.startswith("| fault |"):
            title, tries, promised, got = (cell.strip() for cell in line.strip("|").split(" | "))
            assert int(tries) > 0
            assert got == "so each time", f"{title}: {got}"
            found.add((area, title, promised))
    return found


def test_the_page_has_every_fault_and_no_other() -> None:
    assert faults_on_the_page() == faults_in_tests()
