"""Constrain-and-scale: train the backdoor under a penalty for looking anomalous, so that it can be scaled unseen.

Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020,
https://arxiv.org/abs/1807.00459
Departs: the paper leaves the anomaly term to the defence at hand; here it is the distance to the received model. The
default is that of the authors' code, https://github.com/ebagdasa/backdoor_federated_learning (`model_dist_norm_var`,
the norm and not its square; DBA's code has the same). Their published settings have α = 1, which is no anomaly term.
"""

from typing import Literal

import torch
from torch import Tensor

from fedrobust.attacks.loss.mgda import weighted_sum
from fedrobust.config.component import Fraction, component
from fedrobust.data.examples import Examples
from fedrobust.training.step import Descent, Parameters, Step


@component
class ConstrainAndScale:
    """L = α L_class + (1 - α) L_anomaly, with a gradient through both terms.

    Attributes:
        alpha: α in [0, 1]; 1 is plain poisoned training.
        anomaly: `euclidean`, ‖X - G‖₂, which pulls equally hard at any distance; `squared_euclidean`, ‖X - G‖₂², which
            pulls the harder the farther X is; or `cosine`, 1 - ⟨X, G⟩ / (‖X‖ ‖G‖).
    """

    alpha: Fraction = 0.7
    anomaly: Literal["euclidean", "squared_euclidean", "cosine"] = "euclidean"

    def synthesise(self, batch: Examples) -> tuple[Examples, ...]:
        """Nothing: the attacker's own poisoned batch is all there is to learn."""
        return ()

    def __call__(self, step: Step) -> Descent:
        """The gradient of L, and L_class."""
        gradient, class_loss = step.differentiate(step.class_loss, step.parameters)
        if self.alpha == 1:
            return Descent(gradient, class_loss, {})
        pull, _ = step.differentiate(lambda parameters: self.anomaly_of(parameters, step.received), step.parameters)
        return Descent(weighted_sum((self.alpha, 1 - self.alpha), (gradient, pull)), class_loss, {})

    def anomaly_of(self, parameters: Parameters, received: Parameters) -> Tensor:
        """L_anomaly of a model, as far from the `received` one as it is."""
        pairs = [(own, received[name]) for name, own in parameters.items()]
        if self.anomaly == "euclidean":  # a norm of norms, whose derivative at zero is zero
            distance: Tensor = torch.stack([(own - there).norm() for own, there in pairs]).norm()
            return distance
        if self.anomaly == "squared_euclidean":
            return torch.stack([(own - there).square().sum() for own, there in pairs]).sum()
        inner = torch.stack([(own * there).sum() for own, there in pairs]).sum()
        own_square = torch.stack([own.square().sum() for own, _ in pairs]).sum()
        received_square = torch.stack([there.square().sum() for _, there in pairs]).sum()
        return 1 - inner / (own_square * received_square).clamp_min(1e-30).sqrt()
