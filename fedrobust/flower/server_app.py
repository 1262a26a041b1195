"""The server of a scenario under Flower's own runtime: `flwr run . --run-config 'overrides="attack=dba seed=1"'`."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrobust.compose import compose_overrides
from fedrobust.flower.apps import play_rounds
from fedrobust.round import Row
from fedrobust.run import run_config
from fedrobust.scenario import Prepared

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the scenario of the run-config's Hydra `overrides` over the runtime's nodes."""
    values, choices = compose_overrides(str(context.run_config.get("overrides", "")))
    folder = str(context.run_config.get("folder", "")) or datetime.now().strftime("outputs/%Y-%m-%d/%H-%M-%S")

    def drive(prepared: Prepared, on_round: Callable[[Row], None]) -> None:
        play_rounds(prepared.federation, grid, on_round)

    run_config(values, Path(folder), choices, drive=drive)
