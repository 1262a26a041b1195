"""Poison Frogs: rightly labelled pictures that make the model take one chosen, untouched test example for their class.

Shafahi, Huang, Najibi, Suciu, Studer, Dumitras, Goldstein, "Poison Frogs! Targeted Clean-Label Poisoning Attacks on
Neural Networks", NeurIPS 2018, https://arxiv.org/abs/1804.00792
Departs: base instances are the attacker's own training examples, which the poisons replace (the paper takes them from
the test set and adds the poisons to the training set); in a federation the poisons are crafted anew every round, on
the global model that the attacker received. What `feature_collision` departs in is said there.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from fedrobust.attacks.base import ReceivedModel, check_gradients
from fedrobust.attacks.data.dirty_label import check_classes, draw_count
from fedrobust.attacks.data.feature_collision import Features, Solver, blend, feature_collision
from fedrobust.attacks.triggers import Stamp
from fedrobust.attacks.triggers.base import picture_shape
from fedrobust.config.component import Count, FieldError, Index, NonNegative, component
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.models.features import FeatureExtractor


@component
class PoisonFrogs:
    """Poisons that keep their label and collide, in penultimate features, with a target instance of another class.

    Attributes:
        target_label: the class of the base instances, that the target instances should be taken for.
        source_label: the true class of the target instances.
        target_instances: which test examples of `source_label` are attacked, counted from 0 in the test set's order;
            an attacker's poisons go round them. The attack succeeds as often as these are taken for `target_label`.
        num_poisons: of each attacker's examples of `target_label`, at most all; a fresh choice every round.
        opacity: how much of the target instance shows through the base before anything is optimised; the paper's
            watermark, for models all of whose layers are trained.
        beta: how much a poison must look like its base.
        num_steps: of the optimiser, at most.
        solver: `forward_backward` splitting with backtracking, or `adam`.
    """

    target_label: Index = 0
    source_label: Index = 1
    target_instances: tuple[Index, ...] | list[Index] = (0,)
    num_poisons: Count = 10
    opacity: Annotated[float, Ge(0), Lt(1)] = 0.3
    beta: NonNegative = 1e-2
    num_steps: Count = 100
    solver: Solver = "forward_backward"

    def __post_init__(self) -> None:
        """Check that there is something to attack."""
        check_classes(self.target_label, self.source_label)
        if not self.target_instances or len(set(self.target_instances)) != len(self.target_instances):
            raise FieldError(
                "target_instances", f"must list different test examples, at least one, got {self.target_instances}"
            )

    def bind(self, dataset: Dataset, generator: torch.Generator) -> "PoisonFrogs":
        """The attack itself, where poisons can be crafted.

        Raises:
            FieldError: pictures are scaled by what has no gradients.
        """
        check_gradients(dataset, "target_instances")
        return self

    def with_model(self, received: ReceivedModel) -> "FrogsOfModel":
        """The attack, crafted on the model that the attackers received."""
        return FrogsOfModel(self, received)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Nothing can be crafted without a model.

        Raises:
            ValueError: always; see `with_model`.
        """
        raise ValueError("PoisonFrogs crafts its poisons on a model: call with_model(received).poison(...)")

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return batch

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Stamp, ...]:
        """None: the target instance is shown as it is.

        Raises:
            FieldError: the inputs are not pictures.
        """
        try:
            picture_shape(input_shape)
        except FieldError as error:
            raise FieldError("target_instances", error.message) from None
        return ()

    def wanted_labels(self, test: Examples) -> Tensor:
        """The bases' class for the target instances, the true one for all others.

        Raises:
            FieldError: an instance that the test set does not have.
        """
        wanted = test.labels.clone()
        if bool((test.labels == self.source_label).any()):
            wanted[self.target_indices(test)] = self.target_label
        return wanted

    def target_indices(self, test: Examples) -> Tensor:
        """Where the target instances `(T,)` stand in the test set.

        Raises:
            FieldError: an instance that the test set does not have.
        """
        there = (test.labels == self.source_label).nonzero().squeeze(1)
        if max(self.target_instances) >= len(there):
            raise FieldError(
                "target_instances",
                f"must be below {len(there)}, the test examples of class {self.source_label}, "
                f"got {max(self.target_instances)}",
            )
        return there[list(self.target_instances)]

    def craft(self, features: Features, targets: Tensor, bases: Tensor) -> Tensor:
        """Poisons `(B, ...)` from raw bases `(B, ...)` and the targets they are meant for, `(B, ...)` or `(1, ...)`.

        Raises:
            ValueError: a target whose features are all zero.
        """
        blended = blend(bases, targets, self.opacity)
        collision = feature_collision(
            features, targets, blended, beta=self.beta, num_steps=self.num_steps, solver=self.solver
        )
        return collision.poisons


@dataclass(frozen=True)
class FrogsOfModel:
    """Poison Frogs on a model: the same attack for all else."""

    attack: PoisonFrogs
    received: ReceivedModel

    @cached_property
    def features(self) -> Features:
        """Penultimate features of raw inputs."""
        extractor, normalise = FeatureExtractor(self.received.module()), self.received.dataset.normalise
        return lambda inputs: extractor(normalise(inputs))

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """Turn `num_poisons` examples of the bases' class into poisons, in a copy; no label changes."""
        chosen = draw_count(examples.labels == self.attack.target_label, self.attack.num_poisons, generator)
        if len(chosen) == 0:
            return examples
        test = self.received.dataset.test
        targets = self.attack.target_indices(test)
        meant = test.inputs[targets[torch.arange(len(chosen), device=targets.device) % len(targets)]]
        inputs = examples.inputs.clone()
        inputs[chosen] = self.attack.craft(self.features, meant, inputs[chosen])
        return Examples(inputs, examples.labels.clone())

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return self.attack.poison_batch(batch, attacker)

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Stamp, ...]:
        """None."""
        return self.attack.local_triggers(input_shape)

    def wanted_labels(self, test: Examples) -> Tensor:
        """As the attack says."""
        return self.attack.wanted_labels(test)
