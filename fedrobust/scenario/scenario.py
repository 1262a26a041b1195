"""A scenario: every component of a run, built and checked together."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from fedrobust.aggregators.base import Aggregator, UnsuitableSizeError
from fedrobust.attacks.scenario import Attack
from fedrobust.audits.plan import AuditPlan
from fedrobust.config.building import GROUPS, ConfigError, build, check_root
from fedrobust.config.component import Count, FieldError, Index, component
from fedrobust.data.datasets import DatasetSource
from fedrobust.data.partition import Partition
from fedrobust.devices import select_device
from fedrobust.engines import Engine
from fedrobust.federation.belief import belief_warnings, believed_rule
from fedrobust.federation.server import Server
from fedrobust.models import Architecture
from fedrobust.notices import collected_notices
from fedrobust.preaggregators import Pipeline, Preaggregator
from fedrobust.records.loggers import Logger
from fedrobust.server_optimizers import PlainStep, ServerOptimizer
from fedrobust.training.local_training import LocalTraining
from fedrobust.watermarks import NoWatermark, Watermark


@component
class Scenario:
    """Everything that a run is made of; the keys of the root config.

    Attributes:
        seed: fixes every random choice.
        num_clients: clients in all, benign and malicious.
        num_rounds: rounds to play.
        evaluate_every: evaluate the global model every k rounds (and after the last).
        checkpoint_every: write a checkpoint every k rounds; 0 writes none.
        control: whether a benign twin, the same without attackers, is played after the run, for attack success to be
            read against: `auto` does where the attack declares no synthetic stamp (`Goal`).
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        devices: the parameters are divided over these devices for aggregation; `None`: all stay on `device`.
        data_root: where data sets lie; `None` goes by FEDROBUST_DATA, else the user's cache folder.
        verbose: a progress bar and a table; else log lines.
        plot_formats: of the pictures; none are drawn without one.
    """

    seed: Index = 0
    num_clients: Count = 20
    num_rounds: Count = 30
    evaluate_every: Count = 1
    checkpoint_every: Index = 10
    control: Literal["auto"] | bool = "auto"
    device: str = "auto"
    devices: list[str] | None = None
    data_root: str | None = None
    verbose: bool = True
    plot_formats: list[Literal["png", "pdf", "svg"]] | tuple[Literal["png", "pdf", "svg"], ...] = ("png",)
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
        self._check_training()
        copied = getattr(self.attack.update, "client", None)
        if copied is not None and (copied >= self.num_clients or copied in malicious):
            raise FieldError(
                "attack.update.client",
                f"must be a benign client below num_clients={self.num_clients}, got {copied} (malicious: {malicious})",
            )
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

    def belief_warnings(self) -> list[str]:
        """One line where the rule reckons with no malicious client, or with fewer than a sample may hold."""
        num_asked = self.server.num_sampled or self.num_clients
        with collected_notices():  # of the trial; the lines say it with the config's names
            return list(belief_warnings(self.rule, self.num_clients, num_asked, self.server.sampling_confidence))

    def _check_rule(self) -> None:
        """Let the rule speak up now about a number of clients that it cannot work with."""
        num_asked = self.server.num_sampled or self.num_clients
        try:
            with collected_notices():
                rule = believed_rule(
                    self.rule,
                    num_asked,
                    num_clients=self.num_clients,
                    num_asked=num_asked,
                    confidence=self.server.sampling_confidence,
                )
                assert isinstance(rule, Pipeline)
                rule.check_size(num_asked)
        except FieldError as error:
            raise FieldError("preaggregator", error.message) from None
        except UnsuitableSizeError as error:
            clients = f"num_clients={self.num_clients}, server.num_sampled={self.server.num_sampled}"
            raise FieldError("aggregator", f"{error} ({clients})") from None

    def _check_training(self) -> None:
        """Put together what attackers and provider change and what they keep of the clients' training."""
        try:
            self.attack.training.applied_to(self.client)
        except FieldError as error:
            raise FieldError(f"attack.training.{error.field}", f"{error.message} (with the clients' own)") from None
        if self.attack.initial_model is None:
            return
        try:
            self.attack.initial_model.program(self.client)
        except FieldError as error:
            key = f"attack.initial_model.training.{error.field}"
            raise FieldError(key, f"{error.message} (with the clients' own)") from None

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
