"""What every update attack promises, over a table of all update attacks."""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from fedrobust.aggregators import CentredClipping, Mean, TrimmedMean
from fedrobust.attacks import (
    ALIE,
    IPM,
    UPDATE_ATTACKS,
    Attack,
    FangKrum,
    FangTrimmedMean,
    Gaussian,
    Knowledge,
    Mimic,
    MinMax,
    MinSum,
    ModelReplacement,
    Neurotoxin,
    OptimisedALIE,
    OptimisedIPM,
    ProjectedGradient,
    SignFlip,
    UpdateAttack,
    Zero,
)
from fedrobust.attacks.base import LEVELS, RememberingAttack
from fedrobust.config.building import config_folder
from fedrobust.config.compose import compose_config
from fedrobust.federation.collection import Reply
from fedrobust.federation.round import Delivery, play_round
from fedrobust.records.checkpoint import Checkpoint
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs.resuming import restore
from fedrobust.scenario import Prepared, build_scenario, prepare
from fedrobust.seeds import torch_generator
from fedrobust.study import play_rounds

CASES: dict[str, UpdateAttack] = {
    "alie": ALIE(),
    "alie_z": ALIE(z=1.0),
    "ipm": IPM(),
    "min_max": MinMax(),
    "min_max_unit": MinMax(perturbation="unit"),
    "min_max_sign": MinMax(perturbation="sign"),
    "min_sum": MinSum(),
    "min_sum_min": MinSum(bound="min"),
    "fang_trimmed_mean": FangTrimmedMean(),
    "fang_krum": FangKrum(),
    "gaussian": Gaussian(),
    "mimic": Mimic(),
    "mimic_client": Mimic(client=5),
    "model_replacement": ModelReplacement(),
    "neurotoxin": Neurotoxin(top_fraction=0.3),
    "optimised_alie": OptimisedALIE(num_evaluations=6),
    "optimised_ipm": OptimisedIPM(num_evaluations=6),
    "projected_gradient": ProjectedGradient(scale_factor=5.0),
    "sign_flip": SignFlip(),
    "zero": Zero(),
}
assert {type(attack) for attack in CASES.values()} == set(UPDATE_ATTACKS)

DRAWS = ("gaussian", "fang_trimmed_mean", "mimic", "mimic_client")
"""Attacks that draw: an attacker's numbers go by its place among them, a direction's by coordinate."""

CHOICES = [
    path.stem
    for path in (config_folder() / "attack").glob("*.yaml")
    if path.stem != "dba" and any(f"fedrobust.attacks.{kind.__name__}\n" in path.read_text() for kind in UPDATE_ATTACKS)
]

ALL = pytest.mark.parametrize("name", CASES)
M, D = 4, 23
RULE = TrimmedMean(assumed_fraction=0.25)


def knowledge(name: str, dtype: torch.dtype = torch.float64, order: list[int] | None = None) -> Knowledge:
    """All that there is to know of a round of 16 clients, the attackers being the first four."""
    updates = torch.randn(16, D, generator=torch_generator(0, name), dtype=torch.float64).to(dtype) + 0.2
    own, benign = updates[:M], updates[M:]
    clients = list(range(M, 16))
    if order is not None:
        benign, clients = benign[order], [clients[index] for index in order]
    return Knowledge(
        own,
        torch.full((M,), 1 / 16, dtype=torch.float64),
        1.0,
        16,
        benign_updates=benign,
        benign_weights=torch.full((12,), 1 / 16, dtype=torch.float64),
        benign_clients=tuple(clients),
        answer=lambda sent: RULE(torch.cat([sent, benign])).update,
        model_change=torch.linspace(-1, 1, D).to(dtype),
        generator=torch_generator(0, "update attack", 1),
    )


def send(name: str, told: Knowledge) -> Tensor:
    attack = CASES[name]
    if isinstance(attack, RememberingAttack):
        told = dataclasses.replace(told, memory=attack.remember(told))
    return attack(told)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_device_are_kept_and_numbers_are_finite(name, dtype):
    told = knowledge(name, dtype)
    sent = send(name, told)
    assert (sent.shape, sent.dtype, sent.device) == (told.own_updates.shape, dtype, told.own_updates.device)
    assert bool(sent.isfinite().all())


@ALL
def test_what_attackers_know_is_not_written_to(name):
    told = knowledge(name)
    kept = {one.name: getattr(told, one.name) for one in dataclasses.fields(told)}
    copies = {key: value.clone() for key, value in kept.items() if isinstance(value, Tensor)}
    send(name, told)
    for key, before in copies.items():
        assert torch.equal(kept[key], before), key


@ALL
def test_the_same_generator_gives_the_same_bytes(name):
    assert torch.equal(send(name, knowledge(name)), send(name, knowledge(name)))


@ALL
def test_randomness_is_the_generators_alone(name):
    torch.manual_seed(1)
    first = send(name, knowledge(name))
    torch.manual_seed(2)
    assert torch.equal(first, send(name, knowledge(name)))


@ALL
def test_the_order_of_benign_clients_is_irrelevant(name):
    order = torch.randperm(12, generator=torch_generator(3, "order")).tolist()
    torch.testing.assert_close(send(name, knowledge(name)), send(name, knowledge(name, order=order)))


@pytest.mark.parametrize("name", [name for name in CASES if name not in DRAWS])
def test_attackers_in_another_order_send_the_same_in_that_order(name):
    told = knowledge(name)
    order = [2, 0, 3, 1]
    permuted = dataclasses.replace(told, own_updates=told.own_updates[order])
    torch.testing.assert_close(send(name, permuted), send(name, told)[order])


@ALL
def test_attackers_make_do_with_what_they_say_they_need(name):
    """Benign updates and the server are taken away down to `needs`; `Attack` refuses what lies below."""
    attack = CASES[name]
    told = knowledge(name)
    if attack.needs == "own":
        told = dataclasses.replace(told, benign_updates=None, benign_weights=None, benign_clients=None)
    if attack.needs != "server":
        told = dataclasses.replace(told, answer=None)
    assert bool(send(name, told).isfinite().all())
    for level in LEVELS[: LEVELS.index(attack.needs)]:
        with pytest.raises(ValueError, match=f"knowledge: must be .*, got '{level}'"):
            Attack(num_malicious=1, update=attack, knowledge=level)
    assert LEVELS.index(attack.needs) <= LEVELS.index(attack.uses)


@ALL
def test_a_single_attacker_among_two_clients_is_no_error(name):
    told = knowledge(name)
    benign = told.benign_updates[:1]
    few = dataclasses.replace(
        told,
        own_updates=told.own_updates[:1],
        own_weights=told.own_weights[:1],
        num_clients=2,
        benign_updates=benign,
        benign_weights=told.benign_weights[:1],
        benign_clients=told.benign_clients[:1],
        answer=lambda sent: torch.cat([sent, benign]).mean(dim=0),
    )
    assert bool(send(name, few).isfinite().all())


@ALL
def test_attackers_without_any_benign_client_are_no_error(name):
    told = knowledge(name)
    alone = dataclasses.replace(
        told,
        num_clients=M,
        benign_updates=told.benign_updates[:0],
        benign_weights=told.benign_weights[:0],
        benign_clients=(),
        answer=lambda sent: sent.mean(dim=0),
    )
    assert bool(send(name, alone).isfinite().all())


# In rounds of a small federation


COMMON = [
    *["model=logistic", "num_clients=8", "num_rounds=4", "client.num_epochs=1", "client.batch_size=32"],
    *["aggregator=trimmed_mean", "aggregator.assumed_fraction=0.25", "dataset.num_test=1300", "evaluate_every=4"],
]
MEMORIES = ("preaggregator=[client_momentum]", "server_optimizer=adam")


@functools.cache
def composed(attack: str, extra: tuple[str, ...] = ()) -> dict[str, object]:
    return compose_config([*COMMON, f"attack={attack}", *extra])[0]


def scenario(attack: str, extra: tuple[str, ...] = (), **changes: object) -> Prepared:
    """A small federation; `changes` are by key, with __ for a dot."""
    values = copy.deepcopy(composed(attack, extra))
    for key, value in changes.items():
        *path, last = key.split("__")
        functools.reduce(dict.__getitem__, path, values)[last] = value
    return prepare(build_scenario(values))


def attacked(attack: str, extra: tuple[str, ...] = (), **changes: object) -> Prepared:
    """Two of eight attack in every round; an optimised attack asks the server six times."""
    if attack.startswith("optimised"):
        changes = {"attack__update__num_evaluations": 6, **changes}
    return scenario(attack, extra, **{"attack__num_malicious": 2, "attack__schedule__rounds": None, **changes})


@pytest.fixture(scope="module")
def benign() -> Prepared:
    prepared = scenario("none")
    play_rounds(prepared, 2)
    return prepared


def test_there_is_a_config_for_every_update_attack():
    assert len(CHOICES) == len(UPDATE_ATTACKS)


@pytest.mark.parametrize("name", CHOICES)
def test_with_nobody_malicious_it_is_the_benign_run(name, benign):
    """Byte for byte, and nothing is remembered."""
    prepared = attacked(name, attack__num_malicious=0)
    rows = play_rounds(prepared, 2)
    assert torch.equal(prepared.federation.state.vector, benign.federation.state.vector)
    assert dict(prepared.federation.state.memory) == {}
    assert not any(row["attack_active"] for row in rows)


@pytest.mark.parametrize("name", CHOICES)
def test_clients_one_by_one_on_nodes_of_their_own_or_together(name, benign):
    """One node for all or one a client: the same bytes. As a cohort: the same up to the rounding of training."""
    one_by_one = attacked(name, client__vectorize=False)
    rows = play_rounds(one_by_one, 2)
    assert all(row["attack_active"] and row["num_rejected"] == 0 for row in rows)
    assert not torch.equal(one_by_one.federation.state.vector, benign.federation.state.vector)
    apart = attacked(name, client__vectorize=False)
    play_rounds(apart, 2, num_nodes=8)
    assert torch.equal(one_by_one.federation.state.vector, apart.federation.state.vector)
    together = attacked(name, client__vectorize=True)
    for one, other in zip(rows, play_rounds(together, 2), strict=True):
        assert other["update_norm_malicious"] == pytest.approx(one["update_norm_malicious"], rel=1e-3)


@pytest.mark.parametrize("name", CHOICES)
def test_the_order_in_which_replies_arrive_is_irrelevant(name):
    """Byte for byte: rows are sorted by client id before attackers look at them."""
    ends = []
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [5, 2, 7, 0, 6, 1, 4, 3]):
        prepared = attacked(name)
        state = prepared.federation.state
        for _ in range(2):
            round_ = play_round(prepared.federation)
            request = next(round_)
            trained = prepared.population.train(request.round_number, request.clients, state.vector, state.buffers)
            replies = [
                Reply(
                    (client,), trained.updates[[client]].clone(), trained.num_examples[[client]], torch.zeros(1), {}, 0
                )
                for client in order
            ]
            with pytest.raises(StopIteration):
                round_.send(Delivery(replies, [], 1.0))
        ends.append(state.vector)
    assert torch.equal(ends[0], ends[1])


@pytest.mark.parametrize("name", ["neurotoxin", "mimic", "optimised_alie"])
@pytest.mark.parametrize("rule", [(), MEMORIES])
def test_a_checkpoint_holds_all_that_attackers_remember(name, rule, tmp_path):
    """Two rounds, a checkpoint, and two more by another process' federation: the bytes of four rounds."""
    whole = attacked(name, rule)
    play_rounds(whole, 4)
    first, second = attacked(name, rule), attacked(name, rule)
    play_rounds(first, 2)
    state = first.federation.state
    folder = RunFolder(Path(tmp_path))
    folder.create(resume=True)
    memory = {f"memory/{key}": values for key, values in state.memory.items()}
    tensors = first.federation.layout.views(state.vector) | memory
    folder.save_checkpoint(Checkpoint(2, tensors, {"seconds": 0.0}))
    restore(second.federation, folder, folder.load_checkpoint())
    play_rounds(second, 2)
    assert torch.equal(whole.federation.state.vector, second.federation.state.vector)
    assert_equal_memories(whole.federation.state.memory, second.federation.state.memory)


def assert_equal_memories(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert sorted(first) == sorted(second)
    for key, values in first.items():
        assert torch.equal(values, second[key]), key


def test_asking_the_server_leaves_its_memory_as_it_is():
    """Against the plain mean the largest factor is the best, so a fixed one of that size must end with the same bytes.

    Client momentum and Adam remember, and centred clipping does in the rule's place below.
    """
    plain = attacked("ipm", MEMORIES, attack__update__epsilon=12.5)
    asking = attacked("optimised_ipm", MEMORIES, attack__update__max_factor=12.5)
    for prepared in (plain, asking):
        object.__setattr__(prepared.federation.aggregation.rule, "aggregator", Mean())
        play_rounds(prepared, 2)
    assert_equal_memories(plain.federation.state.memory, asking.federation.state.memory)
    assert torch.equal(plain.federation.state.vector, asking.federation.state.vector)


def test_a_rule_with_memory_answers_questions_from_it_and_keeps_it():
    """Centred clipping: what is remembered after a round is its answer to what was sent, not to what was asked."""
    prepared = attacked("optimised_alie")
    object.__setattr__(prepared.federation.aggregation.rule, "aggregator", CentredClipping())
    state = prepared.federation.state
    before = state.vector
    play_rounds(prepared, 1)
    torch.testing.assert_close(state.memory["rule.aggregator.centre"], state.vector - before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CHOICES)
def test_every_field_of_an_attack_stands_in_its_config(name):
    node = OmegaConf.load(config_folder() / "attack" / f"{name}.yaml")["update"]
    kind = next(kind for kind in UPDATE_ATTACKS if node._target_ == f"fedrobust.attacks.{kind.__name__}")
    assert {key for key in node if key != "_target_"} == {one.name for one in dataclasses.fields(kind)}
