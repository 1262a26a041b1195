"""The Ray engine: Flower's simulation runtime, for several GPUs and, by a cluster's address, several machines.

`flwr.simulation.run_simulation` is deprecated in favour of `flwr run`, which starts apps from files; until Flower has
another way to run app objects from Python, this is the only file that calls it.
"""

import importlib.util
import os
from typing import Annotated

from annotated_types import Ge
from flwr.app import ConfigRecordValues
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedrobust.component import Count, FieldError, NonNegative, component
from fedrobust.engines.local import quiet_flower


@component
class Ray:
    """Run the nodes as Ray actors.

    Attributes:
        num_nodes: Flower nodes that the clients are spread over; `None` is one for each client.
        num_cpus_per_node: processors that a node occupies while it trains; sets how many train at once.
        num_gpus_per_node: GPUs that a node occupies, may be a fraction.
        address: an existing Ray cluster (`auto`, `ray://host:10001`); `None` starts one on this machine.
    """

    num_nodes: Count | None = None
    num_cpus_per_node: Annotated[int, Ge(1)] = 1
    num_gpus_per_node: NonNegative = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        """Check that Ray is there."""
        if importlib.util.find_spec("ray") is None:
            raise FieldError("", 'engine=ray needs Ray: pip install "fedrobust[ray]"')

    @property
    def shares_process(self) -> bool:
        """Clients run in actors of their own."""
        return False

    def run(self, server_app: ServerApp, client_app: ClientApp, num_clients: int) -> None:
        """Run until the ServerApp returns."""
        os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
        # A config is the whole of a run: nothing is reported to third parties unless the user asks for it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        from flwr.simulation import run_simulation

        backend: dict[str, dict[str, ConfigRecordValues]] = {
            "client_resources": {"num_cpus": self.num_cpus_per_node, "num_gpus": self.num_gpus_per_node},
            "init_args": {} if self.address is None else {"address": self.address},
        }
        with quiet_flower():
            run_simulation(
                server_app,
                client_app,
                num_supernodes=self.num_nodes or num_clients,
                backend_config=backend,
            )
