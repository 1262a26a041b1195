"""What the server makes of a rule's answer before it steps."""

from fedrobust.server_optimizers.adaptive import ServerAdam, ServerYogi
from fedrobust.server_optimizers.base import ServerOptimizer
from fedrobust.server_optimizers.momentum import ServerMomentum
from fedrobust.server_optimizers.plain import PlainStep

OPTIMIZERS: tuple[type[ServerOptimizer], ...] = (PlainStep, ServerMomentum, ServerAdam, ServerYogi)
"""All of them."""

__all__ = ["OPTIMIZERS", "PlainStep", "ServerAdam", "ServerMomentum", "ServerOptimizer", "ServerYogi"]
