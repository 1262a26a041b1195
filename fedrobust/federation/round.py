"""THE MAP: one federated round, from top to bottom.

`play_round` is a generator. It yields once: the server's order to its clients. Whoever drives it (the Flower strategy
in `flower/strategy.py`, on any engine) carries the order to the clients and sends back their replies. What follows
needs no knowledge of Flower.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from fedrobust.aggregators.base import Aggregate, RoundContext, State, named_state, state_of
from fedrobust.attacks.scenario import Adversary, ServerView
from fedrobust.audits.audited_model import AuditedModel
from fedrobust.audits.base import ModelReport
from fedrobust.audits.data_auditing import DataFinding
from fedrobust.audits.server_auditing import ServerAuditing
from fedrobust.data.datasets import Dataset
from fedrobust.evaluation.accuracy import measure_accuracy
from fedrobust.evaluation.attack_success import measure_attack_success
from fedrobust.evaluation.audit import client_figures, data_figures, model_figures
from fedrobust.evaluation.detection import measure_detection
from fedrobust.federation.aggregation import Aggregation
from fedrobust.federation.collection import Collected, Rejection, Reply, collect, drop_non_finite
from fedrobust.federation.server import Server
from fedrobust.notices import collected_notices
from fedrobust.parameters import ParameterLayout, average_buffers, clone_buffers
from fedrobust.seeds import seeded_draws
from fedrobust.training.predictor import Predictor
from fedrobust.types import Buffers, UnusableUpdatesError, Vector
from fedrobust.watermarks.embedding import Mark
from fedrobust.watermarks.ownership import binomial_p_value, count_matches

Row: TypeAlias = dict[str, Any]
"""What a round leaves in the records: plain JSON values."""

_AUDIT = "audit"
"""The audit's part of what a federation remembers."""


@dataclass(frozen=True)
class Order:
    """What the server asks for: these clients, training from this model.

    `attack_on` is the attackers' word to their own: in a round that they sit out, all train as benign clients.
    """

    round_number: int
    clients: tuple[int, ...]
    vector: Vector
    buffers: Buffers
    attack_on: bool = True


@dataclass(frozen=True)
class Delivery:
    """What came back for an order, and how long it took in seconds."""

    replies: Sequence[Reply]
    failures: Sequence[Rejection]
    seconds: float


@dataclass
class GlobalModel:
    """The state of a federation between rounds, all of it: a checkpoint is this and nothing else.

    Attributes:
        round_number: the last round played.
        vector: `(d,)`, the parameters.
        buffers: what the model carries besides.
        memory: what pre-aggregators, rule, server optimiser and attackers remember.
    """

    round_number: int
    vector: Vector
    buffers: Buffers
    memory: State = field(default_factory=dict)


@dataclass(frozen=True)
class Federation:
    """The server's side of a scenario, and the two that know who is malicious: the adversary and the evaluation.

    `train_root` gives the server's own update, trained on its clean root data set, for a rule that needs one.
    `wants_to_attack` says whether attackers who attack only when needed do so on this model. `auditing` is the server's
    part in an audit, `audit_data` what its clients or a trusted auditor find in an order's data; `on_report` gets what
    there is to see.
    `mark` is the watermark of the model's owner, who is the server. `notices` are lines to say before the first round,
    and not again.
    """

    model: nn.Module
    dataset: Dataset
    server: Server
    aggregation: Aggregation
    adversary: Adversary
    num_clients: int
    num_rounds: int
    evaluate_every: int
    seed: int
    state: GlobalModel
    train_root: Callable[[Order], Vector] | None = None
    wants_to_attack: Callable[[GlobalModel], bool] | None = None
    mark: Mark | None = None
    auditing: ServerAuditing | None = None
    audit_data: Callable[[Order], DataFinding | None] | None = None
    on_report: Callable[[int, DataFinding | ModelReport], object] | None = None
    notices: tuple[str, ...] = ()
    layout: ParameterLayout = field(init=False)

    def __post_init__(self) -> None:
        """Derive the layout of the model."""
        object.__setattr__(self, "layout", ParameterLayout.of(self.model))

    @property
    def predictor(self) -> Predictor:
        """The global model as it stands, in evaluation mode."""
        return Predictor(self.model, self.layout, self.state.vector, self.state.buffers, self.dataset)


def play_round(federation: Federation) -> Generator[Order, Delivery, Row]:
    """Play the round after `federation.state.round_number`; changes the state, returns the round's record."""
    state, server, adversary = federation.state, federation.server, federation.adversary
    round_number = state.round_number + 1

    # 1. The server samples clients; attackers may see to it that they are among them, or sit this round out.
    attack_on = federation.wants_to_attack is None or federation.wants_to_attack(state)
    adversary = adversary if attack_on else adversary.at_rest()
    forced = adversary.forced(round_number)
    excluded = () if federation.auditing is None else federation.auditing.excluded(state_of(_AUDIT, state.memory))
    asked = server.sample_clients(federation.num_clients, federation.seed, round_number, forced, excluded)

    # 2. The engine carries the model to the clients, they train, and it brings back their updates.
    order = Order(round_number, asked, state.vector, state.buffers, attack_on)
    delivery = yield order
    started = time.perf_counter()
    root_update = None if federation.train_root is None else federation.train_root(order)
    seconds_root = time.perf_counter() - started
    started = time.perf_counter()

    # 3. Replies become the matrix of updates; what is missing, misshapen or not finite is rejected.
    collected = collect(asked, delivery.replies, delivery.failures, state.vector, state.buffers)

    # 4. Attackers who act on updates change theirs, knowing of benign clients and server what the scenario grants.
    seconds_collection = time.perf_counter() - started
    started = time.perf_counter()
    step_size = server.step_size(round_number)
    context = RoundContext(
        collected.clients, round_number, federation.seed, state.memory, root_update, federation.num_clients, len(asked)
    )
    if collected.clients:
        weights = server.weigh(collected.num_examples, federation.aggregation.rule)
        answer = partial(federation.aggregation.answer, weights=weights, context=context)
        view = ServerView(weights, step_size, answer, state.vector, state.memory)
        with collected_notices():  # attackers try out what nobody has sent
            corruption = adversary.corrupt(collected.clients, collected.updates, view, round_number)
        collected = drop_non_finite(collected, corruption.rows)
    seconds_attack = time.perf_counter() - started
    started = time.perf_counter()

    # 5. Pre-aggregators and the rule answer, the server's optimiser makes a step of it. Without updates, or with too
    # few for the rule, the model stays as it is.
    aggregate = None
    refusal = None if asked else f"no client is left to ask: the audit has excluded {len(excluded)}"
    notices: list[str] = []
    if collected.clients:
        weights = server.weigh(collected.num_examples, federation.aggregation.rule)
        context = dataclasses.replace(context, clients=collected.clients)
        with collected_notices() as said:
            try:
                aggregate = federation.aggregation(collected.updates, weights, context)
            except UnusableUpdatesError as error:  # too few for the rule, say
                refusal = str(error)
        notices = list(said)

    # 6. The server steps; buffers are averaged over the kept clients.
    if aggregate is not None:
        shares = weights if aggregate.shares is None else aggregate.shares
        step = step_size * aggregate.update.to(state.vector)
        state.vector = state.vector + step
        with collected_notices() as said:
            state.buffers = average_buffers(state.buffers, collected.buffers, shares)
        notices += [text for text in said if text not in notices]
        audit_memory = named_state(_AUDIT, state_of(_AUDIT, state.memory))
        state.memory = {**aggregate.state, **adversary.remember(corruption), **audit_memory}
    state.round_number = round_number
    seconds_aggregation = seconds_collection + time.perf_counter() - started

    # 7. The owner embeds its watermark anew: averaging over clients who do not know it has thinned it out.
    started = time.perf_counter()
    if federation.mark is not None and federation.mark.embeds_in("rounds") and aggregate is not None:
        with seeded_draws(state.vector.device, federation.seed, "watermark draws", round_number):
            state.vector = federation.mark.embed(federation.predictor, round_number).vector
    seconds_watermark = time.perf_counter() - started

    # 8. Clients and a trusted auditor have audited data before training; the server audits clients and the model. What
    # follows from it is the plan's.
    started = time.perf_counter()
    audit = play_audit(federation, order, collected, aggregate, adversary.malicious)
    seconds_audit = time.perf_counter() - started

    # 9. Evaluation judges model, attack and rule. It alone compares the rule's answer with the truth.
    row = describe_round(federation, adversary.attackers(round_number), delivery, collected, aggregate)
    row |= {
        "refusal": refusal,
        "notices": notices,
        "seconds_aggregation": seconds_aggregation,
        "seconds_attack": seconds_attack,
        "seconds_root": seconds_root,
    }
    row |= {"seconds_watermark": seconds_watermark, "audit": audit, "seconds_audit": seconds_audit}
    started = time.perf_counter()
    if round_number % federation.evaluate_every == 0 or round_number == federation.num_rounds:
        row |= evaluate_model(federation)
    row["seconds_evaluation"] = time.perf_counter() - started
    return row


def play_audit(
    federation: Federation, order: Order, collected: Collected, aggregate: Aggregate | None, malicious: Sequence[int]
) -> Row | None:
    """The audit of a round, if one is due: changes memory and model as the plan says, returns what it came to."""
    auditing, state = federation.auditing, federation.state
    if auditing is None or not auditing.plan.is_due(order.round_number):
        return None
    with seeded_draws(state.vector.device, federation.seed, "audit draws", order.round_number):
        return _audit(federation, auditing, order, collected, aggregate, malicious)


def _audit(
    federation: Federation,
    auditing: ServerAuditing,
    order: Order,
    collected: Collected,
    aggregate: Aggregate | None,
    malicious: Sequence[int],
) -> Row:
    state = federation.state
    memory = state_of(_AUDIT, state.memory)
    figures: Row = {"method": type(auditing.plan.method).__name__, "auditor": auditing.plan.auditor}
    figures["action"] = auditing.plan.action
    finding = None if federation.audit_data is None else federation.audit_data(order)
    if finding is not None:
        figures |= data_figures(finding)
    if aggregate is not None:
        suspicion = auditing.suspicion(collected.clients, collected.updates, aggregate, finding)
        if suspicion is not None:
            memory = auditing.remember(memory, collected.clients, suspicion)
            excluded = auditing.excluded(memory)
            figures |= client_figures(auditing.reputations(memory), excluded, malicious)
    model = AuditedModel.from_parameters(federation.model, state.vector, state.buffers, federation.dataset)
    report = auditing.examine(model, order.round_number)
    if report is not None:
        figures |= model_figures(report)
        unlearnt = auditing.unlearn(model, report, order.round_number)
        figures["unlearnt"] = unlearnt is not None
        if unlearnt is not None:
            state.vector = federation.layout.flatten(unlearnt.module).to(state.vector)
            state.buffers = clone_buffers(unlearnt.module)
    if federation.on_report is not None and (shown := report or finding) is not None:
        federation.on_report(order.round_number, shown)
    state.memory = {**state.memory, **named_state(_AUDIT, memory)}
    return figures


def evaluate_model(federation: Federation) -> Row:
    """Clean accuracy and attack success of the global model as it stands; before round 1 it is the initial one."""
    state = federation.state
    with seeded_draws(state.vector.device, federation.seed, "evaluation draws", state.round_number):
        return _evaluate(federation)


def _evaluate(federation: Federation) -> Row:
    dataset, predictor = federation.dataset, federation.predictor
    accuracy = measure_accuracy(predictor, dataset.test, dataset.num_classes)
    row: Row = {
        "round": federation.state.round_number,
        "clean_accuracy": accuracy.accuracy,
        "clean_loss": accuracy.loss,
        "per_class_accuracy": accuracy.per_class,
        "attack_success_rate": None,
        "local_attack_success_rates": None,
        "watermark_accuracy": None,
        "watermark_p_value": None,
    }
    attack = federation.adversary.attack.goal
    if attack is not None:
        success = measure_attack_success(predictor, attack, dataset.test)
        row["attack_success_rate"] = success.global_trigger
        row["local_attack_success_rates"] = success.local_triggers
    if federation.mark is not None:
        triggers = federation.mark.triggers
        matches = count_matches(predictor, triggers)
        row["watermark_accuracy"] = matches / len(triggers)
        if triggers.has_random_labels:  # others need unmarked models to compare with
            row["watermark_p_value"] = binomial_p_value(matches, len(triggers), 1 / triggers.num_classes)
    return row


def describe_round(
    federation: Federation,
    attacking: Sequence[int],
    delivery: Delivery,
    collected: Collected,
    aggregate: Aggregate | None,
) -> Row:
    """What happened in a round, told by the one who knows who was `attacking`."""
    round_number = federation.state.round_number
    attackers = [client for client in attacking if client in collected.clients]
    norms = collected.updates.norm(dim=1).cpu()
    is_attacker = torch.tensor([client in attackers for client in collected.clients], dtype=torch.bool)
    # Nodes that take turns (one process) add up to less than the wait; where they overlap, the longest counts. What
    # nodes claim is bounded by the wait.
    seconds = [reply.seconds for reply in delivery.replies]
    total, longest = sum(seconds), max(seconds, default=0.0)
    seconds_training = total if total <= delivery.seconds else min(longest, delivery.seconds)
    row: Row = {
        "round": round_number,
        "attack_active": bool(attackers),
        "clients": list(collected.clients),
        "malicious_clients": attackers,
        "num_received": len(collected.clients),
        "num_rejected": len(collected.rejections),
        "rejected": [{"client": one.client, "reason": one.reason} for one in collected.rejections],
        "train_loss": _mean(collected.losses),
        "clean_accuracy": None,
        "clean_loss": None,
        "per_class_accuracy": None,
        "attack_success_rate": None,
        "local_attack_success_rates": None,
        "watermark_accuracy": None,
        "watermark_p_value": None,
        "detection_tpr": None,
        "detection_fpr": None,
        "update_norms": norms.tolist(),
        "update_norm_benign": _mean(norms[~is_attacker]),
        "update_norm_malicious": _mean(norms[is_attacker]),
        "shares": None,
        "scores": None,
        "diagnostics": {} if aggregate is None else dict(aggregate.diagnostics),
        "seconds_training": seconds_training,
        "seconds_messages": delivery.seconds - seconds_training,
    }
    if aggregate is not None and aggregate.shares is not None:
        detection = measure_detection(collected.clients, attackers, aggregate.shares)
        row |= {"detection_tpr": detection.tpr, "detection_fpr": detection.fpr, "shares": aggregate.shares.tolist()}
    if aggregate is not None and aggregate.scores is not None:
        row["scores"] = aggregate.scores.tolist()
    return row


def _mean(values: torch.Tensor) -> float | None:
    return float(values.double().mean()) if len(values) else None
