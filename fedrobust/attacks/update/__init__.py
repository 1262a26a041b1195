"""Attacks on the updates, between collection and aggregation."""

from fedrobust.attacks.update.alie import ALIE
from fedrobust.attacks.update.fang import FangKrum, FangTrimmedMean
from fedrobust.attacks.update.gaussian import Gaussian
from fedrobust.attacks.update.ipm import IPM
from fedrobust.attacks.update.mimic import Mimic
from fedrobust.attacks.update.min_max import MinMax, MinSum
from fedrobust.attacks.update.model_replacement import ModelReplacement
from fedrobust.attacks.update.neurotoxin import Neurotoxin
from fedrobust.attacks.update.optimised import OptimisedALIE, OptimisedIPM
from fedrobust.attacks.update.projected_gradient import ProjectedGradient
from fedrobust.attacks.update.sign_flip import SignFlip
from fedrobust.attacks.update.zero import Zero

UPDATE_ATTACKS: tuple[type, ...] = (
    ALIE,
    IPM,
    FangKrum,
    FangTrimmedMean,
    Gaussian,
    Mimic,
    MinMax,
    MinSum,
    ModelReplacement,
    Neurotoxin,
    OptimisedALIE,
    OptimisedIPM,
    ProjectedGradient,
    SignFlip,
    Zero,
)
"""Every update attack that there is."""

__all__ = [
    "ALIE",
    "IPM",
    "UPDATE_ATTACKS",
    "FangKrum",
    "FangTrimmedMean",
    "Gaussian",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelReplacement",
    "Neurotoxin",
    "OptimisedALIE",
    "OptimisedIPM",
    "ProjectedGradient",
    "SignFlip",
    "Zero",
]
