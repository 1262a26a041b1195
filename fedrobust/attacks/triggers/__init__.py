"""Triggers: what a backdoor changes in a picture."""

from fedrobust.attacks.triggers.base import (
    Stamp,
    Trigger,
    TriggerShape,
    check_disjoint,
    declared,
    is_synthetic,
    union,
)
from fedrobust.attacks.triggers.blend import Blend
from fedrobust.attacks.triggers.features import FeatureTrigger
from fedrobust.attacks.triggers.image_file import ImageFile
from fedrobust.attacks.triggers.patch import Patch, PatchGrid, Pixels
from fedrobust.attacks.triggers.several import Several
from fedrobust.attacks.triggers.sinusoid import Sinusoid

__all__ = [
    "Blend",
    "FeatureTrigger",
    "ImageFile",
    "Patch",
    "PatchGrid",
    "Pixels",
    "Several",
    "Sinusoid",
    "Stamp",
    "Trigger",
    "TriggerShape",
    "check_disjoint",
    "declared",
    "is_synthetic",
    "union",
]
