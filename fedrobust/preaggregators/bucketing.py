"""Bucketing: the rule sees means of a few clients drawn at random, which differ less than clients do.

Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
https://arxiv.org/abs/2006.09365
"""

from typing import ClassVar

import torch

from fedrobust._linalg.columns import Points, require_no_gradient
from fedrobust._linalg.gram import combine_rows
from fedrobust.aggregators.base import RoundContext, checked
from fedrobust.config.component import Count, Trait, component
from fedrobust.preaggregators.base import Preaggregated
from fedrobust.types import Weights


@component
class Bucketing:
    """Put the clients into buckets at random and give the rule the means of the buckets.

    Formula: yₖ is the mean of the clients π((k - 1)s + 1), ..., π(ks), π a random permutation, s the size of a bucket;
    the last of the ⌈n/s⌉ buckets may be smaller.
    Cost: ⌈n/s⌉ combinations of the rows, O(n²d/s), written as a new matrix of ⌈n/s⌉ rows.
    Breakdown point: that of the rule behind it divided by s, as one attacker spoils a bucket. A bucket is averaged by
    the server's weights: where weights are claims, one client can be its whole bucket.
    Assumes: a robust rule behind it that is told of s times the fraction of malicious clients.
    Fails when: s times the attackers' fraction reaches what the rule stands; the rule's `assumed_fraction`, which
    is now one of buckets, is left at that of clients.
    Source: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
    https://arxiv.org/abs/2006.09365
    Departs: within a bucket clients are averaged by the server's weights (uniformly if all of them are zero), and a
    bucket's weight is the sum of its clients'; with uniform weights and s a divisor of n this is the paper's. Buckets
    come in the order of their first clients.

    Attributes:
        bucket_size: s; 1 changes nothing.
    """

    bucket_size: Count = 2

    traits: ClassVar[frozenset[Trait]] = frozenset({"merges_clients", "is_differentiable"})

    def __call__(
        self, updates: Points, weights: Weights | None = None, context: RoundContext | None = None
    ) -> Preaggregated:
        """Merge the `updates` `(n, d)` under `weights` `(n,)`; the context gives the permutation.

        Raises:
            ValueError: updates or weights of the wrong shape, type or range.
        """
        believed = checked(updates, weights, self)
        require_no_gradient(believed, "Bucketing by weights")
        n = len(updates)
        order = torch.randperm(n, generator=(context or RoundContext()).generator("bucketing")).tolist()
        buckets = sorted(sorted(order[start : start + self.bucket_size]) for start in range(0, n, self.bucket_size))
        masses = believed.cpu()
        mixing = torch.zeros(len(buckets), n, dtype=torch.float64)
        for row, bucket in zip(mixing, buckets, strict=True):
            inside = masses[bucket]
            row[bucket] = inside / inside.sum() if float(inside.sum()) > 0 else 1 / len(bucket)
        sums = torch.stack([masses[bucket].sum() for bucket in buckets])
        return Preaggregated(
            updates=combine_rows(updates, mixing), weights=(sums / sums.sum()).to(believed.device), mixing=mixing
        )

    def output_size(self, n: int) -> int:
        """⌈n/s⌉ buckets."""
        return -(-n // self.bucket_size)
