"""What happens before the first round: nodes connect, and load the scenario."""

import os
import subprocess
import sys

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedrobust.engines.local import LocalGrid
from fedrobust.flower.apps import prepare_nodes


def app_of(broken_partitions: set[int], asked: list[int]) -> ClientApp:
    app = ClientApp()

    @app.query()
    def prepare(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        asked.append(partition)
        if partition in broken_partitions:
            raise FileNotFoundError("no such data")
        return Message(RecordDict(), reply_to=message)

    return app


def test_every_node_loads_the_scenario_once() -> None:
    asked: list[int] = []
    prepare_nodes(LocalGrid(app_of(set(), asked), 3), 3, timeout=5)
    assert asked == [0, 1, 2]


def test_a_node_that_cannot_is_named(caplog: pytest.LogCaptureFixture) -> None:
    prepare_nodes(LocalGrid(app_of({1}, []), 3), 3, timeout=5)
    assert "node 3 could not load the scenario: FileNotFoundError: no such data" in caplog.messages


def test_if_none_can_there_is_no_run() -> None:
    with pytest.raises(RuntimeError, match=r"none of 2 Flower nodes could load .* FileNotFoundError: no such data"):
        prepare_nodes(LocalGrid(app_of({0, 1}, []), 2), 2, timeout=5)


def test_missing_nodes_are_counted() -> None:
    with pytest.raises(RuntimeError, match=r"2 of 3 Flower nodes connected within 0\.1 s"):
        prepare_nodes(LocalGrid(app_of(set(), []), 2), 3, timeout=0.1)


@pytest.mark.parametrize(("package", "wish"), [("fedrobust.engines", None), ("fedrobust.flower.identity", "1")])
def test_flowers_telemetry_is_off_unless_asked_for(package: str, wish: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "FLWR_TELEMETRY_ENABLED"}
    if wish is not None:
        environment["FLWR_TELEMETRY_ENABLED"] = wish
    code = f"import {package}; from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (wish or "0")
