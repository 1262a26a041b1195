"""A backdoored pretrained model: the federation starts from it and fine-tunes it, all layers or a new head.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017,
https://arxiv.org/abs/1708.06733 (section 5.3: an attack that survives transfer learning)
Departs: the provider's task is the federation's, on examples of its own, while the paper moves from US to Swedish
traffic signs; not one user but many benign clients fine-tune.
"""

import dataclasses
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from fedrobust.config.component import FieldError, component
from fedrobust.training.local_training import LocalTraining, TrainingOverrides


@component
class BackdooredPretrained:
    """Before round 1 a provider trains the model on its own examples, with the scenario's `data` and `loss` attack.

    What it stamps is drawn once, for all its epochs. `malicious=False` is the control: the same provider, the same
    examples, no trigger.

    Attributes:
        provider_fraction: fraction of the training examples that the provider holds, drawn by the scenario's seed.
        shared_examples: whether clients hold all training examples, the provider's too; else they share out the rest.
        new_head: whether the federation puts a fresh head on the pretrained features.
        malicious: whether the provider is; else it provides a clean model.
        training: what the provider changes in the clients' training programme (`null` fields are kept). It trains all
            layers, whatever they do.
    """

    provider_fraction: Annotated[float, Gt(0), Le(1)] = 0.5
    shared_examples: bool = False
    new_head: bool = False
    malicious: bool = True
    training: TrainingOverrides = TrainingOverrides(num_epochs=40)

    def __post_init__(self) -> None:
        """Check that something is left for the clients."""
        if self.provider_fraction == 1.0 and not self.shared_examples:
            raise FieldError("provider_fraction", "must be below 1 unless shared_examples is true, got 1.0")

    def divide(self, num_examples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The provider's examples and the clients', as ascending indices; disjoint unless they are shared.

        Raises:
            FieldError: so few examples that one side would get none.
        """
        count = round(self.provider_fraction * num_examples)
        if count == 0 or (count == num_examples and not self.shared_examples):
            raise FieldError(
                "provider_fraction",
                f"must leave one of {num_examples} training examples on each side, got {self.provider_fraction}",
            )
        order = torch.randperm(num_examples, generator=generator)
        rest = torch.arange(num_examples) if self.shared_examples else order[count:].sort().values
        return order[:count].sort().values, rest

    def program(self, benign: LocalTraining) -> LocalTraining:
        """The provider's training programme, where that of clients is `benign`."""
        return self.training.applied_to(dataclasses.replace(benign, trained_layers="all"))

    def clean(self) -> "BackdooredPretrained":
        """The same by a benign provider."""
        return dataclasses.replace(self, malicious=False)
