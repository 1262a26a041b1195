"""Orders and replies as Flower messages.

An order names the clients of a node that should train and carries the global model once. A reply carries what they
send back, stacked: `(k, d)` updates, and a row each of everything else. Replies are not trusted: reading one gives
either a `Reply` or the reason why it cannot be read.
"""

from collections.abc import Sequence

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from torch import Tensor

from fedrobust.clients.population import TrainedClients
from fedrobust.collection import Rejection, Reply
from fedrobust.flower.tensor_array import TensorArray, tensor_of
from fedrobust.round import Order
from fedrobust.types import Buffers

_CPU = torch.device("cpu")
_PARAMETERS, _UPDATES, _EXAMPLES, _LOSSES = "parameters", "updates", "num-examples", "losses"
_BUFFER = "buffer/"


def model_record(vector: Tensor, buffers: Buffers) -> ArrayRecord:
    """The global model as an `ArrayRecord`, by reference."""
    return _arrays({_PARAMETERS: vector, **{_BUFFER + name: values for name, values in buffers.items()}})


def train_message(order: Order, clients: Sequence[int], model: ArrayRecord, node_id: int) -> Message:
    """Ask `node_id` to train `clients`."""
    task = ConfigRecord({"server-round": order.round_number, "clients": list(clients)})
    return Message(RecordDict({"model": model, "config": task}), node_id, MessageType.TRAIN)


def read_order(message: Message, device: torch.device) -> Order:
    """The order in a train message, its tensors on `device`."""
    task, model = message.content.config_records["config"], message.content.array_records["model"]
    tensors = {name: tensor_of(array, device) for name, array in model.items()}
    buffers = {name.removeprefix(_BUFFER): values for name, values in tensors.items() if name.startswith(_BUFFER)}
    clients = task["clients"]
    round_number = task["server-round"]
    if not isinstance(clients, list) or not isinstance(round_number, int):
        raise ValueError(f"order must name a round and clients, got {dict(task)}")
    return Order(round_number, tuple(int(client) for client in clients), tensors[_PARAMETERS], buffers)


def reply_message(trained: TrainedClients, message: Message) -> Message:
    """The clients' answer to a train message."""
    tensors = {_UPDATES: trained.updates, _EXAMPLES: trained.num_examples, _LOSSES: trained.losses}
    tensors |= {_BUFFER + name: values for name, values in trained.buffers.items()}
    content = RecordDict(
        {
            "updates": _arrays(tensors),
            "config": ConfigRecord({"clients": list(trained.clients)}),
            "metrics": MetricRecord({"seconds": trained.seconds}),
        }
    )
    return Message(content, reply_to=message)


def read_reply(message: Message, asked: Sequence[int], device: torch.device) -> Reply | list[Rejection]:
    """The reply of a node that was asked to train `asked`, its updates on `device`, or why there is none to use."""
    if message.has_error():
        return [Rejection(client, f"failed: {_one_line(message.error.reason)}") for client in asked]
    try:
        arrays = message.content.array_records["updates"]
        tensors = {name: tensor_of(array, device if name == _UPDATES else _CPU) for name, array in arrays.items()}
        missing = [name for name in (_UPDATES, _EXAMPLES, _LOSSES) if name not in tensors]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        clients = message.content.config_records["config"]["clients"]
        if not isinstance(clients, list):
            raise ValueError(f"clients must be a list, got {clients!r}")
        return Reply(
            tuple(int(client) for client in clients),
            tensors[_UPDATES],
            tensors[_EXAMPLES],
            tensors[_LOSSES],
            {name.removeprefix(_BUFFER): values for name, values in tensors.items() if name.startswith(_BUFFER)},
            float(str(message.content.metric_records["metrics"]["seconds"])),
        )
    except KeyError as error:
        return [Rejection(client, f"unreadable reply: missing {error.args[0]}") for client in asked]
    except (ValueError, TypeError, EOFError) as error:  # what NumPy raises on bytes that are no array
        return [Rejection(client, f"unreadable reply: {_one_line(str(error))}") for client in asked]


def _arrays(tensors: dict[str, Tensor]) -> ArrayRecord:
    record = ArrayRecord()
    for name, tensor in tensors.items():
        record[name] = TensorArray(tensor)
    return record


def _one_line(text: str | None) -> str:
    return " ".join((text or "no reason given").split())
