"""A scenario's audit, ready to be asked: on the clients' side for data, on the server's for everything else."""

from collections.abc import Iterator

import torch
from torch import nn

from fedrobust.aggregators.base import RoundContext
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import CheckedAudit
from fedrobust.audits.clients import ClientAudit
from fedrobust.audits.data_auditing import DataAuditing
from fedrobust.audits.server_auditing import ServerAuditing
from fedrobust.config.building import ConfigError
from fedrobust.data.datasets import Dataset, Examples
from fedrobust.federation.aggregation import Aggregation
from fedrobust.notices import collected_notices
from fedrobust.scenario.parts import draw_clean_examples
from fedrobust.scenario.scenario import Scenario
from fedrobust.seeds import torch_generator
from fedrobust.types import UnusableUpdatesError


def data_auditing(scenario: Scenario, dataset: Dataset) -> DataAuditing | None:
    """How the clients' data are audited, if that is what the scenario's audit looks at.

    Raises:
        ConfigError: a clean set larger than the data.
    """
    if scenario.audit.kind != "data":
        return None
    return DataAuditing(scenario.audit, _clean_set(scenario, dataset), scenario.seed)


def server_auditing(scenario: Scenario, dataset: Dataset, model: nn.Module) -> ServerAuditing | None:
    """The server's part in the scenario's audit, if it has one.

    Raises:
        ConfigError: an audit that cannot read what the rule gives, the data, the model or so small a clean set, or a
            clean set larger than the data.
    """
    if scenario.audit.kind is None:
        return None
    method: object = scenario.audit.method
    if isinstance(method, ClientAudit):
        _try_client_audit(scenario, method)
    clean = _clean_set(scenario, dataset)
    if isinstance(method, CheckedAudit):
        example = dataset.train.subset(torch.arange(1))
        try:
            method.check(AuditedModel(model, dataset.normalise), example, clean)
        except ValueError as error:
            raise ConfigError(f"audit.method: {error} (dataset={dataset.name})") from None
    return ServerAuditing(scenario.audit, clean, scenario.num_clients, scenario.seed)


def futile_audits(scenario: Scenario) -> Iterator[str]:
    """A line for an audit that will never take place."""
    if scenario.audit.method is not None and scenario.audit.start > scenario.num_rounds:
        yield f"nobody ever audits: audit.start={scenario.audit.start} is after num_rounds={scenario.num_rounds}"


def _try_client_audit(scenario: Scenario, method: ClientAudit) -> None:
    """Let the audit speak up now about a rule that does not give what it reads."""
    num_asked = scenario.server.num_sampled or scenario.num_clients
    updates = torch.randn(num_asked, 4, generator=torch_generator(0, "trial"))
    weights = torch.full((num_asked,), 1 / num_asked, dtype=torch.float64)
    try:
        with collected_notices():
            answer = Aggregation(scenario.rule).answer(updates, weights, RoundContext(root_update=updates[0]))
            method.suspicion(updates, answer)
    except UnusableUpdatesError:
        pass  # what the rule refuses, round 1 will say
    except ValueError as error:
        raise ConfigError(f"audit.method: {error} (aggregator={type(scenario.aggregator).__name__})") from None


def _clean_set(scenario: Scenario, dataset: Dataset) -> Examples:
    """What an auditor has of clean data."""
    wanted = scenario.audit.num_clean
    return dataset.train.subset(draw_clean_examples(scenario, dataset, wanted, "audit.num_clean", "audit clean set"))
