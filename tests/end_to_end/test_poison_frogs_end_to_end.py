"""Poison Frogs on the digits: one poison against a head, many against a model, each beside a clean control."""

from dataclasses import replace

import pytest
import torch
from chosen_seeds import first_of
from torch import Tensor

from fedrobust.attacks import Attack, PoisonFrogs
from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.data.feature_collision import feature_collision
from fedrobust.attacks.scenario import Adversary
from fedrobust.clients.population import Population
from fedrobust.data.datasets import Dataset, Digits
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.models import MLP
from fedrobust.models.features import FeatureExtractor
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.predictor import Predictor
from fedrobust.training.victims import train_full_batch, train_head, train_model

NUM_TARGETS = 25


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return Digits().load(None, torch.device("cpu"))


def transfer(digits: Dataset, seed: int, betas: list[float]) -> tuple[list[float], float]:
    """Success with one poison for each β, and with the base itself in the poison's place.

    Features: the last hidden layer, 1024 wide, of a model of raw pixels in [0, 1], trained on the digits 0 to 4 by
    Adam. Heads: two of the digits 5 to 9, converged, so that they fit every example and the poison. Targets and bases
    come from the test set. The clean head gets the targets right and has them outside of its margin, as all that it was
    trained on: what lies between the classes may change sides with any one example.
    """
    digits = replace(digits, mean=torch.zeros_like(digits.mean), std=torch.ones_like(digits.std))
    old = digits.train.subset((digits.train.labels < 5).nonzero().squeeze(1))
    with seeded_initialisation(seed, "extractor"):
        model = MLP(hidden_sizes=(128, 1024)).build(digits.input_shape, 5)
    features = FeatureExtractor(train_full_batch(model, digits, old))
    generator = torch_generator(seed, "targets")

    def two_classes(pair: tuple[int, int]) -> tuple[Tensor, Tensor]:
        either = (digits.train.labels == pair[0]) | (digits.train.labels == pair[1])
        return features(digits.train.inputs[either]), (digits.train.labels[either] == pair[1]).long()

    def draw(inputs: Tensor) -> Tensor:
        return inputs[torch.randint(len(inputs), (), generator=generator)]

    pairs = [tuple((torch.randperm(5, generator=generator)[:2] + 5).tolist()) for _ in range(NUM_TARGETS)]
    sets = {pair: two_classes(pair) for pair in set(pairs)}
    heads = {pair: train_head(*own, 2) for pair, own in sets.items()}

    def margins(pair: tuple[int, int], own: Tensor) -> Tensor:
        """How far a clean head has features on the target's side."""
        logits = heads[pair](own)
        return logits[:, 0] - logits[:, 1]

    targets, bases = [], []
    for pair in pairs:
        may_be_target, may_be_base = (digits.test.inputs[digits.test.labels == label] for label in pair)
        own, labels = sets[pair]
        targets.append(
            draw(may_be_target[margins(pair, features(may_be_target)) >= margins(pair, own[labels == 0]).min()])
        )
        bases.append(draw(may_be_base))

    def success(poisons: Tensor) -> float:
        taken = 0
        for pair, target, poison in zip(pairs, targets, poisons.split(1), strict=True):
            own, labels = sets[pair]
            head = train_head(torch.cat([own, features(poison)]), torch.cat([labels, torch.ones(1).long()]), 2)
            taken += int(head(features(target[None])).argmax())
        return taken / NUM_TARGETS

    def craft(beta: float) -> Tensor:
        return feature_collision(
            features, torch.stack(targets), torch.stack(bases),
            beta=beta, num_steps=300, solver="adam", learning_rate=0.05,
        ).poisons  # fmt: skip

    return [success(craft(beta)) for beta in betas], success(torch.stack(bases))


@pytest.mark.parametrize("seed", first_of(range(8)))
def test_one_poison_takes_a_target_where_features_stay_as_they_are(digits, seed):
    """An independent implementation had 0.84 at β = 1e-4 and 0.00 from 1e-2 on, for one seed of 25 targets.

    So it is where the features are learned ones. Those of a single hidden layer, or of normalised inputs, follow the
    pixels more closely, and there a converged head turns at 1e-2, too; `experiments/poison_frogs` has the figures. Of
    targets that the clean head only just gets right some turn at 1e-2 everywhere: those are left out here.
    """
    (close, far, farther), control = transfer(digits, seed, [1e-4, 1e-2, 1e-1])
    assert close >= 0.7
    assert far == 0
    assert farther == 0
    assert control == 0


@pytest.fixture(scope="module")
def received(digits) -> ReceivedModel:
    with seeded_initialisation(0, "victim"):
        model = MLP().build(digits.input_shape, 10)
    model = train_model(model, digits, digits.train, LocalTraining(learning_rate=0.1, num_epochs=30), 0)
    model.requires_grad_(True)  # clients train on
    return ReceivedModel(model, ParameterLayout.of(model).flatten(model), {}, digits)


@pytest.mark.slow
def test_thirty_poisons_with_opacity_take_targets_of_a_client_that_trains_all_layers(digits, received):
    """One client with all the data, in the federation's own loop, with three targets of class 8 and base class 3.

    An independent implementation had 0.53 with opacity 0.3 and 0.00 for a clean model, over 15 targets.
    """
    right = received.module()(digits.normalise(digits.test.inputs)).argmax(dim=1) == digits.test.labels
    instances = right[digits.test.labels == 8].nonzero().squeeze(1)[:3].tolist()
    rates = {1: 0.0, 0: 0.0}
    for num_malicious in rates:
        for instance in instances:
            data = PoisonFrogs(target_label=3, source_label=8, target_instances=[instance], num_poisons=30)
            attack = Attack(num_malicious=num_malicious, data=data)
            population = Population(
                dataset=digits,
                assignment=(torch.arange(len(digits.train)),),
                adversary=Adversary(attack, attack.choose_malicious(1, 0)),
                training=LocalTraining(learning_rate=0.1, num_epochs=10),
                model=received.model,
                can_vectorize=True,
                has_convolutions=False,
                seed=0,
            )
            vector = received.vector + population.train(1, [0], received.vector, {}).updates[0]
            predictor = Predictor(received.model, ParameterLayout.of(received.model), vector, {}, digits)
            success = measure_attack_success(predictor, data, digits.test)
            assert success.local_triggers is None
            rates[num_malicious] += success.global_trigger / len(instances)
            assert (
                float((predictor.logits(digits.test.inputs).argmax(dim=1) == digits.test.labels).float().mean()) > 0.95
            )
    assert rates[1] >= 0.4
    assert rates[0] == 0
