"""Ownership: whether a model knows a trigger set that it could not know by chance.

Adi, Baum, Cisse, Pinkas, Keshet, "Turning Your Weakness Into a Strength: Watermarking Deep Neural Networks by
Backdooring", USENIX Security 2018, https://www.usenix.org/conference/usenixsecurity18/presentation/adi (Verify: enough
of the trigger set is right)
Tekgul, Xia, Marchal, Asokan, "WAFFLE: Watermarking in Federated Learning", SRDS 2021,
https://arxiv.org/abs/2008.07298 (the binomial bound on a chance match)
Departs: Adi et al. keep trigger set and labels secret by commitments; here they are shown. The chance of labels that
were not drawn at random is bounded by what unmarked models do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scipy.stats import beta, binom
from torch import Tensor

from fedrobust.watermarks.trigger_set import Triggers

MAX_P_VALUE = 1e-6
MIN_ACCURACY = 0.5
_CONFIDENCE = 0.99


class Classifier(Protocol):
    """A model under suspicion; its answers are enough."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `(N, num_classes)` for raw inputs `(N, ...)`."""
        ...


@dataclass(frozen=True)
class Ownership:
    """What a model's answers to a trigger set say of its owner.

    Attributes:
        num_matches: triggers that the model answers as the owner wants.
        num_triggers: triggers in all.
        accuracy: their ratio, the watermark accuracy.
        chance: the probability that an unmarked model answers a trigger so, or a bound above it.
        p_value: the probability of as many matches or more by chance, each trigger by itself.
        required_matches: the fewest matches that convince.
        is_owner: the verdict.
        reference_accuracies: the watermark accuracy of each unmarked reference model.
    """

    num_matches: int
    num_triggers: int
    accuracy: float
    chance: float
    p_value: float
    required_matches: int
    is_owner: bool
    reference_accuracies: tuple[float, ...] = ()


def verify(
    model: Classifier,
    triggers: Triggers,
    references: Sequence[Classifier] = (),
    *,
    max_p_value: float = MAX_P_VALUE,
    min_accuracy: float = MIN_ACCURACY,
) -> Ownership:
    """Test whether a model carries the watermark of `triggers`.

    Labels drawn at random, each by itself, need no reference: an unmarked model, whatever it answers, gets each right
    with probability 1 / `num_classes`, and the p-value is exact. Other labels, such as one for all, may be what any
    model would say. Their chance is that of the worst reference model, bounded above with 99 % confidence (Clopper and
    Pearson), and 1 / `num_classes` at least; the p-value is then as good as the references are like the suspect.

    Args:
        model: under suspicion; its answers alone are read.
        triggers: the owner's.
        references: unmarked models of the same task.
        max_p_value: a larger p-value does not convince; in (0, 1).
        min_accuracy: nor does a smaller watermark accuracy; in [0, 1].

    Raises:
        ValueError: labels that were not drawn at random, and no references; a threshold out of range.
    """
    if not 0 < max_p_value < 1 or not 0 <= min_accuracy <= 1:
        raise ValueError(
            f"max_p_value must be in (0, 1) and min_accuracy in [0, 1], got {max_p_value} and {min_accuracy}"
        )
    if not triggers.has_random_labels and not references:
        raise ValueError("labels that were not drawn at random need unmarked reference models, got none")
    n = len(triggers)
    matches, others = count_matches(model, triggers), [count_matches(one, triggers) for one in references]
    chance = 1 / triggers.num_classes
    if not triggers.has_random_labels:
        chance = max(chance, *(upper_bound(count, n) for count in others))
    p_value = binomial_p_value(matches, n, chance)
    is_convincing = p_value <= max_p_value and matches >= min_accuracy * n
    required = required_matches(n, chance, max_p_value, min_accuracy)
    return Ownership(
        matches, n, matches / n, chance, p_value, required, is_convincing, tuple(count / n for count in others)
    )


def count_matches(model: Classifier, triggers: Triggers) -> int:
    """How many triggers the model answers as the owner wants; NaN is no answer."""
    logits = model.logits(triggers.examples.inputs)
    answers = logits.argmax(dim=1).to(triggers.examples.labels.device)
    is_number = ~logits.isnan().any(dim=1).to(answers.device)
    return int(((answers == triggers.examples.labels) & is_number).sum())


def binomial_p_value(num_matches: int, num_triggers: int, chance: float) -> float:
    """P(X >= num_matches) for X ~ Binomial(num_triggers, chance), without loss of small ones."""
    return float(binom.sf(num_matches - 1, num_triggers, chance))


def required_matches(num_triggers: int, chance: float, max_p_value: float, min_accuracy: float = 0.0) -> int:
    """The fewest matches that convince; `num_triggers` + 1 if no number does."""
    for matches in range(num_triggers + 1):
        if matches >= min_accuracy * num_triggers and binomial_p_value(matches, num_triggers, chance) <= max_p_value:
            return matches
    return num_triggers + 1


def upper_bound(num_matches: int, num_triggers: int, confidence: float = _CONFIDENCE) -> float:
    """The one-sided Clopper-Pearson bound above the chance of a match, where so many matches were seen."""
    if num_matches == num_triggers:
        return 1.0
    return float(beta.ppf(confidence, num_matches + 1, num_triggers - num_matches))
