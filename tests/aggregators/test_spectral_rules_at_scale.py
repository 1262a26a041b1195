"""Lanczos, which takes over above 150 clients, gives what the full decomposition gives."""

import importlib
import time

import pytest
import torch
from torch import Tensor

import fedrobust._linalg.spectral as spectral
from fedrobust.aggregators import Sever, SpectralFilter
from fedrobust.seeds import torch_generator


def force_lapack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "_DENSE_UP_TO", 10**6)
    # the package exports a function of the same name
    monkeypatch.setattr(importlib.import_module("fedrobust.filters.hard_filter"), "_LARGE", 10**6)


def sample(n: int, d: int, shift: float) -> Tensor:
    points = torch.randn(n, d, generator=torch_generator(0, n, d), dtype=torch.float64)
    points[: n // 5] += shift * torch.randn(d, generator=torch_generator(1, d), dtype=torch.float64)
    return points


@pytest.mark.parametrize(("n", "d"), [(1000, 50), (1000, 300), (1000, 2000)])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_spectral_filter_of_a_thousand_clients(
    n: int, d: int, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = sample(n, d, shift)
    rule = SpectralFilter(assumed_fraction=0.2)
    found = rule(points)
    force_lapack(monkeypatch)
    exact = rule(points)
    assert found.shares is not None
    assert exact.shares is not None
    torch.testing.assert_close(found.shares, exact.shares, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.scores, exact.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("gap", [1e-3, 1e-6])
def test_clustered_top_eigenvalues(gap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four attackers on each of two axes; the second axis' variance is smaller by `gap`, relatively."""
    points = torch.randn(300, 40, generator=torch_generator(2, "cluster"), dtype=torch.float64) / 10
    points[:8] = 0.0
    points[:4, 0], points[4:8, 1] = 20.0, 20.0 * (1 - gap) ** 0.5
    rules = [SpectralFilter(assumed_fraction=0.1), Sever(assumed_fraction=0.1)]
    found = [rule(points).shares for rule in rules]
    force_lapack(monkeypatch)
    for shares, rule in zip(found, rules, strict=True):
        exact = rule(points).shares
        assert shares is not None
        assert exact is not None
        assert shares[:8].sum() == exact[:8].sum() == 0
        torch.testing.assert_close(shares, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("n", "d", "shift"), [(300, 20, 0.0), (300, 600, 0.0), (300, 100, 0.5)])
def test_sever_drops_the_same_clients(n: int, d: int, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    check_sever(sample(n, d, shift), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "shift"), [(50, 0.0), (2000, 0.0), (500, 0.3)])
def test_sever_drops_the_same_clients_of_a_thousand(d: int, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    check_sever(sample(1000, d, shift), monkeypatch)


def check_sever(points: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Sever(assumed_fraction=0.2)
    found = rule(points)
    force_lapack(monkeypatch)
    exact = rule(points)
    assert found.shares is not None
    assert exact.shares is not None
    assert torch.equal(found.shares > 0, exact.shares > 0)
    torch.testing.assert_close(found.scores, exact.scores, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_sever_takes_seconds_for_a_thousand_clients() -> None:
    """300 eigenproblems of size 1000: a minute by LAPACK, 4 to 9 s by Lanczos anew; 1 to 2 s from one eigenbasis."""
    points = sample(1000, 500, 0.3).float()
    start = time.perf_counter()
    Sever(assumed_fraction=0.2)(points)
    assert time.perf_counter() - start < 10
