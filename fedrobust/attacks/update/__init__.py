"""Attacks on the updates, between collection and aggregation."""

from fedrobust.attacks.update.model_replacement import ModelReplacement

__all__ = ["ModelReplacement"]
