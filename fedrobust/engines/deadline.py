"""A ClientApp that does not outlive its message.

A client that never answers would keep its Ray actor for ever, round after round another one, and in the end the run
itself from ending. Python cannot end a call that hangs, so the actor's process is ended, by the kernel's alarm clock.
"""

import signal
import time

from flwr.app import Context, Message
from flwr.clientapp import ClientApp


def end_with_message(client_app: ClientApp) -> ClientApp:
    """The same app, for a process of its own, which dies if an answer takes longer than the message lives."""
    app = ClientApp()

    @app.train()
    @app.query()
    def answer(message: Message, context: Context) -> Message:
        left = message.metadata.created_at + message.metadata.ttl - time.time()
        if left <= 0:
            raise TimeoutError(f"the message had expired {-left:.1f} s before the node could look at it")
        if not hasattr(signal, "setitimer"):  # Windows
            return client_app(message, context)
        signal.setitimer(signal.ITIMER_REAL, left)  # SIGALRM ends a process that does not handle it
        try:
            return client_app(message, context)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return app
