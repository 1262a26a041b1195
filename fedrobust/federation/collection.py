"""From replies to the matrix of updates: what is missing, misshapen or not finite is rejected, counted and named.

A reply may come from a malicious or broken client: nothing in it is trusted before it has been looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedrobust.error_text import clean_reason
from fedrobust.types import Buffers, Updates

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class Reply:
    """What a node sent back for the clients it hosts, as received: rows belong to `clients` in their order.

    Clients of its that failed are among the `failures`.
    """

    clients: tuple[int, ...]
    updates: Tensor
    num_examples: Tensor
    losses: Tensor
    buffers: dict[str, Tensor]
    seconds: float
    failures: tuple["Rejection", ...] = ()


@dataclass(frozen=True)
class Rejection:
    """A client whose update does not reach the rule (`None`: the reply did not say whose it was), and why."""

    client: int | None
    reason: str


@dataclass(frozen=True)
class Collected:
    """The replies that can be used, rows in ascending order of client ids, and those that cannot."""

    clients: tuple[int, ...]
    updates: Updates
    num_examples: Tensor
    losses: Tensor
    buffers: dict[str, Tensor]
    rejections: tuple[Rejection, ...]


def collect(
    asked: Sequence[int], replies: Sequence[Reply], failures: Sequence[Rejection], vector: Tensor, buffers: Buffers
) -> Collected:
    """Stack the usable replies.

    Args:
        asked: the clients that were asked to train; anything from others is rejected.
        replies: what came back, in any order.
        failures: clients known to have failed (an error instead of a reply, an unreadable reply).
        vector: `(d,)`, the global model: gives length, dtype and device.
        buffers: the global model's buffers: give names and shapes.
    """
    rejections = list(failures)
    usable: list[Reply] = []
    taken: set[int] = set()
    for reply in replies:
        rejections.extend(reply.failures)
        if reply.failures and not reply.clients:
            continue
        reason = _defect(reply, len(vector), buffers)
        if reason is not None:
            rejections.extend(Rejection(client, reason) for client in reply.clients or (None,))
            continue
        try:
            # Converted before it is looked at: a number that float64 can hold may be infinite in float32.
            reply = _converted(reply, vector, buffers)
        except (RuntimeError, TypeError) as error:  # formats that torch can store and do nothing else with
            reason = clean_reason(f"reply cannot be converted to {vector.dtype}: {error}")
            rejections.extend(Rejection(client, reason) for client in reply.clients)
            continue
        is_finite = {"update": _has_finite_rows(reply.updates).tolist(), "loss": reply.losses.isfinite().tolist()}
        for name, values in reply.buffers.items():
            is_finite[f"buffer {name}"] = _has_sound_rows(values, buffers[name]).tolist()
        keep = []
        for row, client in enumerate(reply.clients):
            if client not in asked:
                rejections.append(Rejection(client, "was not asked to train in this round"))
            elif client in taken:
                rejections.append(Rejection(client, "answered more than once; the first reply counts"))
            elif bad := [name for name, rows in is_finite.items() if not rows[row]]:
                rejections.append(Rejection(client, f"{bad[0]} contains NaN or infinity"))
            elif int(reply.num_examples[row]) <= 0:
                rejections.append(
                    Rejection(client, f"num_examples must be positive, got {int(reply.num_examples[row])}")
                )
            else:
                taken.add(client)
                keep.append(row)
        if keep:
            usable.append(reply if len(keep) == len(reply.clients) else _rows(reply, keep))
    named = {rejection.client for rejection in rejections}
    rejections.extend(Rejection(client, "did not answer") for client in asked if client not in taken | named)
    return _stack(usable, _once(rejections), vector, buffers)


def _once(rejections: Sequence[Rejection]) -> list[Rejection]:
    """One rejection a client, the first; all of those that did not say whose they were."""
    known: set[int] = set()
    kept = []
    for one in rejections:
        if one.client is None or one.client not in known:
            kept.append(one)
        if one.client is not None:
            known.add(one.client)
    return kept


def _has_finite_rows(matrix: Tensor) -> Tensor:
    """`(k,)`: which rows of `(k, d)` hold neither NaN nor infinity.

    A row whose norm is finite is. Reading the norms takes a tenth of the time of `isfinite`, which writes a matrix of
    booleans; the few rows left are looked at entry by entry, for a norm may overflow where no entry does.
    """
    fine: Tensor = torch.linalg.vector_norm(matrix, dim=1).isfinite()
    for row in (~fine).nonzero().flatten().tolist():
        fine[row] = matrix[row].isfinite().all()
    return fine


def _has_sound_rows(stacked: Tensor, current: Tensor) -> Tensor:
    """`(k,)`: which of k clients' buffers hold neither NaN nor infinity where the global model's holds none.

    What the server's own buffer holds (a mask of -inf, a table of NaN) and a client left there is not held against it.
    """
    fine = stacked.reshape(len(stacked), -1).isfinite()
    if bool(fine.all()):
        return fine.all(dim=1)
    rows, own = stacked.reshape(len(stacked), -1), current.reshape(1, -1).to(stacked.device)
    return (fine | (rows == own) | (rows.isnan() & own.isnan())).all(dim=1)


def _defect(reply: Reply, num_parameters: int, buffers: Buffers) -> str | None:
    """Why no row of the reply can be used, or `None`."""
    k = len(reply.clients)
    if k == 0:
        return "reply names no client"
    if set(reply.buffers) != set(buffers):
        return f"buffers must be {sorted(buffers)}, got {sorted(reply.buffers)}"
    shapes = {"update": (num_parameters,), "num_examples": (), "loss": ()}
    shapes |= {f"buffer {name}": tuple(values.shape) for name, values in buffers.items()}
    received = {"update": reply.updates, "num_examples": reply.num_examples, "loss": reply.losses}
    received |= {f"buffer {name}": values for name, values in reply.buffers.items()}
    for name, values in received.items():
        if values.layout is not torch.strided or values.is_nested or values.is_meta or values.is_quantized:
            return f"{name} must be dense, got {_kind(values)}"
        is_integer = values.dtype in _INTEGERS
        if name == "num_examples" and not is_integer:
            return f"num_examples must be integers, got {values.dtype}"
        if name in ("update", "loss") and not values.is_floating_point():
            return f"{name} must be floating point, got {values.dtype}"
        is_complex = values.is_complex() and name.startswith("buffer ") and buffers[name[7:]].is_complex()
        if not (is_integer or is_complex or values.is_floating_point() or values.dtype is torch.bool):
            return f"{name} must hold real numbers, got {values.dtype}"
        if tuple(values.shape) != (k, *shapes[name]):
            return f"{name} must have shape {(k, *shapes[name])}, got {tuple(values.shape)}"
    return None


def _kind(values: Tensor) -> str:
    if values.is_meta:
        return "a tensor without numbers"
    if values.is_nested:
        return "a nested tensor"
    return str(values.dtype if values.is_quantized else values.layout)


def _converted(reply: Reply, vector: Tensor, buffers: Buffers) -> Reply:
    """The reply in the global model's number formats, its updates on the global model's device."""
    return Reply(
        reply.clients,
        reply.updates.to(vector.device, vector.dtype),
        reply.num_examples.to(torch.int64),
        reply.losses.to(torch.float32),
        {name: values.to(buffers[name].dtype) for name, values in reply.buffers.items()},
        reply.seconds,
        reply.failures,
    )


def _rows(reply: Reply, rows: list[int]) -> Reply:
    clients = tuple(reply.clients[row] for row in rows)
    picked = {name: values[rows] for name, values in reply.buffers.items()}
    return Reply(clients, reply.updates[rows], reply.num_examples[rows], reply.losses[rows], picked, reply.seconds)


def _stack(usable: list[Reply], rejections: list[Rejection], vector: Tensor, buffers: Buffers) -> Collected:
    clients = [client for reply in usable for client in reply.clients]
    if not clients:
        empty = torch.zeros(0)
        return Collected((), vector.new_zeros(0, len(vector)), empty.long(), empty, {}, tuple(rejections))
    if len(usable) == 1:  # one node hosts everyone: its matrix is the matrix of updates, nothing is copied
        updates, num_examples, losses = usable[0].updates, usable[0].num_examples, usable[0].losses
        stacked = usable[0].buffers
    else:
        updates = torch.cat([reply.updates for reply in usable])
        num_examples = torch.cat([reply.num_examples for reply in usable])
        losses = torch.cat([reply.losses for reply in usable])
        stacked = {name: torch.cat([reply.buffers[name] for reply in usable]) for name in buffers}
    order = sorted(range(len(clients)), key=clients.__getitem__)
    if order != list(range(len(clients))):
        index = torch.tensor(order)
        updates, num_examples, losses = updates[index.to(updates.device)], num_examples[index], losses[index]
        stacked = {name: values[index.to(values.device)] for name, values in stacked.items()}
    ids = tuple(clients[row] for row in order)
    return Collected(ids, updates, num_examples, losses, stacked, tuple(rejections))


def drop_non_finite(collected: Collected, rows: Sequence[int]) -> Collected:
    """Look once more at `rows`, which an update attack has changed; those that overflowed are rejected."""
    fine = _has_finite_rows(collected.updates[list(rows)])
    bad = {row for row, is_fine in zip(rows, fine.tolist(), strict=True) if not is_fine}
    if not bad:
        return collected
    keep = [row for row in range(len(collected.clients)) if row not in bad]
    gone = [Rejection(collected.clients[row], "update contains NaN or infinity") for row in sorted(bad)]
    return Collected(
        tuple(collected.clients[row] for row in keep),
        collected.updates[keep],
        collected.num_examples[keep],
        collected.losses[keep],
        {name: values[keep] for name, values in collected.buffers.items()},
        (*collected.rejections, *gone),
    )
