import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust._linalg import symmetric_operator
from fedrobust._linalg.symmetric_operator import apply_fourth_moment, top_polynomials
from fedrobust.seeds import torch_generator


def whitened_sample(n: int, d: int) -> Tensor:
    """Heavy-tailed points, so that the top eigenvalue stands out, with second moment I by the symmetric square root."""
    points = torch.randn(n, d, generator=torch_generator(0, "points"), dtype=torch.float64)
    points[: n // 20] *= 3
    values, vectors = torch.linalg.eigh(points.T @ points / n)
    return points @ (vectors * values.rsqrt()) @ vectors.T


def explicit_operator(whitened: Tensor) -> Tensor:
    """E[(y⊗y)(y⊗y)ᵀ] - vec(I)vec(I)ᵀ from the N x d² matrix, as the definition has it."""
    n, d = whitened.shape
    products = (whitened[:, :, None] * whitened[:, None, :]).reshape(n, d * d)
    identity = torch.eye(d, dtype=torch.float64).reshape(-1)
    return products.T @ products / n - torch.outer(identity, identity)


@pytest.mark.parametrize("d", [1, 2, 5, 12])
def test_product_is_that_of_the_explicit_matrix(d: int) -> None:
    whitened = whitened_sample(9000, d)
    matrix = torch.randn(d, d, generator=torch_generator(1, "matrix"), dtype=torch.float64)
    matrix = matrix + matrix.T
    expected = (explicit_operator(whitened) @ matrix.reshape(-1)).reshape(d, d)
    torch.testing.assert_close(apply_fourth_moment(whitened, matrix), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(apply_fourth_moment(whitened, matrix, single=True), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(500, 1), (500, 3), (3000, 12), (100, 12), (4000, 20)])
def test_top_eigenpair_is_that_of_the_explicit_matrix(n: int, d: int) -> None:
    """NumPy's `eigh` of the explicit d² x d² matrix: written out for d <= 8, by Gram for n < d², by Lanczos else."""
    whitened = whitened_sample(n, d)
    values, vectors = np.linalg.eigh(explicit_operator(whitened).numpy())
    (top,) = top_polynomials(whitened, tolerance=1e-10)
    assert top.second_moment == pytest.approx(values[-1] / 2, rel=1e-10)
    assert abs(float(top.matrix.reshape(-1) @ torch.from_numpy(vectors[:, -1]))) == pytest.approx(1, abs=1e-8)
    assert float(top.values(whitened).square().mean()) == pytest.approx(values[-1], rel=1e-9)


def test_gram_and_lanczos_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    whitened = whitened_sample(300, 25)
    by_gram = top_polynomials(whitened, tolerance=1e-12, count=3)
    monkeypatch.setattr(symmetric_operator, "_GRAM_UP_TO", 0)
    by_lanczos = top_polynomials(whitened, tolerance=1e-12, count=3)
    for one, other in zip(by_gram, by_lanczos, strict=True):
        assert one.second_moment == pytest.approx(other.second_moment, rel=1e-10)
        assert abs(float((one.matrix * other.matrix).sum())) == pytest.approx(1, abs=1e-7)
    values = np.linalg.eigvalsh(explicit_operator(whitened).numpy())[::-1]
    assert [2 * one.second_moment for one in by_gram] == pytest.approx(list(values[:3]), rel=1e-10)


def test_of_single_precision_points() -> None:
    """λ of the same sample in float64; the directions agree as far as float32 goes."""
    whitened = whitened_sample(5000, 15)
    (wide,) = top_polynomials(whitened, tolerance=1e-8)
    (narrow,) = top_polynomials(whitened.float(), tolerance=1e-8)
    assert narrow.second_moment == pytest.approx(wide.second_moment, rel=1e-5)
    assert abs(float((narrow.matrix * wide.matrix).sum())) == pytest.approx(1, abs=1e-5)
