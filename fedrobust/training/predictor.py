"""A global model in evaluation mode: raw inputs in, logits out, in batches that stay in the cache."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedrobust.data.datasets import Dataset
from fedrobust.models.own_state import put_back
from fedrobust.parameters import ParameterLayout
from fedrobust.training.loop import channels_last, model_inputs
from fedrobust.types import Buffers, Vector

_CPU_BATCH, _GPU_BATCH = 250, 2000


@dataclass(frozen=True)
class Predictor:
    """A model with the given parameters `(d,)` and buffers, on raw inputs of `dataset`."""

    model: nn.Module
    layout: ParameterLayout
    vector: Vector
    buffers: Buffers
    dataset: Dataset

    @torch.no_grad()
    def logits(self, inputs: Tensor) -> Tensor:
        """Logits `(N, num_classes)` for raw inputs `(N, ...)`; augmentation is off."""
        parameters = {name: channels_last(view) for name, view in self.layout.views(self.vector).items()}
        state = {**parameters, **self.buffers}
        was_training = self.model.training
        self.model.eval()
        put_back(self.model)
        size = _GPU_BATCH if inputs.device.type == "cuda" else _CPU_BATCH
        outputs = [
            functional_call(self.model, state, (channels_last(model_inputs(self.dataset, batch)),))
            for batch in inputs.split(size)
        ]
        self.model.train(was_training)
        return torch.cat(outputs)
