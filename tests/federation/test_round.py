"""One round, driven by hand: replies are made up here, so the new model follows from FedAvg's formula."""

import time
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from fedrobust.aggregators import CentredClipping, CoordinateMedian, FLTrust, Krum, Mean
from fedrobust.aggregators.base import Aggregate
from fedrobust.attacks import Adversary, Attack, ModelReplacement, Schedule
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.federation.aggregation import Aggregation
from fedrobust.federation.collection import Rejection, Reply
from fedrobust.federation.round import Delivery, Federation, GlobalModel, Order, Row, evaluate_model, play_round
from fedrobust.federation.server import Server
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.preaggregators import Pipeline
from fedrobust.server_optimizers import PlainStep, ServerMomentum


def federation(
    *,
    aggregator=None,
    optimizer=None,
    train_root=None,
    attack: Attack | None = None,
    malicious=(),
    norm: bool = False,
    evaluate_every: int = 1,
    **server,
) -> Federation:
    """Four clients and a linear model (d = 6) on two features and two classes, started at zero."""
    model: nn.Module = nn.Linear(2, 2)
    if norm:
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    examples = Examples(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2)
    dataset = Dataset("toy", examples, examples, 2, "tabular", torch.zeros(2), torch.ones(2))
    layout = ParameterLayout.of(model)
    return Federation(
        model=model,
        dataset=dataset,
        server=Server(**server),
        aggregation=Aggregation(Pipeline(aggregator=aggregator or Mean()), optimizer or PlainStep()),
        train_root=train_root,
        adversary=Adversary(attack or Attack(num_malicious=0), malicious),
        num_clients=4,
        num_rounds=10,
        evaluate_every=evaluate_every,
        seed=0,
        state=GlobalModel(0, layout.flatten(model), clone_buffers(model)),
    )


def reply(clients: Sequence[int], updates: torch.Tensor, num_examples: Sequence[int], **buffers) -> Reply:
    return Reply(tuple(clients), updates, torch.tensor(num_examples), torch.zeros(len(clients)), buffers, 0.1)


def finish(round_, delivery: Delivery) -> Row:
    with pytest.raises(StopIteration) as stop:
        round_.send(delivery)
    return stop.value.value


def updates_of(n: int, d: int = 6) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def test_the_model_moves_by_the_weighted_mean():
    """G' = 0 + 0.5 (10 u0 + 20 u1 + 30 u2 + 40 u3) / 100, from two nodes whose rows come in any order."""
    one = federation(learning_rate=0.5)
    round_ = play_round(one)
    order = next(round_)
    assert isinstance(order, Order)
    assert (order.round_number, order.clients) == (1, (0, 1, 2, 3))
    u = updates_of(4)
    delivery = Delivery([reply([3, 1], u[[3, 1]], [40, 20]), reply([0, 2], u[[0, 2]], [10, 30])], [], 1.0)
    row = finish(round_, delivery)
    expected = 0.5 * (torch.tensor([0.1, 0.2, 0.3, 0.4]).unsqueeze(1) * u).sum(dim=0)
    torch.testing.assert_close(one.state.vector, expected)
    assert one.state.round_number == 1
    assert row["clients"] == [0, 1, 2, 3]
    torch.testing.assert_close(torch.tensor(row["update_norms"]), u.norm(dim=1))
    assert row["seconds_training"] == pytest.approx(0.2)
    assert row["seconds_messages"] == pytest.approx(0.8)


def test_a_rule_without_shares_reports_no_detection():
    one = federation(aggregator=CoordinateMedian())
    round_ = play_round(one)
    next(round_)
    row = finish(round_, Delivery([reply(range(4), updates_of(4), [1, 1, 1, 1])], [], 1.0))
    assert row["detection_tpr"] is None
    assert row["detection_fpr"] is None
    assert row["shares"] is None
    expected = updates_of(4).double().quantile(0.5, dim=0).float()
    torch.testing.assert_close(one.state.vector, expected)


def test_attackers_change_their_rows_with_the_weight_they_really_get():
    """Client 1 has 20 of 100 examples and η = 0.5: s = 1/(0.5 x 0.2) = 10, and G' = X when the others stand still."""
    attack = Attack(malicious_clients=[1], schedule=Schedule(rounds=[1]), update=ModelReplacement())
    one = federation(attack=attack, malicious=(1,), learning_rate=0.5)
    round_ = play_round(one)
    next(round_)
    u = torch.zeros(4, 6)
    u[1] = updates_of(1)
    target = u[1].clone()
    row = finish(round_, Delivery([reply(range(4), u, [10, 20, 30, 40])], [], 1.0))
    torch.testing.assert_close(one.state.vector, target)
    assert row["attack_active"] is True
    assert row["malicious_clients"] == [1]
    assert row["update_norm_malicious"] == pytest.approx(10 * float(target.norm()), rel=1e-5)
    assert row["update_norm_benign"] == 0.0


def test_the_weight_is_that_among_the_clients_that_are_left():
    """Client 3 (40 of 100 examples) sends NaN and is rejected: client 1's weight is then 20/60."""
    attack = Attack(malicious_clients=[1], update=ModelReplacement())
    one = federation(attack=attack, malicious=(1,))
    round_ = play_round(one)
    next(round_)
    u = torch.zeros(4, 6)
    u[1], u[3] = updates_of(1), float("nan")
    target = u[1].clone()
    row = finish(round_, Delivery([reply(range(4), u, [10, 20, 30, 40])], [], 1.0))
    torch.testing.assert_close(one.state.vector, target)
    assert row["num_rejected"] == 1
    assert row["rejected"] == [{"client": 3, "reason": "update contains NaN or infinity"}]


def test_an_attack_that_overflows_is_rejected_and_the_others_go_on():
    attack = Attack(malicious_clients=[1], update=ModelReplacement(scale_factor=1e38))
    one = federation(attack=attack, malicious=(1,))
    round_ = play_round(one)
    next(round_)
    u = updates_of(4)
    u[1] *= 1e3
    row = finish(round_, Delivery([reply(range(4), u, [1, 1, 1, 1])], [], 1.0))
    torch.testing.assert_close(one.state.vector, updates_of(4)[[0, 2, 3]].mean(dim=0))
    assert [entry["client"] for entry in row["rejected"]] == [1]
    assert row["malicious_clients"] == []


def test_without_any_reply_the_model_stays():
    one = federation()
    round_ = play_round(one)
    next(round_)
    row = finish(round_, Delivery([], [Rejection(2, "failed: boom")], 1.0))
    assert float(one.state.vector.abs().sum()) == 0.0
    assert one.state.round_number == 1
    assert row["num_received"] == 0
    assert row["num_rejected"] == 4
    assert {entry["client"]: entry["reason"] for entry in row["rejected"]}[2] == "failed: boom"


def test_buffers_follow_the_shares():
    """Means 0, 1, 2, 3 under weights .1 .2 .3 .4 average to 2; attacks never touch them."""
    attack = Attack(malicious_clients=[3], update=ModelReplacement())
    one = federation(norm=True, attack=attack, malicious=(3,))
    round_ = play_round(one)
    next(round_)
    buffers = {
        "1.running_mean": torch.arange(4.0).unsqueeze(1).repeat(1, 2),
        "1.running_var": torch.ones(4, 2),
        "1.num_batches_tracked": torch.full((4,), 9),
    }
    finish(round_, Delivery([reply(range(4), updates_of(4, 10), [10, 20, 30, 40], **buffers)], [], 1.0))
    torch.testing.assert_close(one.state.buffers["1.running_mean"], torch.tensor([2.0, 2.0]))
    assert int(one.state.buffers["1.num_batches_tracked"]) == 0


@pytest.mark.parametrize("claims", [[10, 20, 30, 40], [1, 1, 1, 1000]])
def test_buffers_of_a_client_that_the_rule_rejects_are_left_out(claims: list[int]):
    """Krum keeps one of the first three, who are alike; the fourth's statistics would poison every other model."""
    one = federation(norm=True, aggregator=Krum(assumed_fraction=0.1), weights="num_examples")
    round_ = play_round(one)
    next(round_)
    updates = 0.01 * updates_of(4, 10)
    updates[3] = 100.0
    means = torch.tensor([[1.0], [2.0], [3.0], [1e6]]).repeat(1, 2)
    buffers = {
        "1.running_mean": means,
        "1.running_var": torch.ones(4, 2),
        "1.num_batches_tracked": torch.full((4,), 9),
    }
    row = finish(round_, Delivery([reply(range(4), updates, claims, **buffers)], [], 1.0))
    (kept,) = [client for client, share in enumerate(row["shares"]) if share > 0]
    assert kept < 3
    assert torch.equal(one.state.buffers["1.running_mean"], means[kept])


def test_buffers_follow_unequal_shares_and_not_the_weights():
    """The rule gives shares .7 .3 0 0 under uniform weights: 0.7 · 1 + 0.3 · 2 = 1.3."""

    def rule(updates: torch.Tensor, weights: torch.Tensor | None = None) -> Aggregate:
        shares = torch.tensor([0.7, 0.3, 0.0, 0.0], dtype=torch.float64)
        return Aggregate(shares.float() @ updates, shares=shares)

    one = federation(norm=True, aggregator=rule)
    round_ = play_round(one)
    next(round_)
    buffers = {
        "1.running_mean": torch.tensor([[1.0], [2.0], [50.0], [1e6]]).repeat(1, 2),
        "1.running_var": torch.tensor([[1.0], [3.0], [50.0], [1e6]]).repeat(1, 2),
        "1.num_batches_tracked": torch.full((4,), 9),
    }
    finish(round_, Delivery([reply(range(4), updates_of(4, 10), [1, 2, 3, 4], **buffers)], [], 1.0))
    torch.testing.assert_close(one.state.buffers["1.running_mean"], torch.tensor([1.3, 1.3]))
    torch.testing.assert_close(one.state.buffers["1.running_var"], torch.tensor([1.6, 1.6]))


def test_evaluation_happens_every_k_rounds_and_at_the_end():
    one = federation(evaluate_every=4)
    evaluated = []
    for _ in range(10):
        round_ = play_round(one)
        next(round_)
        row = finish(round_, Delivery([reply(range(4), updates_of(4), [1, 1, 1, 1])], [], 1.0))
        if row["clean_accuracy"] is not None:
            evaluated.append(row["round"])
    assert evaluated == [4, 8, 10]


def test_round_zero_is_the_initial_model():
    row = evaluate_model(federation())
    assert row["round"] == 0
    assert row["clean_accuracy"] == 0.5, "a zero model says class 0 to all, half the labels"
    assert row["attack_success_rate"] is None


def test_rounds_replace_the_states_tensors_and_never_write_to_them():
    """What makes a reference a snapshot, for checkpoints and for messages by reference."""
    one = federation(norm=True)
    vector, buffers = one.state.vector, one.state.buffers
    copies = vector.clone(), {name: values.clone() for name, values in buffers.items()}
    round_ = play_round(one)
    next(round_)
    stacked = {name: torch.stack([values + 1] * 4) for name, values in buffers.items()}
    finish(round_, Delivery([reply(range(4), updates_of(4, 10), [1, 1, 1, 1], **stacked)], [], 1.0))
    assert torch.equal(vector, copies[0])
    assert all(torch.equal(buffers[name], copies[1][name]) for name in buffers)
    assert not torch.equal(one.state.vector, vector)


def test_too_few_updates_for_the_rule_leave_the_model_as_it_is():
    """Two of four clients answer; Krum with f = ⌊0.3 · 2⌋ = 0 needs 3."""
    one = federation(aggregator=Krum(assumed_fraction=0.3))
    before = one.state.vector.clone()
    round_ = play_round(one)
    next(round_)
    row = finish(round_, Delivery([reply([0, 1], updates_of(2), [10, 10])], [], 1.0))
    assert row["refusal"] == "Krum needs n >= 2f + 3, got n=2, f=0"
    assert torch.equal(one.state.vector, before)
    assert one.state.round_number == 1


def test_the_rule_and_the_servers_optimiser_find_what_they_remembered():
    """FedAvgM after centred clipping that clips nothing: steps u, then 0.5 u + u; the centre is the last answer."""
    one = federation(aggregator=CentredClipping(max_norm=1e6, num_iterations=1), optimizer=ServerMomentum(beta=0.5))
    u = updates_of(4)
    u[1:] = u[0]
    for _ in range(2):
        round_ = play_round(one)
        next(round_)
        finish(round_, Delivery([reply([0, 1, 2, 3], u, [10, 10, 10, 10])], [], 1.0))
    torch.testing.assert_close(one.state.vector, 2.5 * u[0])
    assert sorted(name.split(".")[0] for name in one.state.memory) == ["optimizer", "rule"]
    torch.testing.assert_close(one.state.memory["rule.aggregator.centre"], u[0])


def test_the_servers_own_update_reaches_the_rule_that_trusts_it():
    """FLTrust with the root update u0: u1 = -u0 has no trust, so the model moves by u0."""
    one = federation(aggregator=FLTrust(), train_root=lambda order: updates_of(1)[0])
    u = torch.stack([updates_of(1)[0], -updates_of(1)[0]])
    round_ = play_round(one)
    next(round_)
    row = finish(round_, Delivery([reply([0, 1], u, [10, 10])], [], 1.0))
    torch.testing.assert_close(one.state.vector, u[0])
    assert row["shares"] == [1.0, 0.0]
    assert row["seconds_root"] >= 0


def test_what_attackers_compute_is_no_time_of_the_rule():
    """An attack that takes a tenth of a second, under a rule that takes a millisecond."""

    class Slow:
        needs = uses = "own"

        def __call__(self, knowledge):
            time.sleep(0.1)
            return knowledge.own_updates

    attack = Attack(malicious_clients=[1], schedule=Schedule(rounds=[1]), update=Slow())
    one = federation(attack=attack, malicious=(1,))
    round_ = play_round(one)
    next(round_)
    row = finish(round_, Delivery([reply(range(4), updates_of(4), [1, 1, 1, 1])], [], 1.0))
    assert row["seconds_attack"] >= 0.1
    assert row["seconds_aggregation"] < 0.1


def test_a_flag_that_clients_set_stays_the_servers_and_is_pointed_out():
    """As the flag of a layer that initialises itself: it would do so in every round."""
    one = federation(norm=True)
    one.model.register_buffer("is_initialised", torch.tensor(False))
    one.state.buffers["is_initialised"] = torch.tensor(False)
    round_ = play_round(one)
    next(round_)
    stacked = {name: torch.stack([values] * 4) for name, values in one.state.buffers.items()}
    stacked["is_initialised"] = torch.tensor([True, True, False, True])
    stacked["1.num_batches_tracked"] += 5
    row = finish(round_, Delivery([reply(range(4), updates_of(4, 10), [1, 1, 1, 1], **stacked)], [], 1.0))
    assert row["notices"] == ["buffer 'is_initialised' (bool) stays as the server has it, whatever clients make of it"]
    assert not bool(one.state.buffers["is_initialised"])
