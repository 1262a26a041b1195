"""What a thief does to a model to be rid of its watermark: fine-tuning and pruning. The model given is not changed.

Adi et al., "Turning Your Weakness Into a Strength", USENIX Security 2018,
https://www.usenix.org/conference/usenixsecurity18/presentation/adi (FTAL: all layers; RTLL: a new last layer)
Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015,
https://arxiv.org/abs/1506.02626 (pruning by magnitude)
Departs: pruned weights are not trained again.
"""

import copy
import dataclasses

import torch

from fedrobust.data.examples import Examples
from fedrobust.models.features import head_name
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import ClientJob, TrainingProgram, plan_batches, train_alone
from fedrobust.training.predictor import Predictor


def fine_tune(predictor: Predictor, examples: Examples, training: LocalTraining, seed: int) -> Predictor:
    """The model after it was trained further on `examples`: all of it, or its head, as `training` says."""
    vector, buffers = predictor.vector.clone(), {name: one.clone() for name, one in predictor.buffers.items()}
    generator = torch_generator(seed, "fine-tuning")
    batches = plan_batches(torch.arange(len(examples)), training.batch_size, training.num_epochs, generator)
    job = ClientJob(0, examples, batches, None, TrainingProgram(training))
    train_alone(vector, buffers, job, predictor.model, predictor.layout, predictor.dataset)
    return dataclasses.replace(predictor, vector=vector, buffers=buffers)


def with_new_head(predictor: Predictor, seed: int) -> Predictor:
    """The model with its head, the last linear layer, initialised anew.

    Raises:
        ValueError: the model has no linear layer.
    """
    name = head_name(predictor.model)
    head = copy.deepcopy(predictor.model.get_submodule(name))
    with seeded_initialisation(seed, "new head"):
        head.reset_parameters()  # type: ignore[operator]
    vector = predictor.vector.clone()
    views = predictor.layout.views(vector)
    for key, parameter in head.named_parameters():
        views[f"{name}.{key}"].copy_(parameter.detach())
    return dataclasses.replace(predictor, vector=vector)


def prune(predictor: Predictor, fraction: float) -> Predictor:
    """The model with the `fraction` of each weight matrix (or filter bank) that is smallest in magnitude set to zero.

    Raises:
        ValueError: a fraction outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    vector = predictor.vector.clone()
    for view in predictor.layout.views(vector).values():
        if view.ndim >= 2:
            smallest = view.abs().flatten().argsort(stable=True)[: round(fraction * view.numel())]
            view.view(-1)[smallest] = 0.0
    return dataclasses.replace(predictor, vector=vector)
