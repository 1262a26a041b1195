"""Label flips on data whose every label can be counted by hand."""

import pytest
import torch

from fedrobust.attacks import LabelFlip
from fedrobust.config.component import FieldError
from fedrobust.data.datasets import Dataset, Examples


def examples(n: int = 100, num_classes: int = 10) -> Examples:
    """Grey pictures, labels 0..9 in turn."""
    return Examples(torch.full((n, 1, 4, 4), 0.5), torch.arange(n) % num_classes)


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_to_one_flips_every_other_class():
    clean = examples()
    flipped = LabelFlip(target_label=4).poison(clean, 0, generator())
    assert (flipped.labels == 4).all()
    assert torch.equal(flipped.inputs, clean.inputs)
    assert clean.labels.tolist() == [label % 10 for label in range(100)]


def test_source_to_target_flips_one_class():
    """10 examples of class 3 become 5s, so there are 20 of those; nothing else changes."""
    clean = examples()
    flipped = LabelFlip(target_label=5, source_label=3).poison(clean, 0, generator())
    assert flipped.labels.bincount(minlength=10).tolist() == [10, 10, 10, 0, 10, 20, 10, 10, 10, 10]
    assert torch.equal(flipped.labels != clean.labels, clean.labels == 3)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_the_rate_counts_all_examples(rate):
    clean = examples()
    changed = LabelFlip(target_label=4, poison_rate=rate).poison(clean, 0, generator()).labels != clean.labels
    assert int(changed.sum()) == round(rate * 100)


def test_a_rate_stops_at_what_can_be_flipped():
    clean = examples()
    changed = LabelFlip(target_label=4, source_label=1, poison_rate=0.5).poison(clean, 0, generator())
    assert int((changed.labels != clean.labels).sum()) == 10


def test_inverse_mirrors_the_classes():
    """c -> 9 - c, so with ten classes none stays; with an odd number the middle one does."""
    flipped = LabelFlip(flip="inverse").poison(examples(), 0, generator())
    assert flipped.labels.tolist() == [9 - label % 10 for label in range(100)]
    odd = LabelFlip(flip="inverse", num_classes=3).poison(examples(30, 3), 0, generator())
    assert odd.labels[:3].tolist() == [2, 1, 0]


def test_random_flips_are_uniform_over_the_other_classes():
    """9,000 flips of class 0 over 9 classes: 1,000 each, standard deviation 29.8; six of them are allowed."""
    clean = Examples(torch.zeros(9000, 1), torch.zeros(9000, dtype=torch.int64))
    labels = LabelFlip(flip="random").poison(clean, 0, generator()).labels
    counts = labels.bincount(minlength=10)
    assert int(counts[0]) == 0
    assert int((counts[1:] - 1000).abs().max()) < 6 * 29.8
    again = LabelFlip(flip="random").poison(clean, 0, generator()).labels
    other = LabelFlip(flip="random").poison(clean, 0, generator(4)).labels
    assert torch.equal(labels, again)
    assert not torch.equal(labels, other)


def test_what_is_wanted_of_the_test_set():
    test = examples(10)
    one = LabelFlip(target_label=4, source_label=2).wanted_labels(test)
    assert one.tolist() == [0, 1, 4, 3, 4, 5, 6, 7, 8, 9]
    assert LabelFlip(target_label=4).wanted_labels(test).tolist() == [4] * 10
    assert LabelFlip(flip="inverse").wanted_labels(test).tolist() == list(range(9, -1, -1))
    assert LabelFlip(flip="random").wanted_labels(test) is None
    assert LabelFlip().local_triggers((30,)) == ()


@pytest.mark.parametrize("flip", ["inverse", "random"])
def test_more_classes_than_said_are_refused(flip):
    attack = LabelFlip(flip=flip, num_classes=5)
    with pytest.raises(FieldError, match="num_classes: must be above every label, got 5 and a label 9"):
        attack.wanted_labels(examples())
    with pytest.raises(FieldError, match="num_classes: must be above every label"):
        attack.poison(examples(), 0, generator())


def of_classes(num_classes: int) -> Dataset:
    own = examples(4 * num_classes, num_classes)
    return Dataset("grey", own, own, num_classes, "image", torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


@pytest.mark.parametrize("flip", ["inverse", "random"])
@pytest.mark.parametrize("num_classes", [9, 12])
def test_flips_are_among_the_classes_of_the_data_set(flip, num_classes):
    """With more classes than there are, a flipped label would be none that the model has an output for."""
    with pytest.raises(FieldError, match=f"num_classes: must be 10 for {flip} flips, got {num_classes}"):
        LabelFlip(flip=flip, num_classes=num_classes).bind(of_classes(10), generator())
    attack = LabelFlip(flip=flip, num_classes=10)
    assert attack.bind(of_classes(10), generator()).poison(examples(), 0, generator()).labels.max() < 10


def test_what_a_flip_does_not_read_stands_in_nobodys_way():
    """Two classes, and a target label that only `to_target` would read."""
    bound = LabelFlip(flip="inverse", num_classes=2, target_label=2, source_label=5).bind(of_classes(2), generator())
    assert max(bound.target_label, bound.source_label or 0) < 2
    assert bound.poison(examples(4, 2), 0, generator()).labels.tolist() == [1, 0, 1, 0]
    assert LabelFlip(target_label=4).bind(of_classes(10), generator()) == LabelFlip(target_label=4)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"source_label": 0}, "source_label: must differ from target_label, got 0 for both"),
        ({"num_classes": 1}, "num_classes: must be at least 2, got 1"),
        ({"flip": "swap"}, "flip: must be 'to_target', 'inverse' or 'random', got 'swap'"),
        ({"poison_rate": 0.0}, "poison_rate: must be greater than 0"),
    ],
)
def test_flips_that_change_nothing_are_refused(fields, text):
    with pytest.raises(FieldError, match=text):
        LabelFlip(**fields)
