"""What an engine is: a way to carry messages between the ServerApp and the ClientApp of a scenario."""

from typing import Protocol, runtime_checkable

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp


@runtime_checkable
class Engine(Protocol):
    """Runs a Flower ServerApp and ClientApp to the end."""

    @property
    def shares_process(self) -> bool:
        """Whether clients run in this process, and can be handed the scenario's tensors as they are."""
        ...

    def run(self, server_app: ServerApp, client_app: ClientApp, num_clients: int) -> None:
        """Run until the ServerApp returns; whatever it raises is raised here."""
        ...
