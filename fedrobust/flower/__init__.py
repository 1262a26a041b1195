"""A scenario as Flower apps, strategy and messages. Only this package and `engines/` import flwr."""

import os

# A config is the whole of a run: Flower reports it to its makers only if the user asks for that. Flower reads this when
# it is first imported, so no module that imports flwr may come before this line.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
