"""The anomaly index: how many robust standard deviations a value lies below the median of all.

B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Zhao, "Neural Cleanse: Identifying and mitigating backdoor
attacks in neural networks", IEEE S&P 2019, section 4.1, https://doi.org/10.1109/SP.2019.00031
Departs: 1 / Φ⁻¹(3/4) in place of 1.4826; the index is signed, so that values above the median are never anomalous.
"""

import torch
from torch import Tensor

from fedrobust.statistics.gaussian.one_dimension import mad_sigma, median

MIN_VALUES = 8
"""With fewer values than this their median absolute deviation says nothing."""


def anomaly_index(values: Tensor) -> tuple[Tensor, str]:
    """(median - value) / (1.4826 · MAD), and why there is none, or an empty text.

    Args:
        values: `(L,)`; NaN where there is no value: those neither count nor get an index.

    Returns:
        `(L,)` float64, all NaN where the values cannot be judged: fewer than 8, or more than half of them equal.
    """
    known = values.isfinite()
    indices = torch.full(values.shape, torch.nan, dtype=torch.float64)
    if int(known.sum()) < MIN_VALUES:
        return indices, (
            f"no verdict: {int(known.sum())} of {len(values)} labels have a mask, and the median absolute deviation of "
            f"fewer than {MIN_VALUES} values is meaningless"
        )
    sigma = mad_sigma(values[known])
    if sigma == 0:
        return indices, "no verdict: more than half of the masks have the same size, and no deviation is left to go by"
    indices[known] = (median(values[known]) - values[known].double()) / sigma
    return indices, ""
