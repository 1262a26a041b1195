"""Model replacement, one shot on a warm model under the mean: how close the new global model comes to the attacker's.

    python experiments/model_replacement/run.py [--dataset mnist] [--seeds 0 1 2] [--quick]

For equal and unequal client weights and for one and two attackers, prints and writes the distance
‖G' - X‖ / ‖X - G‖ (X: the attackers' model, or the mean of theirs) and the attack success before the shot, the round
after it, and five rounds later.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

from fedrobust.compose import compose_config
from fedrobust.engines.local import LocalGrid, quiet_flower
from fedrobust.flower.apps import make_client_app
from fedrobust.flower.messages import model_record
from fedrobust.flower.strategy import FederationStrategy
from fedrobust.round import evaluate_model
from fedrobust.scenario import Prepared, build_scenario, prepare

ROUNDS_AFTER = 5


@dataclass(frozen=True)
class Shot:
    """What one shot did."""

    distance: float
    accuracy: float
    success_before: float
    success_after: float
    success_later: float


def overrides(dataset: str, weights: str, num_attackers: int, seed: int) -> list[str]:
    """The scenario: a warm model, then one shot in the last round but five."""
    common = [
        f"seed={seed}",
        f"dataset={dataset}",
        "aggregator=mean",
        "attack=model_replacement",
        "attack.loss=null",
        f"attack.num_malicious={num_attackers}",
        # A Dirichlet partition gives clients of unequal size; uniform weights make them count the same.
        "partition=dirichlet",
        "partition.alpha=1.0",
        "partition.min_examples=10",
        f"server.weights={'uniform' if weights == 'equal' else 'num_examples'}",
    ]
    if dataset == "mnist":
        warm = 40
        own = ["dataset.num_train=6000", "client.batch_size=32"]
        own += ["attack.data.poison_rate=0.5", "attack.training.num_epochs=20"]
    else:
        warm = 60
        own = []
    schedule = [f"attack.schedule.rounds=[{warm + 1}]", f"num_rounds={warm + 1 + ROUNDS_AFTER}"]
    return [*common, *own, *schedule, f"evaluate_every={warm + 1}"]


def play(prepared: Prepared, num_rounds: int) -> None:
    """Play the next rounds, on the local engine."""
    state = prepared.federation.state
    grid = LocalGrid(make_client_app(lambda _context: prepared.population), num_nodes=1)
    with quiet_flower():
        FederationStrategy(prepared.federation, lambda _row: None).start(
            grid, model_record(state.vector, state.buffers), num_rounds=num_rounds
        )


def shoot(values: dict[str, object]) -> Shot:
    """Warm up, shoot once, and look."""
    prepared = prepare(build_scenario(values))
    federation = prepared.federation
    (shot_round,) = federation.adversary.attack.schedule.rounds or ()
    play(prepared, shot_round - 1)
    before = evaluate_model(federation)
    # What the attackers will train in the shot's round: X, from the same model and the same draws.
    state = federation.state
    trained = prepared.population.train(shot_round, federation.adversary.malicious, state.vector, state.buffers)
    old, target = state.vector, state.vector + trained.updates.mean(dim=0)
    play(prepared, 1)
    distance = float((federation.state.vector - target).norm() / (target - old).norm())
    after = evaluate_model(federation)
    play(prepared, ROUNDS_AFTER)
    later = evaluate_model(federation)
    key = "attack_success_rate"
    return Shot(distance, after["clean_accuracy"], before[key], after[key], later[key])


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """Mean ± standard deviation."""
    tensor = torch.tensor(values, dtype=torch.float64)
    deviation = float(tensor.std()) if len(values) > 1 else 0.0
    return f"{form(float(tensor.mean()))} ± {form(deviation)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="digits and one seed")
    options = parser.parse_args()
    dataset, seeds = ("digits", [0]) if options.quick else (options.dataset, options.seeds)
    cells = [(weights, attackers) for weights in ("equal", "unequal") for attackers in (1, 2)]
    work = [(cell, seed) for cell in cells for seed in seeds]
    shots: dict[tuple[str, int], list[Shot]] = {}
    for cell, seed in track(work, description=f"model replacement on {dataset}"):
        shots.setdefault(cell, []).append(shoot(compose_config(overrides(dataset, *cell, seed))[0]))
    percent, plain = "{:.1%}".format, "{:.3f}".format
    lines = [
        "| weights | attackers | ‖G'-X‖/‖X-G‖ | largest | clean accuracy after "
        "| success before | after | 5 rounds later |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (weights, attackers), results in shots.items():
        row = [
            weights,
            str(attackers),
            spread([one.distance for one in results], plain),
            plain(max(one.distance for one in results)),
            spread([one.accuracy for one in results], percent),
            spread([one.success_before for one in results], percent),
            spread([one.success_after for one in results], percent),
            spread([one.success_later for one in results], percent),
        ]
        lines.append("| " + " | ".join(row) + " |")
    table = "\n".join(lines)
    print(table)
    if not options.quick:
        title = f"Seeds {', '.join(map(str, seeds))}; mean ± standard deviation."
        (Path(__file__).parent / f"{dataset}.md").write_text(f"{title}\n\n{table}\n")


if __name__ == "__main__":
    main()
