import numpy as np
import pytest
import scipy.sparse

from fedrobust.seeds import numpy_generator
from fedrobust.statistics.sever.gradient_projections import top_projections
from fedrobust.statistics.sever.per_sample_gradients import KernelGradients, OuterGradients


def expected_of(dense: np.ndarray) -> tuple[float, np.ndarray]:
    """NumPy's dense singular value decomposition of the centred matrix."""
    centred = dense - dense.mean(axis=0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    return values[0] ** 2 / len(dense), np.abs(centred @ vectors[0])


@pytest.mark.parametrize("kind", ["dense", "outer", "sparse", "kernel"])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (40, 6), (30, 600), (560, 30), (505, 510), (510, 505)])
def test_equals_the_dense_singular_value_decomposition(n: int, d: int, kind: str) -> None:
    generator = numpy_generator(0, "projections", n, d)
    features = generator.normal(size=(n, d)) + 1.0
    features[:, 0] *= 5.0  # a gap behind the first singular value
    if kind == "sparse":
        features *= generator.random((n, d)) < 0.3
        features[:, 0] = generator.normal(size=n) * 5.0
    coefficients = generator.normal(size=(n, 1)) + 2.0
    dense = coefficients * features
    gradients = {
        "dense": dense,
        "outer": OuterGradients(coefficients, features),
        "sparse": OuterGradients(coefficients, scipy.sparse.csr_matrix(features)),
        "kernel": KernelGradients(coefficients, features @ features.T),
    }[kind]
    variance, projections = top_projections(gradients)
    expected_variance, expected = expected_of(dense)
    assert variance == pytest.approx(expected_variance, rel=1e-9)
    np.testing.assert_allclose(projections, expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize(("n", "d"), [(1, 3), (5, 3), (5, 600), (510, 510)])
@pytest.mark.parametrize("value", [0.0, 0.3, 1e3 / 7])
def test_gradients_that_coincide_have_no_direction(n: int, d: int, value: float) -> None:
    features = np.full((n, d), value)
    sparse = OuterGradients(np.ones((n, 1)), scipy.sparse.csr_matrix(features))
    for gradients in (features, sparse, KernelGradients(np.ones((n, 1)), features @ features.T)):
        variance, projections = top_projections(gradients)
        assert variance == 0
        assert projections.tolist() == [0.0] * n


def test_one_sample_that_differs_is_found_by_products_alone() -> None:
    """Rank one: all variance lies along the one row, which is (1 - 1/n)·10 from the mean, the others 10/n."""
    features = scipy.sparse.lil_matrix((700, 800))
    features[3, 5] = 10.0
    variance, projections = top_projections(OuterGradients(np.ones((700, 1)), features.tocsr()))
    assert variance == pytest.approx(100 / 700 * (1 - 1 / 700))
    assert projections[3] == pytest.approx(10 * (1 - 1 / 700))
    np.testing.assert_allclose(np.delete(projections, 3), 10 / 700, rtol=1e-6)
