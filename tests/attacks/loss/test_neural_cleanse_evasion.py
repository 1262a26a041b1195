"""The search for the trigger against `torch.optim.Adam`, and the third task against one backward pass of Σ αℓ."""

import dataclasses

import pytest
import torch
from small_step import by_autograd, linear, make_step, random_batch
from torch.nn import functional

from fedrobust.attacks import BlindBackdoor, NeuralCleanseEvasion, Patch
from fedrobust.attacks.loss.mgda import inner_products, least_norm_weights
from fedrobust.config.component import FieldError
from fedrobust.data.examples import Examples
from fedrobust.training.step import Batch


def test_the_search_is_adam_on_neural_cleanses_objective():
    """Five steps on one batch; mask and pattern are sigmoids, started at one half."""
    evasion, step = NeuralCleanseEvasion(learning_rate=0.2, mask_weight=0.05), make_step(random_batch())
    inputs = step.batch.inputs
    mask, pattern = torch.zeros(1, 3, 4, requires_grad=True), torch.zeros(1, 3, 4, requires_grad=True)
    optimizer = torch.optim.Adam([mask, pattern], lr=0.2, betas=(0.5, 0.9))
    for _ in range(5):
        m = mask.sigmoid()
        shown = (1 - m) * inputs + m * (inputs.min() + (inputs.max() - inputs.min()) * pattern.sigmoid())
        loss = functional.cross_entropy(linear(step.parameters, shown), torch.full((5,), 2)) + 0.05 * m.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step = dataclasses.replace(step, memory=evasion.search(step, 2))
    torch.testing.assert_close(step.memory["mask"], mask.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step.memory["pattern"], pattern.detach(), rtol=1e-4, atol=1e-5)
    assert (step.memory["mask"] != 0).all()
    assert float(step.memory["count"]) == 5


def test_the_third_task_keeps_true_labels_under_the_found_trigger():
    """Without normalisation the gradient is Σ αᵢ∇ℓᵢ for the least norm of the three; α is tested with its solver."""
    blind = BlindBackdoor(
        trigger=Patch(height=1, width=2), target_label=2, normalisation="none", evasion=NeuralCleanseEvasion()
    )
    batch = random_batch()
    (made,) = blind.synthesise(Examples(batch.inputs, batch.labels))
    step = make_step(batch, (Batch(made.inputs, made.labels),))
    gradient, _, memory = blind(step)
    m = memory["mask"].sigmoid()
    lowest, highest = batch.inputs.min(), batch.inputs.max()
    shown = (1 - m) * batch.inputs + m * (lowest + (highest - lowest) * memory["pattern"].sigmoid())
    pairs = ((batch.inputs, batch.labels), (made.inputs, made.labels), (shown, batch.labels))

    def losses(at):
        return torch.stack([functional.cross_entropy(linear(at, inputs), labels) for inputs, labels in pairs])

    each = [by_autograd(lambda at, task=task: losses(at)[task], step.parameters)[0] for task in range(3)]
    alpha = least_norm_weights(inner_products(each))
    expected, _ = by_autograd(lambda at: alpha @ losses(at), step.parameters)
    for name in step.parameters:
        torch.testing.assert_close(gradient[name], expected[name], rtol=1e-4, atol=1e-5)


def test_fields_are_checked():
    with pytest.raises(FieldError, match="learning_rate: must be greater than 0, got 0"):
        NeuralCleanseEvasion(learning_rate=0)
    with pytest.raises(FieldError, match="evasion: must be a component of the kind NeuralCleanseEvasion or null"):
        BlindBackdoor(trigger=Patch(), evasion=5)
