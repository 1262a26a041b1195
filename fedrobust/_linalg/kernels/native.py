"""Machine code at run time, where the processor's vector units make a rule many times faster: LLVM, through llvmlite.

A kernel is written as LLVM's text, which takes LLVM milliseconds to compile because nothing is left to find out: the
vectors are in it. Where llvmlite does not work, the callers have a slower way to the same bits.
"""

import ctypes
import functools
import logging
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import torch

from fedrobust._linalg.threads import in_turns

log = logging.getLogger("fedrobust")

_COLUMNS_A_SPAN = 4096
_NUMBERS_A_SPAN = 1 << 20
_MOST_SPANS = 64


class Code:
    """LLVM's text, line by line, for vectors of `lanes` 32-bit numbers."""

    def __init__(self, lanes: int) -> None:
        self.lines: list[str] = []
        self.lanes = lanes
        self.ints = f"<{lanes} x i32>"
        self.floats = f"<{lanes} x float>"
        self.doubles = f"<{lanes} x double>"
        self._numbers = count()

    def raw(self, *lines: str) -> None:
        """Add lines as they are."""
        self.lines += lines

    def let(self, expression: str) -> str:
        """Add a line that names the value of an expression; the name."""
        name = f"%t{next(self._numbers)}"
        self.lines.append(f"  {name} = {expression}")
        return name

    def splat(self, kind: str, value: str | int | float) -> str:
        """A constant vector."""
        return "<" + ", ".join([f"{kind} {value}"] * self.lanes) + ">"

    def text(self) -> str:
        """All lines, with the declarations that they may need."""
        v, n = self.ints, self.lanes
        return "\n".join(
            [
                f"declare {v} @llvm.smin.v{n}i32({v}, {v})",
                f"declare {v} @llvm.smax.v{n}i32({v}, {v})",
                f"declare i32 @llvm.vector.reduce.smax.v{n}i32({v})",
                f"declare {self.floats} @llvm.fma.v{n}f32({self.floats}, {self.floats}, {self.floats})",
                f"declare double @llvm.vector.reduce.fadd.v{n}f64(double, {self.doubles})",
                "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
                *self.lines,
                'attributes #0 = { nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512" }',
                "",
            ]
        )


def _load() -> tuple[Any, str]:
    """The binding to LLVM, ready to compile for this processor; or `None` and why it cannot be used."""
    try:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.Target.from_default_triple()
    except Exception as error:  # an import, a missing library, an unknown processor: each of another kind
        return None, " ".join(str(error).split())
    return llvm, ""


_LOADED = _load()
"""On import, which takes long anyway: thirty milliseconds in the first round of a federation would be most of it."""


@functools.cache
def _llvm() -> Any:
    """The binding to LLVM; `None` (said once in the log) where there is none that works."""
    llvm, reason = _LOADED
    if llvm is None:
        log.warning("llvmlite cannot be used, so aggregation takes several times as long: %s", reason)
    return llvm


@functools.cache
def vector_lanes() -> int:
    """How many 32-bit numbers this processor's vectors hold (at least 8: two halves where they hold fewer)."""
    llvm = _llvm()
    return 16 if llvm is not None and llvm.get_host_cpu_features().get("avx512f", False) else 8


@functools.cache
def can_widen_halves() -> bool:
    """Whether this processor turns float16 into float32 itself; else LLVM calls a function that may be missing."""
    llvm = _llvm()
    features = {} if llvm is None else llvm.get_host_cpu_features()
    return bool(features.get("f16c", False) or features.get("neon", False))


def can_compile() -> bool:
    """Whether kernels can be compiled here."""
    return _llvm() is not None


def takes_rows(points: torch.Tensor, worth_compiling: int) -> bool:
    """Whether a kernel that reads rows of float32 numbers can take `points` `(n, d)`, of at least so many numbers."""
    return (
        points.device.type == "cpu"
        and points.dtype == torch.float32
        and points.stride(1) == 1
        and points.shape[1] >= vector_lanes()
        and points.numel() >= worth_compiling
        and can_compile()
    )


_kept: list[Any] = []  # an engine owns its code: it must outlive the functions


def compile_kernel(code: Code, name: str, num_pointers_and_sizes: int) -> Callable[..., int]:
    """Compile the function `name` of `code`: as many 64-bit arguments (pointers, sizes), a 32-bit result.

    It runs without the interpreter's lock.
    """
    llvm = _llvm()
    assert llvm is not None
    module = llvm.parse_assembly(code.text())
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _kept.append(engine)
    signature = ctypes.CFUNCTYPE(ctypes.c_int32, *([ctypes.c_int64] * num_pointers_and_sizes))
    return signature(engine.get_function_address(name))


def over_column_spans(
    shape: tuple[int, int], multiple: int, work: Callable[[int, int], Any], num_columns: int | None = None
) -> list[Any]:
    """Call `work(start, stop)` on spans that make up columns 0, ..., d - 1, on as many threads as torch uses.

    Threads take the next span when they are done with one: a thread that wakes late, or shares its core, delays
    nobody. The spans depend on the shape alone, so sums over them do not depend on the number of threads.

    Args:
        shape: n and d of the matrix whose columns they are.
        multiple: all inner bounds are multiples of it.
        work: from a span to its result.
        num_columns: how many of the d columns; all if `None`.

    Returns:
        The results in the order of the spans.
    """
    stop = shape[1] if num_columns is None else num_columns
    num_spans = max(1, min(_MOST_SPANS, shape[0] * stop // _NUMBERS_A_SPAN, stop // _COLUMNS_A_SPAN))
    bounds = [stop * index // num_spans // multiple * multiple for index in range(num_spans)]
    spans = list(pairwise([*bounds, stop]))
    return in_turns(spans, lambda span: work(*span))
