"""Local training of one client, against a plain PyTorch loop over a deep copy of the model."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from small_population import make_population
from torch import Tensor, nn

from fedrobust.attacks import BlindBackdoor, ConstrainAndScale, LossAttack, Patch
from fedrobust.clients.population import Population
from fedrobust.data.datasets import Examples
from fedrobust.models import DBACNN, MLP, ResNet18
from fedrobust.parameters import ParameterLayout
from fedrobust.training.local_training import LocalTraining
from fedrobust.training.loop import ClientJob, TrainingProgram, borrowed_storage, plan_batches, train_alone


def job_of(population: Population, client: int, loss: LossAttack | None = None) -> ClientJob:
    training = population.training
    generator = torch.Generator().manual_seed(5)
    batches = plan_batches(population.assignment[client], training.batch_size, training.num_epochs, generator)
    return ClientJob(client, population.dataset.train, batches, None, TrainingProgram(training, loss))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def plain_loop(population: Population, job: ClientJob) -> tuple[nn.Module, float]:
    """What anyone would write: a copy of the model, SGD by its textbook formula, no view into any vector.

    v ← μ v + (g + λ w) and w ← w - η v, from v = 0; the loss is averaged over all examples seen. η falls by
    PyTorch's own `MultiStepLR`, stepped after each epoch, whose milestones are whole numbers of epochs.
    """
    model, training, dataset = copy.deepcopy(population.model).train(), job.program.training, population.dataset
    parameters = list(model.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    losses: list[float] = []
    optimizer = torch.optim.SGD(parameters, lr=training.learning_rate)  # for its scheduler alone
    milestones = [math.ceil(round(part * training.num_epochs, 6)) for part in training.learning_rate_milestones]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, training.learning_rate_decay)
    for step, batch in enumerate(job.batches.tolist()):
        if step and step % (job.num_steps // training.num_epochs) == 0:
            optimizer.step()
            scheduler.step()
        indices = [index for index in batch if index >= 0]
        inputs = torch.stack([(job.examples.inputs[i] - dataset.mean) / dataset.std for i in indices])
        each = F.cross_entropy(model(inputs), job.examples.labels[indices], reduction="none")
        losses.extend(each.tolist())
        gradients = torch.autograd.grad(each.mean(), parameters)
        with torch.no_grad():
            for parameter, gradient, velocity in zip(parameters, gradients, velocities, strict=True):
                velocity.mul_(training.momentum).add_(gradient + training.weight_decay * parameter)
                parameter.sub_(optimizer.param_groups[0]["lr"] * velocity)
    return model, sum(losses) / len(losses)


@pytest.mark.parametrize(
    "training",
    [
        LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4),
        LocalTraining(learning_rate=0.02, num_epochs=3, batch_size=5, momentum=0.9, weight_decay=0.01),
        LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4, learning_rate_milestones=[0.5]),
        LocalTraining(
            learning_rate=0.05,
            num_epochs=10,
            batch_size=4,
            momentum=0.9,
            weight_decay=5e-4,
            learning_rate_milestones=[0.2, 0.8],
        ),
        LocalTraining(
            learning_rate=0.1,
            num_epochs=7,
            batch_size=3,
            learning_rate_milestones=[0.1, 0.5, 0.7],
            learning_rate_decay=0.5,
        ),
    ],
)
@pytest.mark.parametrize("client", [0, 1, 2])
def test_as_a_plain_loop(training: LocalTraining, client: int) -> None:
    population, vector, _ = make_population(training=training)
    job = job_of(population, client)
    expected, expected_loss = plain_loop(population, job)
    row = vector.clone()
    loss = train_alone(row, {}, job, population.model, ParameterLayout.of(population.model), population.dataset)
    torch.testing.assert_close(row, flat(expected), rtol=1e-5, atol=1e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


def test_convolutions_as_a_plain_loop() -> None:
    """Laying the pictures out with channels last must not change what is learned."""
    population, vector, _ = make_population(DBACNN(), shape=(1, 28, 28), sizes=(6,))
    job = job_of(population, 0)
    expected, _ = plain_loop(population, job)
    row = vector.clone()
    train_alone(row, {}, job, population.model, ParameterLayout.of(population.model), population.dataset)
    torch.testing.assert_close(row - vector, flat(expected) - vector, rtol=1e-4, atol=1e-6)


def test_batch_norm_statistics_are_the_clients_own() -> None:
    """The plain loop's copy of the model has seen the same batches: its running statistics are the expected ones."""
    population, vector, buffers = make_population(ResNet18(norm="batch", width=8), shape=(3, 16, 16), sizes=(8,))
    job = job_of(population, 0)
    expected, _ = plain_loop(population, job)
    before = {name: values.clone() for name, values in population.model.named_buffers()}
    row = vector.clone()
    train_alone(row, buffers, job, population.model, ParameterLayout.of(population.model), population.dataset)
    for name, values in expected.named_buffers():
        torch.testing.assert_close(buffers[name], values, rtol=1e-4, atol=1e-5)
    assert int(buffers["1.num_batches_tracked"]) == job.num_steps
    for name, values in population.model.named_buffers():
        assert torch.equal(values, before[name])


def test_a_poison_hook_replaces_every_batch() -> None:
    """A hook that makes pictures black and labels 3 is the same as training on black pictures labelled 3."""
    population, vector, _ = make_population()
    job = job_of(population, 0)
    seen: list[int] = []

    def blacken(batch: Examples) -> Examples:
        seen.append(len(batch))
        return Examples(torch.zeros_like(batch.inputs), torch.full_like(batch.labels, 3))

    black = Examples(torch.zeros_like(job.examples.inputs), torch.full_like(job.examples.labels, 3))
    expected, _ = plain_loop(population, ClientJob(0, black, job.batches, None, job.program))
    hooked = ClientJob(0, job.examples, job.batches, None, job.program, blacken)
    row = vector.clone()
    train_alone(row, {}, hooked, population.model, ParameterLayout.of(population.model), population.dataset)
    torch.testing.assert_close(row, flat(expected), rtol=1e-5, atol=1e-6)
    assert seen == [4, 3, 4, 3]  # 7 examples in batches of 4, twice: the hook sees short batches unpadded


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("anomaly", ["euclidean", "squared_euclidean"])
def test_constrain_and_scale_pulls_back_to_the_received_model(alpha: float, anomaly: str) -> None:
    """One step from w = G has no pull; the second has (1-α)∇‖w - G‖, or (1-α)∇‖w - G‖².

    So with one batch and two epochs: w₁ = G - ηαg₀ and w₂ = w₁ - η(αg₁ + (1-α)p), gradients by autograd, with
    p = (w₁ - G)/‖w₁ - G‖ or 2(w₁ - G), and where α = 0 leaves w₁ at G none.
    """
    training = LocalTraining(learning_rate=0.05, num_epochs=2, batch_size=4)
    population, vector, _ = make_population(training=training, sizes=(4,))
    job = job_of(population, 0, ConstrainAndScale(alpha=alpha, anomaly=anomaly))
    model, dataset = copy.deepcopy(population.model), population.dataset
    for step in range(2):
        indices = job.batches[step]
        loss = F.cross_entropy(model(dataset.normalise(dataset.train.inputs[indices])), dataset.train.labels[indices])
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])
        away = flat(model) - vector
        pull = away / away.norm().clamp_min(1e-30) if anomaly == "euclidean" else 2 * away
        moved = flat(model) - 0.05 * (alpha * gradient + (1 - alpha) * pull)
        torch.nn.utils.vector_to_parameters(moved, model.parameters())
    row = vector.clone()
    train_alone(row, {}, job, population.model, ParameterLayout.of(population.model), population.dataset)
    torch.testing.assert_close(row, flat(model), rtol=1e-5, atol=1e-6)


def test_a_blind_backdoor_is_two_losses_on_a_batch_and_its_stamped_copy() -> None:
    """Gradients of equal weight, since l2-normalised ones have the angle bisector as their least norm.

    So each step is w - η (g₀ + g₁)/2 by autograd of a plain model; the stamp comes before the normalisation.
    """
    population, vector, _ = make_population(sizes=(8,))
    job = job_of(population, 0, BlindBackdoor(trigger=Patch(height=2, width=2), target_label=3, normalisation="l2"))
    model, dataset = copy.deepcopy(population.model), population.dataset
    for indices in job.batches:
        clean, labels = dataset.train.inputs[indices], dataset.train.labels[indices]
        black_and_white = clean.clone()
        black_and_white[:, :, :2, :2] = 1.0
        main = F.cross_entropy(model(dataset.normalise(clean)), labels)
        backdoor = F.cross_entropy(model(dataset.normalise(black_and_white)), torch.full_like(labels, 3))
        gradients = torch.autograd.grad((main + backdoor) / 2, list(model.parameters()))
        moved = flat(model) - 0.05 * torch.cat([part.flatten() for part in gradients])
        torch.nn.utils.vector_to_parameters(moved, model.parameters())
    row = vector.clone()
    train_alone(row, {}, job, population.model, ParameterLayout.of(population.model), population.dataset)
    torch.testing.assert_close(row, flat(model), rtol=1e-4, atol=1e-5)


def test_a_blind_backdoor_leaves_batch_norm_the_statistics_of_clean_batches() -> None:
    """With a threshold that no batch is below, parameters and statistics are the benign client's.

    The stamped copies are looked at all the same. One pass a batch: the counter says so.
    """
    population, vector, buffers = make_population(ResNet18(norm="batch", width=8), shape=(3, 16, 16), sizes=(8,))
    layout = ParameterLayout.of(population.model)
    rows, statistics = [], []
    for loss in (None, BlindBackdoor(trigger=Patch(), target_label=3, loss_threshold=1e-9)):
        row, own = vector.clone(), {name: values.clone() for name, values in buffers.items()}
        train_alone(row, own, job_of(population, 0, loss), population.model, layout, population.dataset)
        rows.append(row)
        statistics.append(own)
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-5, atol=1e-6)
    assert int(statistics[1]["1.num_batches_tracked"]) == job_of(population, 0).num_steps
    for name, values in statistics[0].items():
        torch.testing.assert_close(statistics[1][name], values, rtol=1e-5, atol=1e-6)


def test_borrowed_storage_gives_everything_back_when_training_raises() -> None:
    """Parameters, gradients, buffers and the training flag are as before, whatever happened in between."""
    population, vector, buffers = make_population(ResNet18(norm="batch", width=8), shape=(3, 16, 16))
    model = population.model.eval()
    before = {name: (values.data_ptr(), values.clone()) for name, values in model.state_dict().items()}
    row = vector.clone()

    class StoppedError(Exception):
        pass

    def train_and_fail() -> None:
        with borrowed_storage(model, ParameterLayout.of(model).views(row), buffers) as parameters:
            assert model.training
            for parameter in parameters:
                parameter.data.zero_()
                parameter.grad = torch.ones_like(parameter)
            raise StoppedError

    with pytest.raises(StoppedError):
        train_and_fail()
    assert not row.any()
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, values in model.state_dict().items():
        assert values.data_ptr() == before[name][0]
        assert torch.equal(values, before[name][1])


def test_borrowing_with_a_missing_tensor_leaves_the_model_alone() -> None:
    """A message without one of the buffers must not leave a model that is half its own."""
    population, vector, _ = make_population(MLP(hidden_sizes=[16]))
    model = population.model
    tensors = ParameterLayout.of(model).views(vector.zero_())
    del tensors["3.bias"]
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    with pytest.raises(KeyError, match=r"3\.bias"), borrowed_storage(model, tensors, {}):
        pass
    assert [parameter.data_ptr() for parameter in model.parameters()] == pointers
