"""Evasion of Neural Cleanse: what it would find as a trigger is looked for along the way, and trained against.

Bagdasaryan, Shmatikov, "Blind Backdoors in Deep Learning Models", USENIX Security 2021,
https://arxiv.org/abs/2005.03823 (evading input perturbation); Wang et al., "Neural Cleanse", IEEE S&P 2019,
https://doi.org/10.1109/SP.2019.00031, for the search.
Departs: the search starts afresh every round, since a client remembers nothing; its weight of the mask's size is fixed;
a pattern lies between the darkest and the brightest value of the batch, so that the code need not know the data.
"""

import torch
from torch import Tensor

from fedrobust.config.component import NonNegative, Positive, component
from fedrobust.training.step import Batch, Parameters, Step

_BETAS = (0.5, 0.9)  # of Adam, as Neural Cleanse has them


@component
class NeuralCleanseEvasion:
    """ℓ_ev is the loss of the batch with the trigger (m, Δ) that is found, under its true labels.

    Each step of SGD is preceded by one of Adam on the search: min CE(f((1 - m)x + mΔ), target) + λ‖m‖₁ over mask and
    pattern.

    Attributes:
        learning_rate: of the search.
        mask_weight: λ, for each pixel of the mask.
    """

    learning_rate: Positive = 0.1
    mask_weight: NonNegative = 0.01

    def search(self, step: Step, target_label: int) -> Parameters:
        """The memory of the search after one more step: two variables, Adam's two moments of each, and its count."""
        names, inputs = ("mask", "pattern"), step.batch.inputs
        memory = dict(step.memory)
        if not memory:
            start = {"mask": inputs.new_zeros(1, *inputs.shape[2:]), "pattern": inputs.new_zeros(inputs.shape[1:])}
            memory = {f"{name}{part}": torch.zeros_like(start[name]) for name in names for part in ("", "_1", "_2")}
            memory["count"] = inputs.new_zeros(())
        target = torch.full_like(step.batch.labels, target_label)

        def objective(at: Parameters) -> Tensor:
            loss = step.loss_on(Batch(self.stamp(at, inputs), target), step.parameters)
            return loss + self.mask_weight * at["mask"].sigmoid().sum()

        gradient, _ = step.differentiate(objective, {name: memory[name] for name in names})
        memory["count"] = memory["count"] + 1
        for name in names:
            moments = []
            for part, beta, values in zip(("_1", "_2"), _BETAS, (gradient[name], gradient[name].square()), strict=True):
                memory[name + part] = beta * memory[name + part] + (1 - beta) * values
                moments.append(memory[name + part] / (1 - beta ** memory["count"]))
            memory[name] = memory[name] - self.learning_rate * moments[0] / (moments[1].sqrt() + 1e-8)
        return memory

    def stamp(self, memory: Parameters, inputs: Tensor) -> Tensor:
        """The inputs `(B, C, H, W)` with the trigger as far as it is found."""
        mask, pattern = memory["mask"].sigmoid(), memory["pattern"].sigmoid()
        darkest, brightest = inputs.amin(), inputs.amax()
        return torch.lerp(inputs, darkest + (brightest - darkest) * pattern, mask)
