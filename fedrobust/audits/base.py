"""What an audit is: it looks at data or at a model, and says what it suspects. It never learns who is malicious."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.data.examples import Examples


@dataclass(frozen=True)
class ClassVerdict:
    """What a data audit says of the examples with one label.

    Attributes:
        label: of the class.
        is_poisoned: `None` where the audit does not judge, or cannot tell.
        statistic: what it went by, in the units of the report's `statistic_name`; NaN where there is none.
        num_examples: how many examples carry the label.
        reason: why there is no verdict, or empty.
    """

    label: int
    is_poisoned: bool | None
    statistic: float
    num_examples: int
    reason: str = ""


@dataclass(frozen=True, eq=False)
class DataReport:
    """What a data audit found.

    Attributes:
        audit: the audit's name.
        labels: `(N,)` int64, of the examples as they were given.
        scores: `(N,)` float64 on the CPU, larger is more suspicious; NaN where an example was not judged.
        flagged: `(N,)` booleans on the CPU: what the audit would leave out.
        verdicts: one for each label that occurs, ascending.
        score_name: what a score is, for the axis of a plot.
        statistic_name: what the verdicts went by.
        statistic_threshold: at or below it no class is convicted; `None` if there is no such number.
        score_threshold: above it an example is flagged; `None` if there is no such number.
        uncalibrated: why flags and verdicts come with no stated rate of false alarms, or empty. A plan drops nothing on
            such a report, unless it is told to (`allow_uncalibrated`).
    """

    audit: str
    labels: Tensor
    scores: Tensor
    flagged: Tensor
    verdicts: tuple[ClassVerdict, ...]
    score_name: str
    statistic_name: str
    statistic_threshold: float | None = None
    score_threshold: float | None = None
    uncalibrated: str = ""

    @property
    def poisoned_labels(self) -> tuple[int, ...]:
        """The labels of the classes that the audit convicts."""
        return tuple(verdict.label for verdict in self.verdicts if verdict.is_poisoned)

    @property
    def undecided_labels(self) -> tuple[int, ...]:
        """The labels of the classes without a verdict."""
        return tuple(verdict.label for verdict in self.verdicts if verdict.is_poisoned is None)

    def kept(self, examples: Examples) -> Examples:
        """The examples that were not flagged, copied; `examples` are those that were audited.

        Raises:
            ValueError: they are not as many.
        """
        if len(examples) != len(self.flagged):
            raise ValueError(f"the report is of {len(self.flagged)} examples, got {len(examples)}")
        return examples.subset((~self.flagged).nonzero().squeeze(1))

    def plot(self, poisoned: Tensor | None = None) -> Figure:
        """The scores of each class and what the verdicts went by.

        Args:
            poisoned: `(N,)` booleans, where it is known which examples are poisoned: they are marked.
        """
        from fedrobust.audits.data.plot_data_report import plot_data_report  # it reads this class

        return plot_data_report(self, poisoned)


@runtime_checkable
class DataAudit(Protocol):
    """Looks at examples, each by itself or class by class."""

    def __call__(
        self,
        examples: Examples,
        model: AuditedModel | None,
        generator: torch.Generator,
        clean: Examples | None = None,
    ) -> DataReport:
        """Audit `examples`; neither they nor the model are changed.

        Args:
            examples: raw inputs, as the auditor was given them.
            model: a model trained on them; `None` will do for audits that need none.
            generator: on the CPU; the same one gives the same report.
            clean: examples that the auditor trusts; audits that need none do not read them.

        Raises:
            ValueError: the audit needs a model or clean examples and has none, or cannot read what it was given.
        """
        ...


@runtime_checkable
class CheckedAudit(Protocol):
    """An audit that can tell beforehand what it cannot read."""

    def check(self, model: AuditedModel, examples: Examples, clean: Examples) -> None:
        """Look whether the audit can work, which takes a fraction of its time; nothing is changed.

        Args:
            model: any of the architecture, trained or not.
            examples: one that is like those to be audited will do.
            clean: those that the auditor trusts.

        Raises:
            ValueError: it cannot.
        """
        ...


class ModelReport(Protocol):
    """What a model audit found, label by label."""

    @property
    def scores(self) -> Tensor:
        """`(num_labels,)` float64 on the CPU, larger is more suspicious; NaN where a label was not judged."""
        ...

    @property
    def flagged(self) -> Tensor:
        """`(num_labels,)` booleans on the CPU: labels that the audit takes for a backdoor's target."""
        ...

    @property
    def is_backdoored(self) -> bool | None:
        """The verdict on the model; `None` where the audit cannot tell."""
        ...

    def plot(self) -> Figure:
        """The scores of all labels, and what else there is to see."""
        ...


@runtime_checkable
class ModelAudit(Protocol):
    """Looks at a model, with a few clean examples at hand."""

    def __call__(self, model: AuditedModel, examples: Examples, generator: torch.Generator) -> ModelReport:
        """Audit `model`; neither it nor the examples are changed.

        Args:
            model: takes raw inputs.
            examples: clean ones, raw inputs and true labels.
            generator: on the CPU; the same one gives the same report.

        Raises:
            ValueError: the audit cannot read what it was given.
        """
        ...


def require_model(model: AuditedModel | None, audit: str) -> AuditedModel:
    """The model.

    Raises:
        ValueError: there is none.
    """
    if model is None:
        raise ValueError(f"{audit} reads a model trained on the examples, got model=None")
    return model


def require_clean(clean: Examples | None, audit: str, at_least: int) -> Examples:
    """The clean examples.

    Raises:
        ValueError: there are none, or too few.
    """
    if clean is None or len(clean) < at_least:
        got = "none" if clean is None else str(len(clean))
        raise ValueError(f"{audit} needs at least {at_least} clean examples, got {got}")
    return clean
