"""Ownership as an audit: does a model carry the watermark of a trigger set? Sources: see `watermarks.ownership`."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.data.examples import Examples
from fedrobust.figures.style import BLUE, ORANGE, new_figure
from fedrobust.watermarks import Ownership, Triggers, verify
from fedrobust.watermarks.ownership import MAX_P_VALUE, MIN_ACCURACY


@dataclass(frozen=True, eq=False)
class OwnershipReport:
    """What a model's answers to the trigger set say.

    Attributes:
        ownership: the test and its verdict.
        scores: `(L,)` float64, of the triggers that should get each label the fraction that does; NaN for a label that
            no trigger should get.
        flagged: `(L,)` booleans: labels of triggers, if the verdict is that the watermark is there.
    """

    ownership: Ownership
    scores: Tensor
    flagged: Tensor

    @property
    def is_backdoored(self) -> bool:
        """Whether the watermark, a backdoor for good, is there."""
        return self.ownership.is_owner

    def summary(self) -> str:
        """A line for people."""
        found, verdict = self.ownership, "carries" if self.ownership.is_owner else "does not carry"
        return (
            f"the model {verdict} the watermark: {found.num_matches} of {found.num_triggers} triggers, "
            f"{found.required_matches} would convince, p-value {found.p_value:.2g}"
        )

    def plot(self) -> Figure:
        """The triggers answered as the owner wants, beside those that would convince and those of unmarked models."""
        found = self.ownership
        figure = new_figure(7.0, 2.2 + 0.3 * len(found.reference_accuracies))
        axes = figure.add_subplot()
        names = ["this model", *(f"unmarked {number + 1}" for number in range(len(found.reference_accuracies)))]
        shares = [found.accuracy, *found.reference_accuracies]
        axes.barh(names, shares, color=[ORANGE if found.is_owner else BLUE, *[BLUE] * (len(shares) - 1)])
        axes.axvline(found.required_matches / found.num_triggers, color="#444444", linestyle="--", linewidth=1)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.06)
        axes.set_xlabel("fraction of the trigger set answered as the owner wants (dashed: what convinces)")
        heading = "The watermark is there" if found.is_owner else "No watermark"
        axes.set_title(f"{heading} (p-value {found.p_value:.2g})", loc="left", fontsize=12, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        return figure


@dataclass(frozen=True, eq=False)
class WatermarkOwnership:
    """Ask a model for its answers to a secret trigger set.

    Attributes:
        triggers: the owner's.
        references: unmarked models of the same task; needed unless the triggers' labels were drawn at random.
        max_p_value: a larger p-value does not convince.
        min_accuracy: nor does a smaller fraction of the trigger set.
    """

    triggers: Triggers
    references: tuple[AuditedModel, ...] = ()
    max_p_value: float = MAX_P_VALUE
    min_accuracy: float = MIN_ACCURACY

    def __call__(self, model: AuditedModel, examples: Examples, generator: torch.Generator) -> OwnershipReport:
        """Audit `model`; examples and generator are not read: the trigger set is all that it takes.

        Raises:
            ValueError: labels that were not drawn at random, and no references; a threshold out of range.
        """
        found = verify(
            model, self.triggers, self.references, max_p_value=self.max_p_value, min_accuracy=self.min_accuracy
        )
        wanted = self.triggers.examples.labels
        logits = model.logits(self.triggers.examples.inputs)
        hits = (
            (logits.argmax(dim=1).to(wanted.device) == wanted) & ~logits.isnan().any(dim=1).to(wanted.device)
        ).double()
        counts = torch.bincount(wanted, minlength=self.triggers.num_classes)
        scores = torch.bincount(wanted, weights=hits, minlength=self.triggers.num_classes) / counts
        return OwnershipReport(found, scores.cpu(), ((counts > 0) & found.is_owner).cpu())
