"""How much a client gains under every rule by claiming more examples than the others, who claim 60 each."""

import re

import pytest
import torch
from torch import Tensor

from fedrobust.federation.server import Server
from fedrobust.federation.weighting import GivenWeighting
from fedrobust.preaggregators import Pipeline
from fedrobust.seeds import torch_generator
from fedrobust.types import Vector
from tests.contracts.rule_cases import CASES

N, D = 24, 200
EVERY_RULE = pytest.mark.parametrize("name", CASES)


def updates(seed: int) -> Tensor:
    return 1 + torch.randn(N, D, generator=torch_generator(seed, "claims"))


def answer(name: str, rows: Tensor, weighting: GivenWeighting, claims: Tensor) -> Vector:
    server = Server(weights=weighting, max_claim_ratio=2.0)
    weights = server.weigh(claims, Pipeline(aggregator=CASES[name].rule))  # type: ignore[arg-type]
    return CASES[name](rows, weights).update


def claims(claimant: int, claim: int) -> Tensor:
    return torch.full((N,), 60).index_fill(0, torch.tensor([claimant]), claim)


@EVERY_RULE
@pytest.mark.parametrize("claim", [61, 10**9, 2**63 - 1])
def test_by_default_a_claim_changes_no_rule_but_the_mean(name: str, claim: int) -> None:
    rows = updates(0)
    honest = answer(name, rows, "auto", claims(0, 60))
    changed = [
        client for client in range(N) if not torch.equal(answer(name, rows, "auto", claims(client, claim)), honest)
    ]
    assert changed == (list(range(N)) if name == "mean" else [])


@EVERY_RULE
def test_under_a_cap_a_claim_counts_for_two(name: str) -> None:
    """No claim moves the answer farther than that of 120 examples does, which is what the cap makes of it."""
    rows = updates(1)
    for client in range(0, N, 5):
        capped = answer(name, rows, "capped", claims(client, 10**9))
        assert torch.equal(capped, answer(name, rows, "num_examples", claims(client, 120)))


@EVERY_RULE
def test_the_page_says_what_claims_do(name: str) -> None:
    """A page that names claims, or says that weights are ignored, says what the rule does."""
    rows = updates(2)
    honest = answer(name, rows, "num_examples", claims(0, 60))
    moved = [
        client
        for client in range(N)
        if not torch.equal(answer(name, rows, "num_examples", claims(client, 10**9)), honest)
    ]
    text = re.sub(r"\s+", " ", type(CASES[name].rule).__doc__ or "")
    breakdown = text.partition("Breakdown point:")[2].split("Assumes:")[0]
    if moved:
        assert re.search(r"where (these|weights) are claims, one client|by its claim", breakdown), breakdown
    else:
        assert "The server's weights are ignored" in breakdown
