"""Model replacement, one shot on a warm model under the mean: how close the new global model comes to the attacker's.

    python experiments/model_replacement/run.py [--dataset mnist] [--seeds 0 1 2] [--quick]

For equal and unequal client weights and for one and two attackers, prints and writes the distance
‖G' - X‖ / ‖X - G‖ (X: the attackers' model, or the mean of theirs) and the attack success before the shot, the round
after it, and five rounds later.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from fedrobust.federation.round import evaluate_model
from fedrobust.study import markdown_table, mean_and_deviation, percent, play_rounds, prepare_scenario, study_parser

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


def shoot(overrides: list[str]) -> Shot:
    """Warm up, shoot once, and look."""
    prepared = prepare_scenario(overrides)
    federation = prepared.federation
    (shot_round,) = federation.adversary.attack.schedule.rounds or ()
    play_rounds(prepared, shot_round - 1)
    before = evaluate_model(federation)
    # What the attackers will train in the shot's round: X, from the same model and the same draws.
    state = federation.state
    trained = prepared.population.train(shot_round, federation.adversary.malicious, state.vector, state.buffers)
    old, target = state.vector, state.vector + trained.updates.mean(dim=0)
    play_rounds(prepared, 1)
    distance = float((federation.state.vector - target).norm() / (target - old).norm())
    after = evaluate_model(federation)
    play_rounds(prepared, ROUNDS_AFTER)
    later = evaluate_model(federation)
    key = "attack_success_rate"
    return Shot(distance, after["clean_accuracy"], before[key], after[key], later[key])


def main() -> None:
    parser = study_parser(__doc__, quick="digits and one seed")
    parser.add_argument("--dataset", choices=["mnist", "digits"], default="mnist")
    options = parser.parse_args()
    dataset, seeds = ("digits", [0]) if options.quick else (options.dataset, options.seeds)
    cells = [(weights, attackers) for weights in ("equal", "unequal") for attackers in (1, 2)]
    work = [(cell, seed) for cell in cells for seed in seeds]
    shots: dict[tuple[str, int], list[Shot]] = {}
    for cell, seed in track(work, description=f"model replacement on {dataset}"):
        shots.setdefault(cell, []).append(shoot(overrides(dataset, *cell, seed)))
    heads = ["weights", "attackers", "‖G'-X‖/‖X-G‖", "largest", "clean accuracy after", "success before", "after"]
    table = markdown_table(
        [*heads, "5 rounds later"],
        [
            [
                weights,
                str(attackers),
                mean_and_deviation((one.distance for one in results), 3),
                f"{max(one.distance for one in results):.3f}",
                percent(one.accuracy for one in results),
                percent(one.success_before for one in results),
                percent(one.success_after for one in results),
                percent(one.success_later for one in results),
            ]
            for (weights, attackers), results in shots.items()
        ],
    )
    print(table)
    if not options.quick:
        title = f"Seeds {', '.join(map(str, seeds))}; mean ± standard deviation."
        (Path(__file__).parent / f"{dataset}.md").write_text(f"{title}\n\n{table}\n")


if __name__ == "__main__":
    main()
