"""Which rules pass gradients back, that these are right, and that all others say so instead of losing them.

Derivatives are compared with differences of the rule's own answers in float64 (`torch.autograd.gradcheck`), or with
the derivative that the rule's formula has.
"""

from dataclasses import dataclass

import pytest
import torch
from rule_cases import CASES, Case, sample
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from fedrobust._linalg.columns import Points, Shards, open_memory_map
from fedrobust._linalg.gram import inner_products, row_norms, squared_norms
from fedrobust._linalg.order_statistics import mean_nearest_to_median, mean_of_order_statistics
from fedrobust.aggregators import (
    RULES,
    Aggregate,
    CentredClipping,
    CoordinateMedian,
    FLTrust,
    Krum,
    Mean,
    MultiKrum,
    RoundContext,
    SpectralFilter,
    TrimmedMean,
)
from fedrobust.aggregators.base import call_rule, checked
from fedrobust.config.component import traits_of
from fedrobust.preaggregators import (
    PREAGGREGATORS,
    AdaptiveClipping,
    Bucketing,
    ClientMomentum,
    Clipping,
    NearestNeighbourMixing,
    Pipeline,
)
from fedrobust.seeds import torch_generator
from fedrobust.statistics import gram_matrix, weighted_combination
from fedrobust.types import Weights

DIFFERENTIABLE = {Mean, TrimmedMean, CoordinateMedian, Krum, MultiKrum, CentredClipping, SpectralFilter}
ABLE = [name for name, one in CASES.items() if type(one.rule) in DIFFERENTIABLE]
OTHERS = [name for name in CASES if name not in ABLE]
HELD = [name for name in ABLE if name.startswith("spectral_filter")]
"""Their weights count as constants, which differences do not see."""


def points_of(n: int, d: int = 6) -> Tensor:
    return sample(n, d, num_shifted=n // 5).requires_grad_()


def weights_of(n: int) -> Tensor:
    return (1 + torch.rand(n, generator=torch_generator(1, "weights"), dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("name", [name for name in ABLE if name not in HELD])
@pytest.mark.parametrize("n", [5, 8, 11])
def test_gradients_are_those_of_the_answer(name: str, n: int) -> None:
    def update(points: Tensor, weights: Tensor) -> Tensor:
        return CASES[name](points, weights).update

    assert gradcheck(update, (points_of(n), weights_of(n)))
    assert gradgradcheck(update, (points_of(n), weights_of(n)))


@pytest.mark.parametrize("rule", [CentredClipping(num_iterations=1), CentredClipping(), CentredClipping(max_norm=2.0)])
@pytest.mark.parametrize("distance", [0.0, 300.0])
def test_what_centred_clipping_remembers_is_differentiable_too(rule: CentredClipping, distance: float) -> None:
    """Two rounds, the first from a centre that requires a gradient; far from it, distances are those to a client."""

    def two_rounds(first: Tensor, second: Tensor, centre: Tensor) -> Tensor:
        state = rule(first, None, RoundContext(state={"centre": centre})).state
        return rule(second, None, RoundContext(state=state)).update

    rounds = points_of(7), (points_of(7).detach().flip(0) + distance).requires_grad_()
    centre = torch.ones(6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(two_rounds, (*rounds, centre))


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("n", [5, 20])
def test_filters_pass_back_shares(name: str, n: int) -> None:
    """Of Σ sᵢxᵢ with s held, and the sum of its coordinates times v: sᵢv."""
    points, v = points_of(n, 40), torch.linspace(-1, 1, 40).double()
    answer = CASES[name](points, weights_of(n).detach())
    (gradient,) = torch.autograd.grad(answer.update @ v, points)
    assert answer.shares is not None
    assert n < 20 or len(answer.shares.unique()) > 2
    torch.testing.assert_close(gradient, answer.shares[:, None] * v)


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize(("n", "d"), [(8, 6), (20, 5000), (8, 300_000)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_answer_is_the_same_with_and_without_gradients(name: str, n: int, d: int, dtype: torch.dtype) -> None:
    """To the bit, compiled or not; and the gradient of a narrow dtype is that of float64."""
    points = sample(n, d, num_shifted=n // 5).to(dtype)
    points[1] = 0  # at the first centre of centred clipping
    plain = CASES[name](points)
    given = points.clone().requires_grad_()
    answer = CASES[name](given)
    assert torch.equal(answer.update, plain.update)
    assert answer.update.requires_grad
    assert answer.diagnostics == plain.diagnostics
    for one, other in ((answer.shares, plain.shares), (answer.scores, plain.scores)):
        if one is not None:
            assert other is not None
            assert torch.equal(one, other)
            assert not one.requires_grad
    (gradient,) = torch.autograd.grad(answer.update.double().sum(), given)
    wide = points.double().requires_grad_()
    (exact,) = torch.autograd.grad(CASES[name](wide).update.sum(), wide)
    assert gradient.dtype == dtype
    digits = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    if type(CASES[name].rule) not in (CoordinateMedian, TrimmedMean):  # whose ranks tie where numbers are rounded
        assert float((gradient.double() - exact).norm()) <= digits * float(exact.norm())


@pytest.mark.parametrize("name", CASES)
def test_without_gradients_everything_is_read_as_data(name: str) -> None:
    points, weights = sample(), torch.ones(20)
    expected = CASES[name](points, weights).update
    with torch.no_grad():
        found = CASES[name](sample().requires_grad_(), torch.ones(20, requires_grad=True)).update
    assert torch.equal(found, expected)
    assert not found.requires_grad
    with torch.inference_mode():
        assert torch.equal(CASES[name](sample()).update, expected)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("of", ["updates", "weights", "shards"])
def test_others_refuse_with_their_name_and_a_way_on(name: str, of: str) -> None:
    points: Points = sample().requires_grad_(of != "weights")
    if of == "shards":
        assert isinstance(points, Tensor)
        points = Shards.split(points, ["cpu", "cpu"])
    weights = torch.ones(20, requires_grad=of == "weights")
    with pytest.raises(ValueError, match="is not differentiable") as error:
        CASES[name](points, weights)
    message = str(error.value)
    assert message.startswith(type(CASES[name].rule).__name__ + " ")
    assert ".detach()" in message
    assert all(rule.__name__ in message for rule in DIFFERENTIABLE)


def test_the_table_of_differentiable_rules_is_theirs() -> None:
    assert {rule for rule in RULES if "is_differentiable" in traits_of(rule)} == DIFFERENTIABLE


def test_a_root_update_that_requires_a_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="FLTrust is not differentiable"):
        FLTrust()(sample(), None, RoundContext(root_update=torch.ones(7, dtype=torch.float64, requires_grad=True)))


@pytest.mark.parametrize("name", ABLE)
def test_shards_and_memory_maps_pass_back_the_same(name: str, tmp_path) -> None:
    points = sample(20, 3000)
    path = tmp_path / "updates"
    points.numpy().tofile(path)
    gradients = []
    for make in (
        lambda: points.clone().requires_grad_(),
        lambda: open_memory_map(path, 20, 3000, dtype=torch.float64).requires_grad_(),
    ):
        whole = make()
        gradients.append(torch.autograd.grad(CASES[name](whole).update.sin().sum(), whole)[0])
    parts = tuple(part.clone().requires_grad_() for part in points.split([1000, 1, 1999], dim=1))
    found = torch.autograd.grad(CASES[name](Shards(parts)).update.sin().sum(), parts)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    torch.testing.assert_close(torch.cat(found, dim=1), gradients[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("kind", ["equal", "zero", "one client", "ties"])
def test_gradients_are_finite_where_there_is_no_derivative(name: str, kind: str) -> None:
    """And sum to 1 over the clients, in each coordinate, wherever all move together: the answer then moves along."""
    points = sample(20, 5)
    points = {"equal": points[:1].repeat(20, 1), "zero": 0 * points, "one client": points[:1], "ties": points.round()}[
        kind
    ].requires_grad_()
    if kind == "one client" and name in ("krum", "multi_krum"):
        return
    (gradient,) = torch.autograd.grad(CASES[name](points).update.sum(), points)
    assert bool(gradient.isfinite().all())
    if not name.startswith("centred_clipping"):
        torch.testing.assert_close(gradient.sum(dim=0), torch.ones(5).double())


@dataclass(frozen=True)
class Own:
    """A rule of somebody's, out of what `read` makes of the updates."""

    read: object

    def __call__(self, updates: Points, weights: Weights | None = None) -> Aggregate:
        believed = checked(updates, weights)
        return Aggregate(update=self.read(updates, believed))  # type: ignore[operator]


@pytest.mark.parametrize(
    "read",
    [
        lambda updates, weights: weights @ updates.tanh(),
        weighted_combination,
        lambda updates, weights: mean_of_order_statistics(updates, 1, 5) + weighted_combination(updates, weights),
        lambda updates, weights: weighted_combination(updates, gram_matrix(updates.detach()).diagonal()),
    ],
)
def test_an_own_rule_out_of_torch_and_these_primitives_has_gradients(read) -> None:
    points = points_of(7)
    answer = call_rule(Own(read), points, None, RoundContext())
    (gradient,) = torch.autograd.grad(answer.update.sum(), points)
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any())


@pytest.mark.parametrize(
    "read",
    [
        lambda updates, weights: weighted_combination(updates, gram_matrix(updates).diagonal()),
        lambda updates, weights: weighted_combination(updates, 1 / squared_norms(updates)),
        lambda updates, weights: weighted_combination(updates, 1 / row_norms(updates)),
        lambda updates, weights: weighted_combination(updates, inner_products(updates, updates[0].detach())),
        lambda updates, weights: weighted_combination(updates.detach(), inner_products(updates.detach(), updates[0])),
        lambda updates, weights: mean_nearest_to_median(updates, 3),
    ],
)
def test_an_own_rule_that_would_lose_gradients_is_refused(read) -> None:
    with pytest.raises(ValueError, match=r"passes no gradients back: give it .detach\(\)"):
        call_rule(Own(read), points_of(7), None, RoundContext())


@pytest.mark.parametrize("before", [NearestNeighbourMixing(assumed_fraction=0.2), Bucketing(bucket_size=2)])
@pytest.mark.parametrize("rule", [Mean(), CoordinateMedian(), CentredClipping()])
def test_mixing_passes_gradients_back(before, rule) -> None:
    """Neighbours and buckets are held: a small step changes neither."""
    pipeline = Pipeline(preaggregators=(before,), aggregator=rule)
    assert gradcheck(lambda points: pipeline(points).update, (points_of(9),))
    shards = Shards.split(points_of(9), ["cpu", "cpu"])
    assert torch.equal(pipeline(shards).update, pipeline(shards.detach()).update)


@pytest.mark.parametrize("before", [Clipping(max_norm=1.0), AdaptiveClipping(assumed_fraction=0.2), ClientMomentum()])
def test_other_preaggregators_refuse_with_their_name(before) -> None:
    pipeline = Pipeline(preaggregators=(before,), aggregator=Mean())
    with pytest.raises(ValueError, match=f"{type(before).__name__} is not differentiable"):
        pipeline(points_of(9))
    with torch.no_grad():
        assert torch.equal(pipeline(points_of(9)).update, pipeline(points_of(9).detach()).update)


def test_a_pipeline_refuses_by_the_name_of_its_rule() -> None:
    pipeline = Pipeline(preaggregators=(Bucketing(),), aggregator=CASES["sever"].rule)
    with pytest.raises(ValueError, match="Sever is not differentiable"):
        Case(pipeline)(points_of(20))


def test_every_preaggregator_is_covered() -> None:
    assert set(PREAGGREGATORS) == {NearestNeighbourMixing, Bucketing, Clipping, AdaptiveClipping, ClientMomentum}
