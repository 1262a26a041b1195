"""A whole MNIST round through the real stack: seconds, and where they go, beside a plain PyTorch federation.

Writes README.md beside this file. See there for the claim, the command and the last result.
"""

import argparse
import copy
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# As the command `fedrobust` does, before torch is imported: no threads that spin, huge pages for tensors.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from data_loader_federation import DataLoaderFederation, ReferenceRound

from fedrobust.config.compose import compose_config
from fedrobust.federation.round import Row
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.scenario import Prepared, Scenario, build_scenario, prepare
from fedrobust.study import median_and_range
from fedrobust.training.loop import channels_last

README = Path(__file__).with_name("README.md")
REFERENCE = "DataLoader + per-image transforms"
BARE = "bare PyTorch steps, no federation"
PARTS = ("training", "messages", "aggregation", "evaluation")
SETTING = (
    "dataset=mnist",
    "model=dba_cnn",
    "num_clients=100",
    "server.num_sampled=10",
    "client.num_epochs=2",
    "client.batch_size=64",
    "aggregator=mean",
)
DBA = (
    "attack=dba",
    "attack.schedule.participation=forced",
    "attack.data.trigger.width=4",
    "attack.data.poison_rate=null",
    "attack.data.poison_count=20",
    "attack.update=null",
)


def prepared_scenario(
    partition: str, device: str, overrides: Sequence[str], num_rounds: int
) -> tuple[Scenario, Prepared]:
    shards = ["partition=iid"] if partition == "iid" else ["partition=dirichlet", "partition.alpha=0.5"]
    values, _ = compose_config([*SETTING, *shards, *overrides, f"num_rounds={num_rounds}", f"device={device}"])
    scenario = build_scenario(values)
    return scenario, prepare(scenario)


def play(scenario: Scenario, prepared: Prepared, after_round: Callable[[Row], None]) -> None:
    """All rounds on the local engine."""
    federation = prepared.federation
    client_app = make_client_app(lambda _context: prepared.population)
    scenario.engine.run(make_server_app(federation, after_round), client_app, federation.num_clients)


def table_row(
    name: str, parts: Sequence[Sequence[float]], sizes: Sequence[int], accuracy: float, ratios: Sequence[float]
) -> str:
    """`parts`: for each round its seconds in each of PARTS; `ratios`: to our clean round with the same clients."""
    medians = [f"{statistics.median(column):.3f}" for column in zip(*parts, strict=True)]
    ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})" if ratios else ""
    examples = f"{statistics.mean(sizes):.0f}"
    cells = [
        name,
        f"**{median_and_range([sum(one) for one in parts])}**",
        *medians,
        examples,
        "" if math.isnan(accuracy) else f"{accuracy:.3f}",
        ratio,
    ]
    return "| " + " | ".join(cells) + " |"


def seconds_of(row: Row) -> list[float]:
    return [row[f"seconds_{part}"] for part in PARTS]


def bare_round(prepared: Prepared, clients: Sequence[int], scenario: Scenario) -> list[float]:
    """Seconds in each of PARTS of a round without a federation, a floor for any on this machine.

    As many forward and backward passes and SGD steps as the clients take, all on one batch, and one pass over the test
    images.
    """
    training, data = scenario.client, prepared.dataset
    batches = [-(-len(prepared.assignment[client]) // training.batch_size) for client in clients]
    model = copy.deepcopy(prepared.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=training.learning_rate)
    inputs = channels_last(data.normalise(data.train.inputs[: training.batch_size]))
    labels = data.train.labels[: training.batch_size]
    started = time.perf_counter()
    for _ in range(sum(batches) * training.num_epochs):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    trained = time.perf_counter()
    with torch.inference_mode():
        for batch in data.test.inputs.split(250):
            model(channels_last(data.normalise(batch)))
    return [trained - started, 0.0, 0.0, time.perf_counter() - trained]


def measure(partition: str, device: str, num_rounds: int, num_reference: int) -> list[str]:
    """The rows of the table. Ours and the reference take turns, with the same clients; round 1 warms both up."""
    scenario, prepared = prepared_scenario(partition, device, ("attack=none",), num_rounds + 1)
    reference = DataLoaderFederation(prepared.model, prepared.assignment, scenario.client, device)
    rows: list[Row] = []
    others: list[ReferenceRound] = []
    bare: list[list[float]] = []

    def after_round(row: Row) -> None:
        rows.append(row)
        bare.append(bare_round(prepared, row["clients"], scenario))
        if len(others) <= num_reference:
            others.append(reference.play_round(row["clients"]))

    play(scenario, prepared, after_round)
    ours, theirs = [seconds_of(row) for row in rows[1:]], [one.seconds for one in others[1:]]
    sizes = [sum(len(prepared.assignment[client]) for client in row["clients"]) for row in rows[1:]]
    ratios = [sum(their) / sum(our) for our, their in zip(ours, theirs, strict=False)]
    table = [
        table_row("fedrobust, no attack", ours, sizes, rows[-1]["clean_accuracy"], []),
        table_row(BARE, bare[1:], sizes, float("nan"), [sum(one) / sum(our) for one, our in zip(bare[1:], ours)]),
        table_row(REFERENCE, theirs, sizes[: len(theirs)], others[-1].accuracy, ratios),
    ]
    scenario, prepared = prepared_scenario(partition, device, DBA, num_rounds + 1)
    attacked: list[Row] = []
    play(scenario, prepared, attacked.append)
    sizes = [sum(len(prepared.assignment[client]) for client in row["clients"]) for row in attacked[1:]]
    parts = [seconds_of(row) for row in attacked[1:]]
    table.insert(1, table_row("fedrobust, DBA", parts, sizes, attacked[-1]["clean_accuracy"], []))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partition", choices=("dirichlet", "iid"), default="iid")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=6, help="measured rounds of ours")
    parser.add_argument("--reference-rounds", type=int, default=3, help="measured rounds of the reference")
    arguments = parser.parse_args()
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    table = measure(arguments.partition, arguments.device, arguments.rounds, arguments.reference_rounds)
    print("\n".join(table))
    processors = f"{len(os.sched_getaffinity(0))} CPU cores, {torch.get_num_threads()} threads"
    if arguments.device != "cpu":
        processors = f"{torch.cuda.get_device_name()}; {processors}"
    README.write_text(f"""# A whole MNIST round

A round of MNIST: 100 clients, 10 a round, 2 local epochs in batches of 64, the CNN of the DBA paper, evaluation on the
10,000 test images. Goal: at most 3 s on 2 CPU cores; and no slower than the same arithmetic without a federation.

    python benchmarks/mnist_round/run.py
    python benchmarks/mnist_round/run.py --partition dirichlet
    python benchmarks/mnist_round/run.py --device cuda

This result: `--partition {arguments.partition} --device {arguments.device}`; {processors},
`OMP_WAIT_POLICY={os.environ["OMP_WAIT_POLICY"]}`;
load average at the start {busy} (1, 5, 15 minutes); PyTorch {torch.__version__}; seconds, medians
(minimum to maximum) of {arguments.rounds} rounds ({arguments.reference_rounds} of the reference) after one that is
not counted.

| | round | {" | ".join(PARTS)} | examples a round | accuracy after | times ours |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(table)}

*bare PyTorch steps* are as many forward and backward passes and SGD steps as the clients take, on one batch that stays
in the cache, and one pass over the test images: what the arithmetic costs on this machine at this moment.
*round* is everything from the server's order to the end of its evaluation. *DBA* has four attackers in every round, and
its evaluation also measures the attack success of the global trigger and of the four local ones, each on the 9,000 test
images that are not of the target class. *{REFERENCE}* is the same round in the style of common simulators, with the
same clients and shards, taking turns with ours: a copy of the module for each client, a `DataLoader` without workers
over torchvision's data set with `ToTensor` and `Normalize`, federated averaging over state dicts
(`data_loader_federation.py`).
""")


if __name__ == "__main__":
    main()
