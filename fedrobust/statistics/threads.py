"""Threads: as many as torch uses for large pieces of work, and one for small linear algebra.

Threaded LAPACK takes fifty times as long on a 100 x 100 matrix.
"""

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, ParamSpec, TypeVar

import torch
from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def in_turns(parts: Sequence[T], work: Callable[[T], R]) -> list[R]:
    """Call `work` on each part, on as many threads as torch uses: a thread takes the next part when done with one.

    Returns:
        The results in the order of the parts.
    """
    results: list[Any] = [None] * len(parts)
    turns = iter(range(len(parts)))

    def take_turns() -> None:
        for turn in turns:
            results[turn] = work(parts[turn])

    num_helpers = min(torch.get_num_threads(), len(parts)) - 1
    helpers = [_workers(num_helpers).submit(take_turns) for _ in range(num_helpers)]
    try:
        take_turns()
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        wait(started)  # they write to the caller's memory
    for helper in started:
        helper.result()
    return results


@functools.cache
def _workers(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="fedrobust")


os.register_at_fork(after_in_child=_workers.cache_clear)  # a fork has the pool, but not its threads


class _Within(threading.local):
    """Whether the current thread is in a function that `on_one_thread` made."""

    is_limited = False


_within = _Within()


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks through the loaded libraries, which takes milliseconds: once


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, with NumPy's and SciPy's BLAS and LAPACK on one thread while it runs."""

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if _within.is_limited:  # by a caller: to ask all libraries again takes longer than a small decomposition
            return function(*args, **kwargs)
        _within.is_limited = True
        try:
            with _controller().limit(limits=1, user_api="blas"):
                return function(*args, **kwargs)
        finally:
            _within.is_limited = False

    return limited
