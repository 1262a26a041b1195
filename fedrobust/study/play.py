"""Scenarios played in this process: nothing is written, nothing is shown, the rounds' records are the answer."""

from collections.abc import Callable, Sequence

from fedrobust.config.compose import compose_config
from fedrobust.engines.local import LocalGrid, quiet_flower
from fedrobust.federation.round import Row
from fedrobust.federation.standstill import StandstillError, reason_for_standstill
from fedrobust.flower import apps
from fedrobust.scenario import Prepared, build_scenario, prepare


def play_scenario(overrides: Sequence[str]) -> list[Row]:
    """The records of all rounds of the scenario that `fedrobust OVERRIDES` plays; the last one comes last.

    Raises:
        ConfigError: with the key, the value and what is allowed.
        StandstillError: no round changed the model.
    """
    rows = play_rounds(prepare_scenario(overrides))
    if reason := reason_for_standstill(rows):
        raise StandstillError(reason)
    return rows


def prepare_scenario(overrides: Sequence[str]) -> Prepared:
    """The scenario that Hydra's `overrides` describe, with its data loaded and its model initialised.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    return prepare(build_scenario(compose_config(overrides)[0]))


def play_rounds(
    prepared: Prepared,
    num_rounds: int | None = None,
    *,
    num_nodes: int = 1,
    on_round: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Play a scenario's next rounds, and return their records; its federation holds the model that comes of them.

    Args:
        prepared: the scenario; goes on from where it is.
        num_rounds: `None` plays all that are left.
        num_nodes: Flower nodes that the clients are spread over.
        on_round: called after each round, with its record.
    """
    rows: list[Row] = []

    def keep(row: Row) -> None:
        rows.append(row)
        if on_round is not None:
            on_round(row)

    client_app = apps.make_client_app(lambda _context: prepared.population)
    with quiet_flower():
        apps.play_rounds(prepared.federation, LocalGrid(client_app, num_nodes), keep, num_rounds)
    return rows
