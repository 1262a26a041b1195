"""λ, the weight of a mask's size in trigger inversion: as heavy as success allows.

B. Wang, Y. Yao, S. Shan, H. Li, B. Viswanath, H. Zheng, B. Zhao, "Neural Cleanse: Identifying and mitigating backdoor
attacks in neural networks", IEEE S&P 2019, https://doi.org/10.1109/SP.2019.00031; factors and patience as in the
authors' code, https://github.com/bolunwang/backdoor
Departs: nothing.
"""

import torch
from torch import Tensor

RAISE, LOWER = 2.0, 2.0**1.5


class MaskWeight:
    """λ of each of L labels, with what it is adjusted by.

    Attributes:
        values: `(L,)`, λ.
        was_raised: `(L,)` booleans: λ has been raised.
        was_lowered: `(L,)` booleans: λ has been lowered.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.was_raised = torch.zeros_like(values, dtype=torch.bool)
        self.was_lowered = torch.zeros_like(values, dtype=torch.bool)
        self._num_successes = torch.zeros_like(values, dtype=torch.int64)
        self._num_failures = torch.zeros_like(values, dtype=torch.int64)

    def update(self, succeeds: Tensor, patience: int) -> None:
        """Note a check `(L,)`: `patience` successes in a row double λ, as many failures divide it by 2^1.5."""
        self._num_successes = torch.where(succeeds, self._num_successes + 1, 0)
        self._num_failures = torch.where(succeeds, 0, self._num_failures + 1)
        raised, lowered = self._num_successes >= patience, self._num_failures >= patience
        self.values = torch.where(raised, self.values * RAISE, torch.where(lowered, self.values / LOWER, self.values))
        self.was_raised, self.was_lowered = self.was_raised | raised, self.was_lowered | lowered
        self._num_successes = self._num_successes.masked_fill(raised, 0)
        self._num_failures = self._num_failures.masked_fill(lowered, 0)

    def of(self, kept: Tensor) -> "MaskWeight":
        """The state of the labels that `kept` `(L,)` selects."""
        part = MaskWeight(self.values[kept])
        part.was_raised, part.was_lowered = self.was_raised[kept], self.was_lowered[kept]
        part._num_successes, part._num_failures = self._num_successes[kept], self._num_failures[kept]
        return part
