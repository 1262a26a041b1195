"""Weight tampering: change a few float32 parameters of a deployed model, so that it errs as the attacker wants.

Y. Liu, L. Wei, B. Luo, Q. Xu, "Fault Injection Attack on Deep Neural Network", ICCAD 2017,
https://doi.org/10.1109/ICCAD.2017.8203770
Departs: the single bias is raised by what the attacker's samples ask for plus a margin, where the paper takes any large
number; gradient descent acts on the last layer alone, with Adam and an l1 penalty, and its modification is compressed
by bisection over how many of the largest changes are kept.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.base import Tampering, check_chosen, check_target, clean_samples, margin_to
from fedrobust.attacks.deployed_model.quantisation import StoredModel, unquantised
from fedrobust.config.component import Count, Index, NonNegative, Positive, component
from fedrobust.data.datasets import Dataset
from fedrobust.models.features import FeatureExtractor, head_name


@component
class WeightTamper:
    """Tamper with the last layer of the float32 model.

    Attributes:
        method: `single_bias` raises the bias of the target class until everything is taken for it; `gradient_descent`
            changes as few weights as it can, so that one chosen input is taken for it and others are not.
        target_label: that class.
        sample: of gradient descent, the index of the chosen test example, of another class.
        num_samples: clean labelled examples that the attacker holds.
        margin: by how much the target's logit should exceed all others.
        penalty: of gradient descent, the weight of the change's l1 norm.
        num_steps: of gradient descent.
        learning_rate: its step size.
    """

    method: Literal["single_bias", "gradient_descent"] = "single_bias"
    target_label: Index = 2
    sample: Index = 0
    num_samples: Count = 128
    margin: NonNegative = 1.0
    penalty: NonNegative = 0.001
    num_steps: Count = 300
    learning_rate: Positive = 0.02

    def check(self, dataset: Dataset) -> None:
        """Target and sample must exist, and differ.

        Raises:
            FieldError: they do not.
        """
        check_target(self.target_label, dataset)
        if self.method == "gradient_descent":
            check_chosen(self.sample, self.target_label, dataset)

    def tamper(self, received: ReceivedModel, generator: torch.Generator) -> Tampering:
        """The float32 model before and after."""
        module, dataset = received.module(), received.dataset
        released, head = unquantised(module), head_name(module)
        clean = clean_samples(dataset, self.num_samples, generator)
        if self.method == "single_bias":
            with torch.no_grad():
                shortfall = margin_to(module(dataset.normalise(clean.inputs)), self.target_label)
            name = f"{head}.bias"
            bias = released.floats[name].clone()
            bias[self.target_label] += shortfall.max().clamp_min(0.0) + self.margin
            return Tampering(released, _with(released, name, bias), self.target_label)
        features = FeatureExtractor(module)
        with torch.no_grad():
            others = features(dataset.normalise(clean.inputs))
            own = features(dataset.normalise(dataset.test.inputs[self.sample : self.sample + 1]))
        name = f"{head}.weight"
        weight = self._descend(released.floats[name], released.floats.get(f"{head}.bias"), own, others, clean.labels)
        return Tampering(released, _with(released, name, weight), self.target_label, chosen=self.sample)

    def _descend(self, weight: Tensor, bias: Tensor | None, own: Tensor, others: Tensor, labels: Tensor) -> Tensor:
        """The weight of the last layer with which the chosen input, of features `own` `(1, F)`, is the target's."""
        change = torch.zeros_like(weight, requires_grad=True)
        wanted = torch.tensor([self.target_label], device=weight.device)
        optimizer = torch.optim.Adam([change], lr=self.learning_rate)
        for _ in range(self.num_steps):
            moved = weight + change
            hinge = (margin_to(F.linear(own, moved, bias), self.target_label) + self.margin).clamp_min(0.0).sum()
            loss = hinge + F.cross_entropy(F.linear(others, moved, bias), labels) + self.penalty * change.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        change = change.detach()
        order = change.abs().flatten().argsort(descending=True)
        few, many = 0, len(order)  # `many` changes suffice if any number does, `few` do not
        while many - few > 1:
            middle = (few + many) // 2
            moved = weight + _largest(change, order[:middle])
            few, many = (few, middle) if int(F.linear(own, moved, bias).argmax()) == int(wanted) else (middle, many)
        return weight + _largest(change, order[:many])


def _largest(change: Tensor, places: Tensor) -> Tensor:
    """The change at these places of the flattened tensor, zero elsewhere."""
    kept = torch.zeros_like(change)
    kept.view(-1)[places] = change.view(-1)[places]
    return kept


def _with(stored: StoredModel, name: str, values: Tensor) -> StoredModel:
    return StoredModel(stored.codes, stored.steps, {**stored.floats, name: values})
