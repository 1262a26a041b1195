"""Krum and Multi-Krum: trust the clients whose nearest neighbours are nearest.

Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, https://arxiv.org/abs/1703.02757
"""

from typing import ClassVar

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust._linalg.gram import robust_gram_matrix, squared_distances
from fedrobust._linalg.neighbours import sums_of_nearest
from fedrobust.aggregators.base import Aggregate, RoundContext, UnsuitableSizeError, checked
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, Count, Trait, component
from fedrobust.filters.filtering import assumed_count
from fedrobust.types import Weights


@component
class Krum:
    """Answer with the one update whose n - f - 2 nearest neighbours are nearest to it.

    Formula: xₖ with k = argmin sᵢ, where sᵢ is the sum of the n - f - 2 smallest ‖xᵢ - xⱼ‖² over j ≠ i.
    Cost: one n x n Gram matrix (O(n²d), the data is read once, or twice where the updates lie far from the origin) and
    a sort of each of its rows, O(n² log n); then one row is read.
    Breakdown point: it needs n ≥ 2f + 3, f the attackers it is told of. Up to f attackers, wherever they stand, the
    answer is an update that has an honest one among its neighbours. The server's weights are ignored, and with them
    what clients claim.
    Assumes: honest updates that differ by noise around one mean, and less than that mean is long.
    Fails when: honest clients differ by their data, as one of them cannot speak for all; attackers stand close together
    where honest clients do not; d is large, as an update may then be near its neighbours and carry a large error in a
    few coordinates. Without attackers it is as noisy as a single client.
    Source: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", NeurIPS 2017, https://arxiv.org/abs/1703.02757
    Departs: nothing. The server's weights do not enter the choice; of equal scores the lower index wins, and where only
    one neighbour counts the two clients nearest to each other always are equal.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
    """

    assumed_fraction: AssumedFraction

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n < 2f + 3.
        """
        return _require_neighbours("Krum", self.assumed_fraction, n)

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Choose one of `updates` `(n, d)`; `weights` `(n,)` are checked and otherwise ignored.

        Differentiable through the choice, which a small change leaves as it is: the gradient is the chosen client's.

        Returns:
            A share of 1 for the chosen client, and Krum's scores, in squared units of an update.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n < 2f + 3; the chosen client has no
                weight.
        """
        believed = checked(updates, weights, self)
        return _average_best(updates, believed, self.check_size(len(updates)), num_kept=1)


@component
class MultiKrum:
    """Average the updates whose n - f - 2 nearest neighbours are nearest to them.

    Formula: the mean of the `num_kept` updates with the smallest sᵢ, where sᵢ is the sum of the n - f - 2 smallest
    ‖xᵢ - xⱼ‖² over j ≠ i.
    Cost: one n x n Gram matrix (O(n²d), the data is read once, or twice where the updates lie far from the origin), a
    sort of each of its rows, O(n² log n), and one combination of the kept rows (O(nd)).
    Breakdown point: it needs n ≥ 2f + 3, f the attackers it is told of. It may keep attackers, but only such as have
    scores among the lowest, that is who stand about as close to others as honest clients do. Who is kept does not
    depend on the server's weights, but the kept are averaged by them: where weights are claims, one client that is kept
    can be the whole answer.
    Assumes: honest updates that differ by noise around one mean.
    Fails when: honest clients differ by their data and the minority among them is dropped; attackers stand close
    together near the honest ones, where their scores are the lowest; `num_kept` exceeds the honest clients.
    Source: Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent", NeurIPS 2017, https://arxiv.org/abs/1703.02757
    Departs: the average carries the server's weights, which do not enter the choice. The paper leaves the number of
    kept updates open; without `num_kept` it is n - f. Of equal scores the lower index wins.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
        num_kept: how many updates are averaged, at most n; `None` for n - f, with 1 this is Krum.
    """

    assumed_fraction: AssumedFraction
    num_kept: Count | None = None

    traits: ClassVar[frozenset[Trait]] = frozenset({"is_differentiable"})

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n < 2f + 3, or n < num_kept.
        """
        f = _require_neighbours("MultiKrum", self.assumed_fraction, n)
        if self.num_kept is not None and n < self.num_kept:
            raise UnsuitableSizeError(f"MultiKrum needs n >= num_kept, got n={n}, num_kept={self.num_kept}")
        return f

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`.

        Differentiable through the choice, which a small change leaves as it is: the gradient is the kept clients'.

        Returns:
            Shares proportional to the server's weights of the kept, and Krum's scores, in squared units of an update.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n < 2f + 3 or n < num_kept; no kept client
                has any weight.
        """
        believed = checked(updates, weights, self)
        f = self.check_size(len(updates))
        return _average_best(updates, believed, f, num_kept=self.num_kept or len(updates) - f)


def krum_scores(distances: Tensor, f: int) -> Tensor:
    """The sums of the n - f - 2 smallest of the squared `distances` `(n, n)` to others, `(n,)`."""
    return sums_of_nearest(distances, len(distances) - f - 2)


def _average_best(updates: Points, believed: Weights, f: int, *, num_kept: int) -> Aggregate:
    scores = krum_scores(squared_distances(robust_gram_matrix(updates.detach())), f)
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.argsort(stable=True)[:num_kept]] = True
    return average_kept(updates, believed, kept, scores=scores)


def _require_neighbours(rule: str, assumed_fraction: float, n: int) -> int:
    f = assumed_count(assumed_fraction, n)
    if n < 2 * f + 3:
        raise UnsuitableSizeError(f"{rule} needs n >= 2f + 3, got n={n}, f={f}")
    return f
