"""Engines: how messages reach clients."""

import fedrobust.flower  # noqa: F401  (first: it turns Flower's telemetry off before Flower is imported)
from fedrobust.engines.base import Engine
from fedrobust.engines.local import Local
from fedrobust.engines.ray import Ray

__all__ = ["Engine", "Local", "Ray"]
