"""Attacks on the model that users compute with, after training."""

from fedrobust.attacks.deployed_model.base import DeployedModelAttack, Tampering
from fedrobust.attacks.deployed_model.bit_flip_attack import BitFlipAttack
from fedrobust.attacks.deployed_model.one_bit_backdoor import OneBitBackdoor
from fedrobust.attacks.deployed_model.targeted_bit_trojan import TargetedBitTrojan
from fedrobust.attacks.deployed_model.weight_tamper import WeightTamper

__all__ = [
    "BitFlipAttack",
    "DeployedModelAttack",
    "OneBitBackdoor",
    "Tampering",
    "TargetedBitTrojan",
    "WeightTamper",
]
