"""How often rules that compare clients read their d columns: once for the Gram matrix, once for the answer."""

import pytest
import torch
from rule_cases import CASES, sample

from fedrobust._linalg import columns, cosines, gram

IN_GRAM_SPACE = [
    *["krum", "multi_krum", "mda", "bulyan", "geometric_median", "centred_clipping", "dnc", "flame"],
    *["spectral_filter", "spectral_filter_sigma", "spectral_filter_quantum_entropy"],
    *["sever", "sever_three_rounds", "randomised_sever", "no_regret_filter"],
]
N, D = 20, 9000


@pytest.mark.parametrize("name", IN_GRAM_SPACE)
def test_updates_near_the_origin_are_read_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where every chunk of columns is handed out; in float64, for what is compiled reads without asking.

    Bulyan's second stage sorts columns, and that is its second time. DnC samples none here: it looks at all of them.
    """
    widths: list[int] = []
    hand_out = columns.column_chunks

    def counted(points: columns.Points, chunk_size: int | None = None):
        for where, chunk in hand_out(points, chunk_size):
            widths.append(chunk.shape[1])
            yield where, chunk

    for module in (columns, gram, cosines):
        monkeypatch.setattr(module, "column_chunks", counted)
    points = sample(N, D)
    assert points.dtype == torch.float64
    CASES[name](points)
    assert D < sum(widths) <= 2 * D
