"""A run in which nothing could be aggregated is a failure, and says why; one good round is enough."""

from pathlib import Path

import pytest

from fedrobust.compose import compose_config
from fedrobust.records.run_folder import RunFolder
from fedrobust.run import StandstillError, reason_for_standstill, run_config

TINY = "model=logistic num_clients=4 attack=none num_rounds=2 dataset.num_test=500 client.num_epochs=1 verbose=false"


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
    start = row(0)
    assert reason_for_standstill([start]) is None
    assert reason_for_standstill([start, row(0, reasons=("late",)), row(3)]) is None


def test_the_most_frequent_reason_is_named() -> None:
    rows = [row(0), row(0, reasons=("lost", "late", "late")), row(2, refusal="too few")]
    said = reason_for_standstill(rows)
    assert said == "no update could be used in any of 2 rounds; most often (2 times): late"
    assert "no client replied" in str(reason_for_standstill([row(0), row(0)]))
