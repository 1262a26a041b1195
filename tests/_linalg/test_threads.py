import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from threadpoolctl import threadpool_limits

from fedrobust._linalg.threads import full_precision_products, in_turns, on_one_thread
from fedrobust.aggregators import Flame, Mean, Sever, SpectralFilter
from fedrobust.seeds import torch_generator


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


def overlapping(setting, inside):
    """Two threads in `setting`, of which the one that came first leaves first; what `inside` says in between."""
    second_in, first_out, seen = threading.Event(), threading.Event(), []
    timeout = 60

    def first():
        with setting():
            assert second_in.wait(timeout)
        first_out.set()

    def second():
        with setting():
            seen.append(inside())
            second_in.set()
            assert first_out.wait(timeout)
            seen.append(inside())

    threads = [threading.Thread(target=one) for one in (first, second)]
    threads[0].start()
    threads[1].start()
    for one in threads:
        one.join(timeout)
    return seen


@contextmanager
def one_blas_thread():
    """`on_one_thread` as a context: what it decorates is the block."""
    entered, leave = threading.Event(), threading.Event()

    @on_one_thread
    def stay():
        entered.set()
        assert leave.wait(60)

    inside = threading.Thread(target=stay)
    inside.start()
    assert entered.wait(60)
    try:
        yield
    finally:
        leave.set()
        inside.join(60)


@pytest.fixture
def two_blas_threads():
    with threadpool_limits(2, user_api="blas"):
        assert blas_threads() == {2}
        yield


def test_blas_is_limited_from_the_first_thread_in_to_the_last_one_out(two_blas_threads):
    """Whoever leaves in between must neither end another's limit nor put back what another has set."""
    assert overlapping(one_blas_thread, blas_threads) == [{1}, {1}]
    assert blas_threads() == {2}


@pytest.fixture
def medium_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


def test_products_are_precise_from_the_first_thread_in_to_the_last_one_out(medium_precision):
    precision = torch.get_float32_matmul_precision
    assert overlapping(full_precision_products, precision) == ["highest", "highest"]
    assert precision() == "medium"


def test_a_precision_chosen_meanwhile_is_kept(medium_precision):
    """Such a choice is newer than the one found on the way in."""
    with full_precision_products():
        torch.set_float32_matmul_precision("high")
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("num_threads", [2, 8])
def test_rules_in_many_threads_leave_the_process_as_it_was(num_threads, two_blas_threads, medium_precision):
    """And answer as they do alone. n = 40 is decomposed by LAPACK; 2000 columns are no more than BLAS multiplies."""
    rules = [SpectralFilter(assumed_fraction=0.2), Sever(assumed_fraction=0.2), Mean(), Flame(noise_factor=0.0)]
    points = [torch.randn(40, 2000, generator=torch_generator(seed, "threads")).double() for seed in range(num_threads)]
    alone = [[rule(some).update for rule in rules] for some in points]
    start = threading.Barrier(num_threads, timeout=60)

    def call(index):
        start.wait()
        return [[rule(points[index]).update for rule in rules] for _ in range(5)]

    with ThreadPoolExecutor(num_threads) as pool:
        found = list(pool.map(call, range(num_threads)))
    for answers, expected in zip(found, alone, strict=True):
        for answer in answers:
            for one, other in zip(answer, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert blas_threads() == {2}
    assert torch.get_float32_matmul_precision() == "medium"


def test_a_fork_is_not_bound_by_the_threads_that_it_does_not_have(two_blas_threads):
    """In the child only the thread that forks goes on: nobody is left to lift the others' limit."""
    with one_blas_thread():
        child = os.fork()
        if child == 0:  # no assertion: pytest must not run on in here
            os._exit(0 if blas_threads() == {2} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert blas_threads() == {2}
