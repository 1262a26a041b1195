"""Which modules the folder of a run asks trust for; what is refused is tested in `faults/test_foreign_configs.py`."""

import pytest

from fedrobust.config.compose import compose_config
from fedrobust.config.foreign import check_foreign, foreign_modules, is_trusted


def test_a_run_of_the_packages_own_components_needs_no_trust() -> None:
    values, _ = compose_config(["preaggregator=[clipping,bucketing]", "audit=reputation", "watermark=noise"])
    assert foreign_modules(values) == ()
    check_foreign(values, (), "config.yaml")


def test_what_a_run_needs_is_enough_to_resume_it() -> None:
    values = {"model": {"_target_": "json.decoder.X", "a": [{"_target_": "code.Y"}]}, "server": {"_target_": "json.Z"}}
    assert foreign_modules(values) == ("code", "json")
    check_foreign(values, foreign_modules(values), "config.yaml")


@pytest.mark.parametrize(
    ("trust", "target", "expected"),
    [
        ((), "fedrobust.models.MLP", True),
        ((), "fedrobust_more.X", False),
        (("a.b",), "a.b.X", True),
        (("a.b",), "a.b.c.X", True),
        (("a.b",), "a.X", False),
        (("a.b",), "a.bc.X", False),
    ],
)
def test_trust_covers_a_module_and_what_is_below(trust: tuple[str, ...], target: str, expected: bool) -> None:
    assert is_trusted(target, trust) is expected
