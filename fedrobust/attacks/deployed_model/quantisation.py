"""Weights as they lie in memory: int8 in two's complement, one step a layer, and bits that can be flipped.

A. S. Rakin, Z. He, D. Fan, "Bit-Flip Attack: Crushing Neural Network with Progressive Bit Search", ICCV 2019,
https://arxiv.org/abs/1903.12269 (section 3.1: weights of b bits, step = max|W| / (2^(b-1) - 1))
Departs: nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

NUM_BITS = 8
BIT_VALUES = torch.tensor([1, 2, 4, 8, 16, 32, 64, -128])
"""`(8,)`: what each bit of an int8 is worth, from the least significant to the sign."""


@dataclass(frozen=True)
class Flip:
    """One bit in memory: a parameter, the weight's place in it when flattened, and the bit, 7 being the sign."""

    name: str
    index: int
    bit: int


@dataclass(frozen=True, eq=False)
class StoredModel:
    """The parameters of a model as they lie in memory.

    Attributes:
        codes: by name, int8; a weight is its code times its layer's step.
        steps: by name, the steps of the codes.
        floats: by name, float32: what is not quantised.
    """

    codes: Mapping[str, Tensor]
    steps: Mapping[str, float]
    floats: Mapping[str, Tensor]

    @property
    def num_bits(self) -> int:
        """The bits of all codes; of all parameters, if there are no codes."""
        stored = self.codes or self.floats
        return sum(values.numel() * values.element_size() * 8 for values in stored.values())

    def parameters(self) -> dict[str, Tensor]:
        """By name, what the model computes with, float32."""
        weights = {name: dequantise(codes, self.steps[name]) for name, codes in self.codes.items()}
        return {**self.floats, **weights}

    def flipped(self, *flips: Flip) -> "StoredModel":
        """The same with these bits of its codes flipped, one after the other."""
        codes = dict(self.codes)
        for name in dict.fromkeys(flip.name for flip in flips):
            codes[name] = codes[name].clone()
        for flip in flips:
            flip_bit_(codes[flip.name], flip.index, flip.bit)
        return replace(self, codes=codes)

    def with_codes(self, name: str, codes: Tensor) -> "StoredModel":
        """The same with other codes for one parameter."""
        return replace(self, codes={**self.codes, name: codes})


def quantised(module: nn.Module) -> StoredModel:
    """A model whose matrices and filters are int8; biases and the scales of normalisation stay float32."""
    codes, steps, floats = {}, {}, {}
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2:
            codes[name], steps[name] = quantise(parameter.detach())
        else:
            floats[name] = parameter.detach().clone()
    return StoredModel(codes, steps, floats)


def unquantised(module: nn.Module) -> StoredModel:
    """A model whose parameters are all float32."""
    return StoredModel({}, {}, {name: parameter.detach().clone() for name, parameter in module.named_parameters()})


def quantise(weights: Tensor) -> tuple[Tensor, float]:
    """Codes int8 in -127..127 of the same shape, and their step, max|W| / 127 (1 where all weights are zero)."""
    largest = float(weights.abs().max())
    step = largest / 127 if largest > 0 else 1.0
    return (weights / step).round().clamp(-127, 127).to(torch.int8), step


def dequantise(codes: Tensor, step: float) -> Tensor:
    """Codes times step, float32."""
    return codes.float() * step


def bits_of(codes: Tensor) -> Tensor:
    """The bits `(..., 8)` of int8 codes `(...)`, 0 or 1 in int64, least significant first."""
    places = torch.arange(NUM_BITS, device=codes.device)
    return (codes.view(torch.uint8).long().unsqueeze(-1) >> places) & 1


def codes_of(bits: Tensor) -> Tensor:
    """The int8 codes `(...)` of bits `(..., 8)`."""
    return (bits.long() * BIT_VALUES.to(bits.device)).sum(dim=-1).to(torch.int8)


def flip_bit_(codes: Tensor, index: int, bit: int) -> None:
    """Flip one bit of one int8 code, in place; `index` counts through the flattened tensor."""
    codes.view(-1).view(torch.uint8)[index] ^= 1 << bit


def count_bit_flips(before: StoredModel, after: StoredModel) -> int:
    """In how many bits two stored models differ, in codes and in float32 parameters."""
    total = 0
    for old, new in [
        *((before.codes[name], after.codes[name]) for name in before.codes),
        *((before.floats[name], after.floats[name]) for name in before.floats),
    ]:
        difference = old.contiguous().view(torch.uint8) ^ new.contiguous().view(torch.uint8)
        total += int(bits_of(difference.view(torch.int8)).sum())
    return total


def count_changed_weights(before: StoredModel, after: StoredModel) -> int:
    """How many parameters two stored models differ in."""
    old, new = before.parameters(), after.parameters()
    return sum(int((old[name] != new[name]).sum()) for name in old)


def random_flips(stored: StoredModel, count: int, generator: torch.Generator) -> list[Flip]:
    """`count` different bits of the codes, uniformly drawn: the control of every attack on bits."""
    names = list(stored.codes)
    sizes = [stored.codes[name].numel() * NUM_BITS for name in names]
    flips = []
    for place in torch.randperm(sum(sizes), generator=generator)[:count].tolist():
        layer = 0
        while place >= sizes[layer]:
            place -= sizes[layer]
            layer += 1
        flips.append(Flip(names[layer], place // NUM_BITS, place % NUM_BITS))
    return flips
