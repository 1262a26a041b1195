"""Attacks, by the stage of a round at which they act."""

from fedrobust.attacks.base import DataAttack, Knowledge, LossAttack, RememberingAttack, UpdateAttack
from fedrobust.attacks.data import DBA, BadNets, CleanLabelBackdoor, EdgeCase, LabelFlip
from fedrobust.attacks.loss import ConstrainAndScale
from fedrobust.attacks.scenario import Adversary, Attack, Corruption, ServerView
from fedrobust.attacks.schedule import Schedule
from fedrobust.attacks.triggers import Blend, ImageFile, Patch, PatchGrid, Pixels, Several, Sinusoid, Trigger
from fedrobust.attacks.update import (
    ALIE,
    IPM,
    UPDATE_ATTACKS,
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

__all__ = [
    "ALIE",
    "DBA",
    "IPM",
    "UPDATE_ATTACKS",
    "Adversary",
    "Attack",
    "BadNets",
    "Blend",
    "CleanLabelBackdoor",
    "ConstrainAndScale",
    "Corruption",
    "DataAttack",
    "EdgeCase",
    "FangKrum",
    "FangTrimmedMean",
    "Gaussian",
    "ImageFile",
    "Knowledge",
    "LabelFlip",
    "LossAttack",
    "Mimic",
    "MinMax",
    "MinSum",
    "ModelReplacement",
    "Neurotoxin",
    "OptimisedALIE",
    "OptimisedIPM",
    "Patch",
    "PatchGrid",
    "Pixels",
    "ProjectedGradient",
    "RememberingAttack",
    "Schedule",
    "ServerView",
    "Several",
    "SignFlip",
    "Sinusoid",
    "Trigger",
    "UpdateAttack",
    "Zero",
]
