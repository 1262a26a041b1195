"""Constrain-and-scale: train the backdoor under a penalty for looking anomalous, so that it can be scaled unseen.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
https://arxiv.org/abs/1807.00459
Departs: the paper leaves the anomaly term to the defence at hand; here it is the distance to the received model,
Euclidean or one minus the cosine.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fedrobust.component import Fraction, component


@component
class ConstrainAndScale:
    """L = α L_class + (1 - α) L_anomaly, with a gradient through both terms.

    Attributes:
        alpha: α in [0, 1]; 1 is plain poisoned training.
        anomaly: `euclidean`, ‖X - G‖₂², or `cosine`, 1 - ⟨X, G⟩ / (‖X‖ ‖G‖).
    """

    alpha: Fraction = 0.7
    anomaly: Literal["euclidean", "cosine"] = "euclidean"

    def __call__(self, class_loss: Tensor, parameters: Sequence[Tensor], global_parameters: Sequence[Tensor]) -> Tensor:
        """The scalar loss."""
        pairs = list(zip(parameters, global_parameters, strict=True))
        if self.anomaly == "euclidean":
            anomaly = torch.stack([(own - received).square().sum() for own, received in pairs]).sum()
        else:
            inner = torch.stack([(own * received).sum() for own, received in pairs]).sum()
            own_square = torch.stack([own.square().sum() for own, _ in pairs]).sum()
            received_square = torch.stack([received.square().sum() for _, received in pairs]).sum()
            anomaly = 1 - inner / (own_square * received_square).clamp_min(1e-30).sqrt()
        return self.alpha * class_loss + (1 - self.alpha) * anomaly
