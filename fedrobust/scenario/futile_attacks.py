"""What a scenario's attackers cannot do, although nothing is wrong with the config; a run points it out."""

from collections.abc import Iterator

from fedrobust.attacks.base import ModelDataAttack
from fedrobust.attacks.data.coalition import members_of
from fedrobust.clients.population import Population
from fedrobust.federation.weighting import weighting_for
from fedrobust.scenario.futile_updates import futile_updates
from fedrobust.scenario.scenario import Scenario
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import TrainingOverrides


def futile_attacks(scenario: Scenario, population: Population) -> Iterator[str]:
    """One line for each thing that malicious clients are there for and will not do."""
    malicious, attack = population.adversary.malicious, population.adversary.attack
    if not malicious:
        return
    if not scenario.has_attack_round():
        yield f"no client ever attacks: attack.schedule has no round in 1..num_rounds={scenario.num_rounds}"
    stages = (attack.data, attack.loss, attack.update)
    weighting = weighting_for(scenario.rule, scenario.server.weights)
    if attack.claimed_examples is not None and weighting == "uniform":
        yield (
            f"attack.claimed_examples={attack.claimed_examples} changes nothing: server.weights="
            f"{scenario.server.weights} comes to uniform here"
        )
    claims = attack.claimed_examples is not None and weighting != "uniform"
    if all(stage is None for stage in stages) and attack.training == TrainingOverrides() and not claims:
        yield "malicious clients train as benign ones: attack has neither data, loss, update nor training"
    yield from futile_updates(scenario, population.adversary)
    if attack.data is None:
        return
    members = members_of(attack.data)
    if len(members) > len(malicious):
        yield (
            f"attack.data.members: {len(malicious)} malicious clients do what the first {len(malicious)} do; "
            f"success is judged by all {len(members)}"
        )
    # What is crafted on a model takes too long to try.
    if not any(isinstance(member, ModelDataAttack) for member in members) and not _can_poison(population):
        yield (
            "no attacker has anything to poison: attack.data takes less than half an example of theirs, or they hold "
            "none of the class that it starts from"
        )


def _can_poison(population: Population) -> bool:
    """Whether the attack on data changes anything of any attacker's in round 1, as in all others."""
    adversary, attack = population.adversary, population.adversary.attack.data
    assert attack is not None
    for rank, client in enumerate(adversary.malicious):
        own = population.dataset.train.subset(population.assignment[client])
        generator = torch_generator(population.seed, "poison", 1, client)
        poisoned = attack.poison_batch(attack.poison(own, rank, generator), rank)
        if len(poisoned) > len(own) or bool((poisoned.labels != own.labels).any()):
            return True
        if bool((poisoned.inputs != own.inputs).any()):
            return True
    return False
