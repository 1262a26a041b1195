"""Every attack that a config names, on every engine: the same figures and the same model wherever clients are trained.

The oracle is the plain case, one client a node trained by itself; and, for an attack without attackers, the benign run.
"""

from functools import partial

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from fedrobust.config.building import config_folder
from fedrobust.config.compose import compose_config
from fedrobust.engines import Engine, Local, Ray
from fedrobust.federation.round import Row
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.scenario import build_scenario, prepare
from fedrobust.scenario.population import population_of_config

NUM_CLIENTS = 6
COMMON = (
    f"num_clients={NUM_CLIENTS} num_rounds=2 model=mlp model.hidden_sizes=[16] aggregator=mean device=cpu "
    "partition=dirichlet partition.alpha=1.0 partition.min_examples=10 client.momentum=0.5"
).split()
OWN_DATA = {"explanation_guided", "image_scaling"}
"""They need a data set that is downloaded; their own tests and the contract suite play them on made-up data."""
ATTACKS = sorted(path.stem for path in (config_folder() / "attack").glob("*.yaml") if path.stem not in OWN_DATA)
OWN = {
    "model_replacement": ["attack.schedule.rounds=[2]"],
    "pretrained_backdoor": ["attack.initial_model.training.num_epochs=2"],
    "poison_frogs": ["attack.data.num_steps=5", "attack.data.num_poisons=3"],
}
FEWER = {
    name: ["aggregator=coordinate_median", "attack.num_malicious=1"] for name in ("optimised_alie", "optimised_ipm")
}
"""Four of six against the mean send the model to infinity, and rounding errors with it."""

FIGURES = ("clients", "malicious_clients", "num_received", "num_rejected", "clean_accuracy", "attack_success_rate")


def play(engine: Engine, attack: str, *overrides: str) -> tuple[list[Row], Tensor]:
    """The rounds of a run, and its last model."""
    values, _ = compose_config([*COMMON, f"attack={attack}", *OWN.get(attack, []), *overrides])
    prepared = prepare(build_scenario(values))
    rows: list[Row] = []
    if engine.shares_process:
        client_app = make_client_app(lambda _context: prepared.population)
    else:
        client_app = make_client_app(partial(population_of_config, OmegaConf.to_yaml(OmegaConf.create(values))))
    engine.run(make_server_app(prepared.federation, rows.append), client_app, NUM_CLIENTS)
    return rows, prepared.federation.state.vector


def assert_same(one: tuple[list[Row], Tensor], other: tuple[list[Row], Tensor]) -> None:
    for row, expected in zip(one[0], other[0], strict=True):
        assert {key: row[key] for key in FIGURES} == {key: expected[key] for key in FIGURES}
    assert float((one[1] - other[1]).norm() / other[1].norm()) < 1e-5


@pytest.fixture(scope="module")
def benign() -> tuple[list[Row], Tensor]:
    return play(Local(num_nodes=1), "none")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_cohort_and_clients_one_by_one_agree(attack):
    own = FEWER.get(attack, [])
    cohort = play(Local(num_nodes=1), attack, "client.vectorize=true", *own)
    assert_same(cohort, play(Local(num_nodes=NUM_CLIENTS), attack, "client.vectorize=false", *own))


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack != "pretrained_backdoor"])
def test_without_attackers_it_is_the_benign_run(attack, benign):
    """Byte for byte. (A provider of pretrained models need not be a client: see the tests of that attack.)"""
    rows, vector = play(Local(num_nodes=1), attack, "attack.num_malicious=0")
    assert torch.equal(vector, benign[1])
    for row, expected in zip(rows, benign[0], strict=True):
        assert {key: row[key] for key in FIGURES[:-1]} == {key: expected[key] for key in FIGURES[:-1]}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("attack", ATTACKS)
def test_ray_plays_what_one_process_plays(attack):
    own = FEWER.get(attack, [])
    on_ray = play(Ray(num_cpus_per_node=1), attack, *own)
    assert_same(on_ray, play(Local(num_nodes=NUM_CLIENTS), attack, *own))
