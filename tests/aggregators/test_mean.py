import torch

from fedrobust.aggregators import Aggregate, Aggregator, Mean


def test_weighted_mean_closed_form() -> None:
    """Weights 1 and 3: (1·(0, 4) + 3·(4, 0)) / 4 = (3, 1)."""
    answer = Mean()(torch.tensor([[0.0, 4.0], [4.0, 0.0]]), torch.tensor([1, 3]))
    assert answer.update.tolist() == [3.0, 1.0]
    assert answer.shares is not None
    assert answer.shares.tolist() == [0.25, 0.75]
    assert answer.scores is None


def test_unweighted_mean_is_the_plain_mean() -> None:
    points = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    torch.testing.assert_close(Mean()(points).update, torch.tensor([4.5, 5.5, 6.5], dtype=torch.float64))


def test_a_client_of_weight_zero_is_not_read() -> None:
    """0·inf would be NaN."""
    points = torch.tensor([[1.0], [float("inf")]])
    assert Mean()(points, torch.tensor([1.0, 0.0])).update.tolist() == [1.0]


def test_a_rule_is_an_aggregator() -> None:
    assert isinstance(Mean(), Aggregator)
    assert isinstance(Mean()(torch.ones(1, 1)), Aggregate)
