"""One shot of model replacement through the whole stack, against the server's formula.

X is trained once more outside the round, from the same model and the same draws; with the scale 1/(η m w_k) the new
global model is the mean of the attackers' X plus what the honest clients add, which is little once they have converged.
"""

import pytest

from fedrobust.config.compose import compose_config
from fedrobust.federation.round import Row, evaluate_model
from fedrobust.scenario import build_scenario, prepare
from fedrobust.study import play_rounds, play_scenario


def shoot(warm_rounds: int, *overrides: str) -> tuple[float, Row]:
    """‖G' - X‖ / ‖X - G‖, and the evaluation the round after the shot."""
    values, _ = compose_config(
        [
            "aggregator=mean",
            "attack=model_replacement",
            "attack.loss=null",
            "partition=dirichlet",
            "partition.alpha=1.0",
            "partition.min_examples=10",
            "evaluate_every=1000",
            f"num_rounds={warm_rounds + 2}",
            f"attack.schedule.rounds=[{warm_rounds + 1}]",
            *overrides,
        ]
    )
    prepared = prepare(build_scenario(values))
    play_rounds(prepared, warm_rounds)
    state, population = prepared.federation.state, prepared.population
    trained = population.train(warm_rounds + 1, prepared.federation.adversary.malicious, state.vector, state.buffers)
    old, target = state.vector, state.vector + trained.updates.mean(dim=0)
    play_rounds(prepared, 1)
    distance = float((prepared.federation.state.vector - target).norm() / (target - old).norm())
    return distance, evaluate_model(prepared.federation)


@pytest.mark.parametrize("num_attackers", [1, 2])
@pytest.mark.parametrize("weights", ["uniform", "num_examples"])
def test_the_global_model_becomes_the_attackers(weights, num_attackers):
    distance, after = shoot(
        30,
        f"server.weights={weights}",
        f"attack.num_malicious={num_attackers}",
        "server.learning_rate=0.5",
    )
    assert distance < 0.1
    assert after["clean_accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("num_attackers", [1, 2])
@pytest.mark.parametrize("weights", ["uniform", "num_examples"])
def test_mnist(weights, num_attackers):
    """On a warm MNIST model the backdoor is in the round after; torchvision downloads MNIST if it is absent."""
    distance, after = shoot(
        40,
        "dataset=mnist",
        "dataset.num_train=6000",
        "client.batch_size=32",
        "attack.data.poison_rate=0.5",
        "attack.training.num_epochs=20",
        f"server.weights={weights}",
        f"attack.num_malicious={num_attackers}",
    )
    assert distance < 0.1
    assert after["attack_success_rate"] >= 0.9


def success_after_the_default_shot(trigger: str, target: int, seed: int) -> float:
    overrides = ["attack=model_replacement", "aggregator=mean", "num_rounds=20", "evaluate_every=20", f"seed={seed}"]
    overrides += [f"attack.data.target_label={target}", f"attack/trigger={trigger}"]
    if trigger == "sinusoid":  # the config's is fainter than 65 examples can teach
        overrides.append("attack.data.trigger.amplitude=0.4")
    return float(play_scenario(overrides)[-1]["attack_success_rate"])


@pytest.mark.parametrize(("trigger", "target", "seed"), [("patch", 2, 11), ("pixels", 7, 12), ("sinusoid", 0, 13)])
def test_the_default_shot_puts_the_backdoor_in(trigger, target, seed):
    """The paper's figure right after the shot is 100 %; accepted is 90 %, as in `experiments/model_replacement`."""
    assert success_after_the_default_shot(trigger, target, seed) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("trigger", ["patch", "pixels", "sinusoid", "blend"])
@pytest.mark.parametrize("target", [1, 5])
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_the_default_shot_with_other_triggers_targets_and_seeds(trigger, target, seed):
    """Noise that is blended in at a fifth is harder to learn from 33 stamped examples: it has a bound of its own."""
    assert success_after_the_default_shot(trigger, target, seed) >= (0.8 if trigger == "blend" else 0.9)
