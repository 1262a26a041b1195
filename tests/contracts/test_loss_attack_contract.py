"""What every attack on the objective promises, over a table of all of them."""

import inspect

import pytest
import torch
from attack_cases import CASES as DATA_CASES
from attack_cases import MALICIOUS, SIZES, make_dataset, make_population, one_by_one
from torch import Tensor
from torch.func import functional_call

import fedrobust.attacks.loss
from fedrobust.attacks import (
    Attack,
    BlindBackdoor,
    ConstrainAndScale,
    Goal,
    LossAttack,
    NeuralCleanseEvasion,
    Patch,
    Pixels,
)
from fedrobust.clients.population import Population
from fedrobust.data.examples import Examples
from fedrobust.models import MLP
from fedrobust.seeds import seeded_initialisation
from fedrobust.training.step import Batch, Parameters, Step
from fedrobust.types import Vector

CASES: dict[str, LossAttack] = {
    "blind_backdoor": BlindBackdoor(trigger=Patch(), target_label=1),
    "blind_backdoor_none": BlindBackdoor(trigger=Pixels(pixels=[[-1, -1]]), target_label=1, normalisation="none"),
    "blind_backdoor_l2": BlindBackdoor(trigger=Patch(), target_label=1, normalisation="l2"),
    "blind_backdoor_loss": BlindBackdoor(trigger=Patch(), target_label=1, normalisation="loss"),
    "blind_backdoor_waits": BlindBackdoor(trigger=Patch(), target_label=1, loss_threshold=1.1),
    "blind_backdoor_evades": BlindBackdoor(trigger=Patch(), target_label=1, evasion=NeuralCleanseEvasion()),
    "constrain_and_scale": ConstrainAndScale(alpha=0.9),
    "constrain_and_scale_squared": ConstrainAndScale(alpha=0.3, anomaly="squared_euclidean"),
    "constrain_and_scale_cosine": ConstrainAndScale(alpha=0.3, anomaly="cosine"),
}
EVERYONE = range(len(SIZES))


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def attack(request: pytest.FixtureRequest) -> LossAttack:
    return request.param


def population_of(
    attack: LossAttack | None, clients: list[int] = MALICIOUS, vectorize: bool = True
) -> tuple[Population, Vector]:
    """Five clients on pictures; the malicious ones have their examples as they are, and this objective."""
    return make_population(DATA_CASES["badnets"], Attack(malicious_clients=clients, loss=attack), vectorize)


def hand_made_step(attack: LossAttack) -> Step:
    """A step of an MLP that has moved on from the model it received."""
    with seeded_initialisation(0, "model"):
        model = MLP(hidden_sizes=[16]).build((1, 8, 8), 3)
    received = {name: values.detach() for name, values in model.named_parameters()}
    generator = torch.Generator().manual_seed(3)
    own = {name: values + 0.1 * torch.randn(values.shape, generator=generator) for name, values in received.items()}
    examples = make_dataset((1, 8, 8)).train.subset(torch.arange(6))
    batch = Batch(examples.inputs, examples.labels)

    def logits(at: Parameters, inputs: Tensor) -> Tensor:
        return functional_call(model, dict(at), (inputs,))

    def differentiate(objective, at: Parameters) -> tuple[Parameters, Tensor]:
        gradients, value = torch.func.grad_and_value(objective)(dict(at))
        return gradients, value

    return Step(
        parameters=own,
        received=received,
        batch=batch,
        synthesised=tuple(Batch(one.inputs, one.labels) for one in attack.synthesise(examples)),
        shares=torch.full((6,), 1 / 6),
        own_logits=lambda at: logits(at, batch.inputs),
        logits=logits,
        differentiate=differentiate,
    )


def test_the_table_has_every_loss_attack():
    classes = {getattr(fedrobust.attacks.loss, name) for name in fedrobust.attacks.loss.__all__}
    parts = {type(attack.evasion) for attack in CASES.values() if isinstance(attack, BlindBackdoor)} - {type(None)}
    assert {type(attack) for attack in CASES.values()} | parts == {one for one in classes if inspect.isclass(one)}
    assert all(isinstance(attack, LossAttack) for attack in CASES.values())


def test_synthesised_batches_match_the_own_one_which_is_left_alone(attack):
    """Example by example: same number, type and shape, inputs in [0, 1]; the same bytes again."""
    batch = make_dataset((1, 8, 8)).train.subset(torch.arange(7))
    before = Examples(batch.inputs.clone(), batch.labels.clone())
    for one, again in zip(attack.synthesise(batch), attack.synthesise(batch), strict=True):
        assert (one.inputs.shape, one.labels.shape) == (batch.inputs.shape, batch.labels.shape)
        assert (one.inputs.dtype, one.inputs.device) == (batch.inputs.dtype, batch.inputs.device)
        assert 0 <= float(one.inputs.min()) <= float(one.inputs.max()) <= 1
        assert one.inputs.data_ptr() != batch.inputs.data_ptr()
        assert torch.equal(one.inputs, again.inputs)
        assert torch.equal(one.labels, again.labels)
    assert torch.equal(batch.inputs, before.inputs)
    assert torch.equal(batch.labels, before.labels)


def test_a_gradient_for_every_parameter_and_nothing_written_to(attack):
    step = hand_made_step(attack)
    tensors = [*step.parameters.values(), *step.received.values(), step.batch.inputs, step.shares]
    tensors += [one.inputs for one in step.synthesised]
    before = [values.clone() for values in tensors]
    gradient, class_loss, _ = attack(step)
    assert list(gradient) == list(step.parameters)
    for name, values in step.parameters.items():
        assert (gradient[name].shape, gradient[name].dtype) == (values.shape, values.dtype)
        assert gradient[name].isfinite().all()
        assert gradient[name].any()
    torch.testing.assert_close(class_loss, step.class_loss(step.parameters))
    assert not class_loss.requires_grad
    assert not any(values.requires_grad for values in gradient.values())
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))
    again, *_ = attack(hand_made_step(attack))
    assert all(torch.equal(gradient[name], again[name]) for name in gradient)


def test_training_leaves_shared_data_and_received_model_alone(attack):
    population, vector = population_of(attack)
    train = population.dataset.train
    before, received = Examples(train.inputs.clone(), train.labels.clone()), vector.clone()
    population.train(1, EVERYONE, vector, {})
    one_by_one(population).train(1, EVERYONE, vector, {})
    assert torch.equal(train.inputs, before.inputs)
    assert torch.equal(train.labels, before.labels)
    assert torch.equal(vector, received)


@pytest.mark.parametrize("clients", [MALICIOUS, list(EVERYONE)], ids=["some", "all"])
def test_a_cohort_trains_as_one_by_one_in_any_order(attack, clients):
    """Rows of a cohort, asked in reverse, against each client asked alone and trained alone: 1e-5 relative."""
    population, vector = population_of(attack, clients)
    trained = population.train(1, list(reversed(EVERYONE)), vector, {})
    alone = one_by_one(population)
    for client in EVERYONE:
        own = alone.train(1, [client], vector, {})
        assert float((trained.updates[client] - own.updates[0]).norm() / own.updates[0].norm()) <= 1e-5
        assert float(trained.losses[client]) == pytest.approx(float(own.losses[0]), rel=1e-5)


def test_attackers_alone_train_on_another_objective(attack):
    """The benign rows are the same bytes as without an attack, the malicious ones are not."""
    population, vector = population_of(attack)
    benign, _ = population_of(None)
    attacked = one_by_one(population).train(1, EVERYONE, vector, {}).updates
    clean = one_by_one(benign).train(1, EVERYONE, vector, {}).updates
    differs = [bool((one != other).any()) for one, other in zip(attacked, clean, strict=True)]
    assert differs == [client in MALICIOUS for client in EVERYONE]


@pytest.mark.parametrize("vectorize", [True, False])
def test_without_malicious_clients_it_is_the_benign_run(attack, vectorize):
    """Byte for byte."""
    idle, vector = population_of(attack, [], vectorize)
    benign, _ = make_population(DATA_CASES["badnets"], Attack(num_malicious=0), vectorize)
    one, other = idle.train(1, EVERYONE, vector, {}), benign.train(1, EVERYONE, vector, {})
    assert torch.equal(one.updates, other.updates)
    assert torch.equal(one.losses, other.losses)


def test_one_with_a_trigger_says_what_it_wants(attack):
    """So that it can be judged; one without has no goal of its own."""
    test = make_dataset((1, 8, 8)).test
    if not isinstance(attack, Goal):
        assert attack.synthesise(test) == ()
        return
    (trigger,) = attack.local_triggers((1, 8, 8))
    (made,) = attack.synthesise(test)
    assert torch.equal(trigger.stamp(test.inputs), made.inputs)
    wanted = attack.wanted_labels(test)
    assert wanted is not None
    assert torch.equal(wanted, made.labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_is_kept(attack):
    examples = make_dataset((1, 8, 8)).train
    for one, there in zip(
        attack.synthesise(examples), attack.synthesise(examples.to(torch.device("cuda"))), strict=True
    ):
        assert there.inputs.device.type == there.labels.device.type == "cuda"
        torch.testing.assert_close(there.inputs.cpu(), one.inputs, atol=1e-5, rtol=0)
