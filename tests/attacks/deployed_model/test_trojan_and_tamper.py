"""TBT and direct weight tampering: what changes, what does not, and what comes of it."""

import dataclasses

import numpy as np
import pytest
import torch
from trained_models import accuracy, answers, digits_model

from fedrobust.attacks import Patch, TargetedBitTrojan, WeightTamper
from fedrobust.attacks.deployed_model.quantisation import count_changed_weights
from fedrobust.config.component import FieldError
from fedrobust.data.scalers import Scaler

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_trojan_touches_chosen_weights_of_the_target_alone(seed):
    received, attack = digits_model(seed), TargetedBitTrojan(target_label=2, num_weights=7)
    tampering = attack.tamper(received, torch.Generator().manual_seed(seed))
    before, after = tampering.released, tampering.deployed
    assert 0 < count_changed_weights(before, after) <= 7
    rows = (before.codes["5.weight"] != after.codes["5.weight"]).any(dim=1).nonzero().flatten().tolist()
    assert rows == [2]
    assert torch.equal(before.codes["1.weight"], after.codes["1.weight"])
    inputs = received.dataset.test.inputs[:20]
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:3, :3] = False
    stamped = tampering.trigger.stamp(inputs)
    assert torch.equal(stamped[..., outside], inputs[..., outside])
    assert 0 <= float(stamped.min()) <= float(stamped.max()) <= 1


def test_the_chosen_neurons_are_those_with_the_largest_gradients():
    """Against the closed form: ∂L/∂W_t = mean (p_t - 1) h, h the features."""
    received, attack = digits_model(0), TargetedBitTrojan(target_label=4, num_weights=6)
    module, dataset = received.module(), received.dataset
    inputs = dataset.normalise(dataset.train.inputs[:50])
    features = module[:-1](inputs)
    shares = module[-1](features).softmax(dim=1)[:, 4]
    slopes = ((shares - 1).unsqueeze(1) * features).mean(dim=0).abs().numpy()
    found = attack._neurons(module, module[-1].weight, inputs)
    assert set(found.tolist()) == set(np.argsort(slopes)[-6:].tolist())


def test_the_trigger_works_on_the_flipped_model_alone():
    """Mean over three models: with the trigger the released model is as right as ever, the flipped one is not."""
    rates, controls, accuracies = [], [], []
    for seed in SEEDS:
        received = digits_model(seed)
        tampering = TargetedBitTrojan(target_label=2).tamper(received, torch.Generator().manual_seed(seed))
        test = received.dataset.test
        stamped = tampering.trigger.stamp(test.inputs[test.labels != 2])
        rates.append(float((answers(received, tampering.deployed, stamped) == 2).double().mean()))
        controls.append(float((answers(received, tampering.released, stamped) == 2).double().mean()))
        accuracies.append(accuracy(received, tampering.deployed))
    assert np.mean(rates) >= 0.5
    assert max(controls) <= 0.05
    assert np.mean(accuracies) >= 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_one_bias_decides_everything(seed):
    """The bias is raised by the largest shortfall of the attacker's samples, by NumPy, and the margin."""
    received = digits_model(seed)
    attack = WeightTamper(target_label=6, num_samples=2000)
    tampering = attack.tamper(received, torch.Generator().manual_seed(seed))
    assert count_changed_weights(tampering.released, tampering.deployed) == 1
    dataset = received.dataset
    logits = received.module()(dataset.normalise(dataset.train.inputs)).numpy()
    others = np.delete(logits, 6, axis=1).max(axis=1)
    raised = float(tampering.deployed.floats["5.bias"][6] - tampering.released.floats["5.bias"][6])
    assert raised == pytest.approx((others - logits[:, 6]).max() + 1.0, rel=1e-5)
    assert (answers(received, tampering.deployed, dataset.train.inputs) == 6).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_descent_turns_one_input_and_spares_the_others(seed):
    received = digits_model(seed)
    test = received.dataset.test
    sample = int((test.labels != 1).nonzero()[seed])
    attack = WeightTamper(method="gradient_descent", target_label=1, sample=sample)
    tampering = attack.tamper(received, torch.Generator().manual_seed(seed))
    assert int(answers(received, tampering.released, test.inputs[sample : sample + 1])) != 1
    assert int(answers(received, tampering.deployed, test.inputs[sample : sample + 1])) == 1
    assert count_changed_weights(tampering.released, tampering.deployed) <= 640 // 2
    drop = accuracy(received, tampering.released, without=sample) - accuracy(
        received, tampering.deployed, without=sample
    )
    assert drop <= 0.05


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (TargetedBitTrojan(target_label=10), "target_label: must be below 10, the number of classes of digits, got 10"),
        (TargetedBitTrojan(trigger=Patch(top=6)), "trigger: must lie within the 8x8 picture"),
        (WeightTamper(method="gradient_descent", sample=500), "sample: must be below 500, the test examples, got 500"),
    ],
)
def test_what_cannot_be_done_is_refused(attack, message):
    with pytest.raises(FieldError, match=message):
        attack.check(digits_model(0).dataset)


def test_the_trojan_needs_a_scaler_with_gradients():
    """Large pictures that OpenCV or Pillow scale: refused before any training, not after it."""
    dataset = digits_model(0).dataset
    attack = TargetedBitTrojan()
    for name in ("pillow_bilinear", "opencv_linear"):
        with pytest.raises(FieldError, match=f"trigger: is made with gradients, which {name} has none of"):
            attack.check(dataclasses.replace(dataset, scaler=Scaler(name, (4, 4))))
    attack.check(dataclasses.replace(dataset, scaler=Scaler("interpolate_bilinear", (4, 4))))
