import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedrobust._linalg.columns import Shards
from fedrobust.aggregators import Mean
from fedrobust.aggregators.base import RoundContext
from fedrobust.aggregators.centred_clipping import CentredClipping
from fedrobust.config.component import FieldError
from fedrobust.seeds import torch_generator

Array = NDArray[np.float64]


def clip_in_d_dimensions(
    points: Array, weights: Array, start: Array, tau: float | None, iterations: int
) -> tuple[Array, float, int]:
    """The paper's loop over clients, with the vectors themselves: centre, last bound and how many it clipped."""
    centre = start.copy()
    for _ in range(iterations):
        lengths = [float(np.sqrt(((row - centre) ** 2).sum())) for row in points]
        bound = float(np.median(lengths)) if tau is None else tau
        step = np.zeros_like(centre)
        for row, weight, length in zip(points, weights / weights.sum(), lengths, strict=True):
            step += weight * (row - centre) * (1.0 if length <= bound else bound / length)
        centre = centre + step
    return centre, bound, sum(length > bound for length in lengths)


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (5, 40), (20, 7), (30, 300)])
@pytest.mark.parametrize("tau", [None, 0.3, 2.0, 1e6])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("remembers", [False, True])
def test_equals_the_loop_over_clients(n: int, d: int, tau: float | None, iterations: int, remembers: bool) -> None:
    generator = torch_generator(0, n, d)
    points = torch.randn(n, d, generator=generator, dtype=torch.float64)
    points[: n // 4] += 10.0
    weights = torch.rand(n, generator=generator, dtype=torch.float64)
    start = torch.randn(d, generator=generator, dtype=torch.float64) if remembers else torch.zeros(d).double()
    context = RoundContext(state={"centre": start} if remembers else {})
    answer = CentredClipping(max_norm=tau, num_iterations=iterations)(points, weights, context)
    centre, bound, clipped = clip_in_d_dimensions(points.numpy(), weights.numpy(), start.numpy(), tau, iterations)
    np.testing.assert_allclose(answer.update.numpy(), centre, rtol=0, atol=1e-10)
    assert answer.diagnostics["bound"] == pytest.approx(bound, rel=1e-9)
    if tau is not None:  # the median is one of the distances, and rounding decides on which side of itself it lies
        assert answer.diagnostics["num_clipped"] == clipped
    assert answer.scores is not None
    lengths = np.linalg.norm(points.numpy() - centre, axis=1)
    np.testing.assert_allclose(answer.scores.numpy(), lengths, atol=1e-6)


def test_one_step_by_hand() -> None:
    """From 0 with τ = 1: clients at 0.5 and 4 pull by 0.5 and 1, so v = 0.75; shares are 1/2 and 1/2·1/4, made 1."""
    answer = CentredClipping(max_norm=1.0, num_iterations=1)(torch.tensor([[0.5], [4.0]]))
    assert answer.update.item() == pytest.approx(0.75)
    assert answer.shares is not None
    assert answer.shares.tolist() == pytest.approx([0.8, 0.2])
    assert answer.scores is not None
    assert answer.scores.tolist() == pytest.approx([0.25, 3.25])
    assert dict(answer.diagnostics) == {"bound": 1.0, "num_clipped": 1.0}
    assert torch.equal(answer.state["centre"], answer.update)


def test_a_bound_that_nobody_exceeds_gives_the_mean() -> None:
    points = torch.randn(8, 50, generator=torch_generator(1, "mean"), dtype=torch.float64)
    weights = torch.arange(8) + 1.0
    update = CentredClipping(max_norm=1e9)(points, weights).update
    torch.testing.assert_close(update, Mean()(points, weights).update, rtol=0, atol=1e-12)


def test_attackers_move_an_iteration_by_at_most_their_weight_times_the_bound() -> None:
    """The bounded influence that the paper rests on: wherever 3 of 10 stand, ‖v - v'‖ ≤ 2 · 0.3 · τ in one step."""
    points = torch.randn(10, 30, generator=torch_generator(2, "influence"), dtype=torch.float64)
    rule = CentredClipping(max_norm=0.5, num_iterations=1)
    answers = []
    for place in (-1e9, -3.0, 0.0, 1.0, 1e12):
        points[:3] = place
        answers.append(rule(points).update)
    gaps = [float((one - other).norm()) for one in answers for other in answers]
    assert max(gaps) == pytest.approx(2 * 0.3 * 0.5)  # reached by opposite ends
    assert min(float(answer.norm()) for answer in answers) > 0


def test_over_the_rounds_it_reaches_the_honest_mean() -> None:
    """With 2 of 10 attackers at 1e6 their pull and the honest clients' balance within 0.2 · τ / (0.8 · slope) of it."""
    points = torch.randn(10, 20, generator=torch_generator(3, "rounds"), dtype=torch.float64) / 20**0.5
    points += 5.0
    points[:2] = -1e6
    honest = points[2:].mean(dim=0)
    state: dict[str, torch.Tensor] = {}
    distances = []
    for number in range(1, 21):
        answer = CentredClipping(max_norm=2.0)(points, None, RoundContext(round_number=number, state=state))
        state = dict(answer.state)
        distances.append(float((answer.update - honest).norm()))
    assert distances[0] > 15
    # Once all honest clients are within τ their pull on v is 0.8 times its distance: it rests at 0.2 · 2 / 0.8 = 0.5.
    assert distances[-1] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("magnitude", [1e3, 1e6, 1e12])
def test_the_adaptive_bound_withstands_any_magnitude(magnitude: float) -> None:
    points = torch.randn(20, 50, generator=torch_generator(4, "far"))
    points[:9] = magnitude
    answer = CentredClipping()(points)
    assert answer.diagnostics["bound"] <= 2 * float(points[9:].norm(dim=1).max())
    exact = CentredClipping()(points.double()).update
    assert (answer.update.double() - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("distance", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("tau", [None, 1.0])
@pytest.mark.parametrize("remembers", [False, True])
def test_float32_agrees_with_float64_also_far_from_the_origin(
    distance: float, tau: float | None, remembers: bool
) -> None:
    """Updates of norm 1 about a common point at `distance`: the data are the same float32 numbers in both."""
    generator = torch_generator(5, "precision")
    points = torch.randn(12, 200_000, generator=generator) / 200_000**0.5
    points += distance * torch.nn.functional.normalize(torch.randn(200_000, generator=generator), dim=0)
    points[:2] *= 3.0
    state = {"centre": points[5] + 0.5 * points[6]} if remembers else {}
    rule = CentredClipping(max_norm=tau)
    exact = rule(points.double(), None, RoundContext(state={key: value.double() for key, value in state.items()}))
    answer = rule(points, None, RoundContext(state=state))
    assert (answer.update.double() - exact.update).norm() <= 1e-5 * exact.update.norm()
    if not remembers:
        expected, _, _ = clip_in_d_dimensions(points.double().numpy(), np.ones(12), np.zeros(200_000), tau, 3)
        assert np.linalg.norm(exact.update.numpy() - expected) <= 1e-9 * np.linalg.norm(expected)


def test_an_old_centre_far_from_the_clients_loses_no_digits_of_their_distances() -> None:
    """Clients within 1e-4 of one another at distance 1e4 from the start: float64 products about it would cancel."""
    points = 1e4 + 1e-4 * torch.randn(9, 5, generator=torch_generator(6, "old"), dtype=torch.float64)
    points[0] += 1.0
    start = torch.zeros(5, dtype=torch.float64)
    expected, bound, _ = clip_in_d_dimensions(points.numpy(), np.ones(9), start.numpy(), None, 4)
    answer = CentredClipping(num_iterations=4)(points, None, RoundContext(state={"centre": start}))
    assert answer.diagnostics["bound"] == pytest.approx(bound, rel=1e-3)
    np.testing.assert_allclose(answer.update.numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("remembers", [False, True])
def test_shards_give_the_same_answer(remembers: bool) -> None:
    points = torch.randn(10, 1001, generator=torch_generator(7, "shards"), dtype=torch.float64)
    context = RoundContext(state={"centre": torch.ones(1001, dtype=torch.float64)} if remembers else {})
    whole = CentredClipping()(points, None, context)
    parts = CentredClipping()(Shards.split(points, ["cpu", "cpu"]), None, context)
    torch.testing.assert_close(parts.update, whole.update, rtol=0, atol=1e-12)


def test_clients_at_the_centre_keep_their_weights_as_shares() -> None:
    """The median distance is 0, the only client with weight is not pulled at: the centre stays."""
    answer = CentredClipping()(torch.tensor([[0.0], [0.0], [5.0]]), torch.tensor([0.0, 0.0, 1.0]))
    assert answer.update.item() == 0.0
    assert answer.shares is not None
    assert answer.shares.tolist() == [0.0, 0.0, 1.0]


def test_the_remembered_centre_is_not_written_to() -> None:
    points, start = torch.ones(3, 4), torch.full((4,), 7.0)
    CentredClipping(max_norm=0.1)(points, None, RoundContext(state={"centre": start}))
    assert start.tolist() == [7.0] * 4


def test_a_centre_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the centre must have shape \(4,\), got \(3,\)"):
        CentredClipping()(torch.ones(2, 4), None, RoundContext(state={"centre": torch.ones(3)}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_named(bad: float) -> None:
    points = torch.ones(3, 4)
    points[1, 2] = bad
    with pytest.raises(ValueError, match=r"rows \[1\] hold NaN or infinity"):
        CentredClipping()(points)


@pytest.mark.parametrize(("field", "value"), [("max_norm", 0.0), ("max_norm", -1.0), ("num_iterations", 0)])
def test_fields_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(FieldError, match=f"{field}: must be .*got {value}"):
        CentredClipping(**{field: value})
