"""Whatever the module: the same figures however it is trained, or one clear refusal before training."""

import functools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kinds_of_module import KINDS, Made, Picky

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.parameters import saved_tensors
from fedrobust.scenario import Prepared, Scenario, build_scenario, prepare
from fedrobust.study import play_rounds

SMALL = [
    "attack=none",
    "aggregator=mean",
    "num_clients=4",
    "num_rounds=2",
    "evaluate_every=2",
    "client.num_epochs=1",
    "client.batch_size=81",  # 324 or 325 examples each: a last batch of one
]
TRAINED = [name for name, kind in KINDS.items() if kind.expected != "refused"]
REFUSED = [name for name, kind in KINDS.items() if kind.expected == "refused"]


@functools.cache
def small_scenario(*overrides: str) -> Scenario:
    return build_scenario(compose_config([*SMALL, *overrides])[0])


def prepared(name: str, *overrides: str) -> Prepared:
    return prepare(replace(small_scenario(*overrides), model=Made(make=KINDS[name].make)))


def played(name: str, *overrides: str, num_nodes: int = 1, cut: bool = False, before: int = 0) -> dict[str, Any]:
    """What two rounds come to; `cut`: each in a process of its own; `before`: how far global generators have gone."""
    torch.manual_seed(before)
    random.seed(before)
    np.random.seed(before)  # noqa: NPY002
    one = prepared(name, *overrides)
    rows = play_rounds(one, 1 if cut else None, num_nodes=num_nodes)
    if cut:
        other = prepared(name, *overrides)
        state, left = other.federation.state, one.federation.state
        state.round_number, state.vector, state.buffers = left.round_number, left.vector.clone(), dict(left.buffers)
        rows += play_rounds(other, num_nodes=num_nodes)
        one = other
    state = one.federation.state
    figures = ("clean_accuracy", "clean_loss", "train_loss", "num_received", "rejected")
    return {
        "vector": state.vector,
        **{f"buffer {key}": values for key, values in state.buffers.items()},
        **{f"{key} {index}": row[key] for index, row in enumerate(rows) for key in figures},
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[key], value, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
        elif isinstance(value, float):
            assert found[key] == pytest.approx(value, rel=10 * tolerance, abs=0.01 if tolerance else 0.0), key
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("name", TRAINED)
def test_the_figures_do_not_depend_on_how_it_is_trained(name: str) -> None:
    kind = KINDS[name]
    start = prepared(name)
    initial = start.federation.state.vector
    generators = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1])  # noqa: NPY002
    rows = play_rounds(start)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.array_equal(np.random.get_state()[1], generators[2])  # noqa: NPY002
    assert [row["num_rejected"] for row in rows] == [0, 0]
    assert not torch.equal(start.federation.state.vector, initial)
    assert rows[1]["train_loss"] < rows[0]["train_loss"]

    first = played(name)
    assert torch.equal(first["vector"], start.federation.state.vector)
    assert_same(played(name, before=7), first)
    assert_same(played(name, num_nodes=4), first)
    assert_same(played(name, num_nodes=2, cut=True), first)
    assert_same(played(name, "client.vectorize=false"), first, tolerance=0.0 if kind.expected == "alone" else 1e-3)
    if kind.expected == "cohort":
        assert_same(played(name, "client.vectorize=true"), first)


@pytest.mark.parametrize("name", TRAINED)
def test_a_line_says_that_a_cohort_will_not_do(name: str) -> None:
    kind, one = KINDS[name], prepared(name)
    assert one.population.can_vectorize == (kind.expected == "cohort")
    said = [notice for notice in one.federation.notices if "one by one" in notice]
    assert len(said) == (1 if kind.message else 0)
    assert all(str(kind.message) in notice and "\n" not in notice for notice in said)
    if kind.expected == "alone":
        with pytest.raises(ConfigError, match=r"^client\.vectorize: must be false or auto for this model, got true: "):
            prepared(name, "client.vectorize=true")


@pytest.mark.parametrize("vectorize", ["auto", "true", "false"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_before_training(name: str, vectorize: str) -> None:
    with pytest.raises(ConfigError, match=str(KINDS[name].message)) as refusal:
        prepared(name, f"client.vectorize={vectorize}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("vectorize", ["auto", "false"])
@pytest.mark.parametrize("name", [name for name in TRAINED if name.startswith("frozen")])
def test_what_is_frozen_stays(name: str, vectorize: str) -> None:
    one = prepared(name, f"client.vectorize={vectorize}", "attack=gaussian", "attack.num_malicious=1")
    before = {key: values.clone() for key, values in one.model.state_dict().items()}
    still = {key for key, values in one.model.named_parameters() if not values.requires_grad}
    assert still
    play_rounds(one)
    layout, state = one.federation.layout, one.federation.state
    assert not still & set(layout.names)
    assert len(state.vector) == sum(p.numel() for p in one.model.parameters() if p.requires_grad)
    saved = saved_tensors(one.model, layout.views(state.vector), state.buffers)
    assert saved.keys() == before.keys()
    changed = {key for key, values in saved.items() if not torch.equal(values, before[key])}
    assert changed == set(layout.names)


@pytest.mark.parametrize("name", TRAINED)
def test_the_saved_model_is_a_state_dict(name: str) -> None:
    one = prepared(name)
    play_rounds(one, 1)
    state = one.federation.state
    saved = saved_tensors(one.model, one.federation.layout.views(state.vector), state.buffers)
    fresh = prepared(name).model
    fresh.load_state_dict(saved)
    for key, values in fresh.named_parameters():
        if values.requires_grad:
            assert torch.equal(values, one.federation.layout.views(state.vector)[key])


RAISED = [ValueError("not to my taste"), RuntimeError("boom"), KeyError("x"), SystemExit(3), MemoryError("no room")]


@pytest.mark.parametrize("num_nodes", [1, 2, 4])
@pytest.mark.parametrize("error", RAISED, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("failing", [(2,), (0, 3), (0, 1, 2, 3)])
def test_exactly_the_clients_that_raise_are_rejected(
    failing: tuple[int, ...], error: BaseException, num_nodes: int
) -> None:
    plain = prepared("linear", "num_rounds=1", "evaluate_every=1")
    pictures = [plain.dataset.normalise(plain.dataset.train.inputs[plain.assignment[client][:1]]) for client in failing]
    scenario = small_scenario("num_rounds=1", "evaluate_every=1")
    one = prepare(replace(scenario, model=Made(make=lambda: Picky(torch.cat(pictures), error))))
    (row,) = play_rounds(one, num_nodes=num_nodes)
    assert [each["client"] for each in row["rejected"]] == list(failing)
    assert {each["reason"] for each in row["rejected"]} == {f"failed: {type(error).__name__}: {error}"}
    assert row["clients"] == [client for client in range(4) if client not in failing]
    again = prepare(replace(scenario, model=Made(make=lambda: Picky(torch.cat(pictures), error))))
    play_rounds(again, num_nodes=4)
    assert torch.equal(one.federation.state.vector, again.federation.state.vector)


def test_ctrl_c_is_the_users() -> None:
    plain = prepared("linear")
    picture = plain.dataset.normalise(plain.dataset.train.inputs[plain.assignment[1][:1]])
    scenario = small_scenario()
    one = prepare(replace(scenario, model=Made(make=lambda: Picky(picture, KeyboardInterrupt()))))
    with pytest.raises(KeyboardInterrupt):
        play_rounds(one)


@pytest.mark.parametrize("num_nodes", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 81, 108, 324])
def test_a_last_batch_of_one_joins_its_neighbour(batch_size: int, num_nodes: int) -> None:
    one = prepared("batch norm", f"client.batch_size={batch_size}", "num_rounds=1")
    assert one.population.join_single
    (row,) = play_rounds(one, num_nodes=num_nodes)
    if batch_size > 1:
        assert row["num_rejected"] == 0
        return
    assert row["num_rejected"] == 4
    assert all("more than 1 value per channel" in each["reason"] for each in row["rejected"])


def test_the_built_in_resnet_with_batch_norm_trains_on_digits() -> None:
    overrides = ["model=resnet18", "model.norm=batch", "attack=none", "num_rounds=1", "num_clients=20"]
    one = prepare(build_scenario(compose_config([*overrides, "client.batch_size=32"])[0]))
    order_sizes = [len(indices) for indices in one.assignment]
    assert any(size % 32 == 1 for size in order_sizes) or one.population.join_single
    trained = one.population.train(1, [0, 1], one.federation.state.vector, one.federation.state.buffers)
    assert trained.failures == {}
