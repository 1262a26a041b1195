"""Threads: as many as torch uses for large pieces of work, and one for small linear algebra.

Threaded LAPACK takes fifty times as long on a 100 x 100 matrix. How many threads it takes, like the precision of
products, is a setting of the whole process, which the threads that call rules share.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, ParamSpec, TypeVar

import torch
from threadpoolctl import LibController, ThreadpoolController

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


class SharedSetting:
    """A setting of the whole process, from the first thread that comes to the last one that leaves.

    Were each to save what it finds and to put that back, one that leaves between two others would end their setting,
    and the last might put back what another had set: for good.
    """

    def __init__(self, setting: Callable[[], AbstractContextManager[object]]) -> None:
        """`setting` makes a context that sets and puts back; it is entered once, however many threads there are."""
        self._setting = setting
        self._lock = Lock()
        self._num_inside = 0
        self._context: AbstractContextManager[object] | None = None
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._begin_child
        )

    def __enter__(self) -> None:
        with self._lock:
            if self._num_inside == 0:
                self._context = self._setting()
                self._context.__enter__()
            self._num_inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._context is None:  # a fork from within: its setting was put back then
                return
            self._num_inside -= 1
            if self._num_inside == 0:
                self._end()

    def _end(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            context.__exit__(None, None, None)

    def _begin_child(self) -> None:
        """A fork has one of the threads: the others cannot leave, so the setting is put back for them."""
        self._num_inside = 0
        self._end()
        self._lock.release()


class _Within(threading.local):
    """Whether the current thread is in a function that `on_one_thread` made."""

    is_limited = False


_within = _Within()


@functools.cache
def _blas_libraries() -> tuple[list[LibController], list[LibController]]:
    """Those whose number of threads is the process's, and those where each thread has its own.

    To look through the loaded libraries takes milliseconds: once.
    """
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [one for one in found if getattr(one, "threading_layer", None) == "openmp"]
    return [one for one in found if one not in own], own


@contextmanager
def _limited(libraries: Sequence[LibController]) -> Iterator[None]:
    before = [(one, one.get_num_threads()) for one in libraries]
    for one in libraries:
        _set_num_threads(one, 1)
    try:
        yield
    finally:
        for one, number in before:
            if one.get_num_threads() == 1:  # or else someone has chosen anew
                _set_num_threads(one, number)


def _set_num_threads(library: LibController, number: int) -> None:
    # From 3.8 on threadpoolctl lets only the thread that set a number first change it, but the last one that leaves
    # `_one_blas_thread` may be another; private, and without it the tests of many threads fail.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


_one_blas_thread = SharedSetting(lambda: _limited(_blas_libraries()[0]))


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, with NumPy's and SciPy's BLAS and LAPACK on one thread while it runs, in whatever thread."""

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if _within.is_limited:  # by a caller
            return function(*args, **kwargs)
        _within.is_limited = True
        try:
            with _one_blas_thread, _limited(_blas_libraries()[1]):
                return function(*args, **kwargs)
        finally:
            _within.is_limited = False

    return limited


@contextmanager
def _highest_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if torch.get_float32_matmul_precision() == "highest":  # or else someone has chosen anew
            torch.set_float32_matmul_precision(before)


_precise_products = SharedSetting(_highest_precision)


def full_precision_products() -> SharedSetting:
    """A context that keeps TF32 out, which training may have switched on; the caller's choice is put back.

    It leaves too few digits for distances.
    """
    return _precise_products
