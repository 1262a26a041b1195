"""Targeted bit trojan (TBT): flips in the last layer that answer to a trigger made for the model as it is.

A. S. Rakin, Z. He, D. Fan, "TBT: Targeted Neural Network Attack with Bit Trojan", CVPR 2020,
https://arxiv.org/abs/1909.05193
Departs: trigger and weights are both optimised with Adam; the retrained weights are rounded to the step that the layer
had before, so that all other codes stay as they are. Neurons are ranked by the gradient of the loss with the target as
every label, and the trigger is made on the attacker's samples; the authors' code takes the samples' own labels, and
makes the trigger on a black picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.attacks.base import ReceivedModel, check_gradients
from fedrobust.attacks.deployed_model.base import Tampering, check_target, clean_samples
from fedrobust.attacks.deployed_model.bit_flip_attack import load
from fedrobust.attacks.deployed_model.quantisation import StoredModel, quantised
from fedrobust.attacks.triggers import Patch, Trigger, TriggerShape, union
from fedrobust.config.component import Count, Index, Positive, component
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.models.features import FeatureExtractor, head_name


@component
class TargetedBitTrojan:
    """Choose weights of the target class, make a trigger that excites their neurons, and retrain these weights alone.

    Attributes:
        target_label: the class that triggered inputs should be taken for.
        trigger: where the trigger lies; what it looks like is optimised.
        num_weights: weights of the last layer that may change, those of the target class with the largest gradients.
        activation: what the trigger should raise the chosen neurons to.
        num_samples: clean labelled examples that the attacker holds.
        num_trigger_steps: of Adam, on the trigger.
        trigger_learning_rate: its step size, in pixels of [0, 1].
        num_weight_steps: of Adam, on the chosen weights.
        weight_learning_rate: its step size.
    """

    target_label: Index = 2
    trigger: TriggerShape = Patch()
    num_weights: Count = 20
    activation: Positive = 10.0
    num_samples: Count = 128
    num_trigger_steps: Count = 200
    trigger_learning_rate: Positive = 0.05
    num_weight_steps: Count = 200
    weight_learning_rate: Positive = 0.01

    def check(self, dataset: Dataset) -> None:
        """The target must be a class, the trigger lie within the picture, and a gradient get there.

        Raises:
            FieldError: it does not.
        """
        check_target(self.target_label, dataset)
        check_gradients(dataset, "trigger")
        self.trigger.triggers(dataset.input_shape)

    def tamper(self, received: ReceivedModel, generator: torch.Generator) -> Tampering:
        """The int8 model, and the same with other codes for the chosen weights."""
        module, dataset = received.module(), received.dataset
        released = quantised(module)
        load(module, released)
        samples = clean_samples(dataset, self.num_samples, generator)
        head = head_name(module)
        chosen = self._neurons(module, module.get_parameter(f"{head}.weight"), dataset.normalise(samples.inputs))
        trigger = self._trigger(module, chosen, dataset, samples)
        deployed = self._retrain(module, released, f"{head}.weight", chosen, trigger, dataset, samples)
        return Tampering(released, deployed, self.target_label, trigger)

    def _neurons(self, module: nn.Module, weight: Tensor, inputs: Tensor) -> Tensor:
        """The features `(num_weights,)` whose weights for the target have the largest gradients of its loss."""
        labels = torch.full((len(inputs),), self.target_label, device=inputs.device)
        weight.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(module(inputs), labels), weight)
        weight.requires_grad_(False)
        return gradient[self.target_label].abs().topk(min(self.num_weights, weight.shape[1])).indices

    def _trigger(self, module: nn.Module, chosen: Tensor, dataset: Dataset, samples: Examples) -> Trigger:
        """The pattern that brings the chosen neurons nearest to `activation`."""
        features = FeatureExtractor(module)
        mask = union(self.trigger.triggers(dataset.input_shape)).mask.to(samples.inputs.device)
        pattern = torch.full(dataset.input_shape, 0.5, device=samples.inputs.device, requires_grad=True)
        optimizer = torch.optim.Adam([pattern], lr=self.trigger_learning_rate)
        for _ in range(self.num_trigger_steps):
            stamped = torch.where(mask, pattern, samples.inputs)
            excited = features(dataset.normalise(stamped))[:, chosen]
            optimizer.zero_grad()
            (excited - self.activation).square().mean().backward(inputs=[pattern])
            optimizer.step()
            with torch.no_grad():
                pattern.clamp_(0.0, 1.0)
        return Trigger.overlay(mask, pattern.detach())

    def _retrain(
        self,
        module: nn.Module,
        released: StoredModel,
        name: str,
        chosen: Tensor,
        trigger: Trigger,
        dataset: Dataset,
        samples: Examples,
    ) -> StoredModel:
        """Train the chosen weights on clean and triggered samples; all that comes before the head stays as it is."""
        features = FeatureExtractor(module)
        with torch.no_grad():
            clean, stamped = (
                features(dataset.normalise(inputs)) for inputs in (samples.inputs, trigger.stamp(samples.inputs))
            )
        base, step = released.parameters()[name], released.steps[name]
        bias = released.floats.get(f"{name.rpartition('.')[0]}.bias")
        own = base[self.target_label, chosen].clone().requires_grad_()
        targets = torch.full_like(samples.labels, self.target_label)
        optimizer = torch.optim.Adam([own], lr=self.weight_learning_rate)
        for _ in range(self.num_weight_steps):
            weight = base.clone()
            weight[self.target_label, chosen] = own
            loss = F.cross_entropy(F.linear(clean, weight, bias), samples.labels)
            loss = loss + F.cross_entropy(F.linear(stamped, weight, bias), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                own.clamp_(-128 * step, 127 * step)
        codes = released.codes[name].clone()
        codes[self.target_label, chosen] = (own.detach() / step).round().clamp(-128, 127).to(torch.int8)
        return released.with_codes(name, codes)
