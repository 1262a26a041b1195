"""The Ray engine: Flower's simulation runtime, for several GPUs and, by a cluster's address, several machines.

`flwr.simulation.run_simulation` is deprecated in favour of `flwr run`, which starts apps from files; until Flower has
another way to run app objects from Python, this is the only file that calls it.
"""

import importlib.util
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
from annotated_types import Ge
from flwr.app import ConfigRecordValues, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedrobust.config.component import Count, FieldError, NonNegative, Positive, component
from fedrobust.engines.deadline import end_with_message
from fedrobust.engines.local import quiet_flower
from fedrobust.engines.stoppable_grid import StoppableGrid
from fedrobust.flower.apps import prepare_nodes

log = logging.getLogger("fedrobust")


@component
class Ray:
    """Run the nodes as Ray actors.

    A client that has not answered when its round is over takes its actor with it; Ray starts another.

    Attributes:
        num_nodes: Flower nodes that the clients are spread over; `None` is one for each client.
        num_cpus_per_node: processors that a node occupies while it trains; sets how many train at once.
        num_gpus_per_node: GPUs that a node occupies, may be a fraction.
        address: an existing Ray cluster (`auto`, `ray://host:10001`); `None` starts one on this machine.
        start_timeout: seconds that the actors may take to start and to load the scenario.
    """

    num_nodes: Count | None = None
    num_cpus_per_node: Annotated[int, Ge(1)] = 1
    num_gpus_per_node: NonNegative = 0.0
    address: str | None = None
    start_timeout: Positive = 600.0

    def __post_init__(self) -> None:
        """Check that Ray is there, and that a node fits on this machine: Ray itself would wait for a larger one."""
        if importlib.util.find_spec("ray") is None:
            raise FieldError("", 'engine=ray needs Ray: pip install "fedrobust[ray]"')
        if self.address is not None:  # of a cluster, which knows what it has
            return
        for field, wanted, there in (
            ("num_cpus_per_node", self.num_cpus_per_node, _count_cores()),
            ("num_gpus_per_node", self.num_gpus_per_node, torch.cuda.device_count()),
        ):
            if wanted > there:
                kind = "cores" if field == "num_cpus_per_node" else "GPUs"
                raise FieldError(field, f"must be at most {there}, the {kind} of this machine, got {wanted}")

    @property
    def shares_process(self) -> bool:
        """Clients run in actors of their own."""
        return False

    def run(self, server_app: ServerApp, client_app: ClientApp, num_clients: int) -> None:
        """Run until the ServerApp returns."""
        # As with Flower's telemetry: nothing is reported to third parties unless the user asks for it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        num_nodes = self.num_nodes or num_clients
        resources: dict[str, ConfigRecordValues] = {
            "num_cpus": self.num_cpus_per_node,
            "num_gpus": self.num_gpus_per_node,
            # Flower hands these on to Ray as options of its actors. A retry makes clients whose turn comes while an
            # actor restarts wait for it; the client that hung is turned away then, for its message has expired.
            "max_restarts": -1,
            "max_task_retries": 1,
        }
        init: dict[str, ConfigRecordValues] = {} if self.address is None else {"address": self.address}
        server = _AttendedServer(server_app, num_nodes, self.start_timeout)
        log.info("starting %d nodes on Ray", num_nodes)
        with quiet_flower(), _quiet_start():
            from flwr.simulation import run_simulation  # an optional dependency, and the import itself is not quiet

            try:
                run_simulation(
                    server.app,
                    end_with_message(client_app),
                    num_supernodes=num_nodes,
                    backend_config={"client_resources": resources, "init_args": init},
                )
            except BaseException:  # Ctrl-C above all: no round may end behind the back of who keeps the records
                server.stop()
                raise


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _AttendedServer:
    """A ServerApp in Flower's thread, which can be told to stop and be waited for."""

    def __init__(self, inner: ServerApp, num_nodes: int, start_timeout: float) -> None:
        self.app = ServerApp()
        self._stop = threading.Event()
        self._is_idle = threading.Event()
        self._is_idle.set()

        @self.app.main()
        def main(grid: Grid, context: Context) -> None:
            self._is_idle.clear()
            try:
                stoppable = StoppableGrid(grid, self._stop)
                prepare_nodes(stoppable, num_nodes, start_timeout)
                inner(stoppable, context)
            finally:
                self._is_idle.set()

    def stop(self) -> None:
        """End the ServerApp where it waits for messages next, and return when it has ended."""
        self._stop.set()
        self._is_idle.wait()


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep what Flower and Ray always say off the console; it does not help whoever chose `engine=ray`."""

    def is_news(record: logging.LogRecord) -> bool:
        return "The `run_simulation` function is deprecated" not in record.getMessage()

    flower, migrations = logging.getLogger("flwr"), logging.getLogger("alembic")
    level = migrations.level
    flower.addFilter(is_news)
    migrations.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
        try:
            yield
        finally:
            flower.removeFilter(is_news)
            migrations.setLevel(level)
