"""int8 in two's complement against NumPy's own bit operations."""

import numpy as np
import pytest
import torch
from torch import nn

from fedrobust.attacks.deployed_model.quantisation import (
    BIT_VALUES,
    Flip,
    StoredModel,
    bits_of,
    codes_of,
    count_bit_flips,
    count_changed_weights,
    dequantise,
    flip_bit_,
    quantise,
    quantised,
    random_flips,
    unquantised,
)

ALL_CODES = torch.arange(-128, 128).to(torch.int8)


@pytest.mark.parametrize("bit", range(8))
def test_a_flip_is_numpys_exclusive_or(bit):
    """All 256 codes: `np.int8` seen as `np.uint8`, xor 1 << bit, seen as `np.int8` again."""
    codes = ALL_CODES.clone()
    for index in range(256):
        flip_bit_(codes, index, bit)
    expected = (ALL_CODES.numpy().view(np.uint8) ^ np.uint8(1 << bit)).view(np.int8)
    assert np.array_equal(codes.numpy(), expected)
    worth = codes.long() - ALL_CODES.long()
    assert torch.equal(worth.abs(), torch.full((256,), 1 << bit))


def test_bits_are_numpys_and_add_up_to_the_code():
    bits = bits_of(ALL_CODES)
    expected = np.unpackbits(ALL_CODES.numpy().view(np.uint8)[:, None], axis=1, bitorder="little")
    assert np.array_equal(bits.numpy(), expected)
    assert torch.equal((bits * BIT_VALUES).sum(dim=1), ALL_CODES.long())
    assert torch.equal(codes_of(bits), ALL_CODES)


def test_weights_are_rounded_to_the_nearest_code():
    """Against NumPy in float64: the largest weight becomes ±127, and no weight moves by more than half a step."""
    weights = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    codes, step = quantise(weights)
    exact = weights.double().numpy()
    assert step == pytest.approx(np.abs(exact).max() / 127, rel=1e-6)
    assert np.array_equal(codes.numpy(), np.rint(exact / step).astype(np.int8))
    assert int(codes.abs().max()) == 127
    assert np.abs(dequantise(codes, step).double().numpy() - exact).max() <= step / 2 * (1 + 1e-5)


def test_a_layer_of_zeros_stays_zero():
    codes, step = quantise(torch.zeros(3, 2))
    assert torch.equal(dequantise(codes, step), torch.zeros(3, 2))


def network() -> nn.Module:
    torch_state = torch.Generator().manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5))
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_state)
    return module


def test_matrices_and_filters_are_quantised_and_biases_are_not():
    module = network()
    stored = quantised(module)
    assert sorted(stored.codes) == ["0.weight", "2.weight"]
    assert stored.num_bits == 8 * (2 * 9 + 40)
    values = stored.parameters()
    for name, parameter in module.named_parameters():
        is_float = name.endswith("bias")
        assert torch.equal(values[name], parameter) == is_float
        torch.testing.assert_close(values[name], parameter.detach(), atol=stored.steps.get(name, 0) / 2 + 1e-6, rtol=0)


def test_flips_leave_the_original_alone_and_undo_one_another():
    stored = quantised(network())
    kept = {name: codes.clone() for name, codes in stored.codes.items()}
    flips = [Flip("0.weight", 3, 7), Flip("2.weight", 11, 0), Flip("0.weight", 3, 2)]
    flipped = stored.flipped(*flips)
    assert all(torch.equal(stored.codes[name], kept[name]) for name in kept)
    assert (count_bit_flips(stored, flipped), count_changed_weights(stored, flipped)) == (3, 2)
    assert count_bit_flips(stored, flipped.flipped(*reversed(flips))) == 0


def test_flips_are_counted_as_numpy_counts_them():
    """Codes and float32 parameters that differ at random, against `np.bitwise_count` of the exclusive or."""
    generator = torch.Generator().manual_seed(2)
    before, after = (
        StoredModel(
            {"w": torch.randint(-128, 128, (6, 7), generator=generator).to(torch.int8)},
            {"w": 0.1},
            {"b": torch.randn(9, generator=generator)},
        )
        for _ in range(2)
    )
    expected = sum(
        int(np.unpackbits(one.numpy().view(np.uint8) ^ other.numpy().view(np.uint8)).sum())
        for one, other in ((before.codes["w"], after.codes["w"]), (before.floats["b"], after.floats["b"]))
    )
    assert count_bit_flips(before, after) == expected > 0


def test_a_float32_model_is_counted_in_its_own_bits():
    stored = unquantised(network())
    values = stored.floats["2.bias"].clone()
    values[1] = -values[1]
    assert count_bit_flips(stored, StoredModel({}, {}, {**stored.floats, "2.bias": values})) == 1  # the sign
    assert stored.num_bits == 32 * sum(parameter.numel() for parameter in network().parameters())


def test_random_flips_are_different_bits_of_all_layers():
    stored = quantised(network())
    flips = random_flips(stored, stored.num_bits, torch.Generator().manual_seed(3))
    assert len(set(flips)) == stored.num_bits
    inverted = stored.flipped(*flips)
    for name, codes in stored.codes.items():
        assert np.array_equal(inverted.codes[name].numpy(), ~codes.numpy())
    few = random_flips(stored, 17, torch.Generator().manual_seed(4))
    assert count_bit_flips(stored, stored.flipped(*few)) == 17
    assert few == random_flips(stored, 17, torch.Generator().manual_seed(4))
