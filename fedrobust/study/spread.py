"""How a figure measured several times is shown."""

from collections.abc import Iterable

import numpy as np


def mean_and_deviation(values: Iterable[float], digits: int = 1, unit: str = "") -> str:
    """Mean ± standard deviation (n - 1): `"0.213 ± 0.010"`; ± 0 for one value, nothing for none."""
    found = np.fromiter(values, dtype=np.float64)
    if found.size == 0:
        return ""
    deviation = found.std(ddof=1) if found.size > 1 else 0.0
    return f"{found.mean():.{digits}f} ± {deviation:.{digits}f}{unit}"


def percent(rates: Iterable[float], digits: int = 1) -> str:
    """Mean ± standard deviation (n - 1) of rates from 0 to 1: `"93.1 ± 0.4 %"`."""
    return mean_and_deviation((100 * rate for rate in rates), digits, " %")


def median_and_range(values: Iterable[float], digits: int = 2) -> str:
    """Median (minimum to maximum), for times: `"1.32 (1.30 to 1.87)"`."""
    found = np.fromiter(values, dtype=np.float64)
    return f"{np.median(found):.{digits}f} ({found.min():.{digits}f} to {found.max():.{digits}f})"
