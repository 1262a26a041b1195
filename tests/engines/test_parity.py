"""One scenario, the same figures and the same model, wherever its clients are trained.

The oracle is the plain case, one client a node trained by itself in its own loop. Cohorts sum in another order, so
float32 models may differ in the last places: 1e-5 relative to the model's norm.
"""

import pytest
from torch import Tensor

from fedrobust.engines import Local

FIGURES = ("clean_accuracy", "attack_success_rate", "local_attack_success_rates", "num_received", "clients")


def relative_difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.fixture(scope="module")
def plain(play):
    return play(Local(num_nodes=4), "num_rounds=3", "client.vectorize=false")


def test_the_plain_case_is_worth_comparing(plain) -> None:
    assert [row["attack_active"] for row in plain.rows] == [True] * 3
    assert [row["num_received"] for row in plain.rows] == [4] * 3
    assert relative_difference(plain.vectors[1], plain.vectors[2]) > 1e-3


@pytest.mark.parametrize(
    ("num_nodes", "vectorize"), [(1, "false"), (3, "false"), (1, "auto"), (3, "auto"), (4, "auto"), (1, "true")]
)
def test_nodes_may_host_any_number_of_clients(play, plain, num_nodes: int, vectorize: str) -> None:
    """`auto` trains this model, which has no convolutions, as cohorts on a CPU."""
    other = play(Local(num_nodes=num_nodes), "num_rounds=3", f"client.vectorize={vectorize}")
    for row, expected in zip(other.rows, plain.rows, strict=True):
        assert {key: row[key] for key in FIGURES} == {key: expected[key] for key in FIGURES}
    assert relative_difference(other.vectors[-1], plain.vectors[-1]) < 1e-5
