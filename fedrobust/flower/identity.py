"""What a Flower runtime sets and the in-process engine, which is none, must set itself.

`flwr.app.Message` reads run, node and task id from `flwr.supercore.task_identity.TaskIdentity`, and a `Grid` speaks of
a `flwr.supercore.run.Run`: both are private classes that SuperLink and the simulation runtime fill in. This is the only
place that touches them; `tests/flower/test_identity.py` fails loudly when Flower changes them.
"""

from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SERVER_NODE_ID = 1


def assume_identity(run_id: int) -> Run:
    """Make messages created in this process come from the server of run `run_id`."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SERVER_NODE_ID
    TaskIdentity.task_id = 1
    return Run.create_empty(run_id)
