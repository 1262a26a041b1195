"""The table of all rules, and which parts of the contract a rule does not promise, with the reason."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedrobust._linalg.columns import Points
from fedrobust.aggregators import (
    MDA,
    RULES,
    Aggregate,
    Bulyan,
    CentredClipping,
    CoordinateMedian,
    DnC,
    Flame,
    FLTrust,
    FoolsGold,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    MultiKrum,
    NoRegretFilter,
    NormClipping,
    RandomisedSever,
    RobustLearningRate,
    RoundContext,
    Sever,
    SignGuard,
    SignMajority,
    SpectralFilter,
    TrimmedMean,
)
from fedrobust.aggregators.base import call_rule
from fedrobust.config.component import has_trait
from fedrobust.seeds import torch_generator

ABOUT_ORIGIN = "cosines, norms and signs are about the origin: no translation"
COORDINATE_WISE = "coordinates are looked at one by one: no rotation, and no client is kept as a whole"
OWN_SCALE = "the answer has a length of its own: no scaling, not the common update"
NO_AVERAGE = "rows are rescaled, flipped or noisy: the answer is not the shares' average"
NO_BREAKDOWN = "nothing bounds what a few outliers do"
ONE_DIRECTION = "sees one direction at a time: outliers at many scales outlast it"
KEEPS_FEW = "may keep fewer than n - 2f"
NO_ROTATION = "a root update or a choice of coordinates does not rotate along"
FEW_OF_EQUALS = "of equal clients some are kept"
BY_POSITION = "its last selections tie, and ties go by position"


@dataclass(frozen=True)
class Case:
    """A rule, and what it does not promise."""

    rule: object
    exempt: frozenset[str] = field(default_factory=frozenset)
    max_n: int = 1000

    def __call__(self, updates: Points, weights: Tensor | None = None) -> Aggregate:
        """The rule's answer in round 1; a root update, where one is needed, is all ones."""
        root = None
        if has_trait(self.rule, "needs_root_update") and updates.ndim == 2:
            root = torch.ones(updates.shape[1], dtype=updates.dtype, device=updates.device)
        return call_rule(self.rule, updates, weights, RoundContext(root_update=root))


def case(rule: object, *exempt: str, max_n: int = 1000) -> Case:
    """A table entry; `max_n` is the largest n that takes no exponential time."""
    return Case(rule, frozenset(exempt), max_n)


F = {"assumed_fraction": 0.2}
CASES: dict[str, Case] = {
    "mean": case(Mean(), NO_BREAKDOWN),
    "coordinate_median": case(CoordinateMedian(), COORDINATE_WISE),
    "trimmed_mean": case(TrimmedMean(**F), COORDINATE_WISE),
    "meamed": case(Meamed(**F), COORDINATE_WISE),
    "bulyan": case(Bulyan(**F), COORDINATE_WISE, BY_POSITION),
    "geometric_median": case(GeometricMedian()),
    "krum": case(Krum(**F), KEEPS_FEW, FEW_OF_EQUALS),
    "multi_krum": case(MultiKrum(**F), FEW_OF_EQUALS),
    "mda": case(MDA(**F), FEW_OF_EQUALS, max_n=20),
    "centred_clipping": case(CentredClipping(max_norm=1.0), ABOUT_ORIGIN, OWN_SCALE, NO_AVERAGE),
    "centred_clipping_adaptive": case(CentredClipping(), ABOUT_ORIGIN, NO_AVERAGE),
    "norm_clipping": case(NormClipping(), ABOUT_ORIGIN, NO_AVERAGE),
    "dnc": case(DnC(**F), ONE_DIRECTION),
    "dnc_subsampled": case(DnC(num_coordinates=4, **F), NO_ROTATION, ONE_DIRECTION, KEEPS_FEW, NO_BREAKDOWN),
    "spectral_filter": case(SpectralFilter(**F)),
    "spectral_filter_sigma": case(SpectralFilter(sigma=1.0, **F)),
    "spectral_filter_quantum_entropy": case(SpectralFilter(direction="quantum_entropy", **F)),
    "sever": case(Sever(**F)),
    "sever_three_rounds": case(Sever(num_rounds=3, **F), ONE_DIRECTION),
    "randomised_sever": case(RandomisedSever(**F), KEEPS_FEW),
    "no_regret_filter": case(NoRegretFilter(**F)),
    "fl_trust": case(FLTrust(), NO_ROTATION, ABOUT_ORIGIN, OWN_SCALE, NO_AVERAGE, KEEPS_FEW),
    "fools_gold": case(FoolsGold(), ABOUT_ORIGIN, NO_BREAKDOWN, KEEPS_FEW),
    "flame": case(Flame(noise_factor=0.0), ABOUT_ORIGIN, NO_AVERAGE),
    "sign_guard": case(SignGuard(), NO_ROTATION, ABOUT_ORIGIN, NO_AVERAGE, KEEPS_FEW),
    "robust_learning_rate": case(RobustLearningRate(**F), ABOUT_ORIGIN, COORDINATE_WISE, NO_AVERAGE, NO_BREAKDOWN),
    "sign_majority": case(SignMajority(), ABOUT_ORIGIN, COORDINATE_WISE, OWN_SCALE, NO_AVERAGE),
}
NOT_THE_MEAN = ("krum", "robust_learning_rate")
"""Rules that assume a fraction, and at 0 are not the mean: Krum keeps one client, RLR flips where votes are split."""

ASSUMING = [name for name, one in CASES.items() if getattr(one.rule, "assumed_fraction", None) is not None]


def without(*reasons: str) -> list[str]:
    """The rules that are exempt for none of `reasons`."""
    return [name for name, one in CASES.items() if not one.exempt & set(reasons)]


def sample(n: int = 20, d: int = 7, *, num_shifted: int = 4, seed: int = 0) -> Tensor:
    """N(0, I) with the last clients shifted by 5 along the diagonal: enough for every filter to act."""
    points = torch.randn(n, d, generator=torch_generator(seed, "sample", n, d), dtype=torch.float64)
    points[n - num_shifted :] += 5.0
    return points


assert {type(one.rule) for one in CASES.values()} == set(RULES)
