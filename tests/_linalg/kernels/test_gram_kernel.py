"""The compiled products against float64 matrix products."""

import pytest
import torch

from fedrobust._linalg.kernels import gram_kernel
from fedrobust._linalg.kernels.gram_kernel import can_multiply, row_products
from fedrobust.seeds import torch_generator


@pytest.fixture(autouse=True)
def small_is_worth_it(monkeypatch):
    monkeypatch.setattr(gram_kernel, "_WORTH_COMPILING", 0)


def allowed(points: torch.Tensor) -> torch.Tensor:
    """How far float32 sums of 1,024 products may be off: 1e-6 of the product of the norms."""
    norms = points.double().norm(dim=1)
    return 1e-6 * norms[:, None] * norms[None, :] + 1e-30


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 63, 65, 130])
@pytest.mark.parametrize("d", [16, 17, 1040, 9001])
def test_products_of_all_pairs(n, d):
    points = torch.randn(n, d, generator=torch_generator(0, "gram", n, d))
    assert can_multiply(points)
    found = row_products(points)
    assert torch.equal(found, found.T)
    wide = points.double()
    assert ((found - wide @ wide.T).abs() <= allowed(points)).all()


@pytest.mark.parametrize("d", [4096, 20011])
def test_about_a_centre_half_precision_strides_and_aliased_rows(d):
    """What must be copied first, a part at a time; rows a multiple of 4,096 bytes apart are copied too."""
    points = torch.randn(7, d, generator=torch_generator(1, "gram"))
    centre = torch.randn(d, generator=torch_generator(2, "gram"))
    wide = points.double() - centre.double()
    assert ((row_products(points, centre) - wide @ wide.T).abs() <= 2 * allowed(wide)).all()
    half = points.bfloat16()
    assert ((row_products(half) - half.double() @ half.double().T).abs() <= allowed(half)).all()
    turned = points.T.contiguous().T
    assert ((row_products(turned) - points.double() @ points.double().T).abs() <= allowed(points)).all()


@pytest.mark.parametrize("n", [1, 5, 63, 130])
@pytest.mark.parametrize("d", [16, 4096, 9001])
def test_threads_that_share_the_tiles_of_one_matrix(monkeypatch, n, d):
    """How more than 512 rows are multiplied; 4,096 columns are copied, as rows lie a multiple of 4,096 bytes apart."""
    monkeypatch.setattr(gram_kernel, "_MOST_ROWS_BY_COLUMNS", 0)
    points = torch.randn(n, d, generator=torch_generator(4, "gram", n, d))
    centre = torch.randn(d, generator=torch_generator(5, "gram"))
    found, about = row_products(points), row_products(points, centre)
    assert torch.equal(found, found.T)
    wide = points.double()
    assert ((found - wide @ wide.T).abs() <= allowed(points)).all()
    wide -= centre.double()
    assert ((about - wide @ wide.T).abs() <= 2 * allowed(wide)).all()


def test_not_a_number_shows():
    points = torch.randn(6, 5000, generator=torch_generator(3, "gram"))
    points[2, 4999] = float("nan")
    found = row_products(points)
    assert found[2].isnan().all()
    assert found[:2, :2].isfinite().all()
