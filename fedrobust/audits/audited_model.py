"""A model as an audit sees it: raw inputs in, logits or features out."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedrobust.data.examples import Dataset
from fedrobust.models.features import FeatureExtractor
from fedrobust.parameters import ParameterLayout, load_into
from fedrobust.training.loop import channels_last
from fedrobust.types import Buffers, Vector


@dataclass(frozen=True, eq=False)
class AuditedModel:
    """A model and what normalises its inputs. Nothing here changes the model, its mode, or leaves hooks on it.

    Attributes:
        module: takes normalised inputs `(B, ...)` to logits `(B, num_classes)`.
        normalise: takes raw inputs `(B, ...)` to what the module takes, on the same device.
        batch_size: inputs in a forward pass.
    """

    module: nn.Module
    normalise: Callable[[Tensor], Tensor]
    batch_size: int = 250

    @classmethod
    def from_parameters(cls, model: nn.Module, vector: Vector, buffers: Buffers, dataset: Dataset) -> "AuditedModel":
        """A copy of `model` with the parameters `(d,)` and the buffers, on raw inputs of `dataset`."""
        module = copy.deepcopy(model)
        load_into(module, ParameterLayout.of(model).views(vector), buffers)
        return cls(module, dataset.normalise)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.module.parameters()).device

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of raw inputs `(N, ...)`, in evaluation mode, on the model's device."""
        return self._in_batches(self.module, inputs)

    @torch.no_grad()
    def features(self, inputs: Tensor, layer: str | None = None) -> Tensor:
        """Features `(N, F)` of raw inputs `(N, ...)` at `layer`, in evaluation mode, on the model's device.

        Args:
            inputs: raw.
            layer: a name of `torchvision.models.feature_extraction.get_graph_node_names`; `None` is the penultimate
                layer, whose output the head reads.

        Raises:
            ValueError: no such layer; the message names those that there are.
        """
        with evaluation_mode(self.module):  # tracing gives the parts of a module the mode of the whole
            extractor = FeatureExtractor(self.module, layer)
            return self._in_batches(extractor, inputs)

    def _in_batches(self, function: nn.Module, inputs: Tensor) -> Tensor:
        with evaluation_mode(self.module):
            batches = inputs.split(self.batch_size)
            return torch.cat([function(channels_last(self.normalise(batch.to(self.device)))) for batch in batches])


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while; every part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training
