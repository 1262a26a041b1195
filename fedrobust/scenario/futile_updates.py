"""Update attacks that send nothing of their own in a scenario: found by trying them on random updates."""

from collections import Counter
from collections.abc import Iterator

import torch

from fedrobust.aggregators import Mean
from fedrobust.attacks.base import LEVELS
from fedrobust.attacks.scenario import Adversary, ServerView
from fedrobust.attacks.update import UPDATE_ATTACKS, FangKrum, ModelReplacement, Neurotoxin, ProjectedGradient
from fedrobust.scenario.scenario import Scenario
from fedrobust.seeds import torch_generator
from fedrobust.training.local_training import TrainingOverrides

_WIDTH = 16  # coordinates of the updates that are tried


def futile_updates(scenario: Scenario, adversary: Adversary) -> Iterator[str]:
    """One line for each way in which `attack.update` comes to nothing, and in how many rounds.

    A single attacker that goes by how its own updates differ has nothing to go by, say; whether one is alone follows
    from whom the server samples.
    """
    attack = scenario.attack
    if not isinstance(attack.update, UPDATE_ATTACKS) or isinstance(attack.update, Neurotoxin):  # it only thins out
        return
    poisons = attack.data is not None or attack.loss is not None or attack.training != TrainingOverrides()
    if isinstance(attack.update, ModelReplacement | ProjectedGradient) and poisons:
        return  # a scale of one is as good as another
    rounds: Counter[tuple[int, int]] = Counter()
    found: dict[str, Counter[tuple[int, int]]] = {}
    results: dict[tuple[int, int], str | None] = {}
    for round_number in range(1, scenario.num_rounds + 1):
        attackers = adversary.attackers(round_number)
        if not attackers:
            continue
        clients = scenario.server.sample_clients(
            scenario.num_clients, scenario.seed, round_number, adversary.forced(round_number)
        )
        size = len(set(attackers).intersection(clients)), len(clients)
        if size[0] == 0:
            continue
        rounds[size] += 1
        if size not in results:
            results[size] = _outcome(adversary, clients, round_number)
        if (result := results[size]) is not None:
            found.setdefault(result, Counter())[size] += 1
    for result, sizes in found.items():
        counts = sorted({attackers for attackers, _ in sizes})
        verb, who = ("sends", "1 attacker") if counts == [1] else ("send", f"{_range(counts)} attackers")
        yield (
            f"attack.update: {type(attack.update).__name__} changes nothing in {sizes.total()} of {rounds.total()} "
            f"attack rounds: {who} of {_range(sorted({n for _, n in sizes}))} clients with "
            f"attack.knowledge={attack.knowledge} {verb} {result}"
        )


def _outcome(adversary: Adversary, clients: tuple[int, ...], round_number: int) -> str | None:
    """What the attackers of a round send that is none of their own making; `None` if they do make something."""
    attack = adversary.attack.update
    assert attack is not None
    drawn = torch.randn(len(clients), _WIDTH, generator=torch_generator(0, "futile updates", len(clients))) + 0.3
    uniform = torch.full((len(clients),), 1 / len(clients), dtype=torch.float64)
    server = ServerView(uniform, 1.0, Mean(), torch.zeros(_WIDTH))
    updates = drawn.clone()
    rows = list(adversary.corrupt(clients, updates, server, round_number).rows)
    sent, own = updates[rows], drawn[rows]
    if torch.allclose(sent, own, rtol=1e-5, atol=1e-6):
        return "what it trained, as it is" if len(rows) == 1 else "what they trained, as it is"
    level = min(LEVELS.index(adversary.attack.knowledge), LEVELS.index(attack.uses))
    others = [row for row in range(len(clients)) if row not in rows]
    taken = drawn[others] if level > 0 and others else own
    if torch.allclose(sent, taken.mean(dim=0).expand_as(sent), rtol=1e-5, atol=1e-6):
        return "the plain mean of the updates that they take for benign"
    if isinstance(attack, FangKrum) and float(sent.abs().max()) < attack.min_lambda:
        return "next to nothing, as its search found no factor that Krum would choose"
    return None


def _range(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
