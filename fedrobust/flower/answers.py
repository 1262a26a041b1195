"""Which node a reply is of."""

from collections.abc import Iterable, Mapping

from flwr.app import Message


def nodes_by_message(sent: Iterable[Message]) -> dict[str, int]:
    """Which node each message went to, by the message's id, which a grid sets when it sends."""
    ids = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
    ids.pop("", None)
    return ids


def answering_node(reply: Message, nodes: Mapping[str, int]) -> int:
    """The node that a reply is of.

    An error in a node's place (it died, its time is over) is the runtime's, which does not sign with the node's id.

    Args:
        reply: a reply, or an error.
        nodes: as `nodes_by_message` gives.
    """
    source = reply.metadata.src_node_id
    return nodes.get(reply.metadata.reply_to_message_id, source) if reply.has_error() else source
