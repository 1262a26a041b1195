"""The server of a scenario under Flower's own runtime: `flwr run . --run-config 'overrides="attack=dba seed=1"'`."""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_overrides
from fedrobust.federation.round import Row
from fedrobust.flower.apps import play_rounds, prepare_nodes
from fedrobust.records.lock import free_folder
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs.failures import keep_failure
from fedrobust.runs.run import run_config
from fedrobust.scenario import Prepared

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Play the scenario of the run-config's Hydra `overrides` over the runtime's nodes.

    Args:
        grid: the way to the nodes.
        context: its run-config holds `overrides`, `folder` (of the records; empty: `outputs/DATE/TIME`), `num-nodes`
            (to wait for), `start-timeout` (seconds) and `resume` (go on with the run in `folder`).

    Raises:
        ConfigError: a config that cannot run, or a folder that cannot be resumed.
        Exception: whatever ended the run; failure.json has it.
    """
    log = logging.getLogger("fedrobust")  # Flower shows its own logger's lines and no others
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    options = context.run_config
    values, choices = compose_overrides(str(options["overrides"]))
    named = str(options["folder"])
    folder = Path(named) if named else free_folder(Path(datetime.now().strftime("outputs/%Y-%m-%d/%H-%M-%S")))

    def drive(prepared: Prepared, on_round: Callable[[Row], None]) -> None:
        prepare_nodes(grid, int(options["num-nodes"]), float(options["start-timeout"]))
        play_rounds(prepared.federation, grid, on_round)

    try:
        run_config(values, folder, choices, resume=bool(options.get("resume", False)), drive=drive)
    except ConfigError as error:
        log.error("%s", error)
        raise
    except Exception as error:
        log.error("%s", keep_failure(error, RunFolder(folder)))
        raise
