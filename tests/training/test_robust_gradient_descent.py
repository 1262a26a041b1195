from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedrobust.aggregators import CentredClipping, CoordinateMedian, Mean, SpectralFilter, TrimmedMean
from fedrobust.filters.results import MeanEstimate
from fedrobust.seeds import numpy_generator
from fedrobust.statistics import robust_gradient_descent


def squared_error(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return (x @ parameters - y).square() / 2


def regression(num_corrupted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 samples of a line in 4 dimensions, the last of them far out and opposite."""
    generator = numpy_generator(0, "descent")
    slope = np.array([1.0, -1.0, 2.0, 0.5])
    features = generator.normal(size=(200, 4))
    y = features @ slope + 0.1 * generator.normal(size=200)
    if num_corrupted:
        features[-num_corrupted:], y[-num_corrupted:] = 2 * slope, -10.0
    return features, y, slope


def test_with_the_mean_it_is_gradient_descent() -> None:
    """Samples c with loss ½‖θ - c‖²: after k steps θ - c̄ = (1-η)ᵏ(θ₀ - c̄), and the gradient's length follows."""
    centres = torch.tensor([[1.0, 2.0], [3.0, 8.0]], dtype=torch.float64)
    start = torch.tensor([10.0, 0.0], dtype=torch.float64)
    found = robust_gradient_descent(
        lambda theta, c: (theta - c).square().sum() / 2, start, [centres], rule=Mean(), learning_rate=0.25, num_steps=3
    )
    mean = torch.tensor([2.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(found.parameters, mean + 0.75**3 * (start - mean))
    lengths = [step.statistic for step in found.iterations]
    assert lengths == pytest.approx([float((start - mean).norm()) * 0.75**k for k in range(3)])
    assert start.tolist() == [10.0, 0.0]
    assert not found.converged
    assert found.summary().splitlines()[0] == "gradient descent with Mean"


def test_gradients_may_be_given_in_numpy() -> None:
    """Least squares by the normal equations."""
    features, y, _ = regression(0)
    expected = np.linalg.lstsq(features, y)[0]
    found = robust_gradient_descent(
        lambda theta: (features @ theta - y)[:, None] * features,
        np.zeros(4),
        rule=Mean(),
        learning_rate=0.5,
        num_steps=200,
        tolerance=1e-10,
    )
    assert isinstance(found.parameters, np.ndarray)
    assert found.converged
    assert len(found.iterations) < 100
    np.testing.assert_allclose(found.parameters, expected, atol=1e-9)


def test_robust_rules_withstand_what_the_mean_does_not() -> None:
    """20 of 200 corrupted; least squares on the others is within 0.05 of the slope (noise 0.1/√180 a coordinate).

    The coordinate-wise median is biased by copies on one side, but less than the mean.
    """
    features, y, slope = regression(20)
    descend = partial(
        robust_gradient_descent, squared_error, np.zeros(4), [features, y], learning_rate=0.1, num_steps=80
    )
    mean, median, filtered = (
        float(np.linalg.norm(descend(rule=rule).parameters - slope))
        for rule in (Mean(), CoordinateMedian(), SpectralFilter(assumed_fraction=0.1))
    )
    assert filtered < 0.05
    assert filtered < median < mean
    assert mean > 1


def test_a_mean_estimator_is_a_rule() -> None:
    """A function of the gradients that gives an array, or a result with a mean and weights of which one is 0."""
    features, y, _ = regression(0)
    descend = partial(
        robust_gradient_descent, squared_error, np.zeros(4), [features, y], learning_rate=0.1, num_steps=5
    )
    expected = descend(rule=Mean()).parameters
    np.testing.assert_allclose(descend(rule=lambda g: g.mean(axis=0)).parameters, expected, atol=1e-12)

    def estimate(gradients: np.ndarray) -> MeanEstimate:
        return MeanEstimate(method="mean", mean=gradients.mean(axis=0), weights=np.array([0.0] + [1.0] * 199))

    found = descend(rule=estimate)
    np.testing.assert_allclose(found.parameters, expected, atol=1e-12)
    assert [step.removed for step in found.iterations] == [1.0] * 5


def test_batches_average_before_the_rule_and_count_by_their_size() -> None:
    """The weighted mean of batch means, 7 to a batch and 4 in the last of 200, is the mean; a median of them is not."""
    features, y, _ = regression(0)
    descend = partial(
        robust_gradient_descent, squared_error, np.zeros(4), [features, y], learning_rate=0.1, num_steps=5
    )
    plain = descend(rule=Mean())
    np.testing.assert_allclose(descend(rule=Mean(), batch_size=7).parameters, plain.parameters, atol=1e-12)
    sizes: list[int] = []
    descend(rule=lambda g: (sizes.append(len(g)), g.mean(axis=0))[1], batch_size=7)
    assert sizes == [29] * 5
    first, again = (descend(rule=CoordinateMedian(), batch_size=7, seed=3).parameters for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - descend(rule=CoordinateMedian(), batch_size=7, seed=4).parameters).max() > 1e-6


def test_a_rule_keeps_its_memory_from_step_to_step() -> None:
    """Clipped about the last answer, at first 0, by at most 1, a constant gradient of 4 gives answers 1, 2, 3.

    So θ is -(1 + 2 + 3); without a memory it would be -3.
    """
    rule = CentredClipping(max_norm=1.0, num_iterations=1)
    found = robust_gradient_descent(
        lambda theta: torch.full((5, 1), 4.0), torch.zeros(1), rule=rule, learning_rate=1.0, num_steps=3
    )
    assert found.parameters.tolist() == pytest.approx([-6.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"tolerance": -1.0}, "tolerance must not be negative, got -1.0"),
        ({"start": np.zeros((2, 2))}, r"start must have shape \(N,\)"),
        ({"start": np.array([np.nan, 0.0])}, "start must be finite"),
        ({"data": [np.zeros((3, 2)), np.zeros(2)]}, r"got \[3, 2\] rows"),
        ({"data": [np.zeros((0, 2)), np.zeros(0)]}, r"got \[0, 0\] rows"),
        ({"data": []}, r"got \[\] rows"),
        ({"data": [np.full((3, 2), np.inf), np.zeros(3)]}, "array 0 holds NaN or infinity"),
        ({"learning_rate": 1e200, "num_steps": 10}, "gradients at step .* hold NaN or infinity"),
        ({"rule": TrimmedMean(assumed_fraction=0.49), "data": [np.ones((1, 2)), np.ones(1)]}, None),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str | None) -> None:
    """All but the last: one sample is enough for a rule that then assumes nobody malicious."""
    given: dict[str, Any] = {
        "start": np.zeros(2),
        "data": [np.ones((3, 2)), np.ones(3)],
        "rule": Mean(),
        "learning_rate": 0.1,
        "num_steps": 2,
    }
    if message is None:
        assert np.isfinite(robust_gradient_descent(squared_error, **(given | options)).parameters).all()
        return
    with pytest.raises(ValueError, match=message):
        robust_gradient_descent(squared_error, **(given | options))


def test_gradients_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gradients must have shape \(n, 2\), got \(3, 4\)"):
        robust_gradient_descent(lambda theta: np.ones((3, 4)), np.zeros(2), rule=Mean(), learning_rate=0.1, num_steps=1)
