import numpy as np
import torch
from scipy.stats import norm

from fedrobust.seeds import torch_generator
from fedrobust.statistics.moments.tail_excess import tail_excess


class StandardNormal:
    median = 0.0

    def above(self, t):
        return norm.sf(t)

    def below(self, t):
        return norm.cdf(t)


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch_generator(seed, "tail"), dtype=torch.float64)


def test_clean_sample_is_left_alone() -> None:
    """With a false-alarm probability of 1e-3 for a cut, not one of forty clean samples loses a point."""
    assert all(len(tail_excess(normal(2000, seed), StandardNormal(), false_alarm=1e-5)) == 0 for seed in range(40))


def test_cut_is_where_the_density_falls_below_three_times_the_law() -> None:
    """A cluster at 5 of mass 5 %: its density exceeds twice the clean one from about 2.9 on, by 0.95 + 0.05 r = 3."""
    values = normal(100_000)
    values[:5000] = 5 + 0.3 * normal(5000, 1)
    removed = tail_excess(values, StandardNormal(), false_alarm=1e-3)
    t = np.linspace(2, 6, 100_001)
    ratio = 0.95 + 0.05 * norm.pdf(t, 5, 0.3) / norm.pdf(t)
    cut = t[np.argmax(ratio > 3)]
    assert abs(float(values[removed].min()) - cut) < 0.15
    assert 4990 <= int((removed < 5000).sum()) <= 5000
    assert int((removed >= 5000).sum()) < 30


def test_each_tail_has_its_own_law_and_the_farthest_come_first() -> None:
    values = normal(10_000)
    values[:3] = torch.tensor([-20.0, 15.0, -30.0], dtype=torch.float64)
    removed = tail_excess(values, StandardNormal(), false_alarm=1e-3).tolist()
    assert removed[:3] == [2, 0, 1]
    assert len(removed) <= 5  # with three sure outliers beyond, up to a third of one more is expected


def test_copies_leave_together() -> None:
    """Ties have one value, so no cut runs between them."""
    values = torch.cat([normal(5000), torch.full((400,), 4.5, dtype=torch.float64)])
    removed = set(tail_excess(values, StandardNormal(), false_alarm=1e-3).tolist())
    assert set(range(5000, 5400)) <= removed


def test_compressed_sample_is_no_outlier() -> None:
    """Outliers shrink the rest where they are whitened together: the rest stays, the outliers go."""
    values = torch.cat([0.01 * normal(900), torch.full((100,), 3.0, dtype=torch.float64)])
    assert sorted(tail_excess(values, StandardNormal(), false_alarm=1e-3).tolist()) == list(range(900, 1000))
