"""What a model makes of its inputs before its last layer: features, and the head that reads them."""

from typing import cast

import torch
from torch import Tensor, fx, nn

# torchvision is imported where it is used: it takes a second, and most runs look at no features.


def head_name(model: nn.Module) -> str:
    """The name of the model's head, its last linear layer in the order of the forward pass.

    Raises:
        ValueError: the model has no linear layer.
    """
    return _head_node(model)[0]


def feature_layer(model: nn.Module) -> str:
    """The name of the penultimate layer: the node whose output is the head's input.

    Names are those of `torchvision.models.feature_extraction.get_graph_node_names`.

    Raises:
        ValueError: the model has no linear layer.
    """
    _, node, names = _head_node(model)
    return names[cast(fx.Node, node.args[0])]


class FeatureExtractor(nn.Module):
    """A model up to a named layer, sharing its parameters; it leaves no hooks, and gradients flow through it.

    Args:
        model: a model that `torch.fx` can trace; its mode (training or evaluation) is that of the extractor too, and is
            left as it is.
        layer: the layer whose output is wanted; `None` is the penultimate one.

    Raises:
        ValueError: no such layer; the message names those that there are.
    """

    def __init__(self, model: nn.Module, layer: str | None = None) -> None:
        from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

        super().__init__()
        self.layer = feature_layer(model) if layer is None else layer
        names = get_graph_node_names(model)[0]
        if self.layer not in names:
            raise ValueError(f"feature layer must be one of {', '.join(names[1:])}, got {self.layer!r}")
        was_training = model.training
        self._extractor = create_feature_extractor(model, [self.layer])
        model.train(was_training)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features `(B, F)` of what the model takes, `(B, ...)`; feature maps are flattened."""
        return torch.flatten(self._extractor(inputs)[self.layer], start_dim=1)


def _head_node(model: nn.Module) -> tuple[str, fx.Node, dict[fx.Node, str]]:
    from torchvision.models.feature_extraction import NodePathTracer

    was_training = model.training
    tracer = NodePathTracer()
    graph = tracer.trace(model.eval())
    model.train(was_training)
    modules = dict(model.named_modules())
    for node in reversed(graph.nodes):
        if node.op == "call_module" and isinstance(modules.get(str(node.target)), nn.Linear):
            return str(node.target), node, dict(tracer.node_to_qualname)
    raise ValueError(f"features are the input of a model's last linear layer, and {type(model).__name__} has none")
