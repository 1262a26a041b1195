"""The compiled copy against torch's own indexing: the same bits."""

import numpy as np
import pytest
import torch

from fedrobust._linalg.columns import Shards, select_columns
from fedrobust._linalg.kernels import gather_kernel
from fedrobust._linalg.kernels.gather_kernel import can_gather, gathered_columns
from fedrobust.seeds import numpy_generator, torch_generator


@pytest.fixture(autouse=True)
def small_is_worth_it(monkeypatch):
    monkeypatch.setattr(gather_kernel, "_WORTH_COMPILING", 1)


def sample(n: int, d: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.randn(n, d, generator=torch_generator(0, "gather", n, d))
    drawn = numpy_generator(0, "gather", d, k).choice(d, k, replace=False)
    return points, torch.from_numpy(np.sort(drawn))


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize(("d", "k"), [(1, 1), (100, 7), (3000, 255), (3000, 257), (20_000, 5000), (9000, 9000)])
@pytest.mark.parametrize("numbers_a_part", [1, 10_000, 1 << 18])
def test_chosen_columns(monkeypatch, n, d, k, numbers_a_part):
    """Fewer and more columns than are asked for ahead; a row, some rows and all of them in a thread's turn."""
    monkeypatch.setattr(gather_kernel, "_NUMBERS_A_PART", numbers_a_part)
    points, indices = sample(n, d, k)
    assert can_gather(points, indices)
    assert torch.equal(gathered_columns(points, indices), points[:, indices])
    assert torch.equal(gathered_columns(points, indices.flip(0).int()), points[:, indices.flip(0)])


def test_rows_of_a_larger_matrix_and_numbers_that_are_none():
    points, indices = sample(12, 4000, 900)
    points[3], points[5] = torch.nan, -torch.inf
    some = points[1:11:3, 100:3900]
    indices = indices[indices < 3800]
    found = gathered_columns(some, indices)
    assert torch.equal(found.view(torch.int32), some[:, indices].view(torch.int32))


@pytest.mark.parametrize("indices", [[-1, 3], [0, 10]])
def test_indices_out_of_range_are_refused(indices):
    with pytest.raises(IndexError, match=r"indices must be in 0, \.\.\., 9, got"):
        gathered_columns(torch.zeros(2, 10), torch.tensor(indices))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("can_compile", [False, True])
def test_selected_columns_of_any_type_with_and_without_a_compiler(monkeypatch, dtype, can_compile):
    """What is not compiled is torch's, by threads; of shards each gives its own columns, and some none."""
    monkeypatch.setattr(gather_kernel, "can_compile", lambda: can_compile)
    points, indices = sample(9, 8000, 2000)
    points = points.to(dtype)
    assert torch.equal(select_columns(points, indices), points[:, indices])
    shards = Shards((points[:, :10], points[:, 10:5000], points[:, 5000:]))
    late = indices[indices >= 10]
    assert torch.equal(select_columns(shards, late), points[:, late])
