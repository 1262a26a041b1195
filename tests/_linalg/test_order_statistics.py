import numpy as np
import pytest
import torch

from fedrobust.seeds import torch_generator
from fedrobust.statistics import mean_of_order_statistics


@pytest.mark.parametrize("chunk_size", [1, 6, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("first", "last"), [(0, 11), (0, 1), (10, 11), (3, 8)])
def test_equals_sorting_every_column(chunk_size: int | None, dtype: torch.dtype, first: int, last: int) -> None:
    points = torch.randn(11, 20, generator=torch_generator(0, "points"), dtype=dtype)
    expected = np.sort(points.double().numpy(), axis=0)[first:last].mean(axis=0)
    measured = mean_of_order_statistics(points, first, last, chunk_size=chunk_size)
    assert measured.dtype == dtype
    np.testing.assert_allclose(measured.double().numpy(), expected, rtol=1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (2, 2), (0, 4)])
def test_ranks_that_do_not_exist_are_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match=f"first={first}, last={last}, n=3"):
        mean_of_order_statistics(torch.zeros(3, 2), first, last)
