from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from fedrobust._linalg.gram import inner_products, sliced_products, squared_norms
from fedrobust.seeds import torch_generator
from fedrobust.statistics import (
    gram_matrix,
    medoid_and_squared_radius,
    recentre,
    robust_gram_matrix,
    squared_distances,
    weighted_combination,
)


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_gram_equals_numpy_for_every_chunk_size(chunk_size: int) -> None:
    points = torch.randn(9, 64, generator=torch_generator(0, "points"), dtype=torch.float64)
    centre = points[3]
    shifted = points.numpy() - centre.numpy()
    gram = gram_matrix(points, centre=centre, chunk_size=chunk_size)
    np.testing.assert_allclose(gram.numpy(), shifted @ shifted.T, atol=1e-12)
    assert torch.equal(gram, gram.T)


@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("num_outliers", [0, 2])
def test_distances_of_float32_points_far_from_the_origin(ratio: float, num_outliers: int) -> None:
    """Uncentred float32 distances are wrong by 8e-4 at ratio 100 and by 6 at 10000; float64 `cdist` is the oracle."""
    generator = torch_generator(1, "cloud")
    points = torch.randn(12, 3000, generator=generator) + ratio * torch.randn(3000, generator=generator)
    points[:num_outliers] = 1e6 * ratio * torch.randn(num_outliers, 3000, generator=generator)
    exact = cdist(points.double().numpy(), points.double().numpy(), "sqeuclidean")
    measured = squared_distances(robust_gram_matrix(points)).numpy()
    others = ~np.eye(12, dtype=bool)
    assert np.max(np.abs(measured - exact)[others] / exact[others]) < 1e-5


def test_updates_near_the_origin_are_read_once_and_not_centred() -> None:
    points = torch.randn(10, 100, generator=torch_generator(2, "points"), dtype=torch.float64)
    assert torch.equal(robust_gram_matrix(points), gram_matrix(points))


def test_float32_products_that_overflow_are_redone_in_float64() -> None:
    points = torch.tensor([[1.0, 0.0], [1e30, -1e30]])
    np.testing.assert_allclose(gram_matrix(points).numpy(), [[1, 1e30], [1e30, 2e60]], rtol=1e-6)


@pytest.mark.parametrize("function", [gram_matrix, squared_norms])
def test_what_overflows_float64_is_refused(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="squared norms below"):
        function(torch.full((2, 2), 1e200, dtype=torch.float64))


def test_medoid_is_a_majority_point() -> None:
    """On 0, 1, 2, 100, 101 the median squared distances are 4, 1, 4, 98² and 99²."""
    points = torch.tensor([[0.0], [1.0], [2.0], [100.0], [101.0]])
    assert medoid_and_squared_radius(gram_matrix(points)) == (1, 1.0)


def test_recentre_is_the_gram_about_the_weighted_mean() -> None:
    points = torch.randn(8, 5, generator=torch_generator(3, "points"), dtype=torch.float64)
    weights = torch.rand(8, generator=torch_generator(4, "weights"), dtype=torch.float64)
    weights /= weights.sum()
    centred = points.numpy() - np.average(points.numpy(), axis=0, weights=weights.numpy())
    np.testing.assert_allclose(recentre(gram_matrix(points), weights).numpy(), centred @ centred.T, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
def test_combination_equals_numpy_and_skips_rows_of_weight_zero(chunk_size: int) -> None:
    points = torch.randn(6, 40, generator=torch_generator(5, "points"), dtype=torch.float64)
    weights = torch.tensor([0.5, 0.0, -1.0, 2.0, 0.0, 0.25], dtype=torch.float64)
    expected = weights.numpy() @ points.numpy()
    points[1] = float("inf")
    points[4] = float("nan")
    combined = weighted_combination(points, weights, chunk_size=chunk_size)
    np.testing.assert_allclose(combined.numpy(), expected, atol=1e-13)


def test_norms_and_inner_products_whose_float32_form_overflows() -> None:
    """3e38 in 100 coordinates: a norm of 3e39, beyond float32's 3.4e38."""
    points = torch.full((2, 100), 3e38)
    points[1] = 1.0
    exact = points.double()
    torch.testing.assert_close(squared_norms(points), exact.square().sum(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(inner_products(points, points[0]), exact @ exact[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("width", [1, 2048, 5000])
def test_products_as_a_gpu_computes_them_equal_numpy(width: int) -> None:
    """Slices of columns multiplied side by side, and what is left over; NumPy multiplies in float64."""
    rows = torch.randn(7, width, generator=torch_generator(0, "slices"))
    expected = rows.double().numpy() @ rows.double().numpy().T
    np.testing.assert_allclose(sliced_products(rows).numpy(), expected, rtol=0, atol=1e-6 * width)


@pytest.mark.parametrize("distance", [0.0, 1e4])
def test_the_matrix_of_some_columns_is_that_of_a_copy_of_them(monkeypatch, distance):
    """In parts of five columns, near the origin and where a centre is needed; NumPy's distances are the oracle."""
    monkeypatch.setattr("fedrobust._linalg.gram._FEWEST_SAMPLED", 5)
    points = torch.randn(9, 40, generator=torch_generator(6, "columns"), dtype=torch.float64) + distance
    columns = torch.tensor([0, 3, 4, 5, 11, 17, 18, 21, 30, 31, 38, 39])
    found = squared_distances(robust_gram_matrix(points, columns=columns)).numpy()
    chosen = points[:, columns].numpy()
    np.testing.assert_allclose(found, cdist(chosen, chosen, "sqeuclidean"), rtol=1e-9, atol=1e-9)
