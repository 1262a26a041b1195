"""Which client holds which training examples.

Each way is a component with `assign(dataset, num_clients, seed)`, which returns one index tensor a client: int64,
sorted, disjoint, never empty. The splitting is done by flwr-datasets' partitioners; here the examples are shuffled
first (some of its partitioners keep the order they find), what cannot be had is refused with its numbers, and the rows
come back as indices.
"""

import warnings
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedrobust.config.component import Count, Positive, component
from fedrobust.data.examples import Dataset
from fedrobust.data.files import WRITER_FILE
from fedrobust.seeds import derive_seed, torch_generator

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner


@runtime_checkable
class Partition(Protocol):
    """A way of splitting the training examples over the clients."""

    def assign(self, dataset: Dataset, num_clients: int, seed: int) -> tuple[Tensor, ...]:
        """One sorted, non-empty index tensor (int64, CPU) a client, disjoint."""
        ...


@component
class IID:
    """Every client holds a random sample of the same size, give or take one."""

    def assign(self, dataset: Dataset, num_clients: int, seed: int) -> tuple[Tensor, ...]:
        """Split all training examples.

        Raises:
            ValueError: fewer examples than clients.
        """
        from flwr_datasets.partitioner import IidPartitioner

        _check_enough(dataset, num_clients)
        return _split(IidPartitioner(num_partitions=num_clients), dataset.train.labels, num_clients, seed)


@component
class Dirichlet:
    """Each class is divided over the clients by proportions drawn from a symmetric Dirichlet distribution.

    T. Hsu, H. Qi, M. Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019, https://arxiv.org/abs/1909.06335; in this form M. Yurochkin et al., "Bayesian nonparametric
    federated learning of neural networks", ICML 2019, https://arxiv.org/abs/1905.12022

    Departs: nothing from the latter; Hsu et al. draw the classes of each client, not the clients of each class.
    """

    alpha: Positive = 0.5
    """Concentration: small for clients of few classes, large for nearly equal ones."""
    min_examples: Count = 1
    """The fewest examples that a client may hold: the proportions are drawn again, ten times at most, until all do."""

    def assign(self, dataset: Dataset, num_clients: int, seed: int) -> tuple[Tensor, ...]:
        """Split all training examples.

        Raises:
            ValueError: `min_examples` cannot be had, or was not had in any draw.
        """
        from flwr_datasets.partitioner import DirichletPartitioner

        _check_enough(dataset, num_clients, self.min_examples)
        partitioner = DirichletPartitioner(
            num_partitions=num_clients,
            partition_by="label",
            alpha=float(self.alpha),
            min_partition_size=self.min_examples,
            shuffle=False,
            seed=_seed(seed),
        )
        try:
            return _split(partitioner, dataset.train.labels, num_clients, seed)
        except ValueError as error:
            raise ValueError(
                f"no draw of Dirichlet(alpha={self.alpha}) gave each of {num_clients} clients "
                f"min_examples={self.min_examples} of {len(dataset.train)} examples: "
                f"raise alpha, or lower min_examples or the number of clients"
            ) from error


@component
class Shards:
    """The examples sorted by class are cut into equal shards, and each client holds so many of them at random.

    B. McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    section 3, https://arxiv.org/abs/1602.05629

    Departs: nothing. The remainder of the division into shards is left out.
    """

    num_shards_per_client: Count = 2
    """Shards a client; two of MNIST's give most clients two digits."""

    def assign(self, dataset: Dataset, num_clients: int, seed: int) -> tuple[Tensor, ...]:
        """Split the training examples, but for fewer than there are shards.

        Raises:
            ValueError: fewer examples than shards.
        """
        from flwr_datasets.partitioner import ShardPartitioner

        _check_enough(dataset, num_clients, self.num_shards_per_client)
        partitioner = ShardPartitioner(
            num_partitions=num_clients,
            partition_by="label",
            num_shards_per_partition=self.num_shards_per_client,
            shuffle=False,
            seed=_seed(seed),
        )
        return _split(partitioner, dataset.train.labels, num_clients, seed)


@component
class Pathological:
    """Every client holds the same number of classes, and the clients that hold a class share it equally.

    Client i holds class i modulo the number of classes, and others at random. With fewer clients than classes some
    classes may be nobody's: their examples are left out, with a warning that names them.

    Q. Li, Y. Diao, Q. Chen, B. He, "Federated learning on non-IID data silos: an experimental study", ICDE 2022,
    section 4.1 (#C = k), https://arxiv.org/abs/2102.02079

    Departs: nothing.
    """

    num_classes_per_client: Count = 2
    """Classes a client."""

    def assign(self, dataset: Dataset, num_clients: int, seed: int) -> tuple[Tensor, ...]:
        """Split the training examples of the classes that somebody holds.

        Raises:
            ValueError: more classes a client than there are, or more holders of a class than it has examples.
        """
        from flwr_datasets.partitioner import PathologicalPartitioner

        _check_enough(dataset, num_clients)
        present = torch.bincount(dataset.train.labels.cpu()).nonzero().squeeze(1).tolist()
        if self.num_classes_per_client > len(present):
            raise ValueError(
                f"num_classes_per_client={self.num_classes_per_client} is more than the {len(present)} classes "
                f"of the training examples"
            )
        partitioner = PathologicalPartitioner(
            num_partitions=num_clients,
            partition_by="label",
            num_classes_per_partition=self.num_classes_per_client,
            class_assignment_mode="first-deterministic",
            shuffle=False,
            seed=_seed(seed),
        )
        try:
            assignment = _split(partitioner, dataset.train.labels, num_clients, seed)
        except ValueError as error:
            raise ValueError(
                f"Pathological(num_classes_per_client={self.num_classes_per_client}) gives some class to more of the "
                f"{num_clients} clients than it has of the {len(dataset.train)} examples: take fewer clients or classes"
            ) from error
        held = set(dataset.train.labels.cpu()[torch.cat(assignment)].tolist())
        if missing := [label for label in present if label not in held]:
            warnings.warn(f"{num_clients} clients hold no example of the classes {missing}", stacklevel=2)
        return assignment


@component
class ByWriter:
    """Every client holds what one writer, or one group of writers, wrote.

    With fewer clients than writers, the writers are shuffled and dealt out in turn, so the clients' numbers of writers
    differ by one at most.
    """

    def assign(self, dataset: Dataset, num_clients: int, seed: int) -> tuple[Tensor, ...]:
        """Split all training examples.

        Raises:
            ValueError: nobody knows who wrote the examples, or there are more clients than writers.
        """
        from flwr_datasets.partitioner import GroupedNaturalIdPartitioner

        if dataset.writers is None:
            raise ValueError(
                f"ByWriter needs to know who wrote each example, and {dataset.name} does not say: it works with "
                f"dataset=mnist and QMNIST's {WRITER_FILE}.gz (https://github.com/facebookresearch/qmnist) below "
                f"the data root (FEDROBUST_DATA or data_root=)"
            )
        _check_positive(num_clients)
        writers, writer_of_example = np.unique(dataset.writers.cpu().numpy(), return_inverse=True)
        if num_clients > len(writers):
            raise ValueError(f"{num_clients} clients are more than the {len(writers)} writers of {dataset.name}")
        place = torch.randperm(len(writers), generator=torch_generator(seed, "partition", "writers"))
        client_of_example = (place % num_clients)[torch.from_numpy(writer_of_example)]
        partitioner = GroupedNaturalIdPartitioner(partition_by="label", group_size=1, sort_unique_ids=True)
        return _split(partitioner, client_of_example, num_clients, seed)


def class_histogram(labels: Tensor, assignment: tuple[Tensor, ...], num_classes: int) -> Tensor:
    """How many examples of each class each client holds, `(num_clients, num_classes)` int64.

    Args:
        labels: `(N,)`, of all training examples.
        assignment: one index tensor a client.
        num_classes: labels are below it.
    """
    labels = labels.cpu()
    return torch.stack([torch.bincount(labels[indices.cpu()], minlength=num_classes) for indices in assignment])


def _split(partitioner: "Partitioner", values: Tensor, num_clients: int, seed: int) -> tuple[Tensor, ...]:
    """Run `partitioner` over the shuffled examples, whose column `label` is `values`; rows come back as indices."""
    # Importing it takes seconds, which only the process that splits the data should spend.
    from datasets import Dataset as Table

    order = torch.randperm(len(values), generator=torch_generator(seed, "partition", "order"))
    table = Table.from_dict({"index": order.numpy(), "label": values.cpu()[order].numpy()})
    # A table in memory has no cache files, and none of these partitioners shows a progress bar. As pandas it hands out
    # whole columns; in the other formats NumPy would read them row by row, for seconds.
    partitioner.dataset = table.with_format("pandas")
    with warnings.catch_warnings():
        # A Dirichlet draw that is tried again; classes that nobody holds, of which `Pathological` warns with numbers.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)  # `datasets` sorts with an option that pyarrow renames
        parts = [partitioner.load_partition(client)["index"].to_numpy() for client in range(num_clients)]
    return tuple(torch.tensor(np.sort(part), dtype=torch.int64) for part in parts)


def _seed(seed: int) -> int:
    return derive_seed(seed, "partition") % 2**32  # their API takes 32 bits


def _check_positive(num_clients: int) -> None:
    if num_clients < 1:
        raise ValueError(f"the number of clients must be at least 1, got {num_clients}")


def _check_enough(dataset: Dataset, num_clients: int, num_each: int = 1) -> None:
    _check_positive(num_clients)
    if num_clients * num_each > len(dataset.train):
        raise ValueError(
            f"{num_clients} clients with at least {num_each} each need {num_clients * num_each} training examples, "
            f"and {dataset.name} has {len(dataset.train)}"
        )
