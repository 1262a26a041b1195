"""STRIP: a triggered input keeps its label whatever is laid over it.

Gao, Xu, Wang, Chen, Ranasinghe, Nepal, "STRIP: A Defence Against Trojan Attacks on Deep Neural Networks", ACSAC 2019,
https://arxiv.org/abs/1902.06531
Departs: the threshold is an order statistic of clean entropies, with the stated rate whatever their distribution, where
the paper takes the quantile of a Gaussian fitted to them; classes are convicted too.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import DataReport, require_clean, require_model
from fedrobust.audits.data.calibration import (
    FalsePositiveRate,
    calibrated_report,
    calibrated_threshold,
    smallest_calibration,
)
from fedrobust.config.component import Count, Fraction, component
from fedrobust.data.examples import Examples


@component
class Strip:
    """Flag the inputs for which the model is sure of itself with any clean picture laid over them.

    Half of the clean examples, drawn at random, are laid over inputs; the other half sets the threshold. It is one for
    all classes, and some have more inputs that the model is sure of than others: of a clean class several times
    `false_positive_rate` may be flagged. So a class is convicted only if more of it is flagged than of its own clean
    examples, all of which are scored, with the other half laid over them.

    Attributes:
        false_positive_rate: of clean inputs, that the threshold lets be flagged.
        num_overlays: N of the paper, clean pictures laid over each input, one at a time.
        blend: `sum` adds the two and clips to [0, 1], as the paper's code; `mean` averages them.
        tolerated_rate: a class is convicted if surely more of it is flagged, and more than of its clean examples.
        confidence: that no class is convicted that is below `tolerated_rate`, or like its clean examples.
    """

    false_positive_rate: FalsePositiveRate = 0.05
    num_overlays: Count = 100
    blend: Literal["sum", "mean"] = "sum"
    tolerated_rate: Fraction = 0.15
    confidence: Fraction = 0.95

    def check(self, model: AuditedModel, examples: Examples, clean: Examples) -> None:
        """Look at the range of the inputs and the number of clean ones.

        Raises:
            ValueError: inputs that cannot be laid over one another; too few clean ones.
        """
        require_clean(clean, "Strip", self.smallest_clean)
        for inputs in (examples.inputs, clean.inputs):
            check_range(inputs)

    @property
    def smallest_clean(self) -> int:
        """How many clean inputs it takes at least, half of them to set the threshold."""
        return 2 * smallest_calibration(self.false_positive_rate)

    def __call__(
        self,
        examples: Examples,
        model: AuditedModel | None,
        generator: torch.Generator,
        clean: Examples | None = None,
    ) -> DataReport:
        """Score and flag; it serves at inference too, with the incoming inputs as examples.

        Raises:
            ValueError: no model, no clean examples or too few, inputs outside [0, 1], or logits that are not finite.
        """
        model = require_model(model, "Strip")
        clean = require_clean(clean, "Strip", self.smallest_clean)
        self.check(model, examples, clean)
        order = torch.randperm(len(clean), generator=generator).to(clean.inputs.device)
        overlays, held_out = clean.inputs[order].tensor_split([len(clean) // 2])
        held_out_scores = -self.entropies(held_out, overlays, model, generator)
        threshold = calibrated_threshold(held_out_scores, self.false_positive_rate)
        scores = -self.entropies(examples.inputs, overlays, model, generator)
        turned = -self.entropies(overlays, held_out, model, generator)  # each half is laid over the other
        return calibrated_report(
            "STRIP",
            examples,
            scores,
            threshold,
            score_name="negative entropy under overlays (bits)",
            tolerated_rate=self.tolerated_rate,
            confidence=self.confidence,
            reference=(clean.labels[order], torch.cat([turned, held_out_scores])),
        )

    def entropies(self, inputs: Tensor, overlays: Tensor, model: AuditedModel, generator: torch.Generator) -> Tensor:
        """The mean entropy of the model's answers to each input under `num_overlays` random overlays, in bits.

        Args:
            inputs: `(N, ...)`, raw.
            overlays: `(M, ...)`, raw; each input gets its own draw of them, with replacement.
            model: whose answers are looked at.
            generator: on the CPU.

        Returns:
            `(N,)` float64 on the CPU.

        Raises:
            ValueError: logits that are not finite.
        """
        drawn = torch.randint(len(overlays), (len(inputs), self.num_overlays), generator=generator)
        at_once = max(1, model.batch_size // self.num_overlays)
        entropies = [
            answer_entropy(model.logits(self._superimposed(part, overlays[rows.to(overlays.device)]))).view(
                len(part), -1
            )
            for part, rows in zip(inputs.split(at_once), drawn.split(at_once), strict=True)
        ]
        return torch.cat(entropies).mean(dim=1) if entropies else torch.zeros(0, dtype=torch.float64)

    def _superimposed(self, inputs: Tensor, overlays: Tensor) -> Tensor:
        """`(n N, ...)`, from inputs `(n, ...)` and overlays `(n, N, ...)`."""
        both = inputs.unsqueeze(1) + overlays.to(inputs.device)
        return (both.clamp(0, 1) if self.blend == "sum" else both / 2).flatten(0, 1)


def check_range(inputs: Tensor) -> None:
    """Check that raw inputs can be laid over one another as pictures are; the sum of words, say, means nothing.

    Raises:
        ValueError: a value below 0 or above 1.
    """
    if inputs.numel() and not 0 <= float(inputs.min()) <= float(inputs.max()) <= 1 and bool(inputs.isfinite().all()):
        raise ValueError(
            f"Strip lays raw inputs in [0, 1] over one another, got values from {float(inputs.min()):g} to "
            f"{float(inputs.max()):g}"
        )


def answer_entropy(logits: Tensor) -> Tensor:
    """The Shannon entropy of each row's softmax `(N, num_classes)`, in bits: `(N,)` float64 on the CPU.

    Raises:
        ValueError: NaN or infinity.
    """
    if not bool(logits.isfinite().all()):
        rows = (~logits.isfinite().all(dim=1)).nonzero().flatten()
        raise ValueError(f"logits must be finite, {len(rows)} of {len(logits)} rows hold NaN or infinity")
    log_shares = logits.double().log_softmax(dim=1).cpu()
    return -(log_shares.exp() * log_shares).sum(dim=1) / math.log(2)
