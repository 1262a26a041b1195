"""How far each sample's gradient lies from the mean along the direction in which the gradients vary most.

Diakonikolas et al., "Sever: A Robust Meta-Algorithm for Stochastic Optimization", ICML 2019,
https://arxiv.org/abs/1803.02815
"""

import numpy as np
import scipy.sparse.linalg
import torch

from fedrobust._linalg.spectral import TopDirection, top_direction
from fedrobust._linalg.threads import on_one_thread
from fedrobust.filters.covariance_direction import sample_direction
from fedrobust.seeds import numpy_generator
from fedrobust.statistics.sever.per_sample_gradients import Floats, Gradients, KernelGradients, OuterGradients

_SMALL = 500
"""Up to this many samples or parameters a small dense matrix serves: inner products, or a covariance."""

_ROUNDING = 1e-24
"""Relative to the squared length of the gradients: a variance below it is what rounding left of equal gradients."""

_ROUNDING_OF_PRODUCTS = 1e-14
"""The same where only inner products about the origin are known."""


@on_one_thread
def top_projections(gradients: Gradients) -> tuple[float, Floats]:
    """The largest variance in any direction v, and |⟨gᵢ - ḡ, v⟩| of each gradient.

    A dense covariance is formed for dense gradients of at most 500 parameters, inner products for at most 500 samples
    or where there is nothing else; otherwise the top singular vector is found by products with the gradients alone,
    which keeps factored and sparse ones as they are.

    Args:
        gradients: of n samples, n at least 1.

    Returns:
        The variance (the top eigenvalue of the covariance, divided by n), and `(n,)` projections, all zero if the
        gradients coincide.
    """
    if isinstance(gradients, KernelGradients):
        return _by_inner_products(gradients.gram())
    n, num_parameters = gradients.shape
    if num_parameters <= _SMALL and not _is_sparse(gradients):
        return _by_small_matrix(gradients.dense() if isinstance(gradients, OuterGradients) else gradients)
    if n <= _SMALL:
        if isinstance(gradients, OuterGradients):
            return _by_inner_products(gradients.gram())
        return _by_small_matrix(gradients)
    return _by_products(gradients)


def _is_sparse(gradients: OuterGradients | Floats) -> bool:
    return isinstance(gradients, OuterGradients) and scipy.sparse.issparse(gradients.features)


def _by_small_matrix(gradients: Floats) -> tuple[float, Floats]:
    """By the covariance or by inner products, whichever is smaller."""
    direction = sample_direction(torch.from_numpy(gradients))
    top = direction(torch.ones(len(gradients), dtype=torch.float64))
    return _found(top, _ROUNDING * float(np.square(gradients).sum()) / len(gradients))


def _by_inner_products(gram: Floats) -> tuple[float, Floats]:
    top = top_direction(torch.from_numpy(gram), torch.ones(len(gram), dtype=torch.float64))
    return _found(top, _ROUNDING_OF_PRODUCTS * float(np.diag(gram).mean()))


def _found(top: TopDirection, rounding: float) -> tuple[float, Floats]:
    if top.eigenvalue <= rounding:
        return 0.0, np.zeros(len(top.squared_projections))
    return top.eigenvalue, np.sqrt(top.squared_projections.numpy())


def _by_products(gradients: OuterGradients | Floats) -> tuple[float, Floats]:
    n = gradients.shape[0]
    multiply = gradients.matvec if isinstance(gradients, OuterGradients) else gradients.__matmul__
    multiply_transposed = gradients.rmatvec if isinstance(gradients, OuterGradients) else gradients.T.__matmul__
    mean = multiply_transposed(np.full(n, 1 / n))

    def centred(vector: Floats) -> Floats:
        return np.asarray(multiply(vector.ravel()) - mean @ vector.ravel())

    def centred_transposed(vector: Floats) -> Floats:
        return np.asarray(multiply_transposed(vector.ravel()) - mean * vector.sum())

    operator = scipy.sparse.linalg.LinearOperator(
        gradients.shape, matvec=centred, rmatvec=centred_transposed, dtype=np.float64
    )
    size = min(gradients.shape)
    start = numpy_generator(0, "svds", size).standard_normal(size)
    # The start's own image shows whether the gradients differ at all: Lanczos cannot begin where they do not.
    image = centred_transposed(start) if n == size else centred(start)
    if float(image @ image) <= _ROUNDING * float(mean @ mean) * size:
        return 0.0, np.zeros(n)
    _, values, vectors = scipy.sparse.linalg.svds(operator, k=1, v0=start, return_singular_vectors="vh")
    return float(values[0]) ** 2 / n, np.abs(centred(vectors[0]))
