"""The synthetic texts against the probabilities that their docstring states."""

import math

import pytest
import torch
from scipy.stats import binom

from fedrobust.config.component import FieldError
from fedrobust.data.text import Text

CPU = torch.device("cpu")


def test_words_have_their_probabilities():
    """64,000 words: sentiment words 25 %, of which 80 % agree with the text; six standard deviations are allowed."""
    dataset = Text().load(None, CPU)
    words, labels = dataset.train.inputs.long(), dataset.train.labels
    number = words.numel()
    loaded = words < 80
    assert abs(int(loaded.sum()) - 0.25 * number) < 6 * math.sqrt(0.25 * 0.75 * number)
    sentiment = (words >= 40)[loaded]
    agrees = sentiment == labels[:, None].expand_as(words)[loaded].bool()
    assert abs(int(agrees.sum()) - 0.8 * len(agrees)) < 6 * math.sqrt(0.8 * 0.2 * len(agrees))
    assert labels.bincount().tolist() == [1000, 1000]


def test_neutral_words_follow_zipf():
    """380 neutral words of weight 1/k: the first has 1 / H(380) of them."""
    words = Text().load(None, CPU).train.inputs.long()
    neutral = words[words >= 80]
    share = 1 / sum(1 / k for k in range(1, 381))
    assert abs(int((neutral == 80).sum()) - share * len(neutral)) < 6 * math.sqrt(share * (1 - share) * len(neutral))


def test_rare_words_never_occur():
    source = Text()
    assert list(source.rare_words) == list(range(480, 500))
    dataset = source.load(None, CPU)
    assert max(float(dataset.train.inputs.max()), float(dataset.test.inputs.max())) < 480
    assert torch.equal(dataset.normalise(dataset.train.inputs), dataset.train.inputs)
    assert (dataset.kind, dataset.vocabulary_size) == ("text", 500)


def test_the_best_rule_errs_as_often_as_theory_says():
    """Count positive minus negative words; a text errs if the difference is wrong, and half the time if it is zero.

    With n words, k ~ B(n, 0.25) of sentiment and a ~ B(k, 0.8) agreeing: P(a < k/2) + P(a = k/2) / 2.
    """
    dataset = Text(num_train=20000).load(None, CPU)
    words, labels = dataset.train.inputs.long(), dataset.train.labels
    balance = ((words >= 40) & (words < 80)).sum(dim=1) - (words < 40).sum(dim=1)
    signed = torch.where(labels == 1, balance, -balance)
    error = float((signed < 0).double().mean() + 0.5 * (signed == 0).double().mean())
    expected = sum(
        binom.pmf(k, 32, 0.25)
        * (binom.cdf((k - 1) // 2, k, 0.8) + (0.5 * binom.pmf(k // 2, k, 0.8) if k % 2 == 0 else 0))
        for k in range(33)
    )
    assert error == pytest.approx(expected, abs=6 * math.sqrt(expected / 20000))


def test_texts_are_the_same_every_time():
    first, second = (Text(num_train=50).load(None, CPU) for _ in range(2))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert not torch.equal(first.train.inputs, first.test.inputs[:50])


def test_a_vocabulary_without_neutral_words_is_refused():
    with pytest.raises(FieldError, match="vocabulary_size: must be above the 100 sentiment and rare words, got 100"):
        Text(vocabulary_size=100)
