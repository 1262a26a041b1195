import os
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from fedrobust._linalg.kernels import native
from fedrobust._linalg.kernels.native import over_column_spans
from fedrobust.aggregators import CoordinateMedian
from fedrobust.seeds import torch_generator


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("shape", [(1, 1), (10, 999), (10, 1_000_003), (1000, 100_000)])
def test_spans_tile_the_columns_whatever_the_threads(threads, shape):
    """Every column once, in order, inner bounds at multiples of 16; the same spans on any number of threads."""
    spans = over_column_spans(shape, 16, lambda start, stop: (start, stop))
    assert spans[0][0] == 0
    assert spans[-1][1] == shape[1]
    assert all(before[1] == after[0] and after[0] % 16 == 0 for before, after in pairwise(spans))
    torch.set_num_threads(1)
    assert over_column_spans(shape, 16, lambda start, stop: (start, stop)) == spans


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_an_error_reaches_the_caller_and_the_next_call_works(threads):
    def fail(start, stop):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        over_column_spans((100, 1_000_000), 16, fail)
    assert sum(stop - start for start, stop in over_column_spans((100, 10**6), 16, lambda *span: span)) == 10**6


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_calls_from_several_threads_and_from_inside_a_span_end(threads):
    def nested(start, stop):
        return sum(high - low for low, high in over_column_spans((100, 10**6), 16, lambda *span: span))

    found = []
    callers = [threading.Thread(target=lambda: found.append(over_column_spans((100, 10**6), 16, nested))) for _ in "ab"]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert len(found) == 2
    assert all(total == 10**6 for totals in found for total in totals)


@pytest.mark.parametrize("threads", [2], indirect=True)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_has_workers_of_its_own(threads):
    """A fork copies the pool and none of its threads: work handed to them would wait for ever."""
    over_column_spans((100, 10**6), 16, lambda *span: span)
    child = os.fork()
    if child == 0:
        spans = over_column_spans((100, 10**6), 16, lambda *span: span)
        os._exit(0 if spans[-1][1] == 10**6 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_llvm_rules_still_answer_and_the_log_says_so_once(monkeypatch, caplog):
    """The slower way to the same bits: NumPy's median."""
    caches = (native._llvm, native.vector_lanes)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(native, "_LOADED", (None, "no such library"))
    try:
        points = torch.randn(7, 70_000, generator=torch_generator(0, "native"))
        for _ in range(2):
            answer = CoordinateMedian()(points).update
        np.testing.assert_array_equal(answer.numpy(), np.median(points.numpy(), axis=0))
        assert not native.can_compile()
        assert [record.message for record in caplog.records] == [
            "llvmlite cannot be used, so aggregation takes several times as long: no such library"
        ]
    finally:
        for cache in caches:
            cache.cache_clear()
