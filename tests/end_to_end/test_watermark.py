"""A federation whose server marks its model: who can tell, what it costs, and what else of the round it touches."""

from pathlib import Path

import pytest
import torch

from fedrobust.config.compose import compose_config
from fedrobust.federation.round import Federation, Row
from fedrobust.runs.run import run_config
from fedrobust.study import play_rounds, prepare_scenario
from fedrobust.watermarks import verify
from fedrobust.watermarks.removal import prune

SEEDS = (0, 1, 2)
BENIGN = ["attack=none", "aggregator=mean", "num_rounds=20", "evaluate_every=1000", "verbose=false", "plot_formats=[]"]


def play(*overrides: str) -> tuple[Federation, list[Row]]:
    prepared = prepare_scenario([*BENIGN, *overrides])
    return prepared.federation, play_rounds(prepared)


def test_the_owner_is_known_by_twenty_pictures_of_noise():
    """Watermark accuracy 1.0 and p < 1e-10; unmarked models, on average, at chance: 0.15 or less; clean drop < 0.02.

    Three seeds; 0.1 ± 0.04 is the mean of three unmarked models that answer 20 random labels of ten classes. Half of
    the weights, the smaller ones, can be pruned away without the mark.
    """
    unmarked_accuracies = []
    for seed in SEEDS:
        marked, rows = play("watermark=noise", f"seed={seed}")
        unmarked, clean_rows = play(f"seed={seed}")
        assert marked.mark is not None
        found = verify(marked.predictor, marked.mark.triggers)
        assert found.accuracy == rows[-1]["watermark_accuracy"] == 1.0
        assert found.p_value == rows[-1]["watermark_p_value"] < 1e-10
        assert found.is_owner
        assert verify(prune(marked.predictor, 0.5), marked.mark.triggers).is_owner
        innocent = verify(unmarked.predictor, marked.mark.triggers)
        assert not innocent.is_owner
        unmarked_accuracies.append(innocent.accuracy)
        assert rows[-1]["clean_accuracy"] > clean_rows[-1]["clean_accuracy"] - 0.02
        assert clean_rows[-1]["watermark_accuracy"] is None
    assert sum(unmarked_accuracies) / len(SEEDS) <= 0.15


def test_a_mark_of_the_initial_model_alone_fades_and_one_of_every_round_stays():
    """Clients who do not know the mark train it away; the same trigger set either way."""
    options = ["watermark=noise", "watermark.max_loss=null", "client.learning_rate=0.3"]
    _, once = play(*options, "watermark.embed_in=initial_model")
    _, always = play(*options, "watermark.embed_in=rounds")
    assert always[-1]["watermark_accuracy"] == 1.0
    assert once[-1]["watermark_accuracy"] < 0.8


def test_words_that_never_occur_mark_a_model_of_texts():
    """All 50 texts are negative and answered as positive; an unmarked model sees through most of them."""
    options = ["dataset=text", "model=text_bag", "client.learning_rate=2", "num_rounds=15"]
    marked, rows = play(*options, "watermark=rare_words")
    references = [play(*options, f"seed={seed}")[0].predictor for seed in (1, 2)]
    assert marked.mark is not None
    found = verify(marked.predictor, marked.mark.triggers, references)
    assert found.accuracy >= 0.98
    assert found.is_owner
    assert max(found.reference_accuracies) < 0.4
    assert rows[-1]["watermark_p_value"] is None  # without references nobody knows the chance
    assert not verify(references[0], marked.mark.triggers, references[1:]).is_owner


def test_embedding_changes_the_parameters_and_nothing_else():
    """One round with momenta: what the federation remembers, and whom it asks, is the same with and without a mark."""
    options = ["num_rounds=1", "server_optimizer=momentum", "preaggregator=[client_momentum]"]
    marked, rows = play(*options, "watermark=noise", "watermark.embed_in=rounds")
    unmarked, clean_rows = play(*options)
    assert not torch.equal(marked.state.vector, unmarked.state.vector)
    assert marked.state.memory.keys() == unmarked.state.memory.keys()
    for name, values in unmarked.state.memory.items():
        assert torch.equal(marked.state.memory[name], values), name
    for key in ("clients", "update_norms", "num_received", "shares"):
        assert rows[0][key] == clean_rows[0][key]


def test_a_stopped_run_with_a_mark_goes_on_to_the_same_bytes(tmp_path: Path):
    small = ["num_clients=6", "attack.num_malicious=1", "aggregator=spectral_filter", "checkpoint_every=2"]
    small += [
        "verbose=false",
        "plot_formats=[]",
        "server_optimizer=momentum",
        "server.learning_rate=0.3",
        "client.learning_rate=0.3",
    ]
    values, choices = compose_config([*small, "watermark=noise", "watermark.triggers_per_batch=5", "num_rounds=6"])
    whole = run_config(values, tmp_path / "whole", choices)
    run_config({**values, "num_rounds": 3}, tmp_path / "stopped", choices)
    summary = run_config(values, tmp_path / "stopped", choices, resume=True)
    assert summary["watermark_accuracy"] == whole["watermark_accuracy"] == 1.0
    assert summary["watermark_p_value"] == pytest.approx(1e-20)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert first == second
