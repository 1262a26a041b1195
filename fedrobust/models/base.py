"""What a config names as its model."""

from typing import ClassVar, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Architecture(Protocol):
    """An architecture: it builds models that take normalised inputs `(B, *input_shape)` to logits `(B, num_classes)`.

    Models run under `torch.func.functional_call` and, but for batch normalisation, under `torch.func.vmap`.
    """

    has_convolutions: ClassVar[bool]
    """Whether the model convolves, so that training many at once pays on a GPU only."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model, initialised from torch's global generator, which the caller seeds (`seeded_initialisation`)."""
        ...
