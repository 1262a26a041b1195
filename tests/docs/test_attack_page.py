"""The page of attacks is what configs and docstrings say today."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fedrobust.commands.registry import attack_entries

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_attacks", DOCS / "build_attacks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current_and_has_every_attack(builder):
    """`python docs/build_attacks.py` writes the same again."""
    page = (DOCS / "attacks.md").read_text()
    assert page == builder.page()
    for entry in attack_entries():
        assert entry.name == "none" or f"| `{entry.name}` |" in page


def test_every_link_leads_somewhere(builder):
    for folder in builder.EXPERIMENTS.values():
        assert (DOCS.parent / "experiments" / folder / "README.md").exists(), folder


def test_addresses_become_links(builder):
    assert builder.linked("A, B, NeurIPS 2018, https://arxiv.org/abs/1804.00792") == (
        "[A, B, NeurIPS 2018](https://arxiv.org/abs/1804.00792)"
    )
