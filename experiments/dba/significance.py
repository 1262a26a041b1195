"""Whether DBA's success and its twin's differ by more than seeds do: tests and intervals of their difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedrobust.study import markdown_table


@dataclass(frozen=True)
class Difference:
    """The mean of a - b with its 95 % interval, and p-values of three two-sided tests that it is zero.

    Attributes:
        mean: of a - b.
        low: lower end of Student's t interval of the paired differences.
        high: upper end.
        wins: pairs with a > b.
        pairs: their number.
        paired_p: Student's t test of the paired differences.
        flips_p: the exact test that flips the signs of the paired differences, all ways; it assumes no distribution.
        welch_p: Welch's t test, which does not know of pairs.
        welch_low: lower end of Welch's interval.
        welch_high: upper end.
    """

    mean: float
    low: float
    high: float
    wins: int
    pairs: int
    paired_p: float
    flips_p: float
    welch_p: float
    welch_low: float
    welch_high: float


def difference(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Compare rates `a` with `b`, of which those at the same place have the same seed; at least two pairs."""
    first, second = np.array(a), np.array(b)
    paired, welch = stats.ttest_rel(first, second), stats.ttest_ind(first, second, equal_var=False)
    between, apart = paired.confidence_interval(0.95), welch.confidence_interval(0.95)
    flips = stats.permutation_test(
        (first, second), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    return Difference(
        float(np.mean(first - second)),
        float(between.low),
        float(between.high),
        int((first > second).sum()),
        len(first),
        float(paired.pvalue),
        float(flips.pvalue),
        float(welch.pvalue),
        float(apart.low),
        float(apart.high),
    )


def difference_table(success: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """DBA's success minus its twin's at each time, in percentage points; the seeds of both in the same order."""
    heads = ["evaluated", "DBA - twin, points", "95 % interval, paired t", "DBA ahead"]
    heads += ["p, paired t", "p, exact sign flips", "95 % interval, Welch", "p, Welch"]
    rows = []
    for name, (dba, twin) in success.items():
        found = difference(dba, twin)
        rows.append(
            [
                name,
                f"{100 * found.mean:+.1f}",
                f"{100 * found.low:+.1f} to {100 * found.high:+.1f}",
                f"{found.wins} of {found.pairs} seeds",
                *(f"{p:.2g}" for p in (found.paired_p, found.flips_p)),
                f"{100 * found.welch_low:+.1f} to {100 * found.welch_high:+.1f}",
                f"{found.welch_p:.2g}",
            ]
        )
    return markdown_table(heads, rows)
