"""Small networks that know the digits, trained in seconds by one client, as attackers of deployed models find them."""

import functools

import torch

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.bit_flip_attack import load
from fedrobust.attacks.deployed_model.quantisation import StoredModel
from fedrobust.config.compose import compose_config
from fedrobust.scenario import build_scenario, prepare

SETTING = [
    *["attack=none", "aggregator=mean", "num_clients=1", "num_rounds=1", "client.vectorize=false"],
    *["client.num_epochs=20", "client.batch_size=32"],
]


@functools.cache
def digits_model(seed: int) -> ReceivedModel:
    """The network 64-128-64-10, trained for 20 epochs on 1,297 digits."""
    prepared = prepare(build_scenario(compose_config([*SETTING, f"seed={seed}"])[0]))
    state = prepared.federation.state
    vector = state.vector + prepared.population.train(1, [0], state.vector, state.buffers).updates[0]
    return ReceivedModel(prepared.model, vector, state.buffers, prepared.dataset)


@torch.no_grad()
def answers(received: ReceivedModel, stored: StoredModel, inputs: torch.Tensor) -> torch.Tensor:
    """What the model with these parameters says of raw inputs."""
    module = received.module()
    load(module, stored)
    return module(received.dataset.normalise(inputs)).argmax(dim=1)


def accuracy(received: ReceivedModel, stored: StoredModel, *, without: int | None = None) -> float:
    """On the test set, one example left out if need be."""
    test = received.dataset.test
    right = answers(received, stored, test.inputs) == test.labels
    kept = torch.ones_like(right)
    if without is not None:
        kept[without] = False
    return float(right[kept].double().mean())
