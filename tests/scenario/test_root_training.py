"""The root update, beside a training loop written out here with torch's own optimiser."""

import copy

import pytest
import torch
import torch.nn.functional as F

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.federation.round import Order
from fedrobust.scenario import Prepared, build_scenario, load_dataset, prepare
from fedrobust.scenario.parts import draw_clean_examples


def prepared(*overrides: str) -> Prepared:
    return prepare(build_scenario(compose_config(list(overrides))[0]))


def test_a_rule_that_needs_no_root_update_gets_none():
    assert prepared("aggregator=mean").federation.train_root is None


def test_the_root_update_is_a_benign_step_on_the_drawn_examples():
    """One batch of all root examples: a step of plain SGD. Update: minus rate times gradient."""
    overrides = ["aggregator=fl_trust", "aggregator.num_root_examples=40", "client.batch_size=40"]
    overrides += ["client.num_epochs=1", "client.learning_rate=0.1", "attack=sign_flip"]
    scenario = build_scenario(compose_config(overrides)[0])
    one, dataset = prepare(scenario), load_dataset(scenario)
    drawn = draw_clean_examples(scenario, dataset, 40, "aggregator.num_root_examples", "root")
    model, own = copy.deepcopy(one.model), dataset.train.subset(drawn)
    F.cross_entropy(model(dataset.normalise(own.inputs)), own.labels).backward()
    expected = torch.cat([-0.1 * parameter.grad.reshape(-1) for parameter in model.parameters()])
    state = one.federation.state
    assert one.federation.train_root is not None
    found = one.federation.train_root(Order(1, (0,), state.vector, state.buffers))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_an_audit_of_clients_data_leaves_the_servers_own_alone():
    """Byte for byte the root update of a run without one, though client 0's examples were audited and some dropped."""
    plain = prepared("aggregator=fl_trust")
    audited = prepared(
        "aggregator=fl_trust",
        "audit=spectral_signatures",
        "audit.action=drop_samples",
        "audit.start=1",
        "audit.allow_uncalibrated=true",
    )
    state = plain.federation.state
    order = Order(1, tuple(range(20)), state.vector, state.buffers)
    audited.population.train(1, order.clients, state.vector, state.buffers)
    assert plain.federation.train_root is not None
    assert audited.federation.train_root is not None
    assert torch.equal(plain.federation.train_root(order), audited.federation.train_root(order))


def test_no_more_root_examples_than_there_are():
    with pytest.raises(ConfigError, match=r"aggregator.num_root_examples: must be at most 1297, .* got 1298"):
        prepared("aggregator=fl_trust", "aggregator.num_root_examples=1298")
