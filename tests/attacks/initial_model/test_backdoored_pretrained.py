"""A backdoored pretrained model: who holds which examples, who trains what, what is the same without the trigger."""

import dataclasses

import pytest
import torch

from fedrobust.attacks import Attack, BackdooredPretrained
from fedrobust.config.component import FieldError
from fedrobust.config.compose import compose_config
from fedrobust.models.features import head_name
from fedrobust.parameters import ParameterLayout
from fedrobust.scenario import Prepared, build_scenario, prepare, prepare_clients
from fedrobust.training.local_training import LocalTraining, TrainingOverrides

SMALL = ["attack=pretrained_backdoor", "aggregator=mean", "num_clients=5", "attack.initial_model.training.num_epochs=2"]


def made(*overrides: str) -> Prepared:
    return prepare(build_scenario(compose_config([*SMALL, *overrides])[0]))


def test_provider_and_clients_share_out_the_examples():
    provider = BackdooredPretrained(provider_fraction=0.3)
    own, rest = provider.divide(101, torch.Generator().manual_seed(1))
    assert (len(own), len(rest)) == (30, 71)
    assert torch.equal(torch.cat([own, rest]).sort().values, torch.arange(101))
    other, _ = provider.divide(101, torch.Generator().manual_seed(2))
    assert not torch.equal(own, other)


def test_shared_examples_are_all_the_clients_too():
    provider = BackdooredPretrained(provider_fraction=1.0, shared_examples=True)
    own, rest = provider.divide(7, torch.Generator().manual_seed(1))
    assert torch.equal(own, torch.arange(7))
    assert torch.equal(rest, torch.arange(7))


@pytest.mark.parametrize(("fraction", "num_examples"), [(0.01, 10), (0.99, 10)])
def test_neither_side_may_be_left_without_examples(fraction, num_examples):
    with pytest.raises(FieldError, match="provider_fraction: must leave one of 10 training examples"):
        BackdooredPretrained(provider_fraction=fraction).divide(num_examples, torch.Generator())


def test_nothing_is_left_where_the_provider_holds_all():
    with pytest.raises(FieldError, match="provider_fraction: must be below 1 unless shared_examples is true"):
        BackdooredPretrained(provider_fraction=1.0)


def test_a_malicious_provider_needs_something_to_carry_out():
    with pytest.raises(FieldError, match=r"initial_model\.malicious: must be false without a data or loss attack"):
        Attack(num_malicious=0, initial_model=BackdooredPretrained())
    Attack(num_malicious=0, initial_model=BackdooredPretrained(malicious=False))


def test_the_provider_trains_all_layers_by_its_own_programme():
    benign = LocalTraining(learning_rate=0.3, num_epochs=1, trained_layers="head")
    program = BackdooredPretrained(training=TrainingOverrides(num_epochs=7)).program(benign)
    assert program == LocalTraining(learning_rate=0.3, num_epochs=7, trained_layers="all")


def test_clients_hold_none_of_the_providers_examples():
    """No training picture of digits occurs twice, so that bytes tell pictures apart."""
    prepared = made()
    dataset = prepared.dataset
    whole = build_scenario(compose_config(SMALL)[0]).dataset.load(None, torch.device("cpu"))
    kept = {image.numpy().tobytes() for image in dataset.train.inputs}
    assert len(kept) == len(dataset.train) == len(whole.train) - round(0.5 * len(whole.train))
    assert kept < {image.numpy().tobytes() for image in whole.train.inputs}
    assert sorted(torch.cat(prepared.population.assignment).tolist()) == list(range(len(dataset.train)))
    assert torch.equal(dataset.mean, whole.mean)


def test_the_same_seed_gives_the_same_model_and_another_another():
    first, again, other = made(), made(), made("seed=1")
    assert torch.equal(first.federation.state.vector, again.federation.state.vector)
    assert not torch.equal(first.federation.state.vector, other.federation.state.vector)


def test_a_process_with_clients_alone_has_the_same_clients():
    prepared = made()
    clients = prepare_clients(build_scenario(compose_config(SMALL)[0]))
    assert torch.equal(clients.dataset.train.inputs, prepared.population.dataset.train.inputs)
    pairs = zip(clients.assignment, prepared.population.assignment, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_new_head_is_fresh_and_the_same_for_both_providers():
    """All else is the pretrained model's; the fresh head is neither it nor that of the model before pretraining."""
    plain, attacked = made(), made("attack.initial_model.new_head=true")
    clean = made("attack.initial_model.new_head=true", "attack.initial_model.malicious=false")
    layout, head = ParameterLayout.of(plain.model), head_name(plain.model)
    views = [layout.views(one.federation.state.vector) for one in (plain, attacked, clean)]
    for name in layout.names:
        is_head = name.startswith(f"{head}.")
        assert torch.equal(views[0][name], views[1][name]) != is_head
        assert torch.equal(views[1][name], views[2][name]) == is_head
        if is_head:
            assert not torch.equal(views[1][name], dict(plain.model.named_parameters())[name])


def test_the_twin_has_a_benign_provider_with_the_same_examples():
    scenario = build_scenario(compose_config([*SMALL, "attack.num_malicious=2"])[0])
    twin = scenario.benign_twin()
    assert not scenario.has_clean_start
    assert twin.has_clean_start
    assert twin.attack.initial_model == dataclasses.replace(scenario.attack.initial_model, malicious=False)
    assert twin.attack.data == scenario.attack.data
    assert twin.attack.choose_malicious(5, 0) == ()


def test_a_benign_provider_never_looks_at_the_attack():
    """The same bytes whatever the trigger is, and without any."""
    benign = "attack.initial_model.malicious=false"
    plain = made(benign).federation.state.vector
    assert torch.equal(plain, made(benign, "attack.data.target_label=5").federation.state.vector)
    assert torch.equal(plain, made(benign, "attack.data=null").federation.state.vector)
    assert not torch.equal(plain, made().federation.state.vector)


def test_an_audit_of_clients_data_leaves_the_provider_alone():
    """It is no client: the same bytes whatever is dropped from the clients' examples in round 1."""
    audit = [
        "audit=spectral_signatures",
        "audit.action=drop_samples",
        "audit.auditor=client",
        "audit.start=1",
        "audit.allow_uncalibrated=true",
    ]
    assert torch.equal(made().federation.state.vector, made(*audit).federation.state.vector)
