"""The Triton kernels bit for bit: in Triton's interpreter on the CPU, and where there is a GPU, on it."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedrobust._linalg import order_statistics
from fedrobust._linalg.columns import Shards
from fedrobust._linalg.kernels import gpu_order_statistics
from fedrobust._linalg.kernels.gpu_order_statistics import LARGEST_NETWORK, reduced_on_gpu, suits_gpu_kernels
from fedrobust._linalg.kernels.triton_network import network_kernel
from fedrobust._linalg.order_statistics import mean_nearest_to_median, mean_of_order_statistics
from fedrobust.seeds import torch_generator
from fedrobust.types import UnusableUpdatesError

triton = pytest.importorskip("triton", reason="PyTorch's builds without CUDA come without Triton")

SIZES = [1, 2, 3, 4, 5, 9, 16, 33, 100, LARGEST_NETWORK]
has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def awkward_points(n, d=150):
    """Ties, both zeros, huge and tiny values; two blocks of columns, the second not full."""
    points = torch.randn(n, d, generator=torch_generator(0, "gpu", n))
    points[:, ::5] = points[:, ::5].round()
    points[:, 1] = -0.0
    points[0, 2:20] = 3e38
    points[-1, 3:30] = 1e-42
    points[n // 2, 10:40] = -3.4e38
    return points


def jobs_for(n):
    f = (n - 1) // 3
    if n >= 100:  # interpreted, each takes a second
        return [("mean_of_ranks", (f, n - f)), ("mean_nearest_to_median", (n - f, 0))]
    ranks = sorted({((n - 1) // 2, n // 2 + 1), (f, n - f), (0, 1), (n - 1, n), (0, n)})
    return [("mean_of_ranks", pair) for pair in ranks] + [
        ("mean_nearest_to_median", (count, 0)) for count in sorted({1, n - f, n})
    ]


def readable(points, rows, reduction, arguments):
    """What sorting with NumPy and adding up rank by rank gives: `chunk_size` or not, too few numbers to compile for."""
    if reduction == "mean_of_ranks":
        return mean_of_order_statistics(points[rows], *arguments, chunk_size=1 << 10)
    return mean_nearest_to_median(points, arguments[0], rows=rows, chunk_size=1 << 10)


def same_bits(measured, expected):
    return torch.equal(measured.cpu().view(torch.int32), expected.view(torch.int32))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """All jobs of this file in one process: the interpreter must be chosen before Triton is imported."""
    jobs = {}
    for n in SIZES:
        for reduction, arguments in jobs_for(n):
            jobs[n, reduction, arguments] = (awkward_points(n), torch.arange(n), reduction, arguments)
    wide = awkward_points(12)
    jobs["some rows"] = (wide, torch.tensor([1, 3, 4, 8, 11]), "mean_nearest_to_median", (4, 0))
    jobs["a view"] = (wide[::2, 7:141], torch.arange(6), "mean_of_ranks", (2, 4))
    for name, bad in (("inf", float("inf")), ("-inf", -float("inf")), ("nan", float("nan"))):
        points = awkward_points(5)
        points[3, 149] = bad
        jobs[name] = (points, torch.arange(5), "mean_of_ranks", (2, 3))
    folder = tmp_path_factory.mktemp("triton")
    torch.save(list(jobs.values()), folder / "jobs.pt")
    script = Path(__file__).with_name("triton_interpreted.py")
    subprocess.run([sys.executable, script, folder / "jobs.pt", folder / "answers.pt"], check=True)
    return {
        key: (job, answer) for (key, job), answer in zip(jobs.items(), torch.load(folder / "answers.pt"), strict=True)
    }


@pytest.mark.parametrize("n", SIZES)
def test_the_same_bits_as_the_readable_form(interpreted, n):
    for reduction, arguments in jobs_for(n):
        job, answer = interpreted[n, reduction, arguments]
        assert same_bits(answer, readable(*job)), (reduction, arguments)


@pytest.mark.parametrize("n", SIZES)
def test_the_same_bits_as_numpy(interpreted, n):
    """NumPy's sort, its running sums in float64 from the lowest rank up, one division, one rounding."""
    ordered = np.sort(awkward_points(n).numpy().astype(np.float64), axis=0)
    for reduction, (first, last) in jobs_for(n):
        if reduction == "mean_of_ranks":
            _, answer = interpreted[n, reduction, (first, last)]
            sums = np.add.accumulate(np.vstack([np.zeros((1, 150)), ordered[first:last]]), axis=0)[-1]
            assert same_bits(answer, torch.from_numpy((sums / (last - first)).astype(np.float32)))


@pytest.mark.parametrize("name", ["some rows", "a view"])
def test_rows_and_views(interpreted, name):
    job, answer = interpreted[name]
    assert same_bits(answer, readable(*job))


@pytest.mark.parametrize("name", ["inf", "-inf", "nan"])
def test_what_is_not_finite_is_refused(interpreted, name):
    assert interpreted[name][1] == "updates must be finite, rows [3] hold NaN or infinity"


@pytest.mark.parametrize("n", [7, 50])
def test_it_compiles_for_a_gpu_that_is_not_here(n, tmp_path, monkeypatch):
    """To machine code for NVIDIA's Hopper; quotients are rounded as IEEE 754 says, and tiny values are not flushed."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = network_kernel(triton, n, "mean_of_ranks", n // 4, n - n // 4)
    types = {"points": "*fp32", "offsets": "*i64", "result": "*fp32", "refused": "*i32", "num_columns": "i32"}
    source = ASTSource(kernel, signature={**types, "BLOCK": "constexpr"}, constexprs={"BLOCK": 128})
    compiled = triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 4, "enable_fp_fusion": False})
    assert "div.rn.f64" in compiled.asm["ptx"]
    assert "min.f32" in compiled.asm["ptx"]
    assert ".ftz" not in compiled.asm["ptx"]
    assert "fma" not in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 0


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(gpu_order_statistics, "_failures", [])
    gpu_order_statistics._triton.cache_clear()
    yield
    gpu_order_statistics._triton.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_triton_it_is_said_once_and_sorted(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "triton", None)  # import triton fails
    monkeypatch.setattr(order_statistics, "suits_gpu_kernels", lambda *_: True)
    points = awkward_points(9)
    expected = readable(points, torch.arange(9), "mean_of_ranks", (4, 5))
    with caplog.at_level(logging.WARNING, logger="fedrobust"):
        for _ in range(2):
            assert same_bits(mean_of_order_statistics(points, 4, 5), expected)
    assert [record.message[:25] for record in caplog.records] == ["Triton cannot be used, so"]


@pytest.mark.usefixtures("fresh")
def test_a_kernel_that_does_not_compile_is_not_tried_again(monkeypatch, caplog):
    class Broken:
        num_launches = 0

        def __getitem__(self, grid):
            Broken.num_launches += 1
            raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(gpu_order_statistics, "network_kernel", lambda *_: Broken())
    points = awkward_points(9)
    with caplog.at_level(logging.WARNING, logger="fedrobust"):
        for _ in range(2):
            assert reduced_on_gpu((points,), torch.arange(9), "mean_of_ranks", (4, 5), points) is None
    assert Broken.num_launches == 1
    assert len(caplog.records) == 1
    assert "Failed to find C compiler" in caplog.records[0].message


def test_only_large_float32_matrices_on_gpus_suit():
    on_cpu, on_gpu = torch.zeros(10, 1 << 19), torch.zeros(10, 1 << 19, device="meta")
    assert not suits_gpu_kernels((on_cpu,), 10)
    assert not suits_gpu_kernels((on_gpu,), 10)  # a device, but no GPU


@has_gpu
@pytest.mark.parametrize("n", SIZES)
def test_the_same_bits_on_a_gpu(n, monkeypatch):
    monkeypatch.setattr(gpu_order_statistics, "_WORTH_COMPILING", 0)
    points = awkward_points(n, 1000)
    on_gpu = points.cuda()
    for reduction, arguments in jobs_for(n):
        expected = readable(points, torch.arange(n), reduction, arguments)
        for where in (on_gpu, Shards((on_gpu[:, :333], on_gpu[:, 333:]))):
            if reduction == "mean_of_ranks":
                assert same_bits(mean_of_order_statistics(where, *arguments), expected)
            else:
                assert same_bits(mean_nearest_to_median(where, arguments[0]), expected)
    assert not gpu_order_statistics._failures


@has_gpu
def test_a_gpu_sorts_without_triton_to_the_same_bits(monkeypatch):
    monkeypatch.setattr(order_statistics, "suits_gpu_kernels", lambda *_: False)
    points = awkward_points(33, 1000)
    expected = readable(points, torch.arange(33), "mean_of_ranks", (11, 22))
    assert same_bits(mean_of_order_statistics(points.cuda(), 11, 22), expected)


@has_gpu
def test_a_gpu_refuses_what_is_not_finite(monkeypatch):
    monkeypatch.setattr(gpu_order_statistics, "_WORTH_COMPILING", 0)
    points = awkward_points(5).cuda()
    points[3, 149] = float("inf")
    with pytest.raises(UnusableUpdatesError, match=r"rows \[3\]"):
        mean_of_order_statistics(points, 2, 3)
