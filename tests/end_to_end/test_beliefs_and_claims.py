"""Whole federations in which the server believes the truth, or a client lies about how much data it has."""

import logging

import pytest
from chosen_seeds import first_of

from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config
from fedrobust.study import play_scenario, prepare_scenario

SMALL = ["model=logistic", "client.num_epochs=1", "dataset.num_test=1000"]
LIAR = [*SMALL, "num_rounds=3", "attack=none", "attack.num_malicious=1", "attack.claimed_examples=1000000000"]
"""One honest-looking client: no rule can tell it by its update."""


@pytest.mark.parametrize("rule", ["spectral_filter", "multi_krum", "norm_clipping", "geometric_median", "sign_guard"])
@pytest.mark.parametrize("seed", first_of((3, 4)))
def test_a_claim_decides_nothing_by_default(rule: str, seed: int) -> None:
    """A round's record is that of the same clients without the lie; under `num_examples` the liar is the whole answer.

    A kept liar has 10⁹/(10⁹ + 19·65) of it or more. Under `capped` it counts for two of the ten or more that are kept.
    """
    base = [*LIAR, f"aggregator={rule}", f"seed={seed}"]
    told, lied = play_scenario([*base, "attack.claimed_examples=null"])[-1], play_scenario(base)[-1]
    for figure in ("clean_accuracy", "clean_loss", "shares", "scores"):
        assert told[figure] == lied[figure]
    for round in play_scenario([*base, "server.weights=num_examples"]):
        share = round["shares"][round["clients"].index(round["malicious_clients"][0])]
        assert share == 0 or share > 1 - 1e-5
    for round in play_scenario([*base, "server.weights=capped"]):
        assert max(round["shares"]) < 0.25


def test_claims_are_made_in_attack_rounds_alone() -> None:
    rows = play_scenario([*LIAR, "aggregator=mean", "attack.schedule.rounds=[2]"])
    largest = [max(round["shares"]) for round in rows]
    assert largest[1] > 0.999
    assert largest[0] < 0.1
    assert largest[2] < 0.1


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["num_clients=4"], "SpectralFilter: an assumed fraction of 0.2 of 4 is none"),
        (["num_clients=40", "server.num_sampled=4", "server.sampling_confidence=null"], "0.2 of 4 is none"),
        (
            ["num_clients=4", "preaggregator=nearest_neighbour_mixing"],
            "NearestNeighbourMixing: an assumed fraction of 0.",
        ),
        (["num_clients=100", "server.num_sampled=10", "aggregator=krum"], "Krum: 10 of 100 clients are sampled"),
        (["num_clients=5", "aggregator=trimmed_mean", "aggregator.assumed_fraction=0.1"], "0.1 of 5 is none"),
    ],
)
def test_a_belief_that_protects_from_nobody_is_said_before_training(overrides: list[str], text: str) -> None:
    notices = prepare_scenario([*SMALL, "attack=none", *overrides]).federation.notices
    assert any(text in notice for notice in notices), notices


def test_a_run_says_it_once(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    values, choices = compose_config(
        [*SMALL, "num_clients=4", "num_rounds=3", "attack.num_malicious=1", "verbose=false", "plot_formats=[]"]
    )
    with caplog.at_level(logging.WARNING, "fedrobust"):
        run_config(values, tmp_path / "run", choices)
    lines = [record.getMessage() for record in caplog.records if "is none" in record.getMessage()]
    assert lines == [
        "SpectralFilter: an assumed fraction of 0.2 of 4 is none (f = ⌊εn⌋ = 0), so nothing is done against outliers; "
        "from 0.25 on f is 1"
    ]


@pytest.mark.parametrize("seed", first_of((0, 1)))
def test_the_truth_about_the_population_is_enough_for_the_default_rule(seed: int) -> None:
    """10 of 100 flip their update times ten, 10 are sampled, the server believes 0.1: attackers never decide a round.

    Several are sampled in some rounds. Without the quantile and the last step the model loses half of its accuracy.
    """
    rows = play_scenario(
        [
            *SMALL,
            f"seed={seed}",
            "num_clients=100",
            "num_rounds=20",
            "server.num_sampled=10",
            "attack=sign_flip",
            "attack.num_malicious=10",
            "attack.update.scale_factor=10",
            "aggregator.assumed_fraction=0.1",
            "evaluate_every=20",
        ]
    )
    assert max(len(row["malicious_clients"]) for row in rows) >= 3
    shares = [
        sum(
            share
            for client, share in zip(row["clients"], row["shares"], strict=True)
            if client in row["malicious_clients"]
        )
        for row in rows
    ]
    assert max(shares) < 0.05
