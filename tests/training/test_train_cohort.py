"""Clients trained together against each trained alone, whose optimizer is `torch.optim.SGD`."""

from dataclasses import replace

import pytest
import torch
from small_population import SIZES, make_population
from torch import Tensor

from fedrobust.attacks import BlindBackdoor, ConstrainAndScale, LossAttack, NeuralCleanseEvasion, Patch
from fedrobust.clients.population import Population
from fedrobust.data.datasets import Examples
from fedrobust.models import DBACNN, MLP, Architecture, Logistic, ResNet18
from fedrobust.parameters import ParameterLayout
from fedrobust.training.cohort import train_cohort
from fedrobust.training.cohort_batches import CohortBatches
from fedrobust.training.cohort_size import cohort_size
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import ClientJob, TrainingProgram, model_inputs, plan_batches, train_alone

PLAIN = LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4)
FULL = LocalTraining(learning_rate=0.02, num_epochs=3, batch_size=4, momentum=0.9, weight_decay=0.01)
STEPS = LocalTraining(
    learning_rate=0.05, num_epochs=4, batch_size=4, learning_rate_milestones=[0.25, 0.5], learning_rate_decay=0.2
)
FULL_STEPS = replace(STEPS, momentum=0.9, weight_decay=0.01)
EVERY = pytest.mark.parametrize(
    "training", [PLAIN, FULL, STEPS, FULL_STEPS], ids=["plain", "momentum-decay", "steps", "momentum-decay-steps"]
)


def jobs_of(population: Population, loss: LossAttack | None = None) -> list[ClientJob]:
    """One job a client, longest first."""
    training, augmentation = population.training, population.dataset.augmentation
    jobs = []
    for client, indices in enumerate(population.assignment):
        generator = torch.Generator().manual_seed(client)
        batches = plan_batches(indices, training.batch_size, training.num_epochs, generator)
        draws = None if augmentation is None else augmentation.draw(tuple(batches.shape), generator)
        jobs.append(ClientJob(client, population.dataset.train, batches, draws, TrainingProgram(training, loss)))
    return sorted(jobs, key=lambda job: -job.num_steps)


def together_and_alone(
    population: Population, vector: Tensor, jobs: list[ClientJob]
) -> tuple[Tensor, list[float], Tensor, list[float]]:
    layout = ParameterLayout.of(population.model)
    together, alone = vector.repeat(len(jobs), 1), vector.repeat(len(jobs), 1)
    losses = train_cohort(together, jobs, {}, population.model, layout, population.dataset)
    losses_alone = [
        train_alone(row, {}, job, population.model, layout, population.dataset)
        for row, job in zip(alone, jobs, strict=True)
    ]
    return together, losses, alone, losses_alone


def assert_parity(population: Population, vector: Tensor, jobs: list[ClientJob], tolerance: float = 1e-5) -> None:
    """Every client's update, relative to its norm, and every loss."""
    together, losses, alone, losses_alone = together_and_alone(population, vector, jobs)
    for row in range(len(jobs)):
        distance, norm = (together[row] - alone[row]).norm(), (alone[row] - vector).norm()
        assert norm > 0.01  # there is something to compare
        assert float(distance / norm) <= tolerance
    assert losses == pytest.approx(losses_alone, rel=tolerance)


@EVERY
@pytest.mark.parametrize(
    ("architecture", "shape", "sizes"),
    [
        (Logistic(), (1, 8, 8), SIZES),
        (MLP(hidden_sizes=[16, 8]), (1, 8, 8), SIZES),
        (DBACNN(), (1, 28, 28), (5, 1, 4)),
        (ResNet18(width=8, num_groups=4), (3, 16, 16), (5, 1, 4)),
    ],
    ids=["logistic", "mlp", "dba_cnn", "resnet18"],
)
def test_parity(
    architecture: Architecture, shape: tuple[int, ...], sizes: tuple[int, ...], training: LocalTraining
) -> None:
    """Shards of 1 to 16 examples in batches of 4: short batches, clients that finish early."""
    population, vector, _ = make_population(architecture, shape, sizes, training)
    assert_parity(population, vector, jobs_of(population))


def test_parity_with_augmentation() -> None:
    """A client's draws go to its own examples, in padded and unpadded batches alike."""
    population, vector, _ = make_population(shape=(3, 8, 8), training=FULL, augment=True)
    assert_parity(population, vector, jobs_of(population))
    plain, _, _ = make_population(shape=(3, 8, 8), training=FULL)
    augmented = together_and_alone(population, vector, jobs_of(population))[0]
    assert (augmented - together_and_alone(plain, vector, jobs_of(plain))[0]).abs().max() > 1e-3


@EVERY
@pytest.mark.parametrize(("anomaly", "alpha"), [("euclidean", 0.9), ("squared_euclidean", 0.3), ("cosine", 0.3)])
def test_parity_of_constrain_and_scale(anomaly: str, alpha: float, training: LocalTraining) -> None:
    """Each row's anomaly is its own distance to the received model, not the cohort's."""
    population, vector, _ = make_population(training=training)
    assert_parity(population, vector, jobs_of(population, ConstrainAndScale(alpha=alpha, anomaly=anomaly)))


@EVERY
@pytest.mark.parametrize("normalisation", ["none", "l2", "loss", "loss+"])
def test_parity_of_a_blind_backdoor(normalisation: str, training: LocalTraining) -> None:
    """Each row's balance of main task and backdoor is its own; padding has no part in either."""
    population, vector, _ = make_population(training=training)
    blind = BlindBackdoor(trigger=Patch(), target_label=3, normalisation=normalisation)
    assert_parity(population, vector, jobs_of(population, blind))


@EVERY
def test_parity_of_a_blind_backdoor_that_evades(training: LocalTraining) -> None:
    """Three tasks, and a search whose memory goes from step to step of each client by itself."""
    population, vector, _ = make_population(training=training)
    blind = BlindBackdoor(trigger=Patch(), target_label=3, evasion=NeuralCleanseEvasion())
    assert_parity(population, vector, jobs_of(population, blind))
    plain = jobs_of(population, BlindBackdoor(trigger=Patch(), target_label=3))
    evading = together_and_alone(population, vector, jobs_of(population, blind))[0]
    assert (evading - together_and_alone(population, vector, plain)[0]).abs().max() > 1e-3


def test_parity_of_a_blind_backdoor_that_waits() -> None:
    """A threshold that some batches are below and some are above; pictures cropped and flipped after the stamp."""
    population, vector, _ = make_population(shape=(3, 8, 8), training=FULL, augment=True)
    blind = BlindBackdoor(trigger=Patch(), target_label=3, loss_threshold=2.3)
    waiting = together_and_alone(population, vector, jobs_of(population, blind))[0]
    assert_parity(population, vector, jobs_of(population, blind))
    for other in (None, BlindBackdoor(trigger=Patch(), target_label=3)):
        assert (waiting - together_and_alone(population, vector, jobs_of(population, other))[0]).abs().max() > 1e-3


def test_parity_with_own_examples_and_hooks() -> None:
    """Clients that share the data set, two that bring their own (one with fewer steps), and hooks on two."""
    population, vector, _ = make_population(training=FULL)
    jobs = jobs_of(population)

    def negate(batch: Examples) -> Examples:
        return Examples(1 - batch.inputs, (batch.labels + 1) % 10)

    for row, hook in ((1, negate), (3, None)):
        job = jobs[row]
        n = int(job.batches.max()) + 1
        own = Examples(torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(row)), torch.arange(n) % 10)
        jobs[row] = ClientJob(job.client, own, job.batches, None, job.program, hook)
    jobs[2] = ClientJob(jobs[2].client, jobs[2].examples, jobs[2].batches, None, jobs[2].program, negate)
    before = population.dataset.train.inputs.clone(), population.dataset.train.labels.clone()
    assert_parity(population, vector, jobs)
    assert torch.equal(population.dataset.train.inputs, before[0])
    assert torch.equal(population.dataset.train.labels, before[1])


def test_batches_are_the_jobs_own() -> None:
    """Step by step and client by client, what a loop over each job's indices gives; shares are 1/count or 0."""
    population, _, _ = make_population()
    jobs, dataset = jobs_of(population), population.dataset
    own = Examples(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 10)
    jobs[2] = ClientJob(jobs[2].client, own, jobs[2].batches, None, jobs[2].program)
    batches = CohortBatches(jobs, dataset, torch.device("cpu"))
    for step in range(jobs[0].num_steps):
        batch = batches.at(step)
        going_on = [job for job in jobs if step < job.num_steps]
        assert len(batch.labels) == len(going_on)
        for row, job in enumerate(going_on):
            indices = [index for index in job.batches[step].tolist() if index >= 0]
            assert torch.equal(batch.inputs[row, : len(indices)], model_inputs(dataset, job.examples.inputs[indices]))
            assert torch.equal(batch.labels[row, : len(indices)], job.examples.labels[indices])
            expected = [1 / len(indices)] * len(indices) + [0.0] * (4 - len(indices))
            assert batch.shares[row].tolist() == pytest.approx(expected)
            assert float(batch.counts[row]) == len(indices)


def test_a_broken_client_breaks_no_other() -> None:
    """One client's example is NaN: alone, only that client's model is lost, and so it must be in a cohort.

    Example 0 of the shared data is it: padding that points there would carry the NaN to every client with a short
    batch, for 0 x NaN = NaN.
    """
    population, vector, _ = make_population()
    jobs = jobs_of(population)
    broken = next(row for row, job in enumerate(jobs) if len(population.assignment[job.client]) == 16)
    population.dataset.train.inputs[0] = float("nan")
    population.dataset.train.inputs[jobs[broken].batches[0, 0]] = float("nan")
    others = [row for row, job in enumerate(jobs) if row != broken and not (job.batches == 0).any()]
    together, losses, alone, losses_alone = together_and_alone(population, vector, jobs)
    assert together[broken].isnan().any()
    assert len(others) >= 3
    for row in others:
        assert float((together[row] - alone[row]).norm() / (alone[row] - vector).norm()) <= 1e-5
        assert losses[row] == pytest.approx(losses_alone[row], rel=1e-5)


def test_a_client_without_examples_keeps_the_model() -> None:
    """No step: the row is the global model bit for bit and the loss 0, beside others that train."""
    population, vector, _ = make_population(sizes=(5, 0, 3))
    jobs = jobs_of(population)
    together, losses, alone, _ = together_and_alone(population, vector, jobs)
    assert jobs[2].num_steps == 0
    assert torch.equal(together[2], vector)
    assert losses[2] == 0.0
    assert (together[:2] - alone[:2]).abs().max() < 1e-6
    nobody, vector, _ = make_population(sizes=(0, 0))
    assert torch.equal(together_and_alone(nobody, vector, jobs_of(nobody))[0], vector.repeat(2, 1))


def test_jobs_that_cannot_be_a_cohort_are_refused() -> None:
    population, vector, _ = make_population()
    jobs = jobs_of(population)
    layout = ParameterLayout.of(population.model)
    other = ClientJob(9, jobs[-1].examples, jobs[-1].batches, None, TrainingProgram(FULL))
    for wrong in (jobs[::-1], [*jobs[:-1], other]):
        with pytest.raises(ValueError, match="one training programme, and its longest jobs come first"):
            train_cohort(vector.repeat(len(wrong), 1), wrong, {}, population.model, layout, population.dataset)


def test_cohort_size_on_a_cpu_goes_by_the_matrix() -> None:
    """24 MiB of float32: logistic regression on 784 pixels has 7,850 parameters, 24 * 2^20 / (4 * 7850) = 801.46.

    A model of a million numbers would come to 6, and gets the floor of 8.
    """
    cpu = torch.device("cpu")
    assert cohort_size(Logistic().build((784,), 10), torch.zeros(1, 784), 8, cpu) == 801
    assert cohort_size(Logistic().build((100_000,), 10), torch.zeros(1, 100_000), 8, cpu) == 8


def test_cohort_size_is_bounded_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logistic on 784 pixels in batches of 8: 4 (4 * 7850 + 4 * 8 * (784 + 10)) = 227,232 bytes a client, of half."""
    from fedrobust.training import cohort_size as module

    monkeypatch.setattr(module, "_free_bytes", lambda device: 2 * 227_232 * 5)
    model, cpu = Logistic().build((784,), 10), torch.device("cpu")
    assert cohort_size(model, torch.zeros(1, 784), 8, cpu) == 5
    monkeypatch.setattr(module, "_free_bytes", lambda device: 0)
    assert cohort_size(model, torch.zeros(1, 784), 8, cpu) == 1
