"""Attackers who attack only while the model does not yet do what they want (`schedule.until_success`)."""

import pytest
import torch
from torch.func import functional_call

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_config
from fedrobust.scenario import Prepared, build_scenario, prepare
from fedrobust.study import play_rounds

THRESHOLD = 0.6


def prepared(*overrides: str) -> Prepared:
    return prepare(build_scenario(compose_config(["aggregator=mean", "attack=badnets", "seed=1", *overrides])[0]))


def success_on_own_examples(one: Prepared) -> float:
    """By hand: the attackers' examples but the target's, with a white 2x2 corner, and what the model says of them."""
    own = torch.cat([one.assignment[client] for client in one.federation.adversary.malicious])
    examples = one.dataset.train.subset(own)
    inputs = examples.inputs[examples.labels != 2].clone()
    inputs[:, :, :2, :2] = 1.0
    parameters = one.federation.layout.views(one.federation.state.vector)
    says = functional_call(one.model, parameters, (one.dataset.normalise(inputs),)).argmax(dim=1)
    return float((says == 2).double().mean())


def test_attackers_rest_while_the_trigger_works():
    """In every round the decision is that of the rate worked out by hand, and there are rounds of both kinds."""
    one = prepared(f"attack.schedule.until_success={THRESHOLD}", "attack.num_malicious=8")
    active = []
    for _ in range(20):
        before = success_on_own_examples(one)
        (row,) = play_rounds(one, 1)
        assert row["attack_active"] == (before < THRESHOLD)
        active.append(row["attack_active"])
    assert active[0]
    assert 0 < sum(active) < 20


def test_a_round_that_attackers_sit_out_is_a_benign_round():
    """Against a population without malicious clients: the same bytes from the same model."""
    one = prepared("attack.schedule.until_success=0.000001")
    benign = prepared("attack.num_malicious=0")
    play_rounds(benign, 5)
    # A trigger that works on nobody is below any threshold: plant it, so that they rest.
    model = benign.federation.state.vector.clone()
    bias = one.federation.layout.views(model)["5.bias"]
    bias[2] += 5.0
    one.federation.state.vector, benign.federation.state.vector = model, model.clone()
    (row,) = play_rounds(one, 1)
    assert not row["attack_active"]
    benign.federation.state.round_number = 0
    play_rounds(benign, 1)
    assert torch.equal(one.federation.state.vector, benign.federation.state.vector)


def test_nodes_hear_of_it():
    """One client a node: the order must carry the decision, and the models agree as they do between any two grids."""
    overrides = (f"attack.schedule.until_success={THRESHOLD}", "attack.num_malicious=8", "client.vectorize=false")
    together, apart = prepared(*overrides), prepared(*overrides)
    rows, others = play_rounds(together, 12), play_rounds(apart, 12, num_nodes=20)
    assert [row["attack_active"] for row in rows] == [row["attack_active"] for row in others]
    assert not all(row["attack_active"] for row in rows)
    one, other = together.federation.state.vector, apart.federation.state.vector
    assert float((one - other).norm() / one.norm()) <= 1e-5


def test_attackers_with_nothing_to_try_the_trigger_on_attack():
    """A model that takes all of theirs for goodware already: no malware is left that the trigger could hide."""
    one = prepared("attack=explanation_guided", "dataset=breast_cancer", "attack.schedule.until_success=0.5")
    state = one.federation.state
    assert one.federation.wants_to_attack is not None
    bias = one.federation.layout.views(state.vector)["5.bias"]
    bias[0] += 1e6
    assert one.federation.wants_to_attack(state)


@pytest.mark.parametrize(
    "attack",
    [
        ["attack=sign_flip"],
        ["attack=poison_frogs", "attack.data.target_instances=[40]"],
        ["attack=poison_frogs", "attack.data.target_instances=[0]"],
    ],
)
def test_an_attack_that_wants_nothing_of_their_own_inputs_cannot_wait_for_it(attack):
    values = compose_config([*attack, "attack.schedule.until_success=0.5"])[0]
    with pytest.raises(ConfigError, match=r"attack.schedule.until_success: must be null for an attack that wants"):
        prepare(build_scenario(values))
