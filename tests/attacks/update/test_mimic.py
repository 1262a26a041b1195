"""Mimic against the authors' recursion, written out in NumPy, and against planted outliers."""

import numpy as np
import pytest
import torch
from known import known, random_updates

from fedrobust.attacks import Knowledge, Mimic
from fedrobust.seeds import torch_generator


def play(attack: Mimic, rounds: list[torch.Tensor], memory: dict | None = None) -> tuple[list[int], dict]:
    """Which row (of the benign ones) is copied in each round, and the memory after the last."""
    memory, copied = memory or {}, []
    own = torch.full((2, rounds[0].shape[1]), 9.0, dtype=torch.float64)
    for number, benign in enumerate(rounds):
        more = {"generator": torch_generator(0, "update attack", number)}
        memory = attack.remember(known(own, benign, memory=memory, **more))
        sent = attack(known(own, benign, memory=memory, **more))
        assert torch.equal(sent[0], sent[1])
        (row,) = [row for row in range(len(benign)) if torch.equal(benign[row], sent[0])]
        copied.append(row)
    return copied, memory


def recursion(rounds: list[np.ndarray], z: np.ndarray, warmup: int) -> list[int]:
    """The published attacker: z and μ while t < warmup, the argmax of each of those rounds, then the last one's."""
    copied: list[int] = []
    mu = np.zeros_like(z)
    for t, points in enumerate(rounds):
        if t < warmup:
            mu = t / (1 + t) * mu + points.mean(axis=0) / (1 + t)
            total = sum(((g - mu) @ z) * (g - mu) for g in points)
            unit = total / np.linalg.norm(total)
            z = unit if t == 0 else t / (1 + t) * z + unit / (1 + t)
            z = z / np.linalg.norm(z)
            copied.append(int(np.argmax([g @ z for g in points])))
        else:
            copied.append(copied[warmup - 1])
    return copied


def test_the_published_recursion():
    rounds = [random_updates(9, 15, seed=seed) for seed in range(8)]
    z = torch.randn(15, generator=torch_generator(0, "update attack", 0)).double().numpy()
    copied, _ = play(Mimic(num_warmup_rounds=5), rounds)
    assert copied == recursion([points.numpy() for points in rounds], z, 5)
    assert len(set(copied[:5])) > 1, "random rounds do not agree on one client"
    assert len(set(copied[4:])) == 1


def test_the_client_that_stands_apart_is_found_or_its_opposite():
    """Clients 4 and 6 lie at ±10 on one axis, the others near the origin: the direction of variance is that axis."""
    rounds = []
    for seed in range(4):
        points = 0.1 * random_updates(8, 12, shift=0.0, seed=seed)
        points[4, 3] += 10
        points[6, 3] -= 10
        rounds.append(points)
    copied, memory = play(Mimic(num_warmup_rounds=3), rounds)
    assert copied in ([4] * 4, [6] * 4)
    assert abs(float(memory["direction"][3])) > 0.99


def test_a_named_client_is_copied_when_it_takes_part():
    benign = random_updates(5, 6)
    knowledge = known(torch.zeros(3, 6, dtype=torch.float64), benign)  # the benign clients are 3, ..., 7
    attack = Mimic(client=6)
    told = Knowledge(**{**knowledge.__dict__, "memory": attack.remember(knowledge)})
    assert torch.equal(attack(told), benign[3].expand(3, -1))
    absent = Mimic(client=99)
    assert any(torch.equal(absent(told)[0], row) for row in benign)


def test_when_the_chosen_client_is_absent_the_direction_chooses_among_the_others():
    rounds = [random_updates(9, 15, seed=seed) for seed in range(3)]
    attack = Mimic(num_warmup_rounds=3)
    copied, memory = play(attack, rounds)
    left = torch.cat([rounds[2][: copied[2]], rounds[2][copied[2] + 1 :]])
    ids = tuple(client for client in range(2, 11) if client != copied[2] + 2)
    more = {**known(torch.zeros(2, 15, dtype=torch.float64), left).__dict__, "benign_clients": ids, "memory": memory}
    expected = left[int((left @ memory["direction"]).argmax())]
    assert torch.equal(attack(Knowledge(**more))[0], expected)


@pytest.mark.parametrize("benign", [None, torch.zeros(0, 4)])
def test_with_nobody_to_copy_attackers_send_their_own(benign):
    own = torch.ones(2, 4)
    knowledge = known(own, benign)
    assert torch.equal(Mimic()(knowledge), own)
    assert Mimic().remember(knowledge) == {}
