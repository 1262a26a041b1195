"""ALIE and IPM with the factor that hurts most, found on the server's own rule.

Shejwalkar, Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for Federated
Learning", NDSS 2021, https://www.ndss-symposium.org/wp-content/uploads/ndss2021_6C-3_24498_paper.pdf; for ALIE and IPM:
Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under
Heterogeneity", AISTATS 2023, https://arxiv.org/abs/2302.01772
"""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar

from annotated_types import Ge
from scipy.optimize import minimize_scalar

from fedrobust._linalg.gram import weighted_combination
from fedrobust.attacks.base import Knowledge, Level
from fedrobust.attacks.update.alie import mean_and_std
from fedrobust.config.component import Positive, component
from fedrobust.types import UnusableUpdatesError, Updates, Vector

NumEvaluations = Annotated[int, Ge(4)]


@component
class OptimisedALIE:
    """ALIE with the z that moves the server's answer farthest from the honest mean.

    Formula: μ - zσ, z the best found of argmax ‖rule(...) - Σ wᵢxᵢ‖, the sum over benign clients.
    Source: Allouah et al., AISTATS 2023, https://arxiv.org/abs/2302.01772, after Shejwalkar and Houmansadr, NDSS 2021
    Departs: the search halves from `max_factor` down, then refines by Brent's bounded method about the best; the honest
        mean carries the server's weights.

    Attributes:
        max_factor: the largest z tried.
        num_evaluations: how often the server's rule is tried.
    """

    max_factor: Positive = 100.0
    num_evaluations: NumEvaluations = 20

    needs: ClassVar[Level] = "server"
    uses: ClassVar[Level] = "server"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The shifted mean, m times `(m, d)`."""
        mean, std = mean_and_std(knowledge.reference_updates)
        return most_harmful(knowledge, lambda z: mean - z * std, self.max_factor, self.num_evaluations)


@component
class OptimisedIPM:
    """IPM with the ε that moves the server's answer farthest from the honest mean.

    Formula: -ε·μ, ε the best found of argmax ‖rule(...) - Σ wᵢxᵢ‖, the sum over benign clients.
    Source: Allouah et al., AISTATS 2023, https://arxiv.org/abs/2302.01772, after Shejwalkar and Houmansadr, NDSS 2021
    Departs: the search halves from `max_factor` down, then refines by Brent's bounded method about the best; the honest
        mean carries the server's weights.

    Attributes:
        max_factor: the largest ε tried.
        num_evaluations: how often the server's rule is tried.
    """

    max_factor: Positive = 100.0
    num_evaluations: NumEvaluations = 20

    needs: ClassVar[Level] = "server"
    uses: ClassVar[Level] = "server"

    def __call__(self, knowledge: Knowledge) -> Updates:
        """The reversed mean, m times `(m, d)`."""
        mean = knowledge.reference_updates.mean(dim=0)
        return most_harmful(knowledge, lambda epsilon: -epsilon * mean, self.max_factor, self.num_evaluations)


def most_harmful(
    knowledge: Knowledge, update: Callable[[float], Vector], max_factor: float, num_evaluations: int
) -> Updates:
    """`update(factor)`, m times `(m, d)`, of the factor in (0, max_factor] that harms most.

    Harm is how far the server's answer, if all attackers send that, lies from the honest mean.

    Rules that drop clients make the distance jump, so the best factor seen is kept, wherever a search would end: half
    of the evaluations go to max_factor, max_factor/2, max_factor/4, ..., half to the octaves on both sides of the best.
    """
    answer, honest = knowledge.answer, honest_mean(knowledge)
    assert answer is not None

    def send(factor: float) -> Updates:
        return update(factor).expand(len(knowledge.own_updates), -1)

    tried: dict[float, float] = {}

    def harm(factor: float) -> float:
        try:
            distance = float((answer(send(factor)) - honest).double().norm())
        except UnusableUpdatesError:  # the server will not step at all
            distance = 0.0
        tried[factor] = 0.0 if math.isnan(distance) else distance
        return tried[factor]

    for halvings in range(num_evaluations // 2):
        harm(max_factor / 2**halvings)
    best = max(tried, key=tried.__getitem__)
    minimize_scalar(
        lambda factor: -harm(float(factor)),
        bounds=(best / 2, min(2 * best, max_factor)),
        method="bounded",
        options={"maxiter": num_evaluations - len(tried)},
    )
    return send(max(tried, key=tried.__getitem__))


def honest_mean(knowledge: Knowledge) -> Vector:
    """Σ wᵢxᵢ / Σ wᵢ over the benign updates, `(d,)`; over the attackers' own where they are alone."""
    points, weights = knowledge.benign_updates, knowledge.benign_weights
    if points is None or weights is None or len(points) == 0:
        points, weights = knowledge.own_updates, knowledge.own_weights
    return weighted_combination(points, weights / weights.sum())
