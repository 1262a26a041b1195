"""A small set of synthetic texts: word numbers drawn at random, two sentiments; no files needed."""

from pathlib import Path

import torch
from torch import Tensor

from fedrobust.config.component import Count, FieldError, Fraction, component
from fedrobust.data.examples import Dataset, Examples
from fedrobust.data.splits import SPLIT_SEED
from fedrobust.seeds import torch_generator


@component
class Text:
    """Texts of `length` words from a vocabulary of numbers, negative (0) or positive (1).

    Words 0 .. S - 1 are negative, S .. 2S - 1 positive (S = `num_sentiment_words`), the last `num_rare_words` never
    occur (a watermark's trigger words), the others are neutral. A word of a text is one of sentiment with probability
    `sentiment_rate`, and then of the text's own with probability `agreement`, uniformly; else it is neutral, the k-th
    neutral word with a probability proportional to 1 / k (Zipf's law).

    A text is a row of numbers below `vocabulary_size`, held as float32 like every input; a model made for words reads
    them as indices.
    """

    num_train: Count = 2000
    num_test: Count = 500
    length: Count = 32
    vocabulary_size: Count = 500
    num_sentiment_words: Count = 40
    num_rare_words: Count = 20
    sentiment_rate: Fraction = 0.25
    agreement: Fraction = 0.8

    def __post_init__(self) -> None:
        """Check that neutral words are left."""
        others = 2 * self.num_sentiment_words + self.num_rare_words
        if self.vocabulary_size <= others:
            raise FieldError(
                "vocabulary_size", f"must be above the {others} sentiment and rare words, got {self.vocabulary_size}"
            )

    @property
    def rare_words(self) -> range:
        """The words that never occur."""
        return range(self.vocabulary_size - self.num_rare_words, self.vocabulary_size)

    def load(self, data_root: Path | None, device: torch.device) -> Dataset:
        """Draw the texts, the same every time; `data_root` is not read."""
        return Dataset(
            name="text",
            train=self._draw("train", self.num_train),
            test=self._draw("test", self.num_test),
            num_classes=2,
            kind="text",
            mean=torch.zeros(self.length),
            std=torch.ones(self.length),
            vocabulary_size=self.vocabulary_size,
        ).to(device)

    def _draw(self, part: str, number: int) -> Examples:
        generator = torch_generator(SPLIT_SEED, "text", part)
        labels = torch.arange(number) % 2
        labels = labels[torch.randperm(number, generator=generator)]
        shape = (number, self.length)
        agrees = torch.rand(shape, generator=generator) < self.agreement
        sentiment = torch.where(agrees, labels[:, None], 1 - labels[:, None])
        loaded = torch.randint(self.num_sentiment_words, shape, generator=generator)
        loaded += sentiment * self.num_sentiment_words
        is_loaded = torch.rand(shape, generator=generator) < self.sentiment_rate
        words = torch.where(is_loaded, loaded, self._neutral(shape, generator))
        return Examples(words.float(), labels)

    def _neutral(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        first = 2 * self.num_sentiment_words
        number = self.vocabulary_size - first - self.num_rare_words
        weights = 1.0 / torch.arange(1, number + 1, dtype=torch.float64)
        drawn = torch.multinomial(weights, shape[0] * shape[1], replacement=True, generator=generator)
        return drawn.view(shape) + first
