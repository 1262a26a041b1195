"""What a run leaves behind, and that it says what happened."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config

SMALL = ["num_clients=8", "num_rounds=4", "attack.num_malicious=2", "verbose=false"]


def run(folder: Path, *overrides: str) -> dict[str, object]:
    values, choices = compose_config([*SMALL, *overrides])
    return run_config(values, folder, choices)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run")
    run(path, "control=true", "aggregator=sever")
    return path


def test_every_promised_file_is_there(folder):
    expected = {
        "config.yaml",
        "choices.json",
        "environment.json",
        "partition.json",
        "rounds.jsonl",
        "summary.json",
        "model.safetensors",
    }
    assert expected <= {path.name for path in folder.iterdir()}
    plots = {path.name for path in (folder / "plots").iterdir()}
    assert {"accuracy.png", "detection.png", "norms.png", "partition.png", "examples.png"} <= plots
    for path in (folder / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_summary_holds_numbers_or_null(folder):
    summary = json.loads((folder / "summary.json").read_text())
    keys = ["clean_accuracy", "attack_success_rate", "control_attack_success_rate", "detection_tpr", "detection_fpr"]
    for key in [*keys, "num_rounds", "seconds"]:
        assert summary[key] is None or isinstance(summary[key], int | float), key
    assert summary["num_rounds"] == 4
    assert summary["control"] == "benign_twin"


def test_the_control_is_a_run_without_malicious_clients(folder):
    rows = [json.loads(line) for line in (folder / "control" / "rounds.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert all(row["malicious_clients"] == [] for row in rows[1:])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["control_attack_success_rate"] == rows[-1]["attack_success_rate"]


def test_rounds_tell_who_attacked_and_who_was_left_out(folder):
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows[1:]:
        assert row["clients"] == list(range(8))
        assert len(row["malicious_clients"]) == 2
        assert sum(row["shares"]) == pytest.approx(1.0)
        left_out = [client for client, share in zip(row["clients"], row["shares"], strict=True) if share == 0]
        hits = [client for client in left_out if client in row["malicious_clients"]]
        assert row["detection_tpr"] == pytest.approx(len(hits) / 2)
        assert row["detection_fpr"] == pytest.approx((len(left_out) - len(hits)) / 6)
        assert len(row["per_class_accuracy"]) == 10
        assert len(row["local_attack_success_rates"]) == 4


def test_the_saved_model_is_the_one_that_was_evaluated(folder):
    """Rebuilt from model.safetensors in plain torch, the MLP has the recorded accuracy."""
    from fedrobust.data.datasets import Digits

    digits = Digits().load(None, torch.device("cpu"))
    weights = list(load_file(folder / "model.safetensors").items())
    named = dict(weights)
    layers = sorted({name.rpartition(".")[0] for name in named})
    hidden = digits.normalise(digits.test.inputs).flatten(1)
    for index, layer in enumerate(layers):
        hidden = torch.nn.functional.linear(hidden, named[f"{layer}.weight"], named[f"{layer}.bias"])
        hidden = hidden.relu() if index + 1 < len(layers) else hidden
    accuracy = float((hidden.argmax(dim=1) == digits.test.labels).double().mean())
    assert accuracy == pytest.approx(json.loads((folder / "summary.json").read_text())["clean_accuracy"])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, f"seed={seed}")
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=breast_cancer", "attack=none", "model=logistic"],
        ["partition=dirichlet", "aggregator=trimmed_mean", "server.num_sampled=5"],
        ["attack=model_replacement", "attack.schedule.rounds=[3]", "aggregator=mean"],
        ["attack=badnets", "aggregator=coordinate_median", "client.vectorize=false", "client.momentum=0.9"],
        [
            "partition=pathological",
            "num_clients=12",
            "engine.num_nodes=3",
            "server.weights=uniform",
            "evaluate_every=2",
        ],
        ["partition=shards", "attack.data.poison_rate=null", "attack.data.poison_count=4"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_other_choices_run(tmp_path, overrides):
    summary = run(tmp_path, *overrides)
    assert summary["num_rounds"] == 4
    accuracy = summary["clean_accuracy"]
    assert isinstance(accuracy, float)
    assert 0.05 < accuracy <= 1.0


def test_an_attack_that_never_happens_is_pointed_out(tmp_path, caplog):
    run(tmp_path / "late", "attack=model_replacement", "attack.schedule.rounds=[5]")
    assert "no client ever attacks: attack.schedule has no round in 1..num_rounds=4" in caplog.text
    caplog.clear()
    run(tmp_path / "in_time", "attack=model_replacement", "attack.schedule.rounds=[4]")
    assert not caplog.records


@pytest.mark.parametrize(
    "overrides", [[], ["attack=bfa"], ["audit=activation_clustering"], ["attack=edge_case", "control=true"]]
)
def test_without_a_format_no_picture_is_drawn_and_all_else_is_there(tmp_path, overrides):
    small = ["num_clients=4", "num_rounds=2", "attack.num_malicious=1", "aggregator=mean", "verbose=false", *overrides]
    written = {}
    for name, formats in (("with", "[png]"), ("without", "[]")):
        values, choices = compose_config([*small, f"plot_formats={formats}"])
        run_config(values, tmp_path / name, choices)
        written[name] = {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*") if path.is_file()}
    pictures = {path for path in written["with"] if path.suffix == ".png"}
    assert pictures
    assert written["without"] == written["with"] - pictures
