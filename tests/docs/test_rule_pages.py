"""The pages of the rules are what the docstrings say today."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_rules", DOCS / "build_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_rules"] = module
    spec.loader.exec_module(module)
    return module


def test_every_rule_has_its_page_and_the_page_is_current(builder):
    """`python docs/build_rules.py` writes the same again."""
    committed = {path.name: path.read_text() for path in (DOCS / "rules").glob("*.md")}
    assert committed == builder.files()


def test_a_docstring_without_a_label_is_refused(builder):
    class Mean:
        """Average.

        Formula: 1/n Σ xᵢ.
        """

    with pytest.raises(ValueError, match="Mean has no Cost, Breakdown point, Assumes, Fails when, Source, Departs"):
        builder.read_page("aggregator", Mean)


def test_a_server_optimiser_needs_no_breakdown_point(builder):
    """But all the rest; and its page says in its name what it is a page of."""

    class PlainStep:
        """Step.

        Formula: step = Δ.
        """

    with pytest.raises(ValueError, match=r"PlainStep has no Cost, Assumes, Fails when, Source, Departs$"):
        builder.read_page("server_optimizer", PlainStep)
    assert {"server_plain.md", "server_momentum.md", "server_adam.md", "server_yogi.md"} <= set(builder.files())
