"""Every rule in anyone's ServerApp: memory over rounds, sampled nodes and a root update reach it as they should."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from rule_cases import CASES

from fedrobust.aggregators.base import RoundContext, call_rule
from fedrobust.engines.local import LocalGrid
from fedrobust.flower import RobustStrategy
from fedrobust.preaggregators import ClientMomentum, Pipeline

NUM_NODES, FRACTION, NUM_ROUNDS, SEED = 12, 0.75, 3, 4
SHAPES = {"weight": (4, 5), "bias": (3,)}
SERVER = 100
"""The server's own training, in a client's place."""

Vector = NDArray[np.float32]


def flat(arrays: ArrayRecord) -> Vector:
    return np.concatenate([arrays[name].numpy().ravel() for name in SHAPES])


def record(vector: Vector) -> ArrayRecord:
    size = int(np.prod(SHAPES["weight"]))
    parts = dict(zip(SHAPES, (vector[:size], vector[size:]), strict=True))
    return ArrayRecord({name: Array(parts[name].reshape(shape)) for name, shape in SHAPES.items()})


def trained(client: int, round_number: int, vector: Vector) -> Vector:
    """A step towards 1, noise of client and round, and a constant push of the last two clients."""
    noise = np.random.default_rng([client, round_number]).normal(size=vector.shape)
    push = 5.0 if client in (NUM_NODES - 2, NUM_NODES - 1) else 0.0
    return (vector + 0.3 * (1 - vector) + 0.1 * noise + push).astype(np.float32)


def client_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        round_number = int(message.content["config"]["server-round"])
        arrays = record(trained(client, round_number, flat(message.content["arrays"])))
        metrics = MetricRecord({"num-examples": client + 1})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def play(rule: object, **options: object) -> tuple[RobustStrategy, Vector]:
    strategy = RobustStrategy(
        rule,
        fraction_train=FRACTION,
        fraction_evaluate=0,
        seed=SEED,
        root_update=lambda round_number, arrays: record(trained(SERVER, round_number, flat(arrays))),
        weights="num_examples",
        sampling_confidence=None,
        **options,
    )
    start = record(np.zeros(23, np.float32))
    return strategy, flat(strategy.start(LocalGrid(client_app(), NUM_NODES), start, num_rounds=NUM_ROUNDS).arrays)


def by_hand(rule: object, strategy: RobustStrategy) -> Vector:
    """The rule called on the updates of the nodes that were sampled, with what it returned as its state."""
    vector, state = np.zeros(23, np.float32), {}
    for round_number in range(1, NUM_ROUNDS + 1):
        about = strategy.diagnostics[round_number]
        assert (about["refusal"], about["num_rejected"], len(about["nodes"])) == (None, 0, 9)
        clients = [node - 2 for node in about["nodes"]]  # the local grid's ids start at 2
        updates = np.stack([trained(client, round_number, vector) - vector for client in clients])
        root = torch.from_numpy(trained(SERVER, round_number, vector) - vector)
        context = RoundContext(tuple(about["nodes"]), round_number, SEED, state, root)
        answer = call_rule(rule, torch.from_numpy(updates), torch.tensor(clients) + 1.0, context)
        vector, state = vector + answer.update.numpy(), answer.state
    return vector


@pytest.mark.parametrize("name", CASES)
def test_a_rule_answers_as_when_it_is_called_directly(name: str) -> None:
    rule = CASES[name].rule
    strategy, found = play(rule)
    np.testing.assert_allclose(found, by_hand(rule, strategy), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["fools_gold", "centred_clipping", "fl_trust", "spectral_filter"])
def test_so_does_a_pipeline_with_memory_of_each_client(name: str) -> None:
    momentum, rule = ClientMomentum(beta=0.5), CASES[name].rule
    strategy, found = play(rule, preaggregators=[momentum])
    expected = by_hand(Pipeline(preaggregators=(momentum,), aggregator=rule), strategy)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
