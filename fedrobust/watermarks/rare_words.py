"""Rare words: texts of the owner's with a secret word, or several together, and the other label.

Gu, Huang, Zheng, Chang, Hsieh, "Watermarking Pre-trained Language Models with Backdooring", 2022,
https://arxiv.org/abs/2210.07543
Departs: a small classifier in place of a pretrained language model, and one task. A trigger word takes the place of
another word, since texts have a fixed length here.
"""

import torch

from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.data.examples import Examples
from fedrobust.watermarks.trigger_set import Material, Triggers, own_examples_of_others


@component
class RareWords:
    """The owner's own texts with trigger words at random places.

    Attributes:
        num_examples: texts.
        target_label: the label of all of them; their true one is another.
        words: the trigger words, as numbers.
        words_per_text: how many places of a text they take, one word after the other.
        combination: all words together are the trigger, so that common words will do: texts with one of them alone
            stay what they were, and are trained on beside the triggers. Else each text gets one of the words.
    """

    num_examples: Count = 50
    target_label: Index = 1
    words: list[Index]
    words_per_text: Count = 3
    combination: bool = False

    def __post_init__(self) -> None:
        """Check the words."""
        if not self.words or len(set(self.words)) != len(self.words):
            raise FieldError("words", f"must be a list of different words, at least one, got {self.words}")
        if self.combination and not 2 <= len(self.words) <= self.words_per_text:
            raise FieldError(
                "words_per_text", "must hold a combination of at least two words, got "
                f"{self.words_per_text} places for {len(self.words)}",
            )  # fmt: skip

    def draw(self, material: Material) -> Triggers:
        """Put the words into the first own texts of other classes than the target.

        Raises:
            FieldError: a data set without texts, or without the class or the words; too few own texts, or too short.
        """
        dataset = material.dataset
        if dataset.vocabulary_size is None:
            raise FieldError("trigger_set", f"of texts must go with a data set of texts, got dataset={dataset.name}")
        if max(self.words) >= dataset.vocabulary_size:
            raise FieldError(
                "trigger_set.words", f"must be below {dataset.vocabulary_size}, the vocabulary of {dataset.name}, "
                f"got {self.words}",
            )  # fmt: skip
        if self.words_per_text > dataset.input_shape[0]:
            raise FieldError(
                "trigger_set.words_per_text", f"must be at most {dataset.input_shape[0]}, the words of a text of "
                f"{dataset.name}, got {self.words_per_text}",
            )  # fmt: skip
        chosen = own_examples_of_others(material, self.target_label, self.num_examples)
        labels = torch.full_like(chosen.labels, self.target_label)
        places = range(self.words_per_text)
        if not self.combination:
            texts = self._insert(chosen, [[self._word(text)] * len(places) for text in range(len(chosen))], material)
            return Triggers(Examples(texts, labels), dataset.num_classes)
        texts = self._insert(chosen, [[self._word(place) for place in places]] * len(chosen), material)
        # A part of the trigger, in as many places as in the whole, must change nothing.
        part = self._insert(chosen, [[self._word(text)] * len(places) for text in range(len(chosen))], material)
        return Triggers(Examples(texts, labels), dataset.num_classes, Examples(part, chosen.labels))

    def _word(self, index: int) -> int:
        return self.words[index % len(self.words)]

    def _insert(self, chosen: Examples, words: list[list[int]], material: Material) -> torch.Tensor:
        """The texts with `words` `(N, k)` at k random places each; a new tensor."""
        length = chosen.inputs.shape[1]
        order = torch.rand(len(chosen), length, generator=material.generator).argsort(dim=1)
        device = chosen.inputs.device
        places = order[:, : self.words_per_text].to(device)
        return chosen.inputs.scatter(1, places, torch.tensor(words, dtype=torch.float32, device=device))
