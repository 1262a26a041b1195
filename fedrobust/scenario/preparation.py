"""A scenario made ready to play: data loaded and divided, model initialised, clients and federation put together."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fedrobust.attacks.scenario import Adversary
from fedrobust.audits.data_auditing import DataFinding
from fedrobust.clients.population import Population
from fedrobust.config.building import ConfigError, errors_under
from fedrobust.data.datasets import Dataset
from fedrobust.devices import select_device
from fedrobust.federation.aggregation import Aggregation
from fedrobust.federation.pretraining import divide, pretrain
from fedrobust.federation.round import Federation, GlobalModel, Order
from fedrobust.parameters import ParameterLayout, clone_buffers
from fedrobust.scenario.attack_on_data import bind_attack, check_attack
from fedrobust.scenario.attackers_decision import attackers_decision
from fedrobust.scenario.auditing import data_auditing, server_auditing
from fedrobust.scenario.parts import draw_mark, initial_model, load_dataset
from fedrobust.scenario.root_training import root_training
from fedrobust.scenario.scenario import Scenario
from fedrobust.training.model_traits import ModelTraits, examine_model
from fedrobust.training.predictor import Predictor


@dataclass(frozen=True)
class Prepared:
    """A scenario with its data loaded and its model initialised."""

    dataset: Dataset
    assignment: tuple[Tensor, ...]
    model: nn.Module
    federation: Federation
    population: Population


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
        aggregation=Aggregation(
            scenario.rule,
            scenario.server_optimizer,
            tuple(str(select_device(name, field="devices")) for name in scenario.devices or ()),
            scenario.server.sampling_confidence,
        ),
        adversary=population.adversary,
        num_clients=scenario.num_clients,
        num_rounds=scenario.num_rounds,
        evaluate_every=scenario.evaluate_every,
        seed=scenario.seed,
        state=state,
        train_root=root_training(scenario, population),
        wants_to_attack=attackers_decision(scenario, population),
        mark=mark,
        auditing=server_auditing(scenario, clients_dataset, model),
        audit_data=partial(_audit_data, population) if population.auditing is not None else None,
        notices=(*scenario.belief_warnings(), *population.notices),
    )
    return Prepared(clients_dataset, population.assignment, model, federation, population)


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
    traits, notices = _examined(scenario, model, dataset)
    check_attack(scenario, dataset)
    if scenario.attack.initial_model is not None:
        with errors_under("attack.initial_model"):
            _, dataset = divide(scenario.attack.initial_model, dataset, scenario.seed)
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
        can_vectorize=traits.why_alone is None,
        has_convolutions=scenario.model.has_convolutions,
        seed=scenario.seed,
        auditing=data_auditing(scenario, dataset),
        join_single=traits.join_single,
        notices=notices,
    )


def _examined(scenario: Scenario, model: nn.Module, dataset: Dataset) -> tuple[ModelTraits, tuple[str, ...]]:
    """How the model can be trained, and what is to be said of that.

    Raises:
        ConfigError: it cannot be trained, or not together, as the config wants it.
    """
    wanted = scenario.client.vectorize
    on_cpu = dataset.train.inputs.device.type != "cuda"
    try_cohort = wanted is True or (wanted == "auto" and not (on_cpu and scenario.model.has_convolutions))
    try:
        traits = examine_model(model, dataset, try_cohort=try_cohort)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None
    if traits.why_alone is None:
        return traits, ()
    if wanted is True:
        raise ConfigError(f"client.vectorize: must be false or auto for this model, got true: {traits.why_alone}")
    if next(model.buffers(), None) is not None:  # as every model with batch normalisation: nothing to remark
        return traits, ()
    return traits, (f"clients are trained one by one, since the model cannot go through a cohort: {traits.why_alone}",)


def _audit_data(population: Population, order: Order) -> DataFinding | None:
    return population.audit(order.round_number, order.clients, order.vector, order.buffers, attack_on=order.attack_on)
