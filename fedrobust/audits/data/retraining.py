"""Training a model anew: what follows once an audit has said which examples to leave out."""

import copy

import torch
from torch import nn

from fedrobust.audits.audited_model import AuditedModel
from fedrobust.data.examples import Dataset, Examples
from fedrobust.parameters import ParameterLayout, clone_buffers, load_into
from fedrobust.seeds import seeded_initialisation
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import ClientJob, TrainingProgram, plan_batches, train_alone


def retrain(
    model: AuditedModel, examples: Examples, training: LocalTraining, generator: torch.Generator
) -> AuditedModel:
    """A model of the same architecture, trained on `examples` alone from a fresh start; `model` is not changed.

    Args:
        model: gives architecture, normalisation and device.
        examples: raw inputs, as a report's `kept` gives them.
        training: how; augmentation is off.
        generator: on the CPU, for the initialisation and the order of the batches.

    Raises:
        ValueError: no examples, or a model with parameters that its layers cannot initialise.
    """
    if len(examples) == 0:
        raise ValueError("there are no examples left to train on")
    module = fresh_copy(model.module, int(torch.randint(2**62, (), generator=generator)))
    examples = examples.to(model.device)
    seen = Examples(model.normalise(examples.inputs).float(), examples.labels)
    # The training loop normalises by a data set's numbers: these are already normalised, whatever the function is.
    zero, one = seen.inputs.new_zeros(()), seen.inputs.new_ones(())
    num_classes = int(seen.labels.max()) + 1
    dataset = Dataset("kept", seen, seen, num_classes, "image" if seen.inputs.ndim == 4 else "tabular", zero, one)
    batches = plan_batches(torch.arange(len(seen)), training.batch_size, training.num_epochs, generator)
    layout = ParameterLayout.of(module)
    vector, buffers = layout.flatten(module), clone_buffers(module)
    train_alone(vector, buffers, ClientJob(0, seen, batches, None, TrainingProgram(training)), module, layout, dataset)
    load_into(module, layout.views(vector), buffers)
    return AuditedModel(module, model.normalise, model.batch_size)


def fresh_copy(module: nn.Module, seed: int) -> nn.Module:
    """A copy whose layers are initialised anew, as torch does it, from `seed`.

    Raises:
        ValueError: a layer has parameters and no `reset_parameters`.
    """
    fresh = copy.deepcopy(module)
    with seeded_initialisation(seed, "retraining"):
        for name, layer in fresh.named_modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(layer.parameters(recurse=False), None) is not None:
                raise ValueError(f"layer {name!r} has parameters and no reset_parameters, so it cannot start afresh")
    return fresh
