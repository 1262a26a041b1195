"""The fourth moments of a whitened sample, as an operator on symmetric matrices that is never written out.

Diakonikolas, Kamath, Kane, Li, Moitra and Stewart, "Being Robust (in High Dimensions) Can Be Practical", ICML 2017,
https://arxiv.org/abs/1703.00893: the covariance filter looks for the degree-two polynomial of largest variance.
"""

import functools
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust._linalg.rows import Chunk, Chunks, distances_from, like_chunks, over_rows
from fedrobust.seeds import numpy_generator
from fedrobust.types import Vector

_DENSE_UP_TO = 8
"""Up to this d the operator has at most 36 rows: written out, in chunks, it is exact and as fast."""

_GRAM_UP_TO = 2048
"""A Gram matrix of more points than this would outweigh the sample itself."""

_KRYLOV_SIZE = 20


@dataclass(frozen=True)
class Polynomial:
    """The quadratic polynomial ⟨yyᵀ - I, M⟩ of unit ‖M‖_F with the largest second moment over a sample.

    Attributes:
        second_moment: half of it: 1 in every direction for a Gaussian of identity covariance.
        matrix: M, `(d, d)` float64, symmetric, on the points' device; its sign is arbitrary.
    """

    second_moment: float
    matrix: Tensor

    def values(self, whitened: Tensor) -> Tensor:
        """`(n,)` float64 on the CPU: the polynomial at each row."""
        matrix, trace = like_chunks(self.matrix, whitened), float(self.matrix.trace())

        def evaluate(chunks: Chunks) -> Tensor:
            return torch.cat([torch.as_tensor(((rows @ matrix) * rows).sum(axis=1)) for _, rows in chunks])

        return torch.cat(over_rows(whitened, _origin(whitened), evaluate)).cpu() - trace


def apply_fourth_moment(whitened: Tensor, matrix: Tensor, *, single: bool = False) -> Tensor:
    """(1/n) Σ (yᵢᵀAyᵢ) yᵢyᵢᵀ - tr(A) I, the operator E[(y⊗y)(y⊗y)ᵀ] - vec(I)vec(I)ᵀ at a symmetric A, in O(nd²).

    Args:
        whitened: `(n, d)` with (1/n) Σ yᵢyᵢᵀ = I.
        matrix: `(d, d)` float64, symmetric.
        single: whether the products within a chunk are in float32; chunks are added up in float64.
    """
    given = like_chunks(matrix, whitened)
    narrow = _narrowed(given) if single else given

    def add_up(chunks: Chunks) -> Tensor:
        total = given * 0.0
        for _, wide in chunks:
            rows = _narrowed(wide) if single else wide
            forms = ((rows @ narrow) * rows).sum(axis=1)
            total += rows.T @ (rows * forms[:, None])
        return torch.as_tensor(total)

    image = torch.stack(over_rows(whitened, _origin(whitened), add_up)).sum(dim=0) / len(whitened)
    image.diagonal().sub_(matrix.trace())
    return image


def squared_norms(points: Tensor) -> Tensor:
    """‖yᵢ‖², `(n,)` float64 on the CPU."""
    return distances_from(points, _origin(points)).square()


def _origin(points: Tensor) -> Vector:
    return torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)


def _narrowed(chunk: Chunk) -> Chunk:
    return chunk.float() if isinstance(chunk, Tensor) else chunk.astype(np.float32)


def top_polynomials(
    whitened: Tensor, *, tolerance: float, count: int = 1, near: Polynomial | None = None
) -> list[Polynomial]:
    """The top eigenpairs of the fourth-moment operator on symmetric matrices, largest first.

    Lanczos with products of O(nd²) and memory O(d²); through the n x n Gram matrix (⟨yᵢ, yⱼ⟩²) where n is small
    beside d²; written out where d is at most 8.

    Args:
        whitened: `(n, d)` with (1/n) Σ yᵢyᵢᵀ = I; float32 or float64.
        tolerance: of ‖TM - λM‖_F, relative to λ; down to 1e-5 the products are in float32.
        count: how many, at most; there are d(d+1)/2.
        near: a polynomial where the search starts.
    """
    n, d = whitened.shape
    count = min(count, d * (d + 1) // 2)
    if d <= _DENSE_UP_TO:
        return _dense(whitened, count)
    if n < min(d * d, _GRAM_UP_TO):
        return _through_gram(whitened, count)
    device = whitened.device

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix = torch.from_numpy(vector.reshape(d, d)).to(device)
        return np.asarray(apply_fourth_moment(whitened, matrix, single=tolerance >= 1e-5).cpu().numpy().ravel())

    # In the space of all d x d matrices; from a symmetric start no product ever leaves the symmetric ones.
    start = numpy_generator(0, "fourth moment", d).standard_normal((d, d)) / d
    start = start + start.T
    if near is not None:
        start = near.matrix.cpu().numpy() + 1e-3 * start
    operator = scipy.sparse.linalg.LinearOperator((d * d, d * d), matvec=multiply, dtype=np.float64)
    values, vectors = _largest(operator, start.ravel(), tolerance, count)
    matrices = torch.from_numpy(vectors.T.reshape(-1, d, d)).to(device)
    return _polynomials(values, [(matrix + matrix.T) / 2 for matrix in matrices])


def _largest(
    operator: scipy.sparse.linalg.LinearOperator, start: NDArray[np.float64], tolerance: float, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    search = functools.partial(
        scipy.sparse.linalg.eigsh, operator, k=count, which="LA", v0=start, ncv=_KRYLOV_SIZE + 2 * (count - 1)
    )
    try:
        values, vectors = search(tol=tolerance, maxiter=30)
    except scipy.sparse.linalg.ArpackNoConvergence:
        # Eigenvalues too close together to be told apart: any direction among them is as good.
        values, vectors = search(tol=max(tolerance, 1e-2), maxiter=1000)
    return values, vectors


def _polynomials(eigenvalues: NDArray[np.float64], matrices: list[Tensor]) -> list[Polynomial]:
    """From ascending eigenvalues."""
    found = [
        Polynomial(float(eigenvalue) / 2, matrix / torch.linalg.matrix_norm(matrix))
        for eigenvalue, matrix in zip(eigenvalues, matrices, strict=True)
    ]
    return found[::-1]


def _dense(whitened: Tensor, count: int) -> list[Polynomial]:
    d = whitened.shape[1]
    rows_of, columns_of = torch.triu_indices(d, d, device=whitened.device)
    off_diagonal = rows_of != columns_of
    # √2 makes the Euclidean norm of the coordinates the Frobenius norm of the symmetric matrix.
    scale = torch.where(off_diagonal, torch.tensor(2.0, dtype=torch.float64).sqrt(), 1.0)
    size = len(rows_of)

    def add_up(chunks: Chunks) -> Tensor:
        total = torch.zeros(size, size, dtype=torch.float64, device=whitened.device)
        for _, chunk in chunks:
            rows = torch.as_tensor(chunk)
            products = rows[:, rows_of] * rows[:, columns_of] * scale - (~off_diagonal).double()
            total.addmm_(products.T, products)
        return total

    total = torch.stack(over_rows(whitened, _origin(whitened), add_up)).sum(dim=0)
    values, vectors = scipy.linalg.eigh((total / len(whitened)).cpu().numpy())
    matrices = []
    for vector in torch.from_numpy(vectors[:, size - count :].T.copy()).to(whitened.device) / scale:
        matrix = torch.zeros(d, d, dtype=torch.float64, device=whitened.device)
        matrix[rows_of, columns_of] = vector
        matrix[columns_of, rows_of] = vector
        matrices.append(matrix)
    return _polynomials(values[size - count :], matrices)


def _through_gram(whitened: Tensor, count: int) -> list[Polynomial]:
    """⟨yᵢyᵢᵀ - I, yⱼyⱼᵀ - I⟩ is (⟨yᵢ, yⱼ⟩²) with rows and columns centred, for yᵢyᵢᵀ average to I."""
    points = whitened.double()
    n = len(points)
    gram = (points @ points.T).square_()
    gram -= gram.mean(dim=1, keepdim=True)
    gram -= gram.mean(dim=0, keepdim=True)
    matrix = (gram / n).cpu().numpy()
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[n - count, n - 1])
    if len(values) < count:  # LAPACK may find none where all eigenvalues are equal but for rounding
        values, vectors = (part[..., n - count :] for part in scipy.linalg.eigh(matrix))
    matrices = []
    for coefficients in torch.from_numpy(np.ascontiguousarray(vectors.T)).to(points.device):
        combined = points.T @ (points * coefficients[:, None])
        combined.diagonal().sub_(coefficients.sum())
        matrices.append(combined)
    return _polynomials(values, matrices)
