"""How a federation's clients are spread over nodes, and what the strategy promises Flower."""

import pytest
from flwr.app import ArrayRecord, ConfigRecord

from fedrobust.config.compose import compose_config
from fedrobust.engines.local import LocalGrid
from fedrobust.flower.apps import make_client_app
from fedrobust.flower.strategy import FederationStrategy, assign_clients
from fedrobust.scenario import Prepared, build_scenario, prepare


@pytest.fixture
def prepared() -> Prepared:
    overrides = ["num_clients=3", "num_rounds=2", "attack=none", "aggregator=mean", "model=logistic"]
    return prepare(build_scenario(compose_config([*overrides, "server.timeout=7"])[0]))


@pytest.mark.parametrize(
    ("clients", "nodes", "num_clients", "expected"),
    [
        ((0, 1, 2, 3), [5], 4, {5: (0, 1, 2, 3)}),
        ((0, 1, 2, 3), [5, 6], 4, {5: (0, 1), 6: (2, 3)}),
        ((0, 1, 2, 3), [5, 6, 7, 8], 4, {5: (0,), 6: (1,), 7: (2,), 8: (3,)}),
        ((1, 3), [5, 6], 4, {5: (1,), 6: (3,)}),
        ((0, 1, 2, 3, 4), [5, 6], 5, {5: (0, 1, 2), 6: (3, 4)}),
        ((3,), [5, 6], 4, {6: (3,)}),
        ((0, 1), [5, 6, 7], 2, {5: (0,), 6: (1,)}),
    ],
)
def test_clients_live_on_nodes_in_blocks(
    clients: tuple[int, ...], nodes: list[int], num_clients: int, expected: dict[int, tuple[int, ...]]
) -> None:
    """Client c of n on node ⌊c · nodes / n⌋, worked out by hand."""
    assert assign_clients(clients, nodes, num_clients) == expected


def test_without_nodes_there_is_no_round() -> None:
    with pytest.raises(ValueError, match="no Flower node is connected"):
        assign_clients((0,), [], 1)


def test_messages_live_a_little_longer_than_the_round(prepared: Prepared) -> None:
    strategy = FederationStrategy(prepared.federation, lambda row: None)
    grid = LocalGrid(make_client_app(lambda context: prepared.population), 3)
    messages = list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))
    assert [message.metadata.dst_node_id for message in messages] == [2, 3, 4]
    assert all(7 < message.metadata.ttl < 10 for message in messages)


def test_a_round_ends_only_if_it_has_begun(prepared: Prepared) -> None:
    strategy = FederationStrategy(prepared.federation, lambda row: None)
    with pytest.raises(RuntimeError, match="before configure_train"):
        strategy.aggregate_train(1, [])


def test_a_silent_federation_keeps_its_model_and_says_why(prepared: Prepared, caplog: pytest.LogCaptureFixture) -> None:
    rows = []
    strategy = FederationStrategy(prepared.federation, rows.append)
    grid = LocalGrid(make_client_app(lambda context: prepared.population), 3)
    before = prepared.federation.state.vector.clone()
    list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))
    strategy.aggregate_train(1, [])
    assert prepared.federation.state.vector.equal(before)
    assert rows[0]["num_rejected"] == 3
    assert [record.message for record in caplog.records if record.name == "fedrobust"] == [
        "round 1: clients 0, 1, 2 rejected: did not answer"
    ]
