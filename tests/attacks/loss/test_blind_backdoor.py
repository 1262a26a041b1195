"""Blind backdoor: its objective against the two losses differentiated as one, its batch against a stamp by hand."""

import pytest
import torch
from small_step import by_autograd, linear, make_step, random_batch
from torch.nn import functional

from fedrobust.attacks import Attack, BadNets, BlindBackdoor, ConstrainAndScale, Patch, PatchGrid
from fedrobust.config.component import FieldError
from fedrobust.data.examples import Examples
from fedrobust.training.step import Batch, Step

NORMALISATIONS = ["none", "l2", "loss", "loss+"]


def attack(**fields: object) -> BlindBackdoor:
    return BlindBackdoor(trigger=Patch(height=1, width=2), target_label=2, **fields)


def step_of(blind: BlindBackdoor, seed: int = 0) -> Step:
    batch = random_batch()
    (made,) = blind.synthesise(Examples(batch.inputs, batch.labels))
    return make_step(batch, (Batch(made.inputs, made.labels),), seed)


def test_the_batch_is_cloned_stamped_and_relabelled():
    """Every picture, whatever its class: the patch is white, all other pixels as they were, the batch itself too."""
    batch = random_batch()
    examples = Examples(batch.inputs.clone(), batch.labels.clone())
    (made,) = attack().synthesise(examples)
    assert torch.equal(made.labels, torch.full((5,), 2))
    assert (made.inputs[:, :, 0, :2] == 1).all()
    assert torch.equal(made.inputs[:, :, 0, 2:], batch.inputs[:, :, 0, 2:])
    assert torch.equal(made.inputs[:, :, 1:], batch.inputs[:, :, 1:])
    assert torch.equal(examples.inputs, batch.inputs)
    assert torch.equal(examples.labels, batch.labels)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_the_weighted_loss(normalisation, seed):
    """α by the definition: the best of a fine grid for the gradients after division; then one backward pass of Σ αℓ."""
    blind = attack(normalisation=normalisation)
    step = step_of(blind, seed)
    (made,) = step.synthesised

    def losses(at):
        return torch.stack(
            [
                functional.cross_entropy(linear(at, step.batch.inputs), step.batch.labels),
                functional.cross_entropy(linear(at, made.inputs), torch.full((5,), 2)),
            ]
        )

    flat, values = [], losses(step.parameters)
    for task in range(2):
        gradient, _ = by_autograd(lambda at, task=task: losses(at)[task], step.parameters)
        g = torch.cat([part.flatten() for part in gradient.values()]).double()
        divisor = {"none": 1.0, "l2": g.norm(), "loss": values[task], "loss+": values[task] * g.norm()}[normalisation]
        flat.append(g / divisor)
    grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    alpha = grid[(grid[:, None] * flat[0] + (1 - grid[:, None]) * flat[1]).norm(dim=1).argmin()].float()
    expected, _ = by_autograd(lambda at: torch.stack([alpha, 1 - alpha]) @ losses(at), step.parameters)

    gradient, main_loss, _ = blind(step)
    assert float(main_loss) == pytest.approx(float(values[0]))
    for name in step.parameters:
        torch.testing.assert_close(gradient[name], expected[name], rtol=1e-3, atol=3e-4)


def test_below_the_loss_threshold_alone_it_attacks():
    """Above, the gradient is the benign client's."""
    plain = attack()
    step = step_of(plain)
    benign, main_loss = by_autograd(step.class_loss, step.parameters)
    waiting, *_ = attack(loss_threshold=float(main_loss) * 0.99)(step)
    striking, *_ = attack(loss_threshold=float(main_loss) * 1.01)(step)
    for name in step.parameters:
        assert torch.equal(waiting[name], benign[name])
        assert torch.equal(striking[name], plain(step)[0][name])
        assert not torch.equal(striking[name], benign[name])


def test_parameters_received_and_batches_are_not_written_to():
    step = step_of(attack())
    tensors = [*step.parameters.values(), *step.received.values(), step.batch.inputs, step.synthesised[0].inputs]
    before = [values.clone() for values in tensors]
    attack()(step)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))


def test_it_is_judged_by_its_own_trigger_unless_data_are_poisoned():
    """Of what the harness tries on the model, BadNets' trigger and target where there are both."""
    blind = BlindBackdoor(trigger=PatchGrid(width=2), target_label=1)
    test = Examples(torch.rand(3, 1, 8, 8), torch.arange(3))
    assert Attack(num_malicious=1, loss=blind).goal is blind
    assert blind.wanted_labels(test).tolist() == [1, 1, 1]
    (whole,) = blind.local_triggers((1, 8, 8))
    assert int(whole.mask.sum()) == 8  # the four parts at once
    data = BadNets(trigger=Patch(), target_label=2, poison_rate=0.5)
    assert Attack(num_malicious=1, data=data, loss=blind).goal is data
    assert Attack(num_malicious=1, loss=ConstrainAndScale()).goal is None


def test_fields_are_checked():
    with pytest.raises(FieldError, match=r"normalisation: must be 'none', 'l2', 'loss' or 'loss\+', got 'l1'"):
        attack(normalisation="l1")
    with pytest.raises(FieldError, match="loss_threshold: must be greater than 0, got 0"):
        attack(loss_threshold=0)
