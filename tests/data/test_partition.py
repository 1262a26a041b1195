"""Partitions: what all of them promise, and what each one's definition says its clients hold."""

import warnings

import numpy as np
import pytest
import torch

from fedrobust.data.datasets import Dataset, Examples
from fedrobust.data.partition import IID, ByWriter, Dirichlet, Partition, Pathological, Shards, class_histogram

EVERY = [IID(), Dirichlet(alpha=0.5), Shards(), Pathological(), ByWriter()]


def make_dataset(labels: torch.Tensor, writers: torch.Tensor | None = None) -> Dataset:
    examples = Examples(torch.zeros(len(labels), 1), labels)
    ones = torch.ones(1)
    return Dataset("toy", examples, examples, int(labels.max()) + 1, "tabular", ones, ones, writers=writers)


def balanced(num_classes: int = 10, num_each: int = 60, num_writers: int = 25) -> Dataset:
    """Classes in turn, writers in turn: example i has class i mod 10 and writer i mod 25."""
    indices = torch.arange(num_classes * num_each)
    return make_dataset(indices % num_classes, indices % num_writers)


@pytest.mark.parametrize("partition", EVERY, ids=lambda partition: type(partition).__name__)
@pytest.mark.parametrize("num_clients", [1, 10])
@pytest.mark.filterwarnings("ignore:1 clients hold no example")
def test_sorted_disjoint_and_not_empty(partition: Partition, num_clients: int) -> None:
    dataset = balanced()
    assignment = partition.assign(dataset, num_clients, seed=3)
    assert len(assignment) == num_clients
    for indices in assignment:
        assert indices.dtype == torch.int64
        assert len(indices) > 0
        assert indices.tolist() == sorted(set(indices.tolist()))
    together = torch.cat(assignment).tolist()
    assert len(together) == len(set(together))
    if num_clients == 10:  # 600 examples divide by ten clients and by twenty shards, and every class is held
        assert sorted(together) == list(range(600))


@pytest.mark.parametrize("partition", EVERY, ids=lambda partition: type(partition).__name__)
def test_the_seed_decides(partition: Partition) -> None:
    dataset = balanced()

    def lists(seed: int) -> list[list[int]]:
        return [indices.tolist() for indices in partition.assign(dataset, 10, seed)]

    assert lists(0) == lists(0)
    assert lists(0) != lists(1)


@pytest.mark.parametrize("partition", EVERY, ids=lambda partition: type(partition).__name__)
def test_impossible_numbers_of_clients(partition: Partition) -> None:
    dataset = balanced()
    with pytest.raises(ValueError, match=r"601 clients .* (600|25)"):
        partition.assign(dataset, 601, seed=0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        partition.assign(dataset, 0, seed=0)


def test_splitting_leaves_the_global_generators_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for partition in EVERY:
        partition.assign(balanced(), 10, seed=0)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_iid_sizes_differ_by_one_at_most_and_samples_are_random() -> None:
    """600 = 7 * 85 + 5. A class's count in a client is hypergeometric, so it is seldom the same for all clients."""
    dataset = balanced()
    assignment = IID().assign(dataset, 7, seed=0)
    assert sorted(len(indices) for indices in assignment) == [85, 85, 86, 86, 86, 86, 86]
    assert len(class_histogram(dataset.train.labels, assignment, 10).unique()) > 3


def test_dirichlet_with_a_large_alpha_is_nearly_uniform() -> None:
    """All proportions are 1/5 to within 1e-3, so of 60 examples a client gets 12, but for rounding at either end."""
    dataset = balanced()
    histogram = class_histogram(dataset.train.labels, Dirichlet(alpha=1e8).assign(dataset, 5, seed=0), 10)
    assert int((histogram - 12).abs().max()) <= 1


def test_dirichlet_proportions_have_the_right_second_moment() -> None:
    """For p ~ Dirichlet(a, .., a) over K clients, E[sum p^2] = (a + 1) / (K a + 1); the mean of 200 classes is near it.

    With a = 1/2 and K = 5 that is 3/7; the sum's standard deviation is below 0.2, so the mean's is below 0.015.
    """
    dataset = balanced(num_classes=200, num_each=100)
    histogram = class_histogram(dataset.train.labels, Dirichlet(alpha=0.5).assign(dataset, 5, seed=1), 200).double()
    assert float(((histogram / 100) ** 2).sum(dim=0).mean()) == pytest.approx(3 / 7, abs=0.05)


def test_dirichlet_keeps_its_minimum_or_says_that_it_cannot() -> None:
    dataset = balanced()
    assignment = Dirichlet(alpha=1.0, min_examples=30).assign(dataset, 8, seed=0)
    assert min(len(indices) for indices in assignment) >= 30
    with pytest.raises(ValueError, match=r"alpha=0.01\) gave each of 10 clients min_examples=50 of 600 examples"):
        Dirichlet(alpha=0.01, min_examples=50).assign(dataset, 10, seed=0)
    with pytest.raises(ValueError, match=r"10 clients with at least 61 each need 610 .* has 600"):
        Dirichlet(min_examples=61).assign(dataset, 10, seed=0)


def test_shards_are_whole_blocks_of_one_class() -> None:
    """20 shards of 30 examples, two of them to each class of 60: counts are 30 or 60, in two classes at most."""
    dataset = balanced()
    histogram = class_histogram(dataset.train.labels, Shards().assign(dataset, 10, seed=0), 10)
    assert set(histogram.flatten().tolist()) <= {0, 30, 60}
    assert histogram.sum(dim=1).tolist() == [60] * 10
    assert int((histogram > 0).sum(dim=1).max()) <= 2


def test_shards_leave_the_remainder_out() -> None:
    """600 examples in 7 * 2 shards of floor(600 / 14) = 42: 588 are used."""
    assignment = Shards().assign(balanced(), 7, seed=0)
    assert [len(indices) for indices in assignment] == [84] * 7
    with pytest.raises(ValueError, match=r"2 clients with at least 400 each need 800 .* has 600"):
        Shards(num_shards_per_client=400).assign(balanced(), 2, seed=0)


def test_pathological_clients_hold_their_number_of_classes_and_share_them_equally() -> None:
    dataset = balanced()
    histogram = class_histogram(dataset.train.labels, Pathological(num_classes_per_client=3).assign(dataset, 12, 0), 10)
    assert (histogram > 0).sum(dim=1).tolist() == [3] * 12
    assert all(int(histogram[client, client % 10]) > 0 for client in range(12))
    for column in histogram.T:
        held = column[column > 0]
        assert int(held.sum()) == 60
        assert int(held.max() - held.min()) <= 1


def test_pathological_says_which_classes_nobody_holds() -> None:
    with pytest.warns(UserWarning, match=r"3 clients hold no example of the classes \[3, 4, 5, 6, 7, 8, 9\]"):
        assignment = Pathological(num_classes_per_client=1).assign(balanced(), 3, seed=0)
    assert [len(indices) for indices in assignment] == [60] * 3


def test_pathological_refuses_what_the_classes_cannot_give() -> None:
    with pytest.raises(ValueError, match="num_classes_per_client=11 is more than the 10 classes"):
        Pathological(num_classes_per_client=11).assign(balanced(), 10, seed=0)
    with pytest.raises(ValueError, match="gives some class to more of the 4 clients than it has of the 5 examples"):
        Pathological(num_classes_per_client=2).assign(make_dataset(torch.tensor([0, 0, 0, 0, 1])), 4, seed=0)


def test_one_client_a_writer() -> None:
    dataset = balanced()
    assignment = ByWriter().assign(dataset, 25, seed=0)
    assert dataset.writers is not None
    written = sorted(set(dataset.writers[indices].tolist()).pop() for indices in assignment)
    assert written == list(range(25))
    assert [len(indices) for indices in assignment] == [24] * 25


def test_writers_are_dealt_out_whole() -> None:
    """25 writers of 24 examples over 10 clients: five clients of three writers and five of two."""
    dataset = balanced()
    assignment = ByWriter().assign(dataset, 10, seed=0)
    assert dataset.writers is not None
    groups = [set(dataset.writers[indices].tolist()) for indices in assignment]
    assert sorted(len(group) for group in groups) == [2] * 5 + [3] * 5
    assert sorted(writer for group in groups for writer in group) == list(range(25))
    assert [len(indices) for indices in assignment] == [24 * len(group) for group in groups]


def test_unknown_writers_are_explained() -> None:
    with pytest.raises(ValueError, match=r"qmnist/qmnist-train-labels-idx2-int\.gz .* data root"):
        ByWriter().assign(make_dataset(torch.tensor([0, 1])), 2, seed=0)


def test_class_histogram_equals_numpys() -> None:
    labels = torch.tensor([0, 2, 2, 1, 0])
    assignment = (torch.tensor([0, 1, 2]), torch.tensor([4]))
    histogram = class_histogram(labels, assignment, 4)
    clients = np.repeat([0, 1], [3, 1])
    expected, _, _ = np.histogram2d(clients, labels.numpy()[[0, 1, 2, 4]], bins=(range(3), range(5)))
    np.testing.assert_array_equal(histogram.numpy(), expected)


@pytest.mark.parametrize("alpha", [0.0, -1.0, "0.5"])
def test_alpha_must_be_positive(alpha: object) -> None:
    with pytest.raises(ValueError, match="alpha"):
        Dirichlet(alpha=alpha)


def test_no_progress_bars(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for partition in EVERY:
            partition.assign(balanced(), 10, seed=0)
    assert capfd.readouterr() == ("", "")
