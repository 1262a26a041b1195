"""Seconds and peak memory of `robust_gaussian` at d = 100, N = 200,000, with a tenth of the points corrupted.

    python benchmarks/robust_gaussian/run.py [--device cuda] [--n 200000] [--d 100] [--adversary stretched]

Memory is what the call adds to the process, over the size of the input; on a CPU the peak of the resident set, which
the kernel counts, on a GPU what torch allocated.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from fedrobust.seeds import torch_generator
from fedrobust.statistics import gaussian_total_variation, robust_gaussian
from fedrobust.statistics.moments.null_spectrum import simulated_null


def resident(field: str) -> int:
    """`VmRSS` or `VmHWM` of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {field} in /proc/self/status")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def sample(n: int, d: int, epsilon: float, dtype: torch.dtype, adversary: str) -> torch.Tensor:
    """N(0, I) with εN points three times as far out, or stretched fourfold or moved by 2.5 in one direction."""
    points = torch.empty(n, d, dtype=dtype)
    points.normal_(generator=torch_generator(0, "benchmark"))
    outliers = points[: int(epsilon * n)]
    if adversary == "inflate":
        outliers *= 3
    elif adversary == "stretched":
        outliers[:, 0] *= 4
    else:
        outliers[:, 0] += 2.5
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--d", type=int, default=100)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--adversary", choices=["inflate", "stretched", "shifted"], default="inflate")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    device = torch.device(options.device)
    is_gpu = device.type == "cuda"
    robust_gaussian(sample(4000, 4, 0.1, torch.float64, "inflate").to(device), 0.1)  # imports, thread pools, workspaces
    points = sample(options.n, options.d, options.epsilon, getattr(torch, options.dtype), options.adversary)
    points = points.to(device)
    size = points.element_size() * points.numel()
    if is_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        reset_peak()
        before = resident("VmRSS")
    start = time.perf_counter()
    result = robust_gaussian(points, options.epsilon, progress=options.progress)
    if is_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    extra = (torch.cuda.max_memory_allocated() if is_gpu else resident("VmHWM")) - before
    start = time.perf_counter()
    robust_gaussian(points, options.epsilon)
    again = time.perf_counter() - start  # the simulated null is remembered
    truth = np.zeros(options.d), np.eye(options.d)
    found = result.mean.cpu().numpy(), result.covariance.cpu().numpy()
    distance = gaussian_total_variation(*truth, *found)
    print(result.summary())
    name = torch.cuda.get_device_name(device) if is_gpu else f"{torch.get_num_threads()} threads"
    print(f"null: {simulated_null(options.n, options.d, device=str(device))}")
    good = points[int(options.epsilon * options.n) :].cpu().numpy()
    inliers = gaussian_total_variation(*truth, good.mean(axis=0), np.cov(good.T)).distance
    print(f"{name}, n={options.n}, d={options.d}, {options.dtype}, {options.adversary}")
    print(f"{seconds:.1f} s; {again:.1f} s with the null known")
    print(f"input {size / 2**20:.0f} MiB, at the peak {1 + extra / size:.2f} copies of it, itself included")
    print(f"total variation {distance.distance:.4f}, of the inliers alone {inliers:.4f}")


if __name__ == "__main__":
    main()
