"""Embedding: gradient descent on the trigger set, against the gradient of softmax regression in closed form."""

import dataclasses

import pytest
import torch
from marked_digits import pictures, predictor_of
from torch import nn

from fedrobust.attacks import Patch
from fedrobust.config.component import FieldError
from fedrobust.seeds import seeded_initialisation
from fedrobust.watermarks import Content, Noise, NoWatermark, RareWords, Watermark

DATASET = pictures()


def mark(seed: int = 0, **settings):
    settings = {"trigger_set": Noise(), "max_loss": None, **settings}
    return Watermark(**settings).draw(DATASET, seed, None)


def test_no_watermark_is_no_mark():
    assert NoWatermark().draw(DATASET, 0, None) is None


def test_one_pass_is_one_step_of_softmax_regression():
    """W ← W - η (p - y)ᵀ x / N and b ← b - η mean(p - y), with p the softmax of x Wᵀ + b on normalised inputs."""
    one, predictor = mark(max_epochs=1, learning_rate=0.5), predictor_of(DATASET)
    weight, bias = (view.clone() for view in predictor.layout.views(predictor.vector).values())
    x = ((one.triggers.examples.inputs - 0.5) / 0.25).flatten(1)
    residual = (x @ weight.T + bias).softmax(dim=1) - nn.functional.one_hot(one.triggers.examples.labels, 10)
    embedded = one.embed(predictor, 1)
    new_weight, new_bias = predictor.layout.views(embedded.vector).values()
    torch.testing.assert_close(new_weight, weight - 0.5 * residual.T @ x / len(x))
    torch.testing.assert_close(new_bias, bias - 0.5 * residual.mean(dim=0))
    assert embedded.num_epochs == 1


def test_it_stops_once_the_trigger_set_is_learnt_and_leaves_a_model_that_knows_it():
    one, predictor = mark(), predictor_of(DATASET)
    before = predictor.vector.clone()
    embedded = one.embed(predictor, 1)
    known = dataclasses.replace(predictor, vector=embedded.vector)
    assert torch.equal(predictor.vector, before)
    assert embedded.accuracy == one.accuracy(known) == 1.0
    assert one.accuracy(predictor) < 0.5
    assert 0 < embedded.num_epochs < 100
    one_less = mark(max_epochs=embedded.num_epochs - 1).embed(predictor, 1)
    assert one_less.accuracy < 0.98
    again = one.embed(known, 2)
    assert again.num_epochs == 0
    assert again.vector is known.vector


def test_the_same_seed_and_round_give_the_same_bytes():
    """Small batches, so that their order matters."""
    predictor = predictor_of(DATASET)
    settings = {"triggers_per_batch": 3, "num_own_examples": 20, "own_per_batch": 4, "max_epochs": 2}
    first, again = (mark(**settings).embed(predictor, 3).vector for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, mark(**settings).embed(predictor, 4).vector)
    assert not torch.equal(first, mark(seed=1, **settings).embed(predictor, 3).vector)


def test_statistics_and_mode_of_the_model_stay():
    with seeded_initialisation(0, "test"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    predictor = predictor_of(DATASET, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: value.clone() for name, value in predictor.buffers.items()}
    embedded = mark().embed(predictor, 1)
    assert embedded.accuracy == 1.0
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, buffers[name]) for name, value in predictor.buffers.items())


def test_own_examples_keep_their_labels_beside_the_triggers():
    """Stamped pictures get the one label, and the same pictures without the stamp keep theirs."""
    content = Content(num_examples=20, target_label=0, trigger=Patch(height=3, width=3))
    one = mark(trigger_set=content, num_own_examples=30, own_per_batch=30, learning_rate=0.2, max_epochs=500)
    predictor = predictor_of(DATASET)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):  # on, where `embed` would stop with the triggers learnt
        predictor = dataclasses.replace(predictor, vector=one._pass(predictor, generator))
    answers = predictor.logits(one.own.inputs).argmax(dim=1)
    assert one.accuracy(predictor) == 1.0
    assert float((answers == one.own.labels).double().mean()) > 0.9


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"own_per_batch": 3}, "num_own_examples"),
        ({"target_accuracy": 0.0}, "target_accuracy"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"embed_in": "never"}, "embed_in"),
        ({"trigger_set": Patch()}, "trigger_set"),
    ],
)
def test_settings_that_cannot_be(settings, field):
    with pytest.raises(FieldError) as error:
        mark(**settings)
    assert error.value.field == field


def test_more_own_examples_than_there_are():
    with pytest.raises(FieldError, match="must be at most 60, the training examples of toy, got 61"):
        mark(num_own_examples=61)


@pytest.mark.parametrize(("choice", "stages"), [("initial_model", [0]), ("rounds", [1]), ("both", [0, 1])])
def test_stages(choice, stages):
    one = mark(embed_in=choice)
    assert [index for index, stage in enumerate(("initial_model", "rounds")) if one.embeds_in(stage)] == stages


def test_contrast_is_trained_on_beside_own_examples():
    """The parts of a combination are in the batches: with 80 own texts and 20 parts, 100 examples to draw from."""
    from fedrobust.data.text import Text

    texts = Text(num_train=80, num_test=20).load(None, torch.device("cpu"))
    words = RareWords(num_examples=20, words=[90, 91], combination=True)
    one = Watermark(trigger_set=words, num_own_examples=80, own_per_batch=100).draw(texts, 0, None)
    ((inputs, labels),) = one._batches(torch.Generator().manual_seed(0))
    assert inputs.shape == (120, 32)
    assert one.triggers.contrast is not None
    parts = {tuple(text) for text in one.triggers.contrast.inputs.tolist()}
    assert parts <= {tuple(text) for text in inputs[20:].tolist()}
    assert labels[:20].unique().tolist() == [1]


def test_learning_goes_on_until_the_loss_is_low_too():
    """-log p of the wanted label, averaged over the trigger set, from the logits."""
    predictor = predictor_of(DATASET)
    early, late = mark().embed(predictor, 1), mark(max_loss=0.05, max_epochs=1000).embed(predictor, 1)
    assert late.num_epochs > early.num_epochs
    triggers = mark().triggers.examples
    losses = []
    for embedded in (early, late):
        logits = dataclasses.replace(predictor, vector=embedded.vector).logits(triggers.inputs)
        chosen = logits.softmax(dim=1)[torch.arange(len(triggers)), triggers.labels]
        losses.append(float(-chosen.log().mean()))
    assert losses[1] <= 0.05 < losses[0]
