"""Attacks on the model that the server starts from."""

from fedrobust.attacks.initial_model.backdoored_pretrained import BackdooredPretrained

__all__ = ["BackdooredPretrained"]
