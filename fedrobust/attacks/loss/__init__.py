"""Attacks on the objective that an attacker minimises."""

from fedrobust.attacks.loss.blind_backdoor import BlindBackdoor
from fedrobust.attacks.loss.constrain_and_scale import ConstrainAndScale
from fedrobust.attacks.loss.neural_cleanse_evasion import NeuralCleanseEvasion

__all__ = ["BlindBackdoor", "ConstrainAndScale", "NeuralCleanseEvasion"]
