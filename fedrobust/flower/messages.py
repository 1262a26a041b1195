"""Orders and replies as Flower messages.

An order names the clients of a node that should train and carries the global model once. A reply carries what they
send back, stacked: `(k, d)` updates, and a row each of everything else. Replies are not trusted: reading one gives
either a `Reply` or the reason why it cannot be read.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from fedrobust.clients.population import TrainedClients
from fedrobust.error_text import clean_reason, said_by_node
from fedrobust.federation.collection import Rejection, Reply
from fedrobust.federation.round import Order
from fedrobust.flower.tensor_array import TensorArray, tensor_of
from fedrobust.types import Buffers

T = TypeVar("T", ArrayRecord, ConfigRecord, MetricRecord)

_CPU = torch.device("cpu")
_PARAMETERS, _UPDATES, _EXAMPLES, _LOSSES = "parameters", "updates", "num-examples", "losses"
_BUFFER = "buffer/"


def model_record(vector: Tensor, buffers: Buffers) -> ArrayRecord:
    """The global model as an `ArrayRecord`, by reference."""
    return _arrays({_PARAMETERS: vector, **{_BUFFER + name: values for name, values in buffers.items()}})


def train_message(order: Order, clients: Sequence[int], model: ArrayRecord, node_id: int) -> Message:
    """Ask `node_id` to train `clients`."""
    task = ConfigRecord({"server-round": order.round_number, "clients": list(clients), "attack-on": order.attack_on})
    return Message(RecordDict({"model": model, "config": task}), node_id, MessageType.TRAIN)


def read_order(message: Message, device: torch.device) -> Order:
    """The order in a train message, its tensors on `device`."""
    task, model = _record(message.content, "config", ConfigRecord), _record(message.content, "model", ArrayRecord)
    tensors = {name: tensor_of(array, device, takes_complex=name.startswith(_BUFFER)) for name, array in model.items()}
    buffers = {name.removeprefix(_BUFFER): values for name, values in tensors.items() if name.startswith(_BUFFER)}
    clients = task["clients"]
    round_number, attack_on = task["server-round"], task["attack-on"]
    if not isinstance(clients, list) or not isinstance(round_number, int) or not isinstance(attack_on, bool):
        raise ValueError(f"order must name a round, clients and whether attackers attack, got {dict(task)}")
    return Order(round_number, tuple(int(client) for client in clients), tensors[_PARAMETERS], buffers, attack_on)


def reply_message(trained: TrainedClients, message: Message) -> Message:
    """The clients' answer to a train message."""
    tensors = {_UPDATES: trained.updates, _EXAMPLES: trained.num_examples, _LOSSES: trained.losses}
    tensors |= {_BUFFER + name: values for name, values in trained.buffers.items()}
    named = ConfigRecord({"clients": list(trained.clients)})
    if trained.failures:
        named["failed"], named["reasons"] = list(trained.failures), list(trained.failures.values())
    metrics = MetricRecord({"seconds": trained.seconds})
    return Message(RecordDict({"updates": _arrays(tensors), "config": named, "metrics": metrics}), reply_to=message)


def read_reply(message: Message, asked: Sequence[int], device: torch.device) -> Reply | list[Rejection]:
    """The reply of a node that was asked to train `asked`, its updates on `device`, or why there is none to use.

    A node speaks for the clients that it was asked for: a reply that names another is not used at all.
    """
    if message.has_error():
        return _reject(asked, f"failed: {said_by_node(message.error.reason)}")
    try:
        return _parse(message.content, asked, device)
    except KeyError as error:
        return _reject(asked, f"unreadable reply: missing {error.args[0]}")
    except Exception as error:  # bytes from a malicious client may make their reader raise anything
        return _reject(asked, f"unreadable reply: {str(error) or type(error).__name__}")


def _parse(content: RecordDict, asked: Sequence[int], device: torch.device) -> Reply:
    """The reply in a message's content.

    Raises:
        Exception: of many kinds; it cannot be read.
    """
    arrays = _record(content, "updates", ArrayRecord)
    missing = [name for name in (_UPDATES, _EXAMPLES, _LOSSES) if name not in arrays]
    if missing:
        raise ValueError(f"missing {', '.join(missing)}")
    config = _record(content, "config", ConfigRecord)
    clients, failed = _ids(config["clients"]), _ids(config.get("failed", []))
    strangers = [client for client in (*clients, *failed) if client not in asked]
    if asked and not clients and not failed:
        raise ValueError("names no client")
    if strangers:
        raise ValueError(f"clients must be of those that the node was asked to train, got {strangers}")
    seconds = _record(content, "metrics", MetricRecord)["seconds"]
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a finite number from 0 on, got {seconds!r}")
    tensors = {
        name: tensor_of(array, device if name == _UPDATES else _CPU, takes_complex=name.startswith(_BUFFER))
        for name, array in arrays.items()
    }
    buffers = {name.removeprefix(_BUFFER): values for name, values in tensors.items() if name.startswith(_BUFFER)}
    return Reply(
        tuple(clients),
        tensors[_UPDATES],
        tensors[_EXAMPLES],
        tensors[_LOSSES],
        buffers,
        float(seconds),
        _failures(clients, failed, config.get("reasons", [])),
    )


def _ids(named: object) -> list[int]:
    clients = [client for client in named if type(client) is int] if isinstance(named, list) else None
    if clients is None or clients != named:
        raise ValueError(f"clients must be a list of integers, got {named!r}")
    if len(set(clients)) < len(clients):
        raise ValueError(f"clients must be named once each, got {clients}")
    return clients


def _failures(clients: Sequence[int], failed: Sequence[int], reasons: object) -> tuple[Rejection, ...]:
    """Whose training failed on the node, and why."""
    if not isinstance(reasons, list) or len(reasons) != len(failed) or not set(failed).isdisjoint(clients):
        raise ValueError("failed clients must have a reason each, and no update")
    return tuple(rejection for client, why in zip(failed, reasons) for rejection in _reject([client], f"failed: {why}"))


def _reject(asked: Sequence[int], reason: str) -> list[Rejection]:
    """The same reason for every client of the node; one for nobody, where the node was asked for nobody."""
    short = clean_reason(reason)
    return [Rejection(client, short) for client in asked or (None,)]


def _record(content: RecordDict, name: str, kind: type[T]) -> T:
    """The record of that name and kind; `content.array_records` and the like copy all of them at every look."""
    record = content[name]
    if not isinstance(record, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {type(record).__name__}")
    return record


def _arrays(tensors: dict[str, Tensor]) -> ArrayRecord:
    record = ArrayRecord()
    for name, tensor in tensors.items():
        record[name] = TensorArray(tensor)
    return record
