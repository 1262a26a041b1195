"""Clusters of updates by direction: who is outside the largest is suspicious.

Campello, Moulavi, Sander, "Density-Based Clustering Based on Hierarchical Density Estimates", PAKDD 2013,
https://doi.org/10.1007/978-3-642-37456-2_14 (HDBSCAN); its use on the cosines of updates: Nguyen et al., "FLAME: Taming
Backdoors in Federated Learning", USENIX Security 2022, https://arxiv.org/abs/2101.02281
Departs: FLAME asks for a cluster of more than half of the clients; here the smallest size is a setting, so that several
groups of attackers are clusters of their own.
"""

from typing import Annotated

import torch
from annotated_types import Ge
from sklearn.cluster import HDBSCAN
from torch import Tensor

from fedrobust._linalg.cosines import measure_directions
from fedrobust.aggregators.base import Aggregate
from fedrobust.config.component import component
from fedrobust.types import Updates


@component
class UpdateClustering:
    """Suspect who is outside HDBSCAN's largest cluster of cosine distances: 1 outside, 0 in its core.

    In between is one minus the strength of membership. Where nobody forms a cluster, or there are fewer than
    `min_cluster_size` clients, all have 1/2: nothing was learned. So have the members of clusters that are the largest
    together: which of them is the benign one, their sizes do not tell.

    Attributes:
        min_cluster_size: clients, at least 2.
        min_samples: neighbours that make a client dense; larger is more conservative.
    """

    min_cluster_size: Annotated[int, Ge(2)] = 3
    min_samples: Annotated[int, Ge(1)] = 1

    def suspicion(self, updates: Updates, aggregate: Aggregate) -> Tensor:
        """As `ClientAudit.suspicion`; the rule's answer is not read."""
        n = len(updates)
        unknown = torch.full((n,), 0.5, dtype=torch.float64)
        if n < max(self.min_cluster_size, self.min_samples + 1):
            return unknown
        distances = measure_directions(updates).distances.double().cpu().numpy()
        found = HDBSCAN(
            min_cluster_size=self.min_cluster_size,
            min_samples=self.min_samples,
            metric="precomputed",
            allow_single_cluster=True,
            copy=True,
        ).fit(distances)
        labels = torch.from_numpy(found.labels_).long()
        if bool((labels < 0).all()):
            return unknown
        sizes = torch.bincount(labels[labels >= 0])
        largest = (sizes == sizes.max()).nonzero().squeeze(1)
        strength = torch.from_numpy(found.probabilities_).double()
        return torch.where(torch.isin(labels, largest), 1.0 - strength if len(largest) == 1 else 0.5, 1.0)
