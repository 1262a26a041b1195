"""The replies of a round as rows of a matrix, and what is wrong with those that cannot be used."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict

from fedrobust.error_text import clean_reason
from fedrobust.flower.answers import answering_node, nodes_by_message
from fedrobust.flower.array_records import GlobalArrays
from fedrobust.flower.plain_replies import arrays_of, content_of
from fedrobust.flower.row_matrix import RowMatrix


@dataclass(frozen=True)
class CollectedReplies:
    """What the nodes sent in a round.

    Attributes:
        contents: of the usable replies by node, in the order of their rows.
        weights: what each of these nodes claims, in the same order.
        rejections: the others, `node` and `reason` each.
    """

    contents: dict[int, RecordDict]
    weights: list[float]
    rejections: list[dict[str, Any]]


def collect_replies(
    replies: Iterable[Message],
    asked: Sequence[Message],
    sent: GlobalArrays,
    rows: RowMatrix,
    weigh: Callable[[RecordDict], float],
) -> CollectedReplies:
    """Write every usable reply, minus what was sent, to a row of `rows`, in ascending order of client ids.

    Args:
        replies: in any order.
        asked: the messages that may be answered, one a node.
        sent: what they were sent.
        rows: forgets what it held.
        weigh: the weight that a reply claims; raises a `ValueError` if it claims none that may be.
    """
    contents: dict[int, RecordDict] = {}
    weights: list[float] = []
    rejections: list[dict[str, Any]] = []
    nodes = nodes_by_message(asked)
    expected = {message.metadata.dst_node_id for message in asked}
    rows.clear(len(expected), sent.num_columns)
    of_nodes = [(answering_node(message, nodes), message) for message in replies]
    for node, message in sorted(of_nodes, key=lambda one: client_of(one[0])):
        try:
            if node not in expected:
                raise ValueError("was not asked to train in this round")
            if node in contents:
                raise ValueError("answered more than once; the first usable reply counts")
            content = content_of(message)
            weight = weigh(content)
            sent.write_difference(arrays_of(content), rows.next_row())
        except ValueError as error:
            rejections.append({"node": node, "reason": short_reason(error)})
        else:
            rows.keep()
            contents[node] = content
            weights.append(weight)
    silent = expected - contents.keys() - {one["node"] for one in rejections}
    rejections += [{"node": node, "reason": "did not answer"} for node in sorted(silent)]
    return CollectedReplies(contents, weights, rejections)


def client_of(node_id: int) -> int:
    """A node's id, of 64 bits without a sign, as a signed integer: what a tensor of client ids can hold."""
    return node_id - (1 << 64) if node_id >= 1 << 63 else node_id


def short_reason(error: ValueError) -> str:
    """What an error says, on one short line."""
    return clean_reason(str(error))
