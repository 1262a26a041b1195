"""A bag of words: the mean of a text's word embeddings, then a linear layer.

A. Joulin, E. Grave, P. Bojanowski, T. Mikolov, "Bag of tricks for efficient text classification", EACL 2017,
https://arxiv.org/abs/1607.01759
Departs: no n-grams; a softmax over all classes.
"""

from typing import ClassVar

from torch import Tensor, nn

from fedrobust.config.component import Count, component


@component
class TextBag:
    """Mean of embeddings, then a linear layer; for texts alone."""

    vocabulary_size: Count = 500
    """Words are numbers below this, as the data set has it."""
    embedding_size: Count = 16
    """Numbers that stand for a word."""

    has_convolutions: ClassVar[bool] = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A new model, with torch's default initialisation.

        Raises:
            ValueError: inputs that are not rows of words.
        """
        if len(input_shape) != 1:
            raise ValueError(f"TextBag takes texts (length,), got {tuple(input_shape)}")
        return _Bag(self.vocabulary_size, self.embedding_size, num_classes)


class _Bag(nn.Module):
    """Linear(mean(embedding of each word))."""

    def __init__(self, vocabulary_size: int, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.output = nn.Linear(embedding_size, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.output(self.embedding(inputs.long()).mean(dim=-2))
        return logits
