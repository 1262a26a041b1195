"""The two clusters of one class's features."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from torch import Tensor

_RANK_TOLERANCE = 1e-6
"""Of the largest singular value: features are float32, and what lies below is their rounding."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The two clusters of one class.

    Attributes:
        is_smaller: `(n,)` booleans, which examples are in the smaller one.
        scores: `(n,)` float64, (squared distance to the larger one's centre - that to the smaller one's) over the
            squared distance of the centres, from -1 at the larger one's to 1.
        points: `(n, num_components)`, what was clustered.
    """

    is_smaller: NDArray[np.bool_]
    scores: NDArray[np.float64]
    points: NDArray[np.float64]

    @property
    def larger_share(self) -> float:
        """The larger cluster's share of the class."""
        return 1.0 - float(self.is_smaller.mean())

    @property
    def silhouette(self) -> float:
        """The mean silhouette of the class, in [-1, 1]."""
        return float(silhouette_score(self.points, self.is_smaller))

    def swapped(self) -> "Clusters":
        """With the larger one in the place of the smaller one."""
        return Clusters(~self.is_smaller, -self.scores, self.points)

    def first(self, num_examples: int) -> "Clusters":
        """Of the first examples alone."""
        return Clusters(self.is_smaller[:num_examples], self.scores[:num_examples], self.points[:num_examples])


def cluster(
    features: Tensor, reduction: Literal["ica", "pca"], num_components: int, num_starts: int, seed: int
) -> Clusters | None:
    """The two clusters of features `(n, F)`, finite; `None` if all are equal. See `ActivationClustering`."""
    centred = features.double().numpy()
    centred = centred - centred.mean(axis=0)
    rank = int(np.linalg.matrix_rank(centred, rtol=_RANK_TOLERANCE)) if np.ptp(features.numpy(), axis=0).any() else 0
    if rank == 0:
        return None
    # Independent components are whitened principal ones, rotated. Distances, all that k-means and silhouettes go
    # by, are the same under any rotation, so the search for it, which may not converge, is left out.
    pca = PCA(min(num_components, rank, len(centred) - 1), whiten=reduction == "ica", random_state=seed)
    points = np.asarray(pca.fit_transform(centred))
    fitted = KMeans(n_clusters=2, n_init=num_starts, random_state=seed).fit(points)
    small = int(np.bincount(fitted.labels_, minlength=2).argmin())
    squared = np.square(points[:, None] - fitted.cluster_centers_).sum(axis=2)
    between = float(np.square(fitted.cluster_centers_[0] - fitted.cluster_centers_[1]).sum())
    return Clusters(fitted.labels_ == small, (squared[:, 1 - small] - squared[:, small]) / between, points)
