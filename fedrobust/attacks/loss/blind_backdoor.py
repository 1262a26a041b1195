"""Blind backdoor: poisoned training code that stamps each batch on the fly and learns main task and backdoor at once.

Bagdasaryan, Shmatikov, "Blind Backdoors in Deep Learning Models", USENIX Security 2021,
https://arxiv.org/abs/2005.03823
Departs: BatchNorm's running statistics are those of clean batches, the authors' code mixes in the backdoored ones'; the
loss threshold looks at the batch at hand, not at the mean of those before; losses are not capped at 10 in the
normalisation.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fedrobust.attacks.data.dirty_label import wanted_labels
from fedrobust.attacks.loss.mgda import inner_products, least_norm_weights, normalised, weighted_sum
from fedrobust.attacks.loss.neural_cleanse_evasion import NeuralCleanseEvasion
from fedrobust.attacks.triggers import Trigger, TriggerShape, is_synthetic, union
from fedrobust.config.component import Index, Positive, component
from fedrobust.data.examples import Examples
from fedrobust.training.step import Batch, Descent, Objective, Step


@component
class BlindBackdoor:
    """ℓ = α₀ ℓ_main + α₁ ℓ_backdoor (+ α₂ ℓ_ev), where α minimises ‖Σ αᵢ gᵢ‖² on the simplex, gᵢ normalised.

    The attacker sees neither data nor model beforehand, only each batch as it comes: ℓ_backdoor is the loss of its copy
    with the trigger on every picture and the target as every label.

    Attributes:
        trigger: what it looks like and where it lies.
        target_label: the class that triggered inputs should be taken for.
        normalisation: gradients are divided by nothing (`none`), their norm (`l2`), their loss (`loss`), or both
            (`loss+`). Without, the task that is learned best has the smallest gradient and takes all the weight.
        loss_threshold: attack a batch only if its main loss is below this, in nats: when the model has learned most of
            its task; `None` attacks from the beginning.
        evasion: a third task α₂ ℓ_ev, or `None`.
    """

    trigger: TriggerShape
    target_label: Index = 0
    normalisation: Literal["none", "l2", "loss", "loss+"] = "loss+"
    loss_threshold: Positive | None = None
    evasion: NeuralCleanseEvasion | None = None

    @property
    def has_synthetic_stamp(self) -> bool:
        """Whether the trigger is one."""
        return is_synthetic(self.trigger)

    def synthesise(self, batch: Examples) -> tuple[Examples, ...]:
        """The batch with the trigger on every picture and the target as every label."""
        trigger = self._trigger(tuple(batch.inputs.shape[1:]))
        return (Examples(trigger.stamp(batch.inputs), torch.full_like(batch.labels, self.target_label)),)

    def __call__(self, step: Step) -> Descent:
        """The gradient of ℓ, and ℓ_main; each task is differentiated once."""
        (backdoored,) = step.synthesised
        tasks: list[Objective] = [step.class_loss, partial(step.loss_on, backdoored)]
        memory = step.memory
        if self.evasion is not None:
            memory = self.evasion.search(step, self.target_label)
            found = Batch(self.evasion.stamp(memory, step.batch.inputs), step.batch.labels)
            tasks.append(partial(step.loss_on, found))
        gradients, losses = zip(*(step.differentiate(task, step.parameters) for task in tasks), strict=True)
        weights = self.balance(inner_products(gradients), torch.stack(losses))
        return Descent(weighted_sum(weights, gradients), losses[0], memory)

    def balance(self, products: Tensor, losses: Tensor) -> Tensor:
        """α `(k,)`, main task first, from the inner products `(k, k)` of the gradients and the losses `(k,)`."""
        weights = least_norm_weights(normalised(products, losses, self.normalisation))
        if self.loss_threshold is None:
            return weights
        main_alone = torch.zeros_like(weights)
        main_alone[0] = 1.0
        return torch.where(losses[0] < self.loss_threshold, weights, main_alone)

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Trigger, ...]:
        """The whole trigger, as the only part."""
        return (self._trigger(input_shape),)

    def wanted_labels(self, test: Examples) -> Tensor:
        """The target, for test examples of every class but it."""
        return wanted_labels(test.labels, self.target_label, None)

    def _trigger(self, input_shape: tuple[int, ...]) -> Trigger:
        return union(self.trigger.triggers(input_shape))
