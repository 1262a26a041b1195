"""How much faster clients train together than one by one: 100 clients, batches of 8, 10 steps each.

Writes README.md beside this file. See there for the claim, the commands and the last result.
"""

import argparse
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

# As the command `fedrobust` does, before torch is imported: no threads that spin, huge pages for tensors.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
import torch.nn.functional as F
from torch import nn

from fedrobust.attacks import Adversary, Attack
from fedrobust.clients.population import Population
from fedrobust.data.datasets import Dataset, Digits, Examples
from fedrobust.models import DBACNN, MLP, Architecture, Logistic
from fedrobust.parameters import ParameterLayout
from fedrobust.seeds import seeded_initialisation, torch_generator
from fedrobust.study import hardware, markdown_table, marked_sections, median_and_range, seconds_in_turns
from fedrobust.training.local_training import LocalTraining

NUM_CLIENTS, BATCH_SIZE, NUM_STEPS = 100, 8, 10
README = Path(__file__).with_name("README.md")


@dataclass(frozen=True)
class Case:
    """A row of the table; `claim` is the least speed-up that is promised."""

    name: str
    architecture: Architecture
    pixels: int
    claim: float | None = None
    num_clients: int = NUM_CLIENTS


@dataclass(frozen=True)
class Timings:
    """Seconds of every repetition; the three ran in turn, so that what else the machine does hits all of them."""

    plain: list[float]
    alone: list[float]
    together: list[float]


CPU_CASES = [
    Case("logistic, 8x8", Logistic(), 8, 8.0),
    Case("mlp [128, 64], 8x8", MLP(), 8, 5.0),
    Case("logistic, 28x28", Logistic(), 28),
    Case("mlp [128, 64], 28x28", MLP(), 28),
    Case("DBA CNN, 28x28, 20 clients", DBACNN(), 28, num_clients=20),  # seconds a repetition, and no claim
]
GPU_CASES = [
    Case("DBA CNN, 28x28", DBACNN(), 28, 20.0),
    Case("mlp [128, 64], 28x28", MLP(), 28),
    Case("logistic, 28x28", Logistic(), 28),
]


def load(pixels: int, device: torch.device) -> Dataset:
    """scikit-learn's digits, or random pictures of MNIST's shape: nothing measured here depends on their values."""
    if pixels == 8:
        return Digits().load(None, device)
    generator = torch_generator(0, "pictures")
    labels = torch.randint(10, (8000,), generator=generator)
    examples = Examples(torch.rand(8000, 1, pixels, pixels, generator=generator), labels)
    mean, std = torch.tensor(0.1307).view(1, 1, 1), torch.tensor(0.3081).view(1, 1, 1)
    return Dataset("pictures", examples, examples, 10, "image", mean, std).to(device)


def make_population(case: Case, device: torch.device) -> Population:
    """Clients of 80 examples each: 10 steps of 8."""
    dataset = load(case.pixels, device)
    with seeded_initialisation(0, "model"):
        model = case.architecture.build(dataset.input_shape, 10).to(device)
    shards = torch.randint(
        len(dataset.train), (case.num_clients, BATCH_SIZE * NUM_STEPS), generator=torch_generator(0, "shards")
    )
    return Population(
        dataset=dataset,
        assignment=shards.unbind(),
        adversary=Adversary(Attack(num_malicious=0), ()),
        training=LocalTraining(learning_rate=0.05, num_epochs=1, batch_size=BATCH_SIZE, vectorize=True),
        model=model,
        can_vectorize=True,
        has_convolutions=case.architecture.has_convolutions,
        seed=0,
    )


def plain_loop(population: Population) -> torch.Tensor:
    """The same work as anyone would write it, without this package: a copy of the model and an optimizer a client."""
    dataset, device = population.dataset, population.dataset.train.inputs.device
    received = nn.utils.parameters_to_vector(population.model.parameters()).detach()
    updates = []
    for indices in population.assignment:
        model = copy.deepcopy(population.model)
        optimizer = torch.optim.SGD(model.parameters(), lr=population.training.learning_rate)
        order = indices[torch.randperm(len(indices), generator=torch_generator(0, "order"))].to(device)
        for batch in order.split(BATCH_SIZE):
            inputs = (dataset.train.inputs[batch] - dataset.mean) / dataset.std
            loss = F.cross_entropy(model(inputs), dataset.train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        updates.append(nn.utils.parameters_to_vector(model.parameters()).detach() - received)
    return torch.stack(updates)


def measure(case: Case, device: torch.device, repeats: int) -> Timings:
    population = make_population(case, device)
    one_by_one = replace(population, training=replace(population.training, vectorize=False))
    vector = ParameterLayout.of(population.model).flatten(population.model)
    works: list[Callable[[], object]] = [
        lambda: plain_loop(population),
        lambda: one_by_one.train(1, range(case.num_clients), vector, {}),
        lambda: population.train(1, range(case.num_clients), vector, {}),
    ]
    alone = one_by_one.train(1, range(case.num_clients), vector, {}).updates
    together = population.train(1, range(case.num_clients), vector, {}).updates
    # The median: float32 takes a client across a kink of ReLU or max-pooling now and then, whichever way it is trained.
    distance = float(((together - alone).norm(dim=1) / alone.norm(dim=1)).median())
    if distance > 1e-4:
        raise SystemExit(f"{case.name}: the two ways differ by {distance:.1e}")
    plain_loop(population)
    return Timings(*seconds_in_turns(works, repeats, device))


def ratios(slow: list[float], fast: list[float]) -> list[float]:
    return [one / other for one, other in zip(slow, fast, strict=True)]


def table_row(case: Case, timings: Timings) -> list[str]:
    speed_ups = ratios(timings.alone, timings.together)
    claim = "" if case.claim is None else f"at least {case.claim:g}"
    return [
        case.name,
        *(
            median_and_range((1e3 * one for one in values), 0)
            for values in (timings.plain, timings.alone, timings.together)
        ),
        f"**{median_and_range(speed_ups, 1)}**",
        f"{min(timings.alone) / min(timings.together):.1f}",
        median_and_range(ratios(timings.plain, timings.together), 1),
        claim,
    ]


def section(device: torch.device, repeats: int) -> str:
    cases = GPU_CASES if device.type == "cuda" else CPU_CASES
    measured_on = hardware(device)
    rows = []
    for case in cases:
        rows.append(table_row(case, measure(case, device, repeats)))
        print(*rows[-1], sep=" | ", flush=True)
    heads = ["model", "plain loop, ms", "one by one, ms", "together, ms", "speed-up", "of the minima"]
    table = markdown_table([*heads, "over the plain loop", "claim"], rows)
    return f"{measured_on}; {repeats} repetitions.\n\n{table}"


def write_readme(kind: str, text: str) -> None:
    """Put `text` between the marks of its device, and leave the other device's result as it is."""
    old = README.read_text() if README.exists() else ""
    results = marked_sections(old, ("cpu", "cuda"), {kind: text})
    README.write_text(f"""# Clients trained together

Claim: 100 clients, batches of {BATCH_SIZE}, {NUM_STEPS} steps each: trained together (`client.vectorize=true`) the
default mlp is at least 5 times and logistic regression at least 8 times as fast as one by one on 2 CPU cores; on a GPU
the CNN of the DBA paper is at least 20 times as fast.

    python benchmarks/cohort_speed/run.py
    python benchmarks/cohort_speed/run.py --device cuda

*One by one* is `client.vectorize=false`. *Plain loop* is the same work without this package, a copy of the module and
a `torch.optim.SGD` for each client, to show that one by one is no straw man. The three take turns in one process;
figures are medians (minimum to maximum), *speed-up* is one by one over together within a turn. 8x8 are scikit-learn's
digits, 28x28 are random pictures. The two ways are first checked to give the same updates. On a CPU, models with
convolutions are trained one by one unless told otherwise (`client.vectorize=auto`): batches as small as these gain,
those of 64 that such models are usually trained with do not.

## CPU

{results["cpu"]}

## GPU

{results["cuda"]}
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    write_readme(device.type, section(device, arguments.repeats))


if __name__ == "__main__":
    main()
