import numpy as np
import pytest
import torch

from fedrobust._linalg.whitening import cholesky, dependent_columns, second_moment, whiten
from fedrobust.seeds import torch_generator


def points(n: int = 9000, d: int = 6) -> torch.Tensor:
    generator = torch_generator(0, "whitening")
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + 3


def test_second_moment_and_whitening_of_some_rows() -> None:
    """NumPy's (X - c)ᵀ(X - c)/n; whitened, it is I."""
    x, centre, rows = points(), torch.arange(6.0, dtype=torch.float64), torch.arange(0, 9000, 3)
    centred = x[rows].numpy() - centre.numpy()
    moment = second_moment(x, centre, rows)
    np.testing.assert_allclose(moment.numpy(), centred.T @ centred / 3000, rtol=1e-12)
    factor = cholesky(moment)
    assert factor is not None
    np.testing.assert_allclose((factor @ factor.T).numpy(), moment.numpy(), rtol=1e-12)
    whitened = whiten(x, centre, rows, factor, torch.empty_like(x))
    assert whitened.shape == (3000, 6)
    np.testing.assert_allclose((whitened.T @ whitened / 3000).numpy(), np.eye(6), atol=1e-12)


def test_whitening_in_place() -> None:
    x = points()
    centre = torch.zeros(6, dtype=torch.float64)
    factor = cholesky(second_moment(x, centre, None))
    assert factor is not None
    expected = np.linalg.solve(factor.numpy(), x.numpy().T).T
    np.testing.assert_allclose(whiten(x, centre, None, factor, x).numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("change", "message"), [("zero", r"columns \[1\]"), ("copy", "6 columns of rank 5")])
def test_dependent_columns(change: str, message: str) -> None:
    x, centre = points(), torch.zeros(6, dtype=torch.float64)
    x[:, 1] = 0 if change == "zero" else 2 * x[:, 0]
    assert cholesky(second_moment(x, centre, None)) is None
    with pytest.raises(ValueError, match=message):
        raise ValueError(dependent_columns(x, centre))


def test_scales_of_columns_do_not_matter() -> None:
    """Units that differ by 1e20 are no dependence."""
    x = points() * torch.tensor([1e-10, 1e10, 1, 1, 1e5, 1e-5], dtype=torch.float64)
    assert cholesky(second_moment(x, torch.zeros(6, dtype=torch.float64), None)) is not None
