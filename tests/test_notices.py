import logging

import pytest
import torch

from fedrobust.aggregators import SpectralFilter
from fedrobust.notices import collected_notices, notice


def test_a_notice_is_a_warning_in_the_log_unless_someone_collects(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedrobust"):
        notice("first")
        with collected_notices() as outer:
            notice("second")
            with collected_notices() as inner:
                notice("third")
                notice("third")
        notice("fourth")
    assert [record.getMessage() for record in caplog.records] == ["first", "fourth"]
    assert (list(outer), list(inner)) == (["second"], ["third"])


def test_an_exception_does_not_leave_someone_collecting(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), collected_notices():
        raise ZeroDivisionError
    with caplog.at_level(logging.WARNING, "fedrobust"):
        notice("heard")
    assert [record.getMessage() for record in caplog.records] == ["heard"]


@pytest.mark.parametrize("n", [2, 4, 9, 19])
def test_a_rule_whose_f_is_none_says_so(n: int, caplog: pytest.LogCaptureFixture) -> None:
    """0.05 of fewer than 20 clients is none; from 1/n on it is one."""
    with caplog.at_level(logging.WARNING, "fedrobust"):
        SpectralFilter(assumed_fraction=0.05)(torch.randn(n, 3))
    (record,) = caplog.records
    assert f"0.05 of {n} is none" in record.getMessage()
    caplog.clear()
    told = float(record.getMessage().split("from ")[1].split(" on")[0])
    if told < 0.5:
        SpectralFilter(assumed_fraction=told)(torch.randn(n, 3))
        assert "is none" not in caplog.text


def test_a_rule_that_is_told_of_nobody_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    SpectralFilter(assumed_fraction=0.0)(torch.randn(4, 3))
    assert caplog.text == ""
