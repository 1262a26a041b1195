"""Attacks on the objective that an attacker minimises."""

from fedrobust.attacks.loss.constrain_and_scale import ConstrainAndScale

__all__ = ["ConstrainAndScale"]
