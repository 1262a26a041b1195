"""Unlearning: fine-tune a backdoored model on inputs that carry the recovered trigger and their true labels.

B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Zhao, "Neural Cleanse: Identifying and mitigating backdoor
attacks in neural networks", IEEE S&P 2019, section 6.2, https://doi.org/10.1109/SP.2019.00031
Departs: several flagged labels are unlearned at once, each on a share of the stamped examples.
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from fedrobust.attacks.triggers import Trigger
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.config.component import Count, Fraction, Positive, component
from fedrobust.data.examples import Examples
from fedrobust.training.local_training import Momentum


@component
class Unlearning:
    """Stochastic gradient descent on clean examples, a part of which is stamped and keeps its labels.

    Attributes:
        stamp_fraction: of the examples, stamped anew each epoch.
        num_epochs: passes over the examples; the paper's one suffices for its sets of thousands.
        batch_size: examples in a step.
        learning_rate: step size.
        momentum: SGD's.
    """

    stamp_fraction: Fraction = 0.2
    num_epochs: Count = 1
    batch_size: Count = 32
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.9

    def __call__(
        self, model: AuditedModel, triggers: list[Trigger], examples: Examples, generator: torch.Generator
    ) -> AuditedModel:
        """A model that was fine-tuned; the one given is left as it is.

        Args:
            model: backdoored.
            triggers: those that were recovered; each stamps its share of the stamped examples.
            examples: clean ones with true labels, raw inputs.
            generator: on the CPU; gives the order of the examples and which are stamped.

        Raises:
            ValueError: no trigger, or no example.
        """
        if not triggers or not len(examples):
            raise ValueError(f"unlearning needs triggers and examples, got {len(triggers)} and {len(examples)}")
        module = copy.deepcopy(model.module)
        modes = [part.training for part in module.modules()]
        examples = examples.to(model.device)
        optimizer = torch.optim.SGD(module.parameters(), lr=self.learning_rate, momentum=self.momentum)
        module.train()
        for _ in range(self.num_epochs):
            inputs = self._stamped(triggers, examples, generator)
            for batch in torch.randperm(len(examples), generator=generator).to(model.device).split(self.batch_size):
                loss = F.cross_entropy(module(model.normalise(inputs[batch])), examples.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for part, was_training in zip(module.modules(), modes, strict=True):
            part.training = was_training
        for parameter in module.parameters():
            parameter.grad = None
        return replace(model, module=module)

    def _stamped(self, triggers: list[Trigger], examples: Examples, generator: torch.Generator) -> torch.Tensor:
        inputs = examples.inputs.clone()
        count = round(self.stamp_fraction * len(examples))
        chosen = torch.randperm(len(examples), generator=generator)[:count].to(inputs.device)
        for trigger, share in zip(triggers, chosen.tensor_split(len(triggers)), strict=True):
            inputs[share] = trigger.stamp(inputs[share])
        return inputs
