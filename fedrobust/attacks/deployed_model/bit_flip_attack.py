"""Bit-flip attack (BFA): progressive bit search for the few bits of an int8 model that ruin it.

A. S. Rakin, Z. He, D. Fan, "Bit-Flip Attack: Crushing Neural Network with Progressive Bit Search", ICCV 2019,
https://arxiv.org/abs/1903.12269
Departs: a bit is flipped at most once, so that the number of flips is that of changed bits. One bit a layer is tried,
and the best is flipped even if it does not raise the loss; the authors' code (https://github.com/elliothe/BFA) then
tries two bits a layer, three, and so on. As there, the loss is taken at the model's own first answers, so that the
attacker needs no labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedrobust.attacks.base import ReceivedModel
from fedrobust.attacks.deployed_model.base import Tampering, clean_samples
from fedrobust.attacks.deployed_model.quantisation import BIT_VALUES, Flip, StoredModel, bits_of, quantised
from fedrobust.config.component import Count, component
from fedrobust.data.datasets import Dataset


@component
class BitFlipAttack:
    """Round after round, flip the one bit of all layers that raises the loss most (untargeted).

    Attributes:
        num_flips: bits that are flipped, one a round; fewer if no flip raises the loss by its gradient.
        num_candidates: weights of each layer, those of the largest gradient, whose bits are looked at.
        num_samples: clean inputs that the attacker holds, without labels.
    """

    num_flips: Count = 20
    num_candidates: Count = 10
    num_samples: Count = 128

    def check(self, dataset: Dataset) -> None:
        """Any data set will do."""

    def tamper(self, received: ReceivedModel, generator: torch.Generator) -> Tampering:
        """The int8 model before and after the flips."""
        module, dataset = received.module(), received.dataset
        released = quantised(module)
        inputs = dataset.normalise(clean_samples(dataset, self.num_samples, generator).inputs)
        return Tampering(released, released.flipped(*self.search(module, released, inputs)))

    def search(self, module: nn.Module, stored: StoredModel, inputs: Tensor) -> list[Flip]:
        """The bits to flip, in order; fewer flips are the beginning of more.

        Args:
            module: the model in evaluation mode, changed in place.
            stored: its int8 weights.
            inputs: normalised, `(num_samples, ...)`.
        """
        parameters = dict(module.named_parameters())
        load(module, stored)
        with torch.no_grad():
            answers = module(inputs).argmax(dim=1)
        flips: list[Flip] = []
        for _ in range(self.num_flips):
            weights = [parameters[name].requires_grad_() for name in stored.codes]
            gradients = torch.autograd.grad(F.cross_entropy(module(inputs), answers), weights)
            best, best_loss = None, -torch.inf
            for name, gradient in zip(stored.codes, gradients, strict=True):
                flip = self._best_of_layer(name, stored, gradient, flips)
                if flip is None:
                    continue
                loss = _loss_with(module, stored, flip, inputs, answers)
                if loss > best_loss:
                    best, best_loss = flip, loss
            if best is None:
                break
            stored = stored.flipped(best)
            load(module, stored, best.name)
            flips.append(best)
        module.requires_grad_(False)
        return flips

    def _best_of_layer(self, name: str, stored: StoredModel, gradient: Tensor, flipped: list[Flip]) -> Flip | None:
        """Of the weights with the largest gradients, the bit whose gradient is largest and points where it can go."""
        gradient = gradient.flatten()
        weights = gradient.abs().topk(min(self.num_candidates, len(gradient))).indices
        bits = bits_of(stored.codes[name].flatten()[weights])
        slopes = gradient[weights].unsqueeze(1) * stored.steps[name] * BIT_VALUES.to(gradient)
        gains = slopes * (1 - 2 * bits)  # a bit that is 1 can only fall, one that is 0 only rise
        for row, index in enumerate(weights.tolist()):
            for flip in flipped:
                if flip.name == name and flip.index == index:
                    gains[row, flip.bit] = -torch.inf
        place = int(gains.argmax())
        if float(gains.flatten()[place]) <= 0:
            return None
        return Flip(name, int(weights[place // 8]), place % 8)


@torch.no_grad()
def load(module: nn.Module, stored: StoredModel, *names: str) -> None:
    """Put stored parameters (of these `names`, or all) into a module, in place."""
    values = stored.parameters()
    for name, parameter in module.named_parameters():
        if not names or name in names:
            parameter.copy_(values[name])


@torch.no_grad()
def _loss_with(module: nn.Module, stored: StoredModel, flip: Flip, inputs: Tensor, answers: Tensor) -> float:
    """The loss that the flip would lead to; the module is put back."""
    weights = module.get_parameter(flip.name).view(-1)
    kept = weights[flip.index].clone()
    code = int(stored.codes[flip.name].flatten()[flip.index])
    was_set = (code >> flip.bit) & 1
    weights[flip.index] += (1 - 2 * was_set) * float(BIT_VALUES[flip.bit]) * stored.steps[flip.name]
    loss = float(F.cross_entropy(module(inputs), answers))
    weights[flip.index] = kept
    return loss
