import numpy as np
import pytest
import torch

from fedrobust._linalg import rows
from fedrobust._linalg.rows import distances_from, project_rows, weighted_row_mean
from fedrobust.seeds import torch_generator


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("numbers", [1, 1 << 19])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_equal_what_numpy_computes_at_once(
    dtype: torch.dtype, numbers: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five chunks of at most 1024 rows, or one, on one thread or two; the points are every second row, so strided."""
    monkeypatch.setattr(rows, "_CPU_CHUNK_NUMBERS", numbers)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    points = torch.randn(9000, 7, generator=torch_generator(0, "rows"), dtype=dtype)[::2] + 100
    weights = torch.rand(4500, generator=torch_generator(1, "rows"), dtype=torch.float64)
    exact = points.double().numpy()
    mean = weighted_row_mean(points, weights)
    assert mean.dtype == torch.float64
    np.testing.assert_allclose(mean.numpy(), np.average(exact, axis=0, weights=weights.numpy()), rtol=1e-13)
    np.testing.assert_allclose(
        distances_from(points, mean).numpy(), np.linalg.norm(exact - mean.numpy(), axis=1), rtol=1e-12
    )
    basis = torch.randn(7, 3, generator=torch_generator(2, "rows"), dtype=torch.float64)
    expected = (exact - mean.numpy()) @ basis.numpy()
    np.testing.assert_allclose(project_rows(points, mean, basis).numpy(), expected, atol=1e-11)
    np.testing.assert_allclose(project_rows(points, mean, basis[:, 0]).numpy(), expected[:, 0], atol=1e-11)
