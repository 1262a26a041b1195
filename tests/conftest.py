"""Set up what must be in place before torch and flwr are imported."""

import os

# As the command line does: threads that spin while they wait slow every test down where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
