"""Pretraining: before round 1 a provider trains the model that the federation starts from.

The provider is one client of its own, which trains alone, once, from the fresh model: the one malicious client of a
scenario with the same attacks, or a benign one.
"""

import dataclasses

import torch
from torch import Tensor, nn

from fedrobust.attacks.base import InitialModelAttack
from fedrobust.attacks.scenario import Adversary, Attack
from fedrobust.clients.population import Population
from fedrobust.data.datasets import Dataset
from fedrobust.federation.round import GlobalModel
from fedrobust.models.features import head_name
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.seeds import derive_seed, torch_generator


def divide(provider: InitialModelAttack, dataset: Dataset, seed: int) -> tuple[Tensor, Dataset]:
    """The provider's examples, as indices, and the data set as clients know it: with the examples left to them.

    What normalises inputs stays that of all examples.

    Raises:
        FieldError: too few examples for both.
    """
    own, rest = provider.divide(len(dataset.train), torch_generator(seed, "provider"))
    writers = None if dataset.writers is None else dataset.writers[rest.to(dataset.writers.device)]
    return own, dataclasses.replace(dataset, train=dataset.train.subset(rest), writers=writers)


def pretrain(
    provider: InitialModelAttack,
    attack: Attack,
    clients: Population,
    dataset: Dataset,
    own: Tensor,
    fresh_head: nn.Module,
) -> GlobalModel:
    """The model before round 1, trained by the provider.

    Args:
        provider: who trains it and how.
        attack: the scenario's; a malicious provider does what its `data` and `loss` say.
        clients: the scenario's clients, whose model gives the initial parameters.
        dataset: all training examples.
        own: the provider's examples, as indices into them.
        fresh_head: a model whose head the federation puts on the pretrained features, if it wants a new one.
    """
    trainer = Attack(num_malicious=0)
    if provider.malicious:
        trainer = Attack(malicious_clients=[0], data=attack.data, loss=attack.loss)
    seed = derive_seed(clients.seed, "provider")
    alone = dataclasses.replace(
        clients,
        dataset=dataset,
        assignment=(own,),
        adversary=Adversary(trainer, trainer.choose_malicious(1, seed), seed),
        training=dataclasses.replace(provider.program(clients.training), vectorize=False),  # no gain for one client
        seed=seed,
        auditing=None,  # the provider is no client: nobody audits its examples
    )
    model, layout = clients.model, ParameterLayout.of(clients.model)
    vector = layout.flatten(model)
    trained = alone.train(1, (0,), vector, clone_buffers(model))
    vector = vector + trained.updates[0]
    if provider.new_head:
        head, fresh = head_name(model), dict(fresh_head.named_parameters())
        with torch.no_grad():
            for name, view in layout.views(vector).items():
                if name.rpartition(".")[0] == head:
                    view.copy_(fresh[name])
    return GlobalModel(0, vector, {name: values[0] for name, values in trained.buffers.items()})
