"""A scenario: every component of a run, built and checked together, and made ready to play."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedrobust.aggregation import Aggregation
from fedrobust.aggregators.base import Aggregator, RoundContext, UnsuitableSizeError
from fedrobust.attacks.base import BindableAttack, Goal
from fedrobust.attacks.data.coalition import members_of
from fedrobust.attacks.scenario import Adversary, Attack
from fedrobust.audits.clients import ClientAudit
from fedrobust.audits.data_auditing import DataAuditing, DataFinding
from fedrobust.audits.plan import AuditPlan
from fedrobust.audits.server_auditing import ServerAuditing
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.population import Population
from fedrobust.component import Count, FieldError, Index, component
from fedrobust.config import GROUPS, ConfigError, build, check_root
from fedrobust.data.datasets import Dataset, DatasetSource, Examples
from fedrobust.data.partition import Partition
from fedrobust.engines import Engine
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.evaluation.predictor import Predictor
from fedrobust.models import Architecture
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.preaggregators import Pipeline, Preaggregator
from fedrobust.pretraining import divide, pretrain
from fedrobust.records.loggers import Logger
from fedrobust.round import Federation, GlobalModel, Order
from fedrobust.seeds import derive_seed, seeded_initialisation, torch_generator
from fedrobust.server import Server
from fedrobust.server_optimizers import PlainStep, ServerOptimizer
from fedrobust.types import UnusableUpdatesError, Vector
from fedrobust.watermarks import Mark, NoWatermark, Watermark


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
    watermark: Watermark | NoWatermark = NoWatermark()
    audit: AuditPlan = AuditPlan()
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

    @property
    def has_clean_start(self) -> bool:
        """Whether the initial model is nobody's victim."""
        provider = self.attack.initial_model
        return provider is None or not provider.malicious

    def benign_twin(self) -> "Scenario":
        """The same scenario without malicious clients or provider: what the trigger does to a model that never saw it.

        Nobody tampers with what it ends with, either.
        """
        attack = self.attack.without_attackers()
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
    dataset = load_dataset(scenario)
    scenario = bind_attack(scenario, dataset)
    population = prepare_clients(scenario, dataset)
    model, clients_dataset = population.model, population.dataset
    layout = ParameterLayout.of(model)
    state = GlobalModel(0, layout.flatten(model), clone_buffers(model))
    provider = scenario.attack.initial_model
    if provider is not None:
        own, _ = divide(provider, dataset, scenario.seed)
        fresh_head = initial_model(scenario, dataset, "new head")
        state = pretrain(provider, scenario.attack, population, dataset, own, fresh_head)
    mark = draw_mark(scenario, dataset)
    if mark is not None and mark.embeds_in("initial_model"):
        state.vector = mark.embed(Predictor(model, layout, state.vector, state.buffers, clients_dataset), 0).vector
    federation = Federation(
        model=model,
        dataset=clients_dataset,
        server=scenario.server,
        aggregation=Aggregation(scenario.rule, scenario.server_optimizer, tuple(scenario.devices or ())),
        adversary=population.adversary,
        num_clients=scenario.num_clients,
        num_rounds=scenario.num_rounds,
        evaluate_every=scenario.evaluate_every,
        seed=scenario.seed,
        state=state,
        train_root=root_training(scenario, population),
        wants_to_attack=attackers_decision(scenario, population),
        mark=mark,
        auditing=server_auditing(scenario, clients_dataset),
        audit_data=partial(_audit_data, population) if population.auditing is not None else None,
    )
    return Prepared(clients_dataset, population.assignment, model, federation, population)


def draw_mark(scenario: Scenario, dataset: Dataset) -> Mark | None:
    """The watermark of the scenario's owner, drawn for the data set by the scenario's seed; `None` without one.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    root = None if scenario.data_root is None else Path(scenario.data_root)
    try:
        return scenario.watermark.draw(dataset, scenario.seed, root)
    except FieldError as error:
        raise ConfigError(f"watermark.{error.field}: {error.message}") from None
    except ValueError as error:  # the files of another data set
        raise ConfigError(f"watermark: {error}") from None


def load_dataset(scenario: Scenario) -> Dataset:
    """The scenario's data set, on its device.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    device = select_device(scenario.device)
    root = None if scenario.data_root is None else Path(scenario.data_root)
    try:
        return scenario.dataset.load(root, device)
    except ValueError as error:
        raise ConfigError(f"dataset: {error}") from None


def prepare_clients(scenario: Scenario, dataset: Dataset | None = None) -> Population:
    """Divide the data and describe the clients, which is all that a process with clients alone needs.

    Args:
        scenario: what to prepare.
        dataset: the scenario's data set; `None` loads it.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    dataset = load_dataset(scenario) if dataset is None else dataset
    scenario = bind_attack(scenario, dataset)
    model = initial_model(scenario, dataset)
    can_vectorize = not any(True for _ in model.buffers())
    if scenario.client.vectorize is True and not can_vectorize:
        raise ConfigError("client.vectorize: must be false or auto for a model with buffers (BatchNorm), got true")
    _check_attack(scenario, dataset)
    if scenario.attack.deployed_model is not None:
        try:
            scenario.attack.deployed_model.check(dataset)
        except FieldError as error:
            raise ConfigError(
                f"attack.deployed_model.{error.field}: {error.message} (dataset={dataset.name})"
            ) from None
    if scenario.attack.initial_model is not None:
        try:
            _, dataset = divide(scenario.attack.initial_model, dataset, scenario.seed)
        except FieldError as error:
            raise ConfigError(f"attack.initial_model.{error.field}: {error.message}") from None
    try:
        assignment = scenario.partition.assign(dataset, scenario.num_clients, scenario.seed)
    except ValueError as error:
        raise ConfigError(f"partition: {error}") from None
    malicious = scenario.attack.choose_malicious(scenario.num_clients, scenario.seed)
    return Population(
        dataset=dataset,
        assignment=assignment,
        adversary=Adversary(scenario.attack, malicious, scenario.seed),
        training=scenario.client,
        model=model,
        can_vectorize=can_vectorize,
        has_convolutions=scenario.model.has_convolutions,
        seed=scenario.seed,
        auditing=data_auditing(scenario, dataset),
    )


def data_auditing(scenario: Scenario, dataset: Dataset) -> DataAuditing | None:
    """How the clients' data are audited, if that is what the scenario's audit looks at."""
    if scenario.audit.kind != "data":
        return None
    return DataAuditing(scenario.audit, clean_examples(scenario, dataset), scenario.seed)


def server_auditing(scenario: Scenario, dataset: Dataset) -> ServerAuditing | None:
    """The server's part in the scenario's audit, if it has one.

    Raises:
        ConfigError: an audit of clients that cannot read what the rule gives, or a clean set larger than the data.
    """
    if scenario.audit.kind is None:
        return None
    if isinstance(scenario.audit.method, ClientAudit):
        num_asked = scenario.server.num_sampled or scenario.num_clients
        updates = torch.randn(num_asked, 4, generator=torch_generator(0, "trial"))
        weights = torch.full((num_asked,), 1 / num_asked, dtype=torch.float64)
        try:
            answer = Aggregation(scenario.rule).answer(updates, weights, RoundContext(root_update=updates[0]))
            scenario.audit.method.suspicion(updates, answer)
        except UnusableUpdatesError:
            pass  # what the rule refuses, round 1 will say
        except ValueError as error:
            raise ConfigError(f"audit.method: {error} (aggregator={type(scenario.aggregator).__name__})") from None
    return ServerAuditing(scenario.audit, clean_examples(scenario, dataset), scenario.num_clients, scenario.seed)


def clean_examples(scenario: Scenario, dataset: Dataset) -> Examples:
    """What an auditor has of clean data: drawn uniformly from all training examples, by the scenario's seed.

    Raises:
        ConfigError: more than there are.
    """
    wanted, num_examples = scenario.audit.num_clean, len(dataset.train)
    if wanted > num_examples:
        raise ConfigError(
            f"audit.num_clean: must be at most {num_examples}, the training examples of {dataset.name}, got {wanted}"
        )
    generator = torch_generator(scenario.seed, "audit clean set")
    return dataset.train.subset(torch.randperm(num_examples, generator=generator)[:wanted])


def _audit_data(population: Population, order: Order) -> DataFinding | None:
    return population.audit(order.round_number, order.clients, order.vector, order.buffers, attack_on=order.attack_on)


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


def attackers_decision(scenario: Scenario, population: Population) -> Callable[[GlobalModel], bool] | None:
    """Whether attackers who attack only when needed do so: they try their trigger on their own examples.

    Raises:
        ConfigError: an attack that wants nothing of its own examples.
    """
    threshold, attack = scenario.attack.schedule.until_success, scenario.attack.goal
    if threshold is None or not population.adversary.malicious:
        return None
    held = torch.cat([population.assignment[client] for client in population.adversary.malicious])
    own, model = population.dataset.train.subset(held), population.model
    try:
        wanted = None if attack is None else attack.wanted_labels(own)
    except FieldError:  # of test examples that single out what is attacked, attackers hold none
        wanted = None
    if attack is None or wanted is None or not bool((wanted != own.labels).any()):
        raise ConfigError(
            "attack.schedule.until_success: must be null for an attack that wants no other class of its own examples, "
            f"got {threshold}"
        )
    schedule, layout = scenario.attack.schedule, ParameterLayout.of(model)

    def decide(state: GlobalModel) -> bool:
        if not schedule.is_attack_round(state.round_number + 1):
            return False
        predictor = Predictor(model, layout, state.vector, state.buffers, population.dataset)
        rate = measure_attack_success(predictor, attack, own).global_trigger
        return rate is None or rate < threshold

    return decide


def initial_model(scenario: Scenario, dataset: Dataset, purpose: str = "model") -> nn.Module:
    """A fresh model on the data's device, initialised for a `purpose`: the global model before round 1."""
    _check_words(scenario, dataset)
    try:
        with seeded_initialisation(scenario.seed, purpose):
            model = scenario.model.build(dataset.model_shape, dataset.num_classes)
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


def bind_attack(scenario: Scenario, dataset: Dataset) -> Scenario:
    """The scenario with an attack that has looked at the data set, where it asks for that; a second time nothing.

    Raises:
        ConfigError: it cannot be used on such data.
    """
    attack: object = scenario.attack.data
    if not isinstance(attack, BindableAttack):
        return scenario
    try:
        bound = attack.bind(dataset, torch_generator(scenario.seed, "trigger"))
    except FieldError as error:
        raise ConfigError(f"attack.data.{error.field}: {error.message} (dataset={dataset.name})") from None
    return dataclasses.replace(scenario, attack=dataclasses.replace(scenario.attack, data=bound))


def _check_attack(scenario: Scenario, dataset: Dataset) -> None:
    attack = scenario.attack
    objective: object = attack.loss
    if isinstance(objective, Goal):
        _check_goal(objective, dataset, "attack.loss")
    members = () if attack.data is None else members_of(attack.data)
    for index, member in enumerate(members):
        key = "attack.data" if len(members) == 1 else f"attack.data.members[{index}]"
        _check_goal(member, dataset, key)


def _check_goal(attack: Goal, dataset: Dataset, key: str) -> None:
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
