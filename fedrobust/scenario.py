"""A scenario: every component of a run, built and checked together, and made ready to play."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.aggregation import Aggregation
from fedrobust.aggregators.base import Aggregator, UnsuitableSizeError
from fedrobust.attacks.base import DataAttack
from fedrobust.attacks.data.coalition import members_of
from fedrobust.attacks.scenario import Adversary, Attack
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.population import Population
from fedrobust.component import Count, FieldError, Index, component
from fedrobust.config import GROUPS, ConfigError, build, check_root
from fedrobust.data.datasets import Dataset, DatasetSource
from fedrobust.data.partition import Partition
from fedrobust.engines import Engine
from fedrobust.models import Architecture
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.preaggregators import Pipeline, Preaggregator
from fedrobust.records.loggers import Logger
from fedrobust.round import Federation, GlobalModel, Order
from fedrobust.seeds import derive_seed, seeded_initialisation, torch_generator
from fedrobust.server import Server
from fedrobust.server_optimizers import PlainStep, ServerOptimizer
from fedrobust.types import Vector


@component
class Scenario:
    """Everything that a run is made of; the keys of the root config.

    Attributes:
        seed: fixes every random choice.
        num_clients: clients in all, benign and malicious.
        num_rounds: rounds to play.
        evaluate_every: evaluate the global model every k rounds (and after the last).
        checkpoint_every: write a checkpoint every k rounds; 0 writes none.
        control: also run a benign twin, and report the trigger's success on it.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        devices: the parameters are divided over these devices for aggregation; `None`: all stay on `device`.
        data_root: where data sets lie; `None` goes by FEDROBUST_DATA, else the user's cache folder.
        verbose: a progress bar and a table; else log lines.
    """

    seed: Index = 0
    num_clients: Count = 20
    num_rounds: Count = 30
    evaluate_every: Count = 1
    checkpoint_every: Index = 10
    control: bool = False
    device: str = "auto"
    devices: list[str] | None = None
    data_root: str | None = None
    verbose: bool = True
    dataset: DatasetSource
    partition: Partition
    model: Architecture
    client: LocalTraining
    attack: Attack
    preaggregator: tuple[Preaggregator, ...] = ()
    aggregator: Aggregator
    server: Server
    server_optimizer: ServerOptimizer = PlainStep()
    engine: Engine
    logger: Logger

    def __post_init__(self) -> None:
        """Check what can be checked before any data is loaded."""
        select_device(self.device)
        for name in self.devices or ():
            select_device(name, field="devices")
        if self.server.num_sampled is not None and self.server.num_sampled > self.num_clients:
            raise FieldError(
                "server.num_sampled", f"must be at most num_clients={self.num_clients}, got {self.server.num_sampled}"
            )
        self._check_rule()
        try:
            malicious = self.attack.choose_malicious(self.num_clients, self.seed)
        except FieldError as error:
            raise FieldError(f"attack.{error.field}", error.message) from None
        num_sampled = self.server.num_sampled or self.num_clients
        turns, forced = self.attack.schedule.turns, self.attack.schedule.participation == "forced"
        if forced and not turns and len(malicious) > num_sampled:
            raise FieldError(
                "attack.schedule.participation",
                f"cannot force {len(malicious)} malicious clients into rounds of server.num_sampled={num_sampled}",
            )

    @property
    def rule(self) -> Pipeline:
        """Pre-aggregators and aggregator as one rule.

        Raises:
            FieldError: they cannot be joined.
        """
        return Pipeline(preaggregators=self.preaggregator, aggregator=self.aggregator)

    def _check_rule(self) -> None:
        """Let the rule speak up now about a number of clients that it cannot work with."""
        try:
            self.rule.check_size(self.server.num_sampled or self.num_clients)
        except FieldError as error:
            raise FieldError("preaggregator", error.message) from None
        except UnsuitableSizeError as error:
            clients = f"num_clients={self.num_clients}, server.num_sampled={self.server.num_sampled}"
            raise FieldError("aggregator", f"{error} ({clients})") from None

    def has_attack_round(self) -> bool:
        """Whether the attack's schedule has a round that is played."""
        return any(map(self.attack.schedule.is_attack_round, range(1, self.num_rounds + 1)))

    def benign_twin(self) -> "Scenario":
        """The same scenario without malicious clients: what the trigger does to a model that never saw it."""
        attack = dataclasses.replace(self.attack, num_malicious=0, malicious_fraction=None, malicious_clients=None)
        return dataclasses.replace(self, attack=attack, control=False)


@dataclass(frozen=True)
class Prepared:
    """A scenario with its data loaded and its model initialised."""

    dataset: Dataset
    assignment: tuple[Tensor, ...]
    model: nn.Module
    federation: Federation
    population: Population


def build_scenario(values: Mapping[str, Any]) -> Scenario:
    """The scenario that a resolved root config describes.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    own = {key: value for key, value in values.items() if key not in GROUPS and key != "resume"}
    check_root(own, Scenario)
    components = {group: build(values[group], group) for group in GROUPS}
    # A list of choices composes to a mapping by name, in the list's order.
    components["preaggregator"] = tuple(
        build(one, f"preaggregator.{name}") for name, one in values["preaggregator"].items()
    )
    try:
        return Scenario(**own, **components)
    except FieldError as error:
        raise ConfigError(str(error)) from None


def prepare(scenario: Scenario) -> Prepared:
    """Load the data, divide it, initialise the model, and check what depends on the data.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    device = select_device(scenario.device)
    root = None if scenario.data_root is None else Path(scenario.data_root)
    try:
        dataset = scenario.dataset.load(root, device)
    except ValueError as error:
        raise ConfigError(f"dataset: {error}") from None
    model = initial_model(scenario, dataset)
    can_vectorize = not any(True for _ in model.buffers())
    if scenario.client.vectorize is True and not can_vectorize:
        raise ConfigError("client.vectorize: must be false or auto for a model with buffers (BatchNorm), got true")
    _check_attack(scenario, dataset)
    try:
        assignment = scenario.partition.assign(dataset, scenario.num_clients, scenario.seed)
    except ValueError as error:
        raise ConfigError(f"partition: {error}") from None
    malicious = scenario.attack.choose_malicious(scenario.num_clients, scenario.seed)
    adversary = Adversary(scenario.attack, malicious, scenario.seed)
    layout = ParameterLayout.of(model)
    population = Population(
        dataset=dataset,
        assignment=assignment,
        adversary=adversary,
        training=scenario.client,
        model=model,
        can_vectorize=can_vectorize,
        has_convolutions=scenario.model.has_convolutions,
        seed=scenario.seed,
    )
    federation = Federation(
        model=model,
        dataset=dataset,
        server=scenario.server,
        aggregation=Aggregation(scenario.rule, scenario.server_optimizer, tuple(scenario.devices or ())),
        adversary=adversary,
        num_clients=scenario.num_clients,
        num_rounds=scenario.num_rounds,
        evaluate_every=scenario.evaluate_every,
        seed=scenario.seed,
        state=GlobalModel(0, layout.flatten(model), clone_buffers(model)),
        train_root=root_training(scenario, population),
    )
    return Prepared(dataset, assignment, model, federation, population)


def root_training(scenario: Scenario, population: Population) -> Callable[[Order], Vector] | None:
    """The server's own training, for a rule that needs a root update: a benign client with a clean root data set.

    The root data set is drawn uniformly from all training examples, by the scenario's seed.

    Raises:
        ConfigError: a root data set larger than the training set.
    """
    if not getattr(scenario.aggregator, "needs_root_update", False):
        return None
    num_examples, wanted = len(population.dataset.train), getattr(scenario.aggregator, "num_root_examples", 0)
    if wanted > num_examples:
        raise ConfigError(
            f"aggregator.num_root_examples: must be at most {num_examples}, the training examples of "
            f"{population.dataset.name}, got {wanted}"
        )
    drawn = torch.randperm(num_examples, generator=torch_generator(scenario.seed, "root"))[:wanted]
    server = dataclasses.replace(
        population,
        assignment=(drawn,),
        adversary=Adversary(Attack(num_malicious=0), ()),
        seed=derive_seed(scenario.seed, "root training"),
    )

    def train(order: Order) -> Vector:
        return server.train(order.round_number, (0,), order.vector, order.buffers).updates[0]

    return train


def initial_model(scenario: Scenario, dataset: Dataset) -> nn.Module:
    """The global model before round 1, on the data's device."""
    _check_words(scenario, dataset)
    try:
        with seeded_initialisation(scenario.seed, "model"):
            model = scenario.model.build(dataset.input_shape, dataset.num_classes)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    return model.to(dataset.train.inputs.device)


def _check_words(scenario: Scenario, dataset: Dataset) -> None:
    """Texts are numbers of words: a model must read them as such, and know them all."""
    known, there = getattr(scenario.model, "vocabulary_size", None), dataset.vocabulary_size
    if known is None and there is not None:
        raise ConfigError(f"model: must read words (model=text_bag) for dataset={dataset.name}")
    if known is not None and there is None:
        raise ConfigError(f"model: reads words alone, and dataset={dataset.name} has none")
    if known != there:
        raise ConfigError(f"model.vocabulary_size: must be {there}, that of dataset={dataset.name}, got {known}")


def select_device(name: str, *, field: str = "device") -> torch.device:
    """The device that `name` means; `auto` is the first GPU, or the CPU.

    Raises:
        FieldError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    available = ["auto", "cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.append("mps")
    if device is None or (str(device) not in available and name not in available):
        if device is not None and name == "cuda" and torch.cuda.is_available():
            return device
        raise FieldError(field, f"must be one of {', '.join(available)}, got {name!r}")
    return device


def _check_attack(scenario: Scenario, dataset: Dataset) -> None:
    if scenario.attack.data is None:
        return
    members = members_of(scenario.attack.data)
    for index, member in enumerate(members):
        key = "attack.data" if len(members) == 1 else f"attack.data.members[{index}]"
        _check_data_attack(member, dataset, key)


def _check_data_attack(attack: DataAttack, dataset: Dataset, key: str) -> None:
    try:
        attack.local_triggers(dataset.input_shape)
        wanted = attack.wanted_labels(dataset.test)
    except FieldError as error:
        raise ConfigError(f"{key}.{error.field}: {error.message} (dataset={dataset.name})") from None
    for name in ("target_label", "source_label"):
        label = getattr(attack, name, None)  # an attack need not have a source, nor one target
        if label is not None and label >= dataset.num_classes:
            raise ConfigError(
                f"{key}.{name}: must be below {dataset.num_classes}, the number of classes of {dataset.name}, "
                f"got {label}"
            )
    if wanted is not None and not bool((wanted != dataset.test.labels).any()):
        raise ConfigError(f"{key}: no test example of {dataset.name} could show whether the attack succeeds")
