"""Neural Cleanse: a backdoor's target is the label that an unusually small patch suffices for.

B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Zhao, "Neural Cleanse: Identifying and mitigating backdoor
attacks in neural networks", IEEE S&P 2019, https://doi.org/10.1109/SP.2019.00031
Departs: labels that no mask reaches the success rate for are left out of the median and never flagged; fewer than 8
labels get no verdict; trigger inversion: see there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedrobust.attacks.triggers import Trigger
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.model.anomaly_index import anomaly_index
from fedrobust.audits.model.trigger_inversion import InvertedTriggers, TriggerInversion
from fedrobust.config.component import Positive, component
from fedrobust.data.examples import Examples


@dataclass(frozen=True, eq=False)
class NeuralCleanseReport:
    """What was found, label by label.

    Attributes:
        found: masks, patterns, their success and their size.
        scores: `(L,)` float64, the anomaly index of each label; NaN where it was not judged.
        flagged: `(L,)` booleans: the index is above the threshold.
        threshold: of the index.
        warning: why there is no verdict, or empty.
    """

    found: InvertedTriggers
    scores: Tensor
    flagged: Tensor
    threshold: float
    warning: str = ""

    @property
    def is_backdoored(self) -> bool | None:
        """Whether a label is flagged; `None` where no label could be judged."""
        return None if self.warning else bool(self.flagged.any())

    @property
    def flagged_labels(self) -> tuple[int, ...]:
        """The labels that are flagged, the most suspicious first."""
        order = torch.where(self.flagged, self.scores, -torch.inf).argsort(descending=True)
        return tuple(order[: int(self.flagged.sum())].tolist())

    def trigger(self, label: int) -> Trigger:
        """The trigger that was found for a label.

        Raises:
            ValueError: none was found.
        """
        if bool(self.found.l1_norms[label].isnan()):
            raise ValueError(f"no trigger was found for label {label}")
        return Trigger.overlay(self.found.masks[label], self.found.patterns[label])

    def plot(self) -> Figure:
        """The anomaly index of each label, and the triggers that were found."""
        from fedrobust.audits.model.plot_triggers import plot_triggers

        return plot_triggers(self)


@component
class NeuralCleanse:
    """Invert a trigger for each label, and flag labels whose mask is unusually small.

    Attributes:
        inversion: how triggers are inverted.
        threshold: anomaly index above which a label is flagged.
    """

    inversion: TriggerInversion = field(default_factory=TriggerInversion)
    threshold: Positive = 2.0

    def check(self, model: AuditedModel, examples: Examples, clean: Examples) -> None:
        """Look whether the clean examples and the model are such as `__call__` takes.

        Raises:
            ValueError: see there.
        """
        check_inputs(model, clean)

    def __call__(
        self,
        model: AuditedModel,
        examples: Examples,
        generator: torch.Generator,
        on_check: Callable[[int, int], None] | None = None,
    ) -> NeuralCleanseReport:
        """Audit `model` with clean `examples`; `on_check` is told of progress: checks made, and checks at most.

        Raises:
            ValueError: examples that are no finite pictures in [0, 1] of two classes at least, or that the model
                cannot read; a model whose logits are not finite.
        """
        num_labels = check_inputs(model, examples)
        found = self.inversion(model, examples.inputs, num_labels, generator, on_check)
        scores, warning = anomaly_index(found.l1_norms)
        return NeuralCleanseReport(found, scores, scores > self.threshold, self.threshold, warning)


def check_inputs(model: AuditedModel, examples: Examples) -> int:
    """The number of labels that the model knows.

    Raises:
        ValueError: see `NeuralCleanse`.
    """
    inputs = examples.inputs
    if inputs.ndim != 4 or len(inputs) == 0:
        raise ValueError(f"neural_cleanse needs pictures (N, C, H, W), at least one, got {tuple(inputs.shape)}")
    if not bool(inputs.isfinite().all()):
        raise ValueError(
            f"neural_cleanse needs finite pictures, got {int((~inputs.isfinite()).sum())} values that are not"
        )
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 or high > 1:
        raise ValueError(f"neural_cleanse needs raw pictures in [0, 1], got values from {low:g} to {high:g}")
    if len(examples.labels.unique()) < 2:
        raise ValueError(
            f"neural_cleanse needs examples of two classes at least (of one class alone no mask is needed for its "
            f"label), got {len(examples)} of class {int(examples.labels[0])}"
        )
    try:
        logits = model.logits(inputs[: model.batch_size])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the model cannot read pictures of shape {tuple(inputs.shape[1:])} ({reason})") from error
    if logits.ndim != 2 or not bool(logits.isfinite().all()):
        raise ValueError(
            f"neural_cleanse needs finite logits (N, num_classes), got shape {tuple(logits.shape)}"
            + ("" if logits.ndim != 2 else f" with {int((~logits.isfinite()).sum())} values that are not finite")
        )
    num_labels, highest = logits.shape[1], int(examples.labels.max())
    if highest >= num_labels:
        raise ValueError(f"labels must be below {num_labels}, the classes that the model knows, got {highest}")
    return num_labels
