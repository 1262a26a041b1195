"""What every data attack promises, over a table of all of them."""

import inspect

import pytest
import torch
from attack_cases import CASES, MALICIOUS, SIZES, Case, crafted, make_dataset, make_population, one_by_one

import fedrobust.attacks.data
from fedrobust.attacks import Attack, DataAttack
from fedrobust.data.datasets import Examples

EVERYONE = range(len(SIZES))


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def poison(case: Case, examples: Examples, attacker: int = 0, seed: int = 5) -> Examples:
    """All that the attack does to data: to a client's examples, then to a batch, here of all of them."""
    attack = crafted(case, examples.inputs.device)
    return attack.poison_batch(attack.poison(examples, attacker, generator(seed)), attacker)


def copy(examples: Examples) -> Examples:
    return Examples(examples.inputs.clone(), examples.labels.clone())


def assert_equal(one: Examples, other: Examples) -> None:
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.labels, other.labels)


def test_the_table_has_every_data_attack():
    classes = {getattr(fedrobust.attacks.data, name) for name in fedrobust.attacks.data.__all__}
    assert {type(case.attack) for case in CASES.values()} == {one for one in classes if inspect.isclass(one)}
    assert all(isinstance(case.attack, DataAttack) for case in CASES.values())


def test_inputs_are_not_written_to(case):
    examples = make_dataset(case.shape).train
    before = copy(examples)
    for attacker in range(4):
        poison(case, examples, attacker)
    assert_equal(examples, before)


def test_type_shape_and_range_are_kept(case):
    examples = make_dataset(case.shape).train
    poisoned = poison(case, examples)
    assert (poisoned.inputs.dtype, poisoned.labels.dtype) == (torch.float32, torch.int64)
    assert poisoned.inputs.device == examples.inputs.device
    assert poisoned.inputs.shape[1:] == examples.inputs.shape[1:]
    assert 0 <= float(poisoned.inputs.min()) <= float(poisoned.inputs.max()) <= 1
    assert (len(poisoned) > len(examples)) == case.adds
    assert len(poisoned) >= len(examples)


def test_something_is_poisoned_and_labels_are_as_promised(case):
    """Clean-label attacks change none; the others give a new label, and what they stamp has the promised one."""
    examples = make_dataset(case.shape).train
    poisoned = poison(case, examples)
    own = slice(0, len(examples))
    stamped = (poisoned.inputs[own] != examples.inputs).flatten(1).any(dim=1)
    relabelled = poisoned.labels[own] != examples.labels
    if case.adds:
        assert not bool((stamped | relabelled).any())
        assert set(poisoned.labels[len(examples) :].tolist()) == {case.new_label}
    elif case.clean_label:
        assert not bool(relabelled.any())
        assert bool(stamped.any())
    else:
        assert bool(relabelled.any())
        assert not bool((stamped & ~relabelled).any())
        if case.new_label is not None:
            assert (poisoned.labels[relabelled] == case.new_label).all()


def test_the_same_generator_gives_the_same_bytes(case):
    examples = make_dataset(case.shape).train
    assert_equal(poison(case, examples), poison(case, copy(examples)))


def test_what_is_wanted_is_a_class_for_each_example(case):
    test = make_dataset(case.shape).test
    before = copy(test)
    wanted = case.attack.wanted_labels(test)
    assert_equal(test, before)
    if wanted is not None:
        assert (wanted.shape, wanted.dtype, wanted.device) == (test.labels.shape, torch.int64, test.labels.device)
        assert bool((wanted != test.labels).any())
        assert 0 <= int(wanted.min()) <= int(wanted.max()) < 3


def test_triggers_leave_the_test_set_alone(case):
    test = make_dataset(case.shape).test
    before = copy(test)
    for part in case.attack.local_triggers(case.shape):
        stamped = part.stamp(test.inputs)
        assert (stamped.shape, stamped.dtype) == (test.inputs.shape, test.inputs.dtype)
        assert not torch.equal(stamped, test.inputs)
        torch.testing.assert_close(part.stamp(test.inputs[3:5]), stamped[3:5], atol=1e-6, rtol=0)
    assert_equal(test, before)


def test_training_leaves_the_shared_data_alone(case):
    population, vector = make_population(case)
    before, received = copy(population.dataset.train), vector.clone()
    population.train(1, EVERYONE, vector, {})
    one_by_one(population).train(1, EVERYONE, vector, {})
    assert_equal(population.dataset.train, before)
    assert torch.equal(vector, received)


def test_a_cohort_trains_as_one_by_one_in_any_order(case):
    """Rows of a cohort, asked in reverse, against each client asked alone and trained alone: 1e-5 relative."""
    population, vector = make_population(case)
    together = population.train(1, list(reversed(EVERYONE)), vector, {}).updates
    alone = one_by_one(population)
    for client in EVERYONE:
        own = alone.train(1, [client], vector, {}).updates[0]
        assert float((together[client] - own).norm() / own.norm()) <= 1e-5


def test_attackers_alone_train_on_other_data(case):
    """Against the same clients without an attack: the benign rows are the same bytes, some malicious ones differ."""
    population, vector = make_population(case)
    benign, _ = make_population(case, Attack(num_malicious=0))
    attacked = one_by_one(population).train(1, EVERYONE, vector, {}).updates
    clean = one_by_one(benign).train(1, EVERYONE, vector, {}).updates
    differs = [bool((one != other).any()) for one, other in zip(attacked, clean, strict=True)]
    assert any(differs[client] for client in MALICIOUS)
    assert not any(differs[client] for client in EVERYONE if client not in MALICIOUS)


@pytest.mark.parametrize("vectorize", [True, False])
def test_without_malicious_clients_it_is_the_benign_run(case, vectorize):
    """Byte for byte."""
    attack = Attack(num_malicious=0, data=case.attack)
    idle, vector = make_population(case, attack, vectorize)
    benign, _ = make_population(case, Attack(num_malicious=0), vectorize)
    one, other = idle.train(1, EVERYONE, vector, {}), benign.train(1, EVERYONE, vector, {})
    assert torch.equal(one.updates, other.updates)
    assert torch.equal(one.losses, other.losses)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_is_kept(case):
    examples = make_dataset(case.shape).train
    there = examples.to(torch.device("cuda"))
    poisoned = poison(case, there)
    assert poisoned.inputs.device == there.inputs.device
    torch.testing.assert_close(poisoned.inputs.cpu(), poison(case, examples).inputs, atol=1e-5, rtol=0)
    assert torch.equal(poisoned.labels.cpu(), poison(case, examples).labels)
