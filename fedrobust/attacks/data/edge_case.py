"""Edge-case backdoor: inputs from the tail of a class, which hardly any benign client holds, get a wrong label.

Wang, Sreenivasan, Rajput, Vishwakarma, Agarwal, Sohn, Lee, Papailiopoulos, "Attack of the Tails: Yes, You Really Can
Backdoor Federated Learning", NeurIPS 2020, https://arxiv.org/abs/2007.05084
Departs: the paper collects its tails (digits of Swedish writers for EMNIST, aeroplanes of one airline for CIFAR-10);
here they are made from the source class, which is turned and slanted by a fixed amount. So every data set of pictures
has edge cases, those of the test set are held out by construction, and no benign client holds any (the paper also
gives some of them, rightly labelled, to benign clients).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedrobust.attacks.data.dirty_label import PoisonRate, check_classes, draw, stamped, wanted_labels
from fedrobust.attacks.triggers.base import picture_shape
from fedrobust.config.component import FieldError, Index, component
from fedrobust.data.datasets import Examples


@dataclass(frozen=True)
class Slant:
    """Turn a picture about its middle by `rotation` degrees, anticlockwise, then slant it by `shear`."""

    rotation: float
    shear: float

    def stamp(self, inputs: Tensor) -> Tensor:
        """Pictures `(..., C, H, W)`, turned; bilinear, black where nothing was; a new tensor."""
        if inputs.numel() == 0:  # torch's grids need a picture
            return inputs.clone()
        height, width = inputs.shape[-2:]
        angle = math.radians(self.rotation)
        # grid_sample asks where each pixel comes from, in units of half a picture: the inverse map.
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        back = turn @ torch.tensor([[1.0, self.shear], [0.0, 1.0]])
        halves = torch.tensor([width / 2, height / 2])
        theta = torch.cat([back * halves / halves[:, None], torch.zeros(2, 1)], dim=1).to(inputs)
        pictures = inputs.reshape(-1, *inputs.shape[-3:])
        grid = functional.affine_grid(theta.expand(len(pictures), 2, 3), list(pictures.shape), align_corners=False)
        return functional.grid_sample(pictures, grid, align_corners=False).reshape(inputs.shape)


@component
class EdgeCase:
    """Attackers train on edge cases of `source_label`, labelled as the target, besides their own clean examples.

    Attributes:
        source_label: the class whose tail is attacked; ordinary examples of it stay right.
        target_label: the class that the edge cases should be taken for.
        rotation: degrees by which a picture is turned, anticlockwise, to make an edge case of it. What a clean model
            makes of such pictures is the control, and a benign twin is played by default: a 7 turned by 60 degrees
            looks much like a 1.
        shear: columns by which each row is then moved to the right of the row below.
        poison_rate: number of edge cases, as a fraction of the attacker's local examples; at most one for each local
            example of the source class. A fresh choice every round.
    """

    source_label: Index = 7
    target_label: Index = 1
    rotation: float = 90.0
    shear: float = 0.0
    poison_rate: PoisonRate = 0.3

    def __post_init__(self) -> None:
        """Check that there is something to attack."""
        check_classes(self.target_label, self.source_label)
        if self.rotation % 360 == 0 and self.shear == 0:
            raise FieldError("rotation", f"must turn the picture, or shear must slant it, got {self.rotation} and 0")

    def local_triggers(self, input_shape: tuple[int, ...]) -> tuple[Slant, ...]:
        """What makes an edge case of a picture.

        Raises:
            FieldError: the inputs are not pictures.
        """
        try:
            picture_shape(input_shape)
        except FieldError as error:
            raise FieldError("rotation", error.message) from None
        return (Slant(self.rotation, self.shear),)

    def poison(self, examples: Examples, attacker: int, generator: torch.Generator) -> Examples:
        """The examples, and edge cases after them."""
        (slant,) = self.local_triggers(tuple(examples.inputs.shape[1:]))
        edge = examples.subset(draw(examples.labels == self.source_label, self.poison_rate, generator))
        edge = stamped(edge, torch.arange(len(edge), device=edge.labels.device), slant, self.target_label)
        return Examples(torch.cat([examples.inputs, edge.inputs]), torch.cat([examples.labels, edge.labels]))

    def poison_batch(self, batch: Examples, attacker: int) -> Examples:
        """Batches stay as they are."""
        return batch

    def wanted_labels(self, test: Examples) -> Tensor:
        """The target, for the edge cases of the test set."""
        return wanted_labels(test.labels, self.target_label, self.source_label)
