"""What the estimators return: the estimate, what became of each point, and what happened on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedrobust._linalg.samples import Array


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One step of a filter.

    Attributes:
        statistic: what the stopping rule looked at (a top eigenvalue, ...), before the step.
        threshold: at or below which it would have stopped; `None` if it stops for another reason.
        removed: the mass, in points, that the step took away.
    """

    statistic: float
    threshold: float | None
    removed: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """What all results have in common.

    Attributes:
        weights: `(N,)` in [0, 1], what is left of each point, in the kind of the input; `None` where a method weighs
            no points.
        iterations: one entry a step, in order; empty for a method without steps.
        method: the method's name, for the summary.
        details: further figures by name.
    """

    method: str
    weights: Array | None = None
    iterations: tuple[Iteration, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """A few lines for people."""
        lines = [self.method]
        if self.weights is not None:
            total = float(self.weights.sum())
            gone = int((self.weights == 0).sum())
            lines.append(f"  kept mass {total:.6g} of {len(self.weights)} points, {gone} removed altogether")
        for number, step in enumerate(self.iterations, start=1):
            limit = "" if step.threshold is None else f" (stops at {step.threshold:.6g})"
            lines.append(f"  step {number}: statistic {step.statistic:.6g}{limit}, removed {step.removed:.6g}")
        lines += [f"  {name.replace('_', ' ')}: {value:.6g}" for name, value in self.details.items()]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanEstimate(Estimate):
    """A mean.

    Attributes:
        mean: `(d,)`, in the kind and precision of the input.
    """

    mean: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class CovarianceEstimate(Estimate):
    """A covariance.

    Attributes:
        covariance: `(d, d)`, symmetric, in the kind and precision of the input.
    """

    covariance: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianEstimate(Estimate):
    """A Gaussian in d dimensions.

    Attributes:
        mean: `(d,)`, in the kind and precision of the input.
        covariance: `(d, d)`, symmetric.
    """

    mean: Array
    covariance: Array
