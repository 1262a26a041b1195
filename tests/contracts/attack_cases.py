"""Every data attack, each with a data set that it can be used on."""

from dataclasses import dataclass, replace

import torch

from fedrobust.attacks import (
    DBA,
    Attack,
    BadNets,
    Blend,
    CleanLabelBackdoor,
    Coalition,
    DataAttack,
    EdgeCase,
    ExplanationGuided,
    FeatureTrigger,
    ImageScaling,
    LabelFlip,
    Patch,
    PatchGrid,
    Pixels,
    PoisonFrogs,
    Sinusoid,
)
from fedrobust.attacks.base import ReceivedModel, with_model
from fedrobust.attacks.scenario import Adversary
from fedrobust.clients.population import Population
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.models import MLP
from fedrobust.seeds import seeded_initialisation
from fedrobust.training.local_training import LocalTraining
from fedrobust.types import Vector

SIZES = (9, 1, 16, 5, 11)
MALICIOUS = [1, 2, 4]
PICTURES, FEATURES = (1, 8, 8), (12,)


@dataclass(frozen=True)
class Case:
    """An attack, and what the suite must know of it.

    Attributes:
        attack: the component.
        clean_label: whether every label stays true.
        shape: of an input.
        new_label: the only label that a poisoned example may have, or `None` for several.
        adds: whether poisoned examples come after the client's own, rather than in their place.
    """

    attack: DataAttack
    clean_label: bool = False
    shape: tuple[int, ...] = PICTURES
    new_label: int | None = None
    adds: bool = False


CASES = {
    "badnets": Case(BadNets(trigger=Patch(), target_label=1, poison_rate=0.5), new_label=1),
    "badnets_count": Case(BadNets(trigger=Patch(), target_label=1, poison_count=2), new_label=1),
    "badnets_pixels": Case(BadNets(trigger=Pixels(pixels=[[-1, -1]]), target_label=1, poison_rate=0.5), new_label=1),
    "badnets_blend": Case(BadNets(trigger=Blend(), target_label=1, source_label=0, poison_rate=0.9), new_label=1),
    "badnets_sinusoid": Case(BadNets(trigger=Sinusoid(), target_label=1, poison_count=2), new_label=1),
    "dba": Case(DBA(trigger=PatchGrid(width=2), target_label=1, poison_rate=0.5), new_label=1),
    "clean_label": Case(CleanLabelBackdoor(trigger=Sinusoid(), target_label=1, poison_rate=0.5), clean_label=True),
    "coalition": Case(
        Coalition(
            members=[
                BadNets(trigger=Patch(), target_label=1, poison_rate=0.5),
                BadNets(trigger=Pixels(pixels=[[-1, -1]]), target_label=2, poison_count=2),
            ]
        )
    ),
    "edge_case": Case(EdgeCase(source_label=0, target_label=1, poison_rate=0.5), new_label=1, adds=True),
    "explanation_guided": Case(
        ExplanationGuided(trigger=FeatureTrigger(features=[3, 0], values=[0.5, 0.9]), poison_rate=0.2),
        clean_label=True,
        shape=FEATURES,
    ),
    "image_scaling": Case(
        ImageScaling(trigger=Patch(), target_label=1, poison_rate=0.5, assumed_scaler="opencv_linear", scaled_size=2),
        clean_label=True,
    ),
    "flip_to_target": Case(LabelFlip(target_label=1), new_label=1),
    "flip_one_class": Case(LabelFlip(target_label=1, source_label=0, poison_rate=0.5), shape=FEATURES, new_label=1),
    "flip_inverse": Case(LabelFlip(flip="inverse", num_classes=3), shape=FEATURES),
    "flip_random": Case(LabelFlip(flip="random", num_classes=3)),
    "poison_frogs": Case(
        PoisonFrogs(target_label=1, source_label=0, target_instances=[0, 2], num_poisons=3, num_steps=5),
        clean_label=True,
    ),
}


def make_dataset(shape: tuple[int, ...], num_examples: int = 48) -> Dataset:
    """Random inputs in [0, 1] with labels 0, 1, 2 in turn."""
    inputs = torch.rand(num_examples, *shape, generator=torch.Generator().manual_seed(1))
    examples = Examples(inputs, torch.arange(num_examples) % 3)
    statistics = (shape[0], 1, 1) if len(shape) == 3 else shape
    kind = "image" if len(shape) == 3 else "tabular"
    return Dataset("fake", examples, examples, 3, kind, torch.full(statistics, 0.5), torch.full(statistics, 0.25))


def make_population(case: Case, attack: Attack | None = None, vectorize: bool = True) -> tuple[Population, Vector]:
    """Five clients, of which 1, 2 and 4 are malicious unless `attack` says otherwise, and the initial model."""
    attack = attack or Attack(malicious_clients=MALICIOUS, data=case.attack)
    with seeded_initialisation(0, "model"):
        model = MLP(hidden_sizes=[16]).build(case.shape, 3)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(2))
    population = Population(
        dataset=make_dataset(case.shape),
        assignment=order[: sum(SIZES)].split(list(SIZES)),
        adversary=Adversary(attack, attack.choose_malicious(len(SIZES), 0)),
        training=LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4, vectorize=vectorize),
        model=model,
        can_vectorize=True,
        has_convolutions=False,
        seed=0,
    )
    return population, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def crafted(case: Case, device: torch.device) -> DataAttack:
    """The attack of a round; on the initial model, if it is crafted on one."""
    population, vector = make_population(case)
    data = population.dataset.to(device)
    return with_model(case.attack, ReceivedModel(population.model.to(device), vector.to(device), {}, data))


def one_by_one(population: Population) -> Population:
    """The same clients, trained without cohorts."""
    return replace(population, training=replace(population.training, vectorize=False))
