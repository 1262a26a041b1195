"""What a thief does: pruning against torch's own, and fine-tuning that changes what it should and nothing else."""

import copy

import pytest
import torch
from marked_digits import pictures, predictor_of
from torch import nn
from torch.nn.utils import prune as torch_prune

from fedrobust.seeds import seeded_initialisation
from fedrobust.training.local_training import LocalTraining
from fedrobust.watermarks.removal import fine_tune, prune, with_new_head

DATASET = pictures()


def network() -> nn.Module:
    with seeded_initialisation(1, "test"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 12), nn.ReLU(), nn.Linear(12, 10)
        )


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_pruning_is_torchs_layer_by_layer(fraction):
    model = network()
    predictor = predictor_of(DATASET, model)
    before = predictor.vector.clone()
    pruned = predictor.layout.views(prune(predictor, fraction).vector)
    expected = copy.deepcopy(model)
    for index in (0, 3, 5):
        torch_prune.l1_unstructured(expected[index], "weight", amount=fraction)
        torch_prune.remove(expected[index], "weight")
    for name, parameter in expected.named_parameters():
        assert torch.equal(pruned[name], parameter), name
    assert torch.equal(predictor.vector, before)


def test_a_fraction_is_in_zero_to_one():
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\], got 1.5"):
        prune(predictor_of(DATASET), 1.5)


def test_a_new_head_is_another_head_on_the_same_features():
    predictor = predictor_of(DATASET, network())
    before = predictor.vector.clone()
    old, new = (predictor.layout.views(one.vector) for one in (predictor, with_new_head(predictor, 0)))
    for name in old:
        assert torch.equal(old[name], new[name]) == (not name.startswith("5."))
    assert torch.equal(predictor.vector, before)
    assert torch.equal(with_new_head(predictor, 0).vector, with_new_head(predictor, 0).vector)
    assert not torch.equal(with_new_head(predictor, 0).vector, with_new_head(predictor, 1).vector)


@pytest.mark.parametrize("layers", ["all", "head"])
def test_fine_tuning_learns_and_leaves_the_model_given(layers):
    predictor = predictor_of(DATASET, network())
    before, buffers = predictor.vector.clone(), {name: one.clone() for name, one in predictor.buffers.items()}
    training = LocalTraining(learning_rate=0.1, num_epochs=20, batch_size=10, trained_layers=layers)
    tuned = fine_tune(predictor, DATASET.train, training, 0)
    loss = [
        float(nn.functional.cross_entropy(one.logits(DATASET.train.inputs), DATASET.train.labels))
        for one in (predictor, tuned)
    ]
    assert loss[1] < loss[0]
    assert torch.equal(predictor.vector, before)
    assert all(torch.equal(predictor.buffers[name], buffers[name]) for name in buffers)
    assert torch.equal(tuned.vector, fine_tune(predictor, DATASET.train, training, 0).vector)
    if layers == "head":
        for (name, old), new in zip(
            predictor.layout.views(before).items(), tuned.layout.views(tuned.vector).values(), strict=True
        ):
            assert torch.equal(old, new) == (not name.startswith("5."))
