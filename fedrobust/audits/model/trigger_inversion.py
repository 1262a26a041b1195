"""Trigger inversion: for each label, the smallest patch that makes a model say that label of every input.

B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Zhao, "Neural Cleanse: Identifying and mitigating backdoor
attacks in neural networks", IEEE S&P 2019, https://doi.org/10.1109/SP.2019.00031; the authors' code,
https://github.com/bolunwang/backdoor
Departs: λ starts at λ₀, where the code waits at zero until the first successes; the success of a mask is measured with
that very mask on all examples, not averaged over the batches that led to it.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.audits.audited_model import AuditedModel, evaluation_mode
from fedrobust.audits.model.mask_weight import MaskWeight
from fedrobust.config.component import Count, Fraction, Positive, component
from fedrobust.training.loop import channels_last

_BETAS, _EPSILON = (0.5, 0.9), 1e-8
_MAX_VALUES = 2**23
"""Numbers in the inputs of one forward pass of several labels: a network's activations are a hundred times as many."""
_FEW_VALUES = 2**16
"""With fewer numbers in a forward pass, threads wait for one another longer than they work."""


@dataclass(frozen=True, eq=False)
class InvertedTriggers:
    """What was found for each of L labels: x' = (1 - m) ⊙ x + m ⊙ Δ.

    Attributes:
        masks: `(L, H, W)`, m in [0, 1]; the last one tried for a label that no mask was found for.
        patterns: `(L, C, H, W)`, Δ in [0, 1]; likewise.
        success_rates: `(L,)` float64, the fraction of all examples that the model takes for the label with that mask.
        l1_norms: `(L,)` float64, ‖m‖₁ in pixels; NaN for a label that no mask was found for.
    """

    masks: Tensor
    patterns: Tensor
    success_rates: Tensor
    l1_norms: Tensor


@component
class TriggerInversion:
    """Minimise cross-entropy to the label + λ‖m‖₁ over m, Δ = tanh(·) / 2 + ½ with Adam (β = 0.5, 0.9).

    Attributes:
        num_checks: how often success is measured and λ adjusted.
        num_steps: steps of Adam before each check.
        batch_size: examples in a step, the same for all labels.
        learning_rate: Adam's.
        initial_weight: λ₀.
        success_rate: what a mask must reach on all examples to count.
        patience: checks in a row above (or below) that rate before λ is doubled (or divided by 2^1.5).
        max_stale: a label is finished after as many checks without a smaller mask, once λ went up and down.
        together: labels that are inverted at the same time; `auto` takes all that fit, except for convolutions on a
            CPU, which are fastest one by one. The answer is the same.
    """

    num_checks: Count = 100
    num_steps: Count = 10
    batch_size: Count = 32
    learning_rate: Positive = 0.1
    initial_weight: Positive = 1e-3
    success_rate: Fraction = 0.99
    patience: Count = 5
    max_stale: Count = 25
    together: Count | Literal["auto"] = "auto"

    def __call__(
        self,
        model: AuditedModel,
        inputs: Tensor,
        num_labels: int,
        generator: torch.Generator,
        on_check: Callable[[int, int], None] | None = None,
    ) -> InvertedTriggers:
        """Invert every label of `model`, which is left as it is.

        Args:
            model: takes raw pictures.
            inputs: `(N, C, H, W)` clean pictures in [0, 1].
            num_labels: L.
            generator: on the CPU; gives the first masks and patterns, and the order of the examples.
            on_check: told after every check the checks made and those that there are at most, labels counted singly.
        """
        inputs = inputs.to(model.device)
        shape = inputs.shape[1:]
        start = torch.rand(num_labels, 1 + shape[0], *shape[1:], generator=generator).to(inputs.device)
        plan = self._plan(len(inputs), generator).to(inputs.device)
        parts = []
        at_once = min(num_labels, self._at_once(model.module, inputs))
        with evaluation_mode(model.module), _few_threads(at_once * plan.shape[2] * inputs[0].numel(), inputs.device):
            for labels in torch.arange(num_labels, device=inputs.device).split(at_once):
                search = _Search(self, model, inputs, labels, start[labels])
                for check, batches in enumerate(plan):
                    search.descend(inputs, batches)
                    search.check(inputs)
                    if on_check is not None:
                        on_check(int(labels[0]) * self.num_checks + (check + 1) * len(labels), num_labels * len(plan))
                    if not len(search.active):
                        break
                parts.append(search)
        found = torch.cat([part.found for part in parts])
        masks = torch.cat([part.masks for part in parts])
        l1_norms = masks.sum(dim=(1, 2), dtype=torch.float64)
        return InvertedTriggers(
            masks.cpu(),
            torch.cat([part.patterns for part in parts]).cpu(),
            torch.cat([part.success for part in parts]).cpu(),
            l1_norms.masked_fill(~found, math.nan).cpu(),
        )

    def _plan(self, num_examples: int, generator: torch.Generator) -> Tensor:
        """Indices `(num_checks, num_steps, batch_size)` of the examples of each step: shuffles, one after the other."""
        size = min(self.batch_size, num_examples)
        wanted = self.num_checks * self.num_steps * size
        shuffles = [torch.randperm(num_examples, generator=generator) for _ in range(-(-wanted // num_examples))]
        return torch.cat(shuffles)[:wanted].view(self.num_checks, self.num_steps, size)

    def _at_once(self, module: nn.Module, inputs: Tensor) -> int:
        if self.together != "auto":
            return self.together
        convolves = any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d) for part in module.modules())
        if convolves and inputs.device.type == "cpu":  # one label's batch fills the cache already
            return 1
        return max(1, _MAX_VALUES // (inputs[0].numel() * min(self.batch_size, len(inputs))))


class _Search:
    """Adam on the masks and patterns of several labels; a label that is finished is left out of what follows.

    The labels are folded into the batch: as they share the network, one pass serves all, and any module will do.
    """

    def __init__(
        self, settings: TriggerInversion, model: AuditedModel, inputs: Tensor, labels: Tensor, start: Tensor
    ) -> None:
        self.settings, self.model, self.labels = settings, model, labels
        self.masks, self.patterns = start[:, 0].clone(), start[:, 1:].clone()
        self.success = torch.zeros(len(labels), dtype=torch.float64, device=inputs.device)
        self.found = torch.zeros(len(labels), dtype=torch.bool, device=inputs.device)
        self.smallest = torch.full((len(labels),), math.inf, device=inputs.device)
        self.stale = torch.zeros(len(labels), dtype=torch.int64, device=inputs.device)
        self.weight = MaskWeight(torch.full((len(labels),), settings.initial_weight, device=inputs.device))
        self.active = torch.arange(len(labels), device=inputs.device)
        # Mask and pattern of a label lie in one tensor, as channel 0 and the others.
        self.logits = torch.atanh((2 * start - 1) * (1 - 1e-7))
        self.first, self.second, self.time = torch.zeros_like(start), torch.zeros_like(start), 0

    def descend(self, inputs: Tensor, batches: Tensor) -> None:
        """Steps of Adam on the active labels, one for each row of `batches`."""
        for batch in batches:
            point = self.logits.requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self._loss(point, inputs[batch]), point)
            self.time += 1
            self.first.lerp_(gradient, 1 - _BETAS[0])
            self.second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            scale = (self.second / (1 - _BETAS[1] ** self.time)).sqrt_().add_(_EPSILON)
            rate = self.settings.learning_rate / (1 - _BETAS[0] ** self.time)
            self.logits = torch.addcdiv(point.detach(), self.first, scale, value=-rate)

    @torch.no_grad()
    def check(self, inputs: Tensor) -> None:
        """Keep masks that succeed and are the smallest so far, adjust λ, and let finished labels go."""
        values, active, settings = self._values(self.logits), self.active, self.settings
        masks, patterns = values[:, 0], values[:, 1:]
        success = self._success(masks, patterns, inputs)
        sizes = masks.sum(dim=(1, 2))
        succeeds = success >= settings.success_rate
        better = succeeds & (sizes < self.smallest[active])
        shown = better | ~self.found[active]  # until there is one that succeeds, the last one tried
        kept = active[shown]
        self.masks[kept], self.patterns[kept], self.success[kept] = masks[shown], patterns[shown], success[shown]
        self.found[active[better]] = True
        self.smallest[active[better]] = sizes[better]
        self.stale[active] = torch.where(better | ~self.found[active], 0, self.stale[active] + 1)
        self.weight.update(succeeds, settings.patience)
        going = ~((self.stale[active] >= settings.max_stale) & self.weight.was_raised & self.weight.was_lowered)
        if not bool(going.all()):
            self.active, self.logits = active[going], self.logits[going]
            self.first, self.second = self.first[going], self.second[going]
            self.weight = self.weight.of(going)

    def _loss(self, point: Tensor, batch: Tensor) -> Tensor:
        """The sum over labels of mean cross-entropy + λ‖m‖₁: each label's gradient is its own."""
        values = self._values(point)
        logits = self._stamped_logits(values[:, 0], values[:, 1:], batch)
        labels = self.labels[self.active].repeat_interleave(len(batch))
        entropy = F.cross_entropy(logits, labels, reduction="sum") / len(batch)
        return entropy + (self.weight.values * values[:, 0].sum(dim=(1, 2))).sum()

    def _success(self, masks: Tensor, patterns: Tensor, inputs: Tensor) -> Tensor:
        hits = torch.zeros(len(masks), dtype=torch.float64, device=inputs.device)
        labels = self.labels[self.active][:, None]
        for batch in inputs.split(self.model.batch_size):
            predicted = self._stamped_logits(masks, patterns, batch).argmax(dim=1)
            hits += (predicted.view(len(masks), -1) == labels).sum(dim=1)
        return hits / len(inputs)

    def _stamped_logits(self, masks: Tensor, patterns: Tensor, batch: Tensor) -> Tensor:
        masks = masks[:, None, None]
        stamped = ((1 - masks) * batch + masks * patterns[:, None]).flatten(0, 1)
        logits: Tensor = self.model.module(channels_last(self.model.normalise(stamped)))
        return logits

    @staticmethod
    def _values(logits: Tensor) -> Tensor:
        return logits.tanh() / 2 + 0.5


@contextmanager
def _few_threads(num_values: int, device: torch.device) -> Iterator[None]:
    """One thread for small steps on a CPU."""
    known = torch.get_num_threads()
    if device.type == "cpu" and num_values < _FEW_VALUES:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(known)
