"""What we use of Flower's private parts. A failure here means that Flower has changed: see `flower/identity.py`."""

import inspect

import flwr
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedrobust.flower.identity import SERVER_NODE_ID, assume_identity


def test_flower_is_of_a_tested_version() -> None:
    """The pin in pyproject.toml; a release outside it has to be tested first."""
    assert flwr.__version__.split(".")[:2] == ["1", "41"]


def test_messages_come_from_the_server_of_the_run() -> None:
    run = assume_identity(42)
    message = Message(RecordDict(), 7, "train")
    assert (message.metadata.run_id, message.metadata.src_node_id) == (42, SERVER_NODE_ID)
    assert isinstance(run, Run)
    assert run.run_id == 42


def test_without_an_identity_flower_makes_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this passes one day without `assume_identity`, that module can go."""
    for name in ("_run_id", "_node_id", "_task_id"):
        assert hasattr(TaskIdentity, name)
        monkeypatch.setattr(TaskIdentity, name, None)
    with pytest.raises(RuntimeError, match="TaskIdentity"):
        Message(RecordDict(), 7, "train")


def test_a_reply_goes_back_to_where_the_message_came_from() -> None:
    assume_identity(1)
    message = Message(RecordDict(), 7, "train")
    message.metadata.__dict__["_message_id"] = "here"  # as LocalGrid and Flower's own grids set it
    assert message.metadata.message_id == "here"
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.src_node_id == 7
    assert reply.metadata.dst_node_id == SERVER_NODE_ID
    assert reply.metadata.reply_to_message_id == "here"


def test_run_simulation_takes_what_the_ray_engine_gives() -> None:
    """Deprecated by Flower; fedrobust/engines/ray.py is the only caller."""
    from flwr.simulation import run_simulation

    taken = inspect.signature(run_simulation).parameters
    assert {"server_app", "client_app", "num_supernodes", "backend_config"} <= set(taken)
