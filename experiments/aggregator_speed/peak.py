"""How many float32 operations a second the processor manages at most: multiply-adds in registers, on all threads."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fedrobust._linalg.kernels.native import Code, compile_kernel, vector_lanes

_CHAINS = 16
"""Sums that do not wait for one another: more than two units times four cycles."""

_ROUNDS = 20_000_000


def peak_gflops(repeats: int = 3) -> float:
    """The most of `repeats` measurements, in 10⁹ operations a second; a multiply-add is two."""
    code = Code(vector_lanes())
    floats, half = code.floats, code.splat("float", 0.5)
    code.raw("define i32 @peak(ptr %result, i64 %rounds) #0 {", "entry:", "  br label %loop", "loop:")
    code.raw("  %round = phi i64 [ 0, %entry ], [ %next, %loop ]")
    for chain in range(_CHAINS):
        code.raw(f"  %old_{chain} = phi {floats} [ zeroinitializer, %entry ], [ %new_{chain}, %loop ]")
    for chain in range(_CHAINS):
        call = f"@llvm.fma.v{code.lanes}f32({floats} %old_{chain}, {floats} {half}, {floats} {half})"
        code.raw(f"  %new_{chain} = call {floats} {call}")
    code.raw("  %next = add i64 %round, 1", "  %goes_on = icmp slt i64 %next, %rounds")
    code.raw("  br i1 %goes_on, label %loop, label %done", "done:")
    total = "%new_0"
    for chain in range(1, _CHAINS):
        total = code.let(f"fadd {floats} {total}, %new_{chain}")
    code.raw(f"  store {floats} {total}, ptr %result, align 4", "  ret i32 0", "}")
    kernel = compile_kernel(code, "peak", 2)
    num_threads = torch.get_num_threads()
    results = [np.zeros(code.lanes, dtype=np.float32) for _ in range(num_threads)]
    operations = 2 * code.lanes * _CHAINS * _ROUNDS * num_threads
    seconds = []
    with ThreadPoolExecutor(num_threads) as pool:
        for _ in range(repeats):
            started = time.perf_counter()
            list(pool.map(lambda result: kernel(result.ctypes.data, _ROUNDS), results))
            seconds.append(time.perf_counter() - started)
    return operations / min(seconds) / 1e9


if __name__ == "__main__":
    print(f"{peak_gflops():.0f} GFLOP/s on {torch.get_num_threads()} threads")
