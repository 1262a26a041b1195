import threading

import pytest
import torch

from fedrobust.statistics.threads import in_turns, on_one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def blas_threads() -> set[int]:
    from threadpoolctl import threadpool_info

    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_results_come_in_the_order_of_the_parts(two_threads):
    """Each of two parts waits for the other one to start, so they run at the same time."""
    both = threading.Barrier(2, timeout=60)

    def wait_for_the_other(part):
        both.wait()
        return part

    assert in_turns(["a", "b"], wait_for_the_other) == ["a", "b"]
    assert in_turns(range(100), lambda part: 2 * part) == list(range(0, 200, 2))
    assert in_turns([], str) == []


def test_a_limit_within_a_limit_ends_with_the_outer_one():
    """The inner one asks for nothing; an error inside ends the limit too."""
    before = blas_threads()

    @on_one_thread
    def inner():
        return blas_threads()

    @on_one_thread
    def outer(fails):
        assert inner() == {1}
        assert blas_threads() == {1}
        if fails:
            raise RuntimeError("no")

    outer(fails=False)
    assert blas_threads() == before
    with pytest.raises(RuntimeError, match="no"):
        outer(fails=True)
    assert blas_threads() == before
    assert inner() == {1}
    assert blas_threads() == before
