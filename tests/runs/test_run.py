"""What a run comes to: its figures, and that one in which nothing could be aggregated is a failure, and says why."""

import random
from pathlib import Path
from typing import Any

import pytest

from fedrobust.config.compose import compose_config
from fedrobust.federation.standstill import StandstillError, reason_for_standstill
from fedrobust.records.run_folder import RunFolder
from fedrobust.runs.run import run_config, summarise

TINY = (
    "model=logistic num_clients=4 attack=none num_rounds=2 dataset.num_test=500 client.num_epochs=1 verbose=false "
    "plot_formats=[]"
)


def test_where_every_client_diverges_in_every_round_the_run_fails_and_keeps_its_records(tmp_path: Path) -> None:
    """A learning rate of 1e38 overflows float32 in the first steps of each client."""
    values, choices = compose_config(f"{TINY} client.learning_rate=1e38 aggregator=mean".split())
    with pytest.raises(StandstillError, match=r"no update could be used in any of 2 rounds; .*8 times.*NaN"):
        run_config(values, tmp_path / "run", choices)
    records = RunFolder(tmp_path / "run")
    assert [row["num_rejected"] for row in records.read_rounds()[1:]] == [4, 4]
    assert (records.path / "summary.json").exists()


def row(num_received: int, refusal: str | None = None, reasons: tuple[str, ...] = ()) -> dict[str, object]:
    rejected = [{"client": client, "reason": reason} for client, reason in enumerate(reasons)]
    return {"num_received": num_received, "refusal": refusal, "rejected": rejected}


def test_one_round_that_counts_is_enough() -> None:
    assert reason_for_standstill([]) is None
    assert reason_for_standstill([row(0, reasons=("late",)), row(3)]) is None


def test_the_most_frequent_reason_is_named() -> None:
    rows = [row(0, reasons=("lost", "late", "late")), row(2, refusal="too few")]
    said = reason_for_standstill(rows)
    assert said == "no update could be used in any of 2 rounds; most often (2 times): late"
    assert "no client replied" in str(reason_for_standstill([row(0)]))


def played(number: int, rate: float | None, attacking: bool) -> dict[str, Any]:
    """A round's record, as far as the summary reads it; `rate` is `None` where it was not evaluated."""
    seconds = dict.fromkeys([f"seconds_{part}" for part in ("training", "messages", "aggregation", "evaluation")], 0.0)
    known = rate is not None
    return {
        **seconds,
        "round": number,
        "attack_active": attacking,
        "clean_accuracy": 0.5 if known else None,
        "clean_loss": 1.0 if known else None,
        "attack_success_rate": rate,
        "local_attack_success_rates": None,
        "detection_tpr": None,
        "detection_fpr": None,
        "num_rejected": 0,
    }


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("attacks", [(), (1,), (12, 14), (7, 8, 20), (20,), (19,)])
def test_the_highest_success_is_sought_from_the_first_attack_round_on(
    attacks: tuple[int, ...], every: int, seed: int
) -> None:
    """Twenty rounds with random figures, highest before the attack; counted by hand over those evaluated since."""
    rates = random.Random(seed)
    figures = {n: rates.random() for n in range(21) if n % every == 0}
    first = min(attacks, default=None)
    figures = {n: rate + 1 if first is None or n < first else rate for n, rate in figures.items()}
    rows = [played(n, figures.get(n), n in attacks) for n in range(21)]
    summary = summarise(rows, 0.0)
    since = [] if first is None else [rate for n, rate in figures.items() if n >= first]
    assert summary["first_attack_round"] == first
    assert summary["max_attack_success_rate"] == (max(since) if since else None)
    assert summary["initial_attack_success_rate"] == figures[0]
    from_start = summarise(rows, 0.0, has_clean_start=False)
    assert from_start["first_attack_round"] == 0
    assert from_start["max_attack_success_rate"] == max(figures.values())


def test_rates_that_are_unknown_are_not_the_highest() -> None:
    """An attack without a rate, or one whose victims there were none of in some rounds."""
    rows = [played(n, None, n > 1) | {"clean_accuracy": 0.5} for n in range(4)]
    assert summarise(rows, 0.0)["max_attack_success_rate"] is None
    rows[3]["attack_success_rate"] = 0.25
    assert summarise(rows, 0.0)["max_attack_success_rate"] == 0.25


def test_detection_is_averaged_over_the_rounds_that_have_it() -> None:
    """Round 0 has none, round 2 nobody to detect: (0.5 + 1) / 2 and (0.25 + 0 + 0.5) / 3."""
    rows = [played(n, 0.0, n > 0) for n in range(4)]
    for number, rates in {1: (0.5, 0.25), 2: (None, 0.0), 3: (1.0, 0.5)}.items():
        rows[number]["detection_tpr"], rows[number]["detection_fpr"] = rates
    summary = summarise(rows, 0.0)
    assert summary["detection_tpr"] == pytest.approx(0.75)
    assert summary["detection_fpr"] == pytest.approx(0.25)


def test_the_summary_of_audits_averages_what_each_round_found() -> None:
    rows = [played(n, 0.0, False) | {"audit": None, "seconds_audit": 0.5} for n in range(4)]
    rows[1]["audit"] = {"recall": 0.5, "false_positive_rate": 0.2, "num_flagged": 3}
    rows[2]["audit"] = {"recall": None, "false_positive_rate": 0.4, "num_flagged": 8}
    summary = summarise(rows, 0.0)
    assert summary["audit_recall"] == 0.5
    assert summary["audit_false_positive_rate"] == pytest.approx(0.3)
    assert summary["audit_num_flagged"] == 8
    assert summary["seconds_audit"] == 1.5


def test_seconds_and_rejections_are_sums_over_the_rounds() -> None:
    rows = [played(n, 0.0, False) | {"seconds_aggregation": float(n), "num_rejected": n} for n in range(4)]
    summary = summarise(rows, 9.0)
    assert summary["seconds_aggregation"] == 6.0
    assert summary["milliseconds_per_aggregation"] == pytest.approx(2000.0)
    assert summary["num_rejected"] == 6
    assert summary["num_rounds"] == 3
    assert summary["seconds"] == 9.0
