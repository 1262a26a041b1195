"""Divide and conquer: spectral outlier removal on random coordinates, several times over.

Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
Learning", NDSS 2021, https://www.ndss-symposium.org/ndss-paper/manipulating-the-byzantine-optimizing-model-poisoning-attacks-and-defenses-for-federated-learning/
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import Points, select_columns
from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust._linalg.spectral import top_direction
from fedrobust._linalg.threads import in_turns
from fedrobust.aggregators.base import Aggregate, RoundContext, UnsuitableSizeError, checked, require_majority
from fedrobust.aggregators.shared_average import average_kept
from fedrobust.config.component import AssumedFraction, Count, Positive, component
from fedrobust.filters.filtering import relative_projections
from fedrobust.types import Weights

_SAMPLES_PART = 16
_MOST_NUMBERS = 1 << 20
"""Several small samples are taken at the same time, each by a thread, as long as all of them are so small a part of the
updates and so few numbers."""


@component
class DnC:
    """On several random sets of coordinates drop who lies farthest out in the top direction; average who always stays.

    Formula: in each iteration take k random coordinates of all updates, centre them on their mean μ, find the top right
        singular vector v, and keep the n - ⌊cf⌋ clients with the smallest ⟨xᵢ - μ, v⟩². The answer is the average,
        under the server's weights, of the clients kept in every iteration.

    Cost: O(n²k) an iteration, for the n x n Gram matrix of the sampled coordinates, and O(nd) for the average.

    Breakdown point: none is given; f < n/2 is required here. The paper's argument is spectral separation: attackers
        whose mean lies far from the honest clients' relative to the spread of both are told apart, nearer ones are not.
        Who is kept does not depend on the server's weights, but the kept are averaged by them: where weights are
        claims, one client that is kept can be the whole answer.

    Assumes: attackers who collude in one direction in which they outweigh the honest clients' variance; at most f.

    Fails when: attackers use more directions than one, for each iteration looks in one and drops a fixed number; when
        honest clients vary more along some direction than attackers shift, as heterogeneous ones do; with few honest
        clients, since ⌊cf⌋ are dropped in every iteration whether or not there was an attack.

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
        Federated Learning", NDSS 2021,
        https://www.ndss-symposium.org/ndss-paper/manipulating-the-byzantine-optimizing-model-poisoning-attacks-and-defenses-for-federated-learning/

    Departs: if no client is kept in every iteration, those kept most often are averaged. An iteration in which all
        updates are equal drops nobody. With all coordinates in every sample one iteration is made, for the others would
        repeat it.

    Attributes:
        assumed_fraction: what the server believes the fraction of malicious clients to be; f = ⌊εn⌋.
        num_iterations: how many samples of coordinates are looked at.
        num_coordinates: k; all d if it is larger.
        filter_factor: c, how many times f clients each iteration drops.
    """

    assumed_fraction: AssumedFraction
    num_iterations: Count = 5
    num_coordinates: Count = 10_000
    filter_factor: Positive = 1.0

    def check_size(self, n: int) -> int:
        """The number f of n clients that are assumed malicious.

        Raises:
            UnsuitableSizeError: n <= 2f, or ⌊cf⌋ >= n.
        """
        f = require_majority("DnC", self.assumed_fraction, n)
        if self._num_dropped(f) >= n:
            raise UnsuitableSizeError(f"DnC needs n > ⌊cf⌋, got n={n}, c={self.filter_factor}, f={f}")
        return f

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Aggregate:
        """Aggregate `updates` `(n, d)` under `weights` `(n,)`, on coordinates drawn by `context.seed` and the round.

        Of a dropped client only the sampled coordinates are read, and so only those must be finite.

        Returns:
            Shares proportional to the kept clients' server weights, and as scores the average over the iterations of
            the squared projection relative to the largest, in [0, 1].

        Raises:
            ValueError: updates or weights of the wrong shape, type or range; n <= 2f, n <= ⌊cf⌋; every client of
                positive weight dropped.
        """
        believed = checked(updates, weights, self)
        n, d = updates.shape
        num_kept = n - self._num_dropped(self.check_size(n))
        generator = (context or RoundContext()).generator("DnC")
        takes_all = self.num_coordinates >= d
        num_iterations = 1 if takes_all else self.num_iterations
        everyone = torch.ones(n, dtype=torch.float64)
        times_kept, scores = torch.zeros(n), torch.zeros(n, dtype=torch.float64)
        seeds = [_draw_seed(generator) for _ in range(num_iterations)]
        k = d if takes_all else self.num_coordinates
        # By `map`: a name for the matrix would keep it while the next one is made.
        for top in map(partial(top_direction, weights=everyone), _sampled_grams(updates, k, seeds)):
            relative = relative_projections(top, everyone)
            # Stable: of equal clients the first is kept.
            times_kept[relative.sort(stable=True).indices[: n if top.eigenvalue <= 0 else num_kept]] += 1
            scores += relative / num_iterations
        most = float(times_kept.max())
        return average_kept(
            updates,
            believed,
            times_kept == most,
            scores=scores,
            diagnostics={"num_iterations": float(num_iterations), "times_kept": most},
        )

    def _num_dropped(self, f: int) -> int:
        return math.floor(self.filter_factor * f + 1e-9)


def _sampled_grams(updates: Points, k: int, seeds: Sequence[int]) -> Iterator[Tensor]:
    """The Gram matrix of each sample of k coordinates, `(n, n)` float64 on the CPU."""
    n, d = updates.shape
    if k == d:
        yield robust_gram_matrix(updates)
        return
    at_once = min(d // (_SAMPLES_PART * k), _MOST_NUMBERS // (n * k)) if updates.device.type == "cpu" else 1
    if at_once < 2:
        for seed in seeds:
            yield robust_gram_matrix(updates, columns=_draw_coordinates(d, k, seed))
        return
    for start in range(0, len(seeds), at_once):
        some = seeds[start : start + at_once]
        samples = in_turns(some, lambda seed: select_columns(updates, _draw_coordinates(d, k, seed)))
        yield from map(robust_gram_matrix, samples)


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator))


def _draw_coordinates(d: int, k: int, seed: int) -> Tensor:
    """Draw k < d different coordinates of d, every set as likely as any other, ascending, in memory O(k)."""
    drawn = np.random.default_rng(seed).choice(d, k, replace=False, shuffle=False)
    drawn.sort()
    return torch.from_numpy(drawn)
