"""Attacks, by the stage of a round at which they act."""

from fedrobust.attacks.base import DataAttack, Knowledge, LossAttack, UpdateAttack
from fedrobust.attacks.data import DBA, BadNets
from fedrobust.attacks.loss import ConstrainAndScale
from fedrobust.attacks.scenario import Adversary, Attack
from fedrobust.attacks.schedule import Schedule
from fedrobust.attacks.triggers import Patch, PatchGrid, Trigger
from fedrobust.attacks.update import ModelReplacement

__all__ = [
    "DBA",
    "Adversary",
    "Attack",
    "BadNets",
    "ConstrainAndScale",
    "DataAttack",
    "Knowledge",
    "LossAttack",
    "ModelReplacement",
    "Patch",
    "PatchGrid",
    "Schedule",
    "Trigger",
    "UpdateAttack",
]
