"""What the robust means cost: beside the covariance product that they need, and beside the plain loop.

Writes README.md beside this file. See there for the claims, the command and the last result.
"""

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg
import torch
from numpy.typing import NDArray

from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust._linalg.threads import on_one_thread
from fedrobust.filters.soft_filter import soft_filter
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import (
    MeanEstimate,
    bounded_covariance_mean,
    coordinate_median,
    covariance_agnostic_mean,
    filter_mean,
    geometric_median,
    lrv_mean,
    trimmed_mean,
)

README = Path(__file__).with_name("README.md")
EPSILON = 0.1
Array = NDArray[np.float64]

ESTIMATORS: dict[str, Callable[[Array], MeanEstimate]] = {
    "filter_mean": lambda x: filter_mean(x, EPSILON),
    "covariance_agnostic_mean": lambda x: covariance_agnostic_mean(x, EPSILON),
    "covariance_agnostic_mean, quantum entropy": lambda x: covariance_agnostic_mean(
        x, EPSILON, direction="quantum_entropy"
    ),
    "bounded_covariance_mean": lambda x: bounded_covariance_mean(x, EPSILON, 1.0),
    "lrv_mean": lambda x: lrv_mean(x, EPSILON),
    "geometric_median": geometric_median,
    "coordinate_median": coordinate_median,
    "trimmed_mean": lambda x: trimmed_mean(x, EPSILON),
}


def figure_sample(n: int, d: int) -> Array:
    """N(1, I), a tenth of it replaced: half uniform on {0, 1}^d, half at (12, -2, 0, ..., 0)."""
    generator = numpy_generator(0, "mean_estimators", n, d)
    num_half = round(EPSILON * n / 2)
    x = np.empty((n, d))
    generator.standard_normal(out=x)
    x += 1
    x[:num_half] = generator.integers(0, 2, (num_half, d), dtype=np.int8)
    x[num_half : 2 * num_half] = 0
    x[num_half : 2 * num_half, :2] = 12, -2
    return x


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory_mark(name: str) -> int:
    """Bytes of memory that this process has (`VmRSS`), or has had at most since `forget_peak` (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Start `VmHWM` anew: making the sample took memory too."""
    Path("/proc/self/clear_refs").write_text("5")


def against_products(n: int, d: int, repeats: int) -> list[str]:
    """`filter_mean` and the covariance product, in turn; a row for each."""
    x = figure_sample(n, d)
    product, ours = [], []
    x[:1000].T @ x[:1000]
    filter_mean(x[:1000], EPSILON)
    for _ in range(repeats):
        product.append(seconds_of(lambda: x.T @ x))
        ours.append(seconds_of(lambda: filter_mean(x, EPSILON)))
    ratio = statistics.median(ours) / statistics.median(product)
    print(f"filter_mean over x.T @ x: {ratio:.2f} (claim: at most 3)")
    title = f"n = {n:,}, d = {d}, float64; median (smallest, largest) of {repeats}, in turn."
    return [
        title,
        "",
        "| | seconds | over the product |",
        "|---|--:|--:|",
        f"| covariance product `x.T @ x` | {spread(product)} | 1 |",
        f"| `filter_mean` | {spread(ours)} | {ratio:.2f} |",
    ]


def plain_loop(gram: Array, max_removed: float) -> Array:
    """The covariance-agnostic filter as one would write it: all eigenpairs of √w·K_c·√w at each step."""
    n = len(gram)
    weights = best = np.ones(n)
    smallest = np.inf
    while n - weights.sum() <= max_removed + 1e-9:
        normalised = weights / weights.sum()
        projected = gram @ normalised
        centred = gram - projected[:, None] - projected[None, :] + normalised @ projected
        root = np.sqrt(normalised)
        values, vectors = scipy.linalg.eigh(root[:, None] * centred * root[None, :])
        if values[-1] < smallest:
            best, smallest = weights, values[-1]
        squared = (centred @ (root * vectors[:, -1])) ** 2
        weights = weights * np.clip(1 - squared / squared[weights > 0].max(), 0, None)
    return best


def against_plain_loop(n: int, d: int, f: int, repeats: int) -> list[str]:
    """The covariance-agnostic filter at n < d, from the same Gram matrix as the plain loop."""
    x = numpy_generator(0, "mean_estimators", n, d).standard_normal((n, d))
    x[:f] += 0.3 * numpy_generator(1, "mean_estimators", d).standard_normal(d)
    gram = robust_gram_matrix(torch.from_numpy(x))
    found = soft_filter(gram, max_removed=2 * f)
    difference = float(np.abs(found.weights.numpy() - plain_loop(gram.numpy(), 2 * f)).max())
    threaded, plain, ours, whole = [], [], [], []
    on_one = on_one_thread(plain_loop)
    for _ in range(repeats):
        threaded.append(seconds_of(lambda: plain_loop(gram.numpy(), 2 * f)))
        plain.append(seconds_of(lambda: on_one(gram.numpy(), 2 * f)))
        ours.append(seconds_of(lambda: soft_filter(gram, max_removed=2 * f)))
        whole.append(seconds_of(lambda: covariance_agnostic_mean(x, f / n)))
    best = min(statistics.median(plain), statistics.median(threaded))
    ratio = best / statistics.median(ours)
    print(f"plain loop over ours: {ratio:.1f} (claim: at least 5)")
    title = (
        f"n = {n:,}, f = {f}, d = {d:,}, float64, the Gram matrix given: {len(found.iterations)} steps taken; the "
        f"weights differ by at most {difference:.0e}. Median (smallest, largest) of {repeats}, in turn."
    )
    return [
        title,
        "",
        "| | seconds | speed-up |",
        "|---|--:|--:|",
        f"| all eigenpairs at each step (`scipy.linalg.eigh`), LAPACK on one thread | {spread(plain)} | "
        f"{best / statistics.median(plain):.1f} |",
        f"| the same, LAPACK's own threads | {spread(threaded)} | {best / statistics.median(threaded):.1f} |",
        f"| `soft_filter` | {spread(ours)} | {ratio:.1f} |",
        f"| `covariance_agnostic_mean`, Gram matrix and answer included | {spread(whole)} | "
        f"{best / statistics.median(whole):.1f} |",
    ]


def spread(values: list[float]) -> str:
    """Median (smallest, largest)."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}, {max(values):.3f})"


def memory(n: int, d: int) -> list[str]:
    """The peak of each estimator, in a process of its own, beyond what it takes to hold the input."""
    lines = [
        f"n = {n:,}, d = {d}, float64: the peak of a process beyond the input (of {n * d * 8 / 2**30:.2f} GiB) and the "
        "loaded libraries, over the input's size. The input itself is one more copy.",
        "",
        "| | beyond the input, copies of it | seconds |",
        "|---|--:|--:|",
    ]
    for name in ESTIMATORS:
        command = [sys.executable, __file__, "--memory-of", name, "--size", str(n), str(d)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        lines.append(f"| `{name.split(',')[0]}`{name[len(name.split(',')[0]) :]} | {output[0]} | {output[1]} |")
        print(lines[-1])
    return lines


def measure_memory(name: str, n: int, d: int) -> None:
    """Print one estimator's peak beyond the input, in copies of it, and its seconds."""
    small = figure_sample(2000, d)
    ESTIMATORS[name](small)  # libraries load what they need
    x = figure_sample(n, d)
    gc.collect()
    forget_peak()
    before = memory_mark("VmRSS")
    seconds = seconds_of(lambda: ESTIMATORS[name](x))
    print(f"{(memory_mark('VmHWM') - before) / x.nbytes:.2f} {seconds:.1f}")


def write(sections: list[list[str]]) -> None:
    """Put the results between the two marks in the README."""
    hardware = (
        f"{os.cpu_count()} cores, AMD EPYC, load average {os.getloadavg()[0]:.1f} at the end; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"torch {torch.__version__.split('+')[0]}."
    )
    text = README.read_text()
    start, end = "<!-- results -->", "<!-- end of results -->"
    body = "\n".join([hardware, *("\n" + "\n".join(section) for section in sections)])
    before, after = text.split(start)[0], text.split(end)[1]
    README.write_text(f"{before}{start}\n{body}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the points, once; writes nothing")
    parser.add_argument("--memory-of", choices=list(ESTIMATORS), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, default=[400_000, 400], help=argparse.SUPPRESS)
    options = parser.parse_args()
    n, d = options.size
    if options.memory_of is not None:
        measure_memory(options.memory_of, n, d)
        return
    if options.quick:
        n = 40_000
    repeats = 1 if options.quick else 5
    sections = [
        against_products(n, d, repeats),
        against_plain_loop(1000, 2000, 200, min(3, repeats)),
        memory(n // 4, d),
    ]
    if options.quick:
        print("\n\n".join("\n".join(section) for section in sections))
    else:
        write(sections)


if __name__ == "__main__":
    main()
