"""Attacks on an attacker's own examples."""

from fedrobust.attacks.data.badnets import BadNets
from fedrobust.attacks.data.dba import DBA

__all__ = ["DBA", "BadNets"]
