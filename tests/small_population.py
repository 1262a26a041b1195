"""Small data with the shapes of the real sets, and clients with shards of very different sizes."""

from dataclasses import replace

import torch

from fedrobust.attacks import Attack
from fedrobust.attacks.scenario import Adversary
from fedrobust.clients.population import Population
from fedrobust.data.augmentation import RandomCropFlip
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.models import MLP, Architecture
from fedrobust.parameters import clone_buffers
from fedrobust.seeds import seeded_initialisation
from fedrobust.training.local_training import LocalTraining
from fedrobust.types import Buffers, Vector

SIZES = (7, 1, 16, 4, 11)
"""Examples of the clients: fewer than a batch of 4, a single one, a whole number of batches, and neither."""


def fake_dataset(shape: tuple[int, ...], num_examples: int = 64, augment: bool = False) -> Dataset:
    """Random pictures in [0, 1] with random labels."""
    generator = torch.Generator().manual_seed(1)
    examples = Examples(
        torch.rand(num_examples, *shape, generator=generator),
        torch.randint(10, (num_examples,), generator=generator),
    )
    mean, std = torch.tensor(0.5).expand(shape[0], 1, 1), torch.tensor(0.25).expand(shape[0], 1, 1)
    return Dataset("fake", examples, examples, 10, "image", mean, std, RandomCropFlip() if augment else None)


def shards(sizes: tuple[int, ...], num_examples: int = 64) -> tuple[torch.Tensor, ...]:
    order = torch.randperm(num_examples, generator=torch.Generator().manual_seed(2))
    return order[: sum(sizes)].split(list(sizes))


def make_population(
    architecture: Architecture | None = None,
    shape: tuple[int, ...] = (1, 8, 8),
    sizes: tuple[int, ...] = SIZES,
    training: LocalTraining | None = None,
    attack: Attack | None = None,
    augment: bool = False,
    seed: int = 0,
) -> tuple[Population, Vector, Buffers]:
    """A population, its initial model as a vector, and that model's buffers."""
    architecture = architecture or MLP(hidden_sizes=[16, 8])
    with seeded_initialisation(0, "model"):
        model = architecture.build(shape, 10)
    vector = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    attack = attack or Attack(num_malicious=0)
    population = Population(
        dataset=fake_dataset(shape, augment=augment),
        assignment=shards(sizes),
        adversary=Adversary(attack, attack.choose_malicious(len(sizes), seed)),
        training=training or LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4),
        model=model,
        can_vectorize=not any(True for _ in model.buffers()),
        has_convolutions=architecture.has_convolutions,
        seed=seed,
    )
    return population, vector, clone_buffers(model)


def with_training(population: Population, **changes: object) -> Population:
    """The same population with other fields in its benign programme."""
    return replace(population, training=replace(population.training, **changes))
