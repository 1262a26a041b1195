import torch

from fedrobust.config.compose import compose_config
from fedrobust.runs.run import run_config
from fedrobust.study import play_rounds, play_scenario, prepare_scenario

OVERRIDES = ["attack=badnets", "aggregator=mean", "num_rounds=4", "num_clients=6", "attack.num_malicious=2"]
FIGURES = ("round", "clients", "clean_accuracy", "attack_success_rate", "clean_loss")


def test_the_rounds_are_those_of_the_command(tmp_path):
    """The command's own records of the same scenario, in its folder."""
    values, choices = compose_config([*OVERRIDES, "verbose=false", "checkpoint_every=0"])
    summary = run_config(values, tmp_path / "run", choices)
    rows = play_scenario(OVERRIDES)
    assert [row["round"] for row in rows] == [1, 2, 3, 4]
    for name in ("clean_accuracy", "attack_success_rate", "clean_loss"):
        assert rows[-1][name] == summary[name]


def test_rounds_in_parts_are_the_rounds_at_once():
    whole, parts = prepare_scenario(OVERRIDES), prepare_scenario(OVERRIDES)
    seen = []
    rows = play_rounds(parts, 1, on_round=seen.append) + play_rounds(parts, 2) + play_rounds(parts)
    expected = play_rounds(whole)
    assert len(seen) == 1
    assert seen[0] is rows[0]
    assert [[row[name] for name in FIGURES] for row in rows] == [[row[name] for name in FIGURES] for row in expected]
    assert torch.equal(parts.federation.state.vector, whole.federation.state.vector)


def test_one_client_a_node_is_the_same_federation_to_rounding():
    """Other engines' parity bound: 1e-5 of the model's norm."""
    overrides = [*OVERRIDES, "num_rounds=1", "client.vectorize=false"]
    together, apart = prepare_scenario(overrides), prepare_scenario(overrides)
    play_rounds(together)
    play_rounds(apart, num_nodes=6)
    one, other = together.federation.state.vector, apart.federation.state.vector
    assert float((one - other).norm() / one.norm()) <= 1e-5
