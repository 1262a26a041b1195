"""A round's training from end to end: benign and malicious clients, in any order, grouped in any way."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_population import SIZES, make_population, with_training
from torch import Tensor

from fedrobust.attacks import Attack, BadNets, ConstrainAndScale, Patch, Schedule
from fedrobust.clients import population as population_module
from fedrobust.clients.population import Population, TrainedClients
from fedrobust.models import DBACNN, ResNet18
from fedrobust.training.local_training import LocalTraining, TrainingOverrides
from fedrobust.types import Buffers, Vector

TRAINING = LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4, momentum=0.5, vectorize=True)
EVERYONE = range(len(SIZES))


def backdoor(**changes: Any) -> Attack:
    """Clients 1 and 2 poison their data and train with settings of their own, in round 1 only."""
    fields: dict[str, Any] = {
        "malicious_clients": [1, 2],
        "schedule": Schedule(rounds=[1]),
        "training": TrainingOverrides(
            learning_rate=0.02, num_epochs=3, batch_size=5, learning_rate_milestones=[0.5], learning_rate_decay=0.3
        ),
        "data": BadNets(trigger=Patch(height=2, width=2), target_label=3, poison_count=2),
    }
    return Attack(**{**fields, **changes})


def mixed(**changes: Any) -> tuple[Population, Vector, Buffers]:
    return make_population(training=replace(TRAINING, **changes), attack=backdoor())


def assert_same(first: TrainedClients, second: TrainedClients, tolerance: float = 1e-5) -> None:
    assert first.clients == second.clients
    assert torch.equal(first.num_examples, second.num_examples)
    assert torch.allclose(first.losses, second.losses, rtol=tolerance)
    for one, other in zip(first.updates, second.updates, strict=True):
        assert float(one.norm()) > 0.01
        assert float((one - other).norm() / one.norm()) <= tolerance


def train_each(population: Population, vector: Vector, round_number: int = 1) -> list[TrainedClients]:
    """The oracle for a round with many: every client asked on its own, trained one by one."""
    plain = with_training(population, vectorize=False)
    return [plain.train(round_number, [client], vector, {}) for client in EVERYONE]


def test_rows_are_in_the_order_of_ids_whatever_the_groups() -> None:
    """Row i of a round with all clients is what client i sends when it is asked alone."""
    population, vector, _ = mixed()
    trained = population.train(1, EVERYONE, vector, {})
    each = train_each(population, vector)
    assert trained.clients == (0, 1, 2, 3, 4)
    assert trained.num_examples.tolist() == list(SIZES)
    assert (trained.updates.dtype, trained.num_examples.dtype) == (torch.float32, torch.int64)
    for row, alone in enumerate(each):
        assert float((trained.updates[row] - alone.updates[0]).norm() / alone.updates[0].norm()) <= 1e-5
        assert float(trained.losses[row]) == pytest.approx(float(alone.losses[0]), rel=1e-5)


def test_attackers_train_differently_in_their_rounds_only() -> None:
    """Against a population without attackers, with the same seeds: rows 1 and 2 differ in round 1, none in round 2."""
    population, vector, _ = mixed()
    benign, _, _ = make_population(training=TRAINING)
    for round_number, expected in ((1, [False, True, True, False, False]), (2, [False] * 5)):
        distance = (
            population.train(round_number, EVERYONE, vector, {}).updates
            - benign.train(round_number, EVERYONE, vector, {}).updates
        ).norm(dim=1)
        assert [float(value) > 1e-4 for value in distance] == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"max_cohort": 1},
        {"max_cohort": 2},
        {"max_cohort": 3},
        {"vectorize": False},
        {"vectorize": "auto"},
    ],
)
def test_grouping_changes_nothing(changes: dict[str, Any]) -> None:
    population, vector, _ = mixed()
    reference = population.train(1, EVERYONE, vector, {})
    assert_same(reference, with_training(population, **changes).train(1, EVERYONE, vector, {}))


def test_the_order_of_the_message_changes_nothing() -> None:
    """Bit for bit: the work is sorted before it starts."""
    population, vector, _ = mixed()
    reference = population.train(1, EVERYONE, vector, {})
    shuffled = population.train(1, [3, 0, 4, 2, 1], vector, {})
    assert shuffled.clients == reference.clients
    assert torch.equal(shuffled.updates, reference.updates)
    assert torch.equal(shuffled.losses, reference.losses)


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_seed_fixes_every_bit_and_rounds_differ(vectorize: bool) -> None:
    population, vector, _ = mixed(vectorize=vectorize)
    first = population.train(1, EVERYONE, vector, {}).updates
    torch.rand(3)  # the global generator is nobody's business
    assert torch.equal(first, population.train(1, EVERYONE, vector, {}).updates)
    assert not torch.equal(first, population.train(2, EVERYONE, vector, {}).updates)
    assert not torch.equal(first, replace(population, seed=1).train(1, EVERYONE, vector, {}).updates)


@pytest.mark.parametrize("vectorize", [True, False])
def test_nothing_shared_is_written_to(vectorize: bool) -> None:
    """The data set, the global vector and the model's own parameters are as before, though two clients poison."""
    population, vector, _ = mixed(vectorize=vectorize)
    dataset, model = population.dataset, population.model
    watched = [vector, dataset.train.inputs, dataset.train.labels, *population.assignment, *model.parameters()]
    before = [tensor.detach().clone() for tensor in watched]
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    population.train(1, EVERYONE, vector, {})
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(watched, before, strict=True))
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers
    assert all(parameter.grad is None for parameter in model.parameters())


def test_updates_are_client_minus_global() -> None:
    """From two global models that differ by a constant in the last bias, softmax is the same: so is the update."""
    population, vector, _ = make_population(training=TRAINING)
    shifted = vector.clone()
    shifted[-10:] += 1.0
    first, second = (population.train(1, EVERYONE, start, {}).updates for start in (vector, shifted))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def matrices_trained(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The blocks that `train_cohort` is given, as it is called."""
    blocks: list[Tensor] = []
    original = population_module.train_cohort

    def watch(matrix: Tensor, *rest: Any) -> list[float]:
        blocks.append(matrix)
        return original(matrix, *rest)

    monkeypatch.setattr(population_module, "train_cohort", watch)
    return blocks


def test_the_cohorts_matrix_is_the_matrix_of_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal shards nothing is put back in order: the very memory that was trained is sent."""
    blocks = matrices_trained(monkeypatch)
    population, vector, _ = make_population(sizes=(8,) * 5, training=TRAINING)
    updates = population.train(1, EVERYONE, vector, {}).updates
    assert [block.data_ptr() for block in blocks] == [updates.data_ptr()]
    with_training(population, max_cohort=2).train(1, EVERYONE, vector, {})
    assert [len(block) for block in blocks[1:]] == [2, 2, 1]


def test_programmes_form_groups_of_their_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5 clients two attack. Batches of 4 allow 2 clients together and batches of 5 only 1: {2, 1} and {1, 1}."""
    blocks = matrices_trained(monkeypatch)
    monkeypatch.setattr(population_module, "cohort_size", lambda model, example, batch, device: 2 if batch == 4 else 1)
    population, vector, _ = mixed()
    population.train(1, EVERYONE, vector, {})
    assert sorted(len(block) for block in blocks) == [1, 1, 1, 2]


def test_attackers_with_benign_settings_join_the_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisoned data is no reason to train apart; another objective is."""
    blocks = matrices_trained(monkeypatch)
    attack = backdoor(training=TrainingOverrides())
    population, vector, _ = make_population(training=TRAINING, attack=attack)
    trained = population.train(1, EVERYONE, vector, {})
    assert [len(block) for block in blocks] == [5]
    assert_same(trained, with_training(population, vectorize=False).train(1, EVERYONE, vector, {}))
    attack = backdoor(training=TrainingOverrides(), loss=ConstrainAndScale(alpha=0.5))
    population, vector, _ = make_population(training=TRAINING, attack=attack)
    trained = population.train(1, EVERYONE, vector, {})
    assert sorted(len(block) for block in blocks[1:]) == [2, 3]
    assert_same(trained, with_training(population, vectorize=False).train(1, EVERYONE, vector, {}))


def test_auto_trains_convolutions_one_by_one_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = matrices_trained(monkeypatch)
    population, vector, _ = make_population(DBACNN(), (1, 28, 28), (2, 2), LocalTraining(batch_size=2))
    one_by_one = population.train(1, [0, 1], vector, {})
    assert blocks == []
    assert_same(one_by_one, with_training(population, vectorize=True).train(1, [0, 1], vector, {}))
    assert [len(block) for block in blocks] == [2]


def test_buffers_come_back_for_each_client() -> None:
    """BatchNorm keeps statistics: trained one by one, stacked by client, the global model's own left alone."""
    training = LocalTraining(learning_rate=0.05, batch_size=4)
    population, vector, buffers = make_population(ResNet18(norm="batch", width=8), (3, 16, 16), (4, 8), training)
    before = {name: values.clone() for name, values in buffers.items()}
    trained = population.train(1, [1, 0], vector, buffers)
    assert set(trained.buffers) == set(buffers)
    for client in (0, 1):
        alone = population.train(1, [client], vector, buffers)
        for name, values in alone.buffers.items():
            assert values.shape == (1, *buffers[name].shape)
            assert torch.equal(trained.buffers[name][client], values[0])
    assert trained.buffers["1.num_batches_tracked"].tolist() == [1, 2]  # 4 and 8 examples in batches of 4
    own = dict(population.model.named_buffers())
    assert all(torch.equal(buffers[name], before[name]) and torch.equal(own[name], before[name]) for name in before)


def test_a_client_without_examples_sends_a_zero_update() -> None:
    """It says so itself (0 examples): the server rejects it, the others' rows are not disturbed."""
    for vectorize in (True, False):
        training = replace(TRAINING, vectorize=vectorize)
        population, vector, _ = make_population(sizes=(5, 0, 3), training=training)
        trained = population.train(1, range(3), vector, {})
        assert trained.num_examples.tolist() == [5, 0, 3]
        assert not trained.updates[1].any()
        assert float(trained.losses[1]) == 0.0
        assert (trained.updates[[0, 2]].norm(dim=1) > 0.01).all()


@pytest.mark.parametrize("client", [-1, 5])
def test_unknown_clients_are_refused(client: int) -> None:
    population, vector, _ = mixed()
    with pytest.raises(ValueError, match=rf"clients must be in 0\.\.4, got \[{client}\]"):
        population.train(1, [0, client], vector, {})


def test_a_model_is_given_back_when_training_raises() -> None:
    """An attack that fails in the middle of training must not leave the model with a client's parameters."""

    class FailsLater(BadNets):
        def poison_batch(self, batch: Any, attacker: int) -> Any:
            raise RuntimeError("no more poison")

    attack = backdoor(data=FailsLater(trigger=Patch(height=2, width=2), target_label=3, poison_count=2))
    for vectorize in (True, False):
        training = replace(TRAINING, vectorize=vectorize)
        population, vector, _ = make_population(training=training, attack=attack)
        before = [(parameter.data_ptr(), parameter.detach().clone()) for parameter in population.model.parameters()]
        trained = population.train(1, EVERYONE, vector, {})
        assert set(trained.failures.values()) == {"RuntimeError: no more poison"}
        assert set(trained.failures) == set(population.adversary.malicious)
        assert set(trained.clients) == set(EVERYONE) - set(trained.failures)
        for parameter, (pointer, values) in zip(population.model.parameters(), before, strict=True):
            assert parameter.data_ptr() == pointer
            assert torch.equal(parameter, values)
