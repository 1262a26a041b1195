"""Any rule of fedrobust as a strategy for anyone's Flower `ServerApp`, with ordinary replies."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Ge, Gt, Lt
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from fedrobust._linalg.gram import weighted_combination
from fedrobust.aggregators.base import Aggregate, Aggregator, RoundContext, State
from fedrobust.aggregators.coordinate_median import CoordinateMedian
from fedrobust.config.component import FieldError, Fraction, Index, Positive, check_fields, component, has_trait
from fedrobust.federation.aggregation import Aggregation
from fedrobust.federation.belief import DEFAULT_CONFIDENCE, belief_warnings
from fedrobust.federation.weighting import DEFAULT_MAX_CLAIM_RATIO, GivenWeighting, claimed_weights, weighting_for
from fedrobust.flower.array_records import GlobalArrays
from fedrobust.flower.collected_replies import client_of, collect_replies, short_reason
from fedrobust.flower.plain_replies import claimed_examples, comparable, content_of, with_equal_weights
from fedrobust.flower.rejections import rejections_line
from fedrobust.flower.row_matrix import RowMatrix
from fedrobust.notices import collected_notices, is_new
from fedrobust.preaggregators.base import Preaggregator
from fedrobust.preaggregators.pipeline import Pipeline
from fedrobust.server_optimizers import PlainStep, ServerOptimizer
from fedrobust.types import UnusableUpdatesError

MetricsFunction: TypeAlias = Callable[[list[RecordDict], str], MetricRecord]

BATCH_STATISTICS = ("*running_mean", "*running_var")
"""The names that PyTorch's batch normalisation gives its floating buffers."""

_PLAIN = PlainStep()

log = logging.getLogger("flwr")  # the one whose lines a ServerApp shows


@component
class _Options:
    """The ranges of `RobustStrategy`'s arguments."""

    fraction_train: Fraction
    fraction_evaluate: Fraction
    min_train_nodes: Index
    min_evaluate_nodes: Index
    min_available_nodes: Index
    weighted_by_key: str
    arrayrecord_key: str
    configrecord_key: str
    server_optimizer: ServerOptimizer
    learning_rate: Positive
    weights: GivenWeighting
    max_claim_ratio: Annotated[float, Ge(1)]
    max_num_examples: Positive
    sampling_confidence: Annotated[float, Gt(0), Lt(1)] | None
    averaged_arrays: tuple[str, ...]
    devices: tuple[str, ...]
    seed: Index


class RobustStrategy(FedAvg):
    """`FedAvg` whose averaging is a rule of your choice, and whose rounds survive what malicious clients send.

    Nodes are sampled and asked as by `FedAvg`. Every reply becomes a row, the client's arrays minus those that were
    sent to it; rows are in ascending order of the rule's client ids, which are the node ids as signed numbers. The
    server's optimiser makes a step of the rule's answer, and the step, times the learning rate, is added to the arrays
    in their own formats. A reply that cannot be used is rejected and logged with its node and the reason, and the round
    goes on without it. If none is left, or the rule refuses, the arrays and all memory stay as they are.

    Names ending in `running_mean` and `running_var` are not the rule's to judge: they become the average over the
    clients that it keeps, by their shares (their coordinate-wise median after a rule that has no shares), past learning
    rate and optimiser. Integers, booleans and arrays that hold an infinity stay the server's.

    The `MetricRecord` of a round holds the clients' metrics and, after `robust.`, `num_received`, `num_rejected`,
    `seconds_aggregation`, `nodes` (of the rows), `shares` and `scores` (in the order of `nodes`; absent after a rule
    that has none) and whatever the rule reports.

    Attributes:
        pipeline: pre-aggregators and rule.
        aggregation: these, the server's optimiser and the devices.
        round_number: rounds played; unlike Flower's own count it goes on over several `start`s and a resume.
        diagnostics: what happened, by round number: plain JSON values.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        preaggregators: Sequence[Preaggregator] = (),
        *,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_evaluate_nodes: int = 2,
        min_available_nodes: int = 2,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: MetricsFunction | None = None,
        evaluate_metrics_aggr_fn: MetricsFunction | None = None,
        server_optimizer: ServerOptimizer = _PLAIN,
        learning_rate: float = 1.0,
        weights: GivenWeighting = "auto",
        max_claim_ratio: float = DEFAULT_MAX_CLAIM_RATIO,
        max_num_examples: float = 1e9,
        sampling_confidence: float | None = DEFAULT_CONFIDENCE,
        averaged_arrays: Sequence[str] = BATCH_STATISTICS,
        root_update: Callable[[int, ArrayRecord], ArrayRecord] | None = None,
        device: torch.device | str = "cpu",
        devices: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        """Set the strategy up.

        Args:
            aggregator: the rule.
            preaggregators: applied to the rows before it, first to last.
            fraction_train: of the connected nodes, the part that is asked to train in a round.
            fraction_evaluate: and to evaluate; 0: neither is done.
            min_train_nodes: nodes asked to train at least.
            min_evaluate_nodes: and to evaluate.
            min_available_nodes: connected nodes that a round waits for.
            weighted_by_key: the name, in a reply's metrics, of the number of examples.
            arrayrecord_key: the name of the arrays in a message to a node.
            configrecord_key: the name of the configuration in it.
            train_metrics_aggr_fn: from the usable replies and `weighted_by_key` to the metrics of a round; `None`:
                averages weighted by the number of examples.
            evaluate_metrics_aggr_fn: the same for evaluation.
            server_optimizer: what the server makes of the rule's answer: `ServerMomentum()` (FedAvgM), `ServerAdam()`,
                `ServerYogi()`; its memory goes on over several `start`s.
            learning_rate: the server's, η of arrays + η · step; for Adam and Yogi 0.01 to 0.1.
            weights: `uniform`, which ignores clients' claims, in metrics too, and needs none; `num_examples` as clients
                claim under `weighted_by_key`; `capped`, that up to `max_claim_ratio` times the median claim; `auto`:
                `num_examples` for the plain mean, `uniform` for every other rule. Many rules give a client power in
                proportion to its weight.
            max_claim_ratio: read only with `capped`.
            max_num_examples: a reply that claims more is rejected.
            sampling_confidence: with which a rule's f bounds the malicious nodes of a round, where not all are asked:
                an upper quantile of the hypergeometric law; `None`: f = ⌊εn⌋.
            averaged_arrays: shell patterns of the names that are averaged over the kept clients.
            root_update: for a rule that needs one: from the round and the arrays sent, the arrays that the server has
                trained from them on its own clean data.
            device: where the rows are kept and, unless `devices` are given, the rule works.
            devices: the rows' columns are divided over these for the rule.
            seed: of the rule's own randomness; nodes are sampled by Flower, from Python's global generator.

        Raises:
            FieldError: an argument of the wrong type or out of range, parts that do not fit together, or a rule that
                needs a root update and has none.
        """
        options = {
            "fraction_train": fraction_train,
            "fraction_evaluate": fraction_evaluate,
            "min_train_nodes": min_train_nodes,
            "min_evaluate_nodes": min_evaluate_nodes,
            "min_available_nodes": min_available_nodes,
            "weighted_by_key": weighted_by_key,
            "arrayrecord_key": arrayrecord_key,
            "configrecord_key": configrecord_key,
            "server_optimizer": server_optimizer,
            "learning_rate": learning_rate,
            "weights": weights,
            "max_claim_ratio": max_claim_ratio,
            "max_num_examples": max_num_examples,
            "sampling_confidence": sampling_confidence,
            "averaged_arrays": averaged_arrays if isinstance(averaged_arrays, str) else tuple(averaged_arrays),
            "devices": devices if isinstance(devices, str) else tuple(devices),
            "seed": seed,
        }
        check_fields(_Options, options)
        self.pipeline = Pipeline(preaggregators=tuple(preaggregators), aggregator=aggregator)
        if root_update is None and has_trait(self.pipeline.rule, "needs_root_update"):
            raise FieldError("root_update", f"must be given for {type(aggregator).__name__}")
        rows = RowMatrix(_require_device("device", device))
        for one in devices:
            _require_device("devices", one)
        super().__init__(
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            min_train_nodes=min_train_nodes,
            min_evaluate_nodes=min_evaluate_nodes,
            min_available_nodes=min_available_nodes,
            weighted_by_key=weighted_by_key,
            arrayrecord_key=arrayrecord_key,
            configrecord_key=configrecord_key,
            train_metrics_aggr_fn=train_metrics_aggr_fn,
            evaluate_metrics_aggr_fn=evaluate_metrics_aggr_fn,
        )
        self.aggregation = Aggregation(self.pipeline, server_optimizer, tuple(devices), sampling_confidence)
        self.learning_rate = learning_rate
        self.weights = weighting_for(self.pipeline, weights)
        self.max_claim_ratio = max_claim_ratio
        self.max_num_examples = max_num_examples
        self.averaged_arrays = tuple(averaged_arrays)
        self.root_update = root_update
        self.seed = seed
        self.round_number = 0
        self.diagnostics: dict[int, dict[str, Any]] = {}
        self._state: State = {}
        self._rows = rows
        self._sent: GlobalArrays | None = None
        self._asked: Sequence[Message] = ()
        self._num_nodes = 0
        self._said: set[str] = set()

    def summary(self) -> None:
        """Log what the strategy is made of."""
        log.info("\t├──> Robust aggregation:")
        for one in self.pipeline.preaggregators:
            log.info("\t│\t├── Before the rule: %r", one)
        log.info("\t│\t├── Rule: %r", self.pipeline.aggregator)
        log.info("\t│\t├── Server optimiser: %r", self.aggregation.optimizer)
        log.info("\t│\t├── Learning rate: %g | weights: %s", self.learning_rate, self.weights)
        devices = ", ".join(self.aggregation.devices) or self._rows.device
        log.info("\t│\t└── Devices: %s | seed: %d", devices, self.seed)
        super().summary()

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on: rounds played, memory of rule and optimiser. `torch.save` takes it."""
        return {
            "round_number": self.round_number,
            "state": {name: values.detach().cpu().clone() for name, values in self._state.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on after what `state_dict` returned; start with the arrays of that time, on as many `devices`."""
        self.round_number = int(state_dict["round_number"])
        self._state = {name: values.to(self._rows.device) for name, values in state_dict["state"].items()}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nodes to train from `arrays`, as `FedAvg` does, and remember both.

        Raises:
            ValueError: arrays that hold something else than numbers, or NaN, or nothing for the rule.
        """
        messages = list(super().configure_train(server_round, arrays, config, grid))
        self._asked = messages
        self._num_nodes = max(len(list(grid.get_node_ids())), len(self._asked))
        self._warn_of_belief()
        self._sent = GlobalArrays(arrays, self.averaged_arrays) if messages else None
        if self._sent is not None and self._sent.complex_arrays:
            text = f"arrays of complex numbers stay as the server has them: {', '.join(self._sent.complex_arrays)}"
            if is_new(text, self._said):
                self._said.add(text)
                log.warning(text)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new arrays, and the round's metrics; the arrays that were sent if nothing can be made of the replies."""
        if self._sent is None:
            return None, None
        sent, self._sent = self._sent, None
        self.round_number += 1
        collected = collect_replies(replies, self._asked, sent, self._rows, self._weight)
        nodes, rejections = list(collected.contents), collected.rejections
        if rejections:
            log.warning("round %d: %s", self.round_number, rejections_line(rejections, "node"))
        log.info("aggregate_train: %d replies accepted, %d rejected", len(nodes), len(rejections))
        started = time.perf_counter()
        answer, record, refusal = None, sent.record, None
        notices: Iterable[str] = ()
        if nodes:
            context = self._context(sent, tuple(map(client_of, nodes)))
            started = time.perf_counter()
            with collected_notices() as notices:
                try:
                    claims = torch.tensor(collected.weights, dtype=torch.float64)
                    weights = claimed_weights(claims, self.weights, self.max_claim_ratio)
                    answer = self.aggregation(self._rows.rows[:, : sent.num_parameters], weights, context)
                    record = sent.moved(self._step(sent, answer))
                    self._state = {name: self._rows.owned(values) for name, values in answer.state.items()}
                except ValueError as error:
                    refusal = str(error)
                    log.warning("round %d: the model stays as it is: %s", self.round_number, refusal)
            self._say(notices)
        about: dict[str, Any] = {
            "round": self.round_number,
            "nodes": nodes,
            "num_received": len(nodes),
            "num_rejected": len(rejections),
            "rejected": rejections,
            "shares": None if answer is None or answer.shares is None else answer.shares.tolist(),
            "scores": None if answer is None or answer.scores is None else answer.scores.tolist(),
            "refusal": refusal,
            "notices": list(notices),
            "diagnostics": {} if answer is None else {name: float(v) for name, v in answer.diagnostics.items()},
            "seconds_aggregation": time.perf_counter() - started,
        }
        self.diagnostics[self.round_number] = about
        metrics = self._metrics(self.train_metrics_aggr_fn, list(collected.contents.values()))
        named = {name: about[name] for name in ("num_received", "num_rejected", "seconds_aggregation", "nodes")}
        named |= {name: about[name] for name in ("shares", "scores") if about[name] is not None}
        for name, value in {**named, **about["diagnostics"]}.items():
            metrics[f"robust.{name}"] = value
        return record, metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The nodes' metrics, averaged; replies that cannot be used are left out."""
        contents = []
        for message in replies:
            try:
                content = content_of(message)
                self._weight(content)
            except ValueError as error:
                log.warning("evaluation: node %d rejected: %s", message.metadata.src_node_id, short_reason(error))
            else:
                contents.append(content)
        return self._metrics(self.evaluate_metrics_aggr_fn, contents) if contents else None

    def _weight(self, content: RecordDict) -> float:
        if self.weights == "uniform":
            return 1.0
        return claimed_examples(content, self.weighted_by_key, self.max_num_examples)

    def _context(self, sent: GlobalArrays, clients: tuple[int, ...]) -> RoundContext:
        """What the rule may know of the round.

        Raises:
            ValueError: arrays from `root_update` that are not like those sent: a mistake of the server's own.
        """
        root = None
        if self.root_update is not None:
            row = torch.empty(sent.num_columns)
            sent.write_difference(self.root_update(self.round_number, sent.record), row)
            root = row[: sent.num_parameters].to(self._rows.device)
        num_asked = len(self._asked)
        return RoundContext(clients, self.round_number, self.seed, self._state, root, self._num_nodes, num_asked)

    def _warn_of_belief(self) -> None:
        """Say before training where the rule reckons with no malicious node, or with fewer than a sample may hold."""
        confidence = self.aggregation.sampling_confidence
        with collected_notices(), suppress(UnusableUpdatesError):  # what the rule refuses, the round will say
            if self._asked:
                lines = list(belief_warnings(self.pipeline, self._num_nodes, len(self._asked), confidence))
                self._say(lines)

    def _say(self, lines: Iterable[str]) -> None:
        """Log what has not been said before; `diagnostics` has it for every round."""
        for text in lines:
            if is_new(text, self._said):
                self._said.add(text)
                log.warning("%s", text)

    def _step(self, sent: GlobalArrays, answer: Aggregate) -> Tensor:
        """What to add to the arrays, `(num_columns,)`: the rule's answer, and the average of what it does not judge."""
        step = self.learning_rate * answer.update.to(self._rows.device)
        averaged = self._rows.rows[:, sent.num_parameters :]
        if averaged.shape[1] == 0:
            return step
        if answer.shares is None:
            return torch.cat([step, CoordinateMedian()(averaged).update])
        shares = answer.shares.to(averaged.device)
        total = shares.sum()  # zero where the rule trusts nobody: then nobody's running statistics count, either
        return torch.cat([step, weighted_combination(averaged, shares / total if total > 0 else shares)])

    def _metrics(self, average: MetricsFunction, contents: Sequence[RecordDict]) -> MetricRecord:
        """The average of the metrics that can be averaged."""
        usable = [contents[index] for index in comparable(contents)]
        if left_out := len(contents) - len(usable):
            log.warning("metrics of %d replies are left out: not finite, or unlike the others'", left_out)
        if self.weights == "uniform":
            usable = [with_equal_weights(content, self.weighted_by_key) for content in usable]
        return average(usable, self.weighted_by_key) if usable else MetricRecord()


def _require_device(field: str, name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        FieldError: there is none.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        raise FieldError(field, f"must be a device of this machine, got {str(name)!r} ({error})") from None
