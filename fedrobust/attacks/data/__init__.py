"""Attacks on an attacker's own examples."""

from fedrobust.attacks.data.badnets import BadNets
from fedrobust.attacks.data.clean_label import CleanLabelBackdoor
from fedrobust.attacks.data.coalition import Coalition
from fedrobust.attacks.data.dba import DBA
from fedrobust.attacks.data.edge_case import EdgeCase
from fedrobust.attacks.data.explanation_guided import ExplanationGuided
from fedrobust.attacks.data.image_scaling import ImageScaling
from fedrobust.attacks.data.label_flip import LabelFlip
from fedrobust.attacks.data.poison_frogs import PoisonFrogs

__all__ = [
    "DBA",
    "BadNets",
    "CleanLabelBackdoor",
    "Coalition",
    "EdgeCase",
    "ExplanationGuided",
    "ImageScaling",
    "LabelFlip",
    "PoisonFrogs",
]
