"""Engines: how messages reach clients."""

from fedrobust.engines.base import Engine
from fedrobust.engines.local import Local
from fedrobust.engines.ray import Ray

__all__ = ["Engine", "Local", "Ray"]
