"""A client that outlives its message is ended with its process; so the processes here are made for it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedrobust.engines.deadline import end_with_message
from fedrobust.flower.identity import assume_identity

CONTEXT = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def message(ttl: float) -> Message:
    assume_identity(1)
    return Message(RecordDict(), 2, "train", ttl=ttl)


def app_that(sleeps: float) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        time.sleep(sleeps)
        return Message(RecordDict(), reply_to=message)

    return end_with_message(app)


def test_a_client_in_time_answers_and_the_alarm_is_off_afterwards() -> None:
    assert app_that(sleeps=0)(message(ttl=100), CONTEXT).has_content()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_alarm_is_off_after_a_client_that_raises() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(100, abs=5)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        end_with_message(app)(message(ttl=100), CONTEXT)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_expired_message_is_not_worked_on() -> None:
    late = message(ttl=5)
    late.metadata.__dict__["_created_at"] -= 60
    with pytest.raises(TimeoutError, match=r"expired 5\d\.\d s before"):
        app_that(sleeps=1000)(late, CONTEXT)


def test_a_client_that_hangs_takes_its_process_with_it() -> None:
    """A busy loop that never comes back: SIGALRM ends the process, as POSIX has it for an unhandled one."""
    code = """
from test_deadline import CONTEXT, message
from flwr.clientapp import ClientApp
from fedrobust.engines.deadline import end_with_message
app = ClientApp()
@app.train()
def train(message, context):
    while True:
        pass
end_with_message(app)(message(ttl=0.5), CONTEXT)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, timeout=60)
    assert done.returncode == -signal.SIGALRM
