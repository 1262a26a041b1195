"""The bag of words against counts times embeddings, and under torch.func."""

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from fedrobust.models import MLP, TextBag
from fedrobust.seeds import seeded_initialisation


def build(seed: int = 0) -> torch.nn.Module:
    with seeded_initialisation(seed, "model"):
        return TextBag(vocabulary_size=20, embedding_size=4).build((6,), 3)


def texts() -> torch.Tensor:
    return torch.randint(20, (5, 6), generator=torch.Generator().manual_seed(0)).float()


def test_it_is_linear_in_the_counts_of_words():
    """logits = W E^T counts / length + b; 20 x 4 + 4 x 3 + 3 parameters."""
    model = build()
    counts = torch.stack([(texts() == word).sum(dim=1) for word in range(20)], dim=1).float()
    expected = counts @ model.embedding.weight / 6 @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(texts()), expected)
    assert sum(parameter.numel() for parameter in model.parameters()) == 95


def test_many_models_run_at_once():
    models = [build(seed) for seed in range(3)]
    parameters, _ = stack_module_state(models)
    inputs = texts()
    together = vmap(lambda one: functional_call(models[0], one, (inputs,)))(parameters)
    torch.testing.assert_close(together, torch.stack([model(inputs) for model in models]))


def test_it_reads_rows_of_words_alone():
    with pytest.raises(ValueError, match=r"TextBag takes texts \(length,\), got \(1, 8, 8\)"):
        TextBag().build((1, 8, 8), 10)
    assert MLP.has_convolutions == TextBag.has_convolutions
