"""What clients say when they fail: one short line in log and records, whatever they put into it."""

import unicodedata
from typing import Any

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrobust.config.compose import compose_config
from fedrobust.engines.local import LocalGrid
from fedrobust.error_text import MAX_REASON, clean_reason
from fedrobust.flower import apps
from fedrobust.scenario import build_scenario, prepare

TINY = ["attack=none", "aggregator=mean", "num_clients=4", "num_rounds=1", "client.num_epochs=1"]

RAY = (
    "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=1, "
    'ip=10.0.0.1, actor_id=3a)\\n  File "/a/b.py", line 7, in run\\n    raise ValueError("boom")\\n\\nThe above '
    "exception was the direct cause of the following exception:\\n\\nray::ClientAppActor.run() (pid=1)\\n  File "
    '"x.py", line 3\\nfedrobust.x.ClientAppException: \\nValueError: boom of a client\'>'
)
TEXTS: dict[str, tuple[str, str]] = {
    "plain": ("boom", "boom"),
    "two lines": ("first\nsecond", "first second"),
    "white space": ("  a \t b \r\n c ", "a b c"),
    "colours": ("\x1b[31mred\x1b[0m", "red"),
    "bold and colours": ("\x1b[1;38;5;12mx\x1b[m y", "x y"),
    "a title for the terminal": ("\x1b]0;owned\x07text", "text"),
    "a link": ("\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\", "here"),
    "clear the screen": ("\x1b[2J\x1b[Hround 2 ok", "round 2 ok"),
    "an eight-bit escape": ("\x9b31mred", "red"),
    "a lone escape": ("a\x1bb", "ab"),
    "NUL": ("a\x00b", "ab"),
    "bell and backspace": ("a\x07\x08b", "ab"),
    "delete": ("a\x7fb", "ab"),
    "direction": ("abc\u202edef\u202c", "abcdef"),
    "isolates": ("\u2066abc\u2069", "abc"),
    "zero width": ("a\u200bb\ufeffc", "abc"),
    "line separators": ("a\u2028b\u2029c\x85d", "a b c d"),
    "a surrogate": ("a\ud800b", "ab"),
    "letters of the world": ("Größe 大きさ", "Größe 大きさ"),
    "a faked line of the log": (
        "x\n[2026-01-01][fedrobust][INFO] - round 2/2",
        "x [2026-01-01][fedrobust][INFO] - round 2/2",
    ),
    "one long word": ("x" * 100_000, "x" * (MAX_REASON - 4) + " ..."),
    "many words": ("word " * 1000, ("word " * 1000)[: MAX_REASON - 4].rstrip() + " ..."),
    "a traceback": (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise KeyError("k")\nKeyError: \'k',
        "KeyError: 'k",
    ),
    "Ray": (RAY, "ValueError: boom of a client"),
    "empty": ("", ""),
}


@pytest.mark.fault(
    "Clients", "an error's text with control characters, or without end", "one short line that says what was raised"
)
@pytest.mark.parametrize("name", TEXTS)
def test_is_one_short_line(name: str) -> None:
    given, expected = TEXTS[name]
    found = clean_reason(given)
    assert found == expected
    assert len(found) <= MAX_REASON
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in found)
    assert clean_reason(found) == found


@pytest.mark.fault("Clients", "a client that raises with such a text", "its line in log and records is clean")
@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("a surrogate", "empty")])
@pytest.mark.parametrize("num_nodes", [1, 4])
def test_in_a_round(
    name: str, num_nodes: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(build_scenario(compose_config(TINY)[0]))

    def fail(*_: Any) -> Any:
        raise ValueError(TEXTS[name][0])

    monkeypatch.setattr("fedrobust.clients.population.train_cohort", fail)
    monkeypatch.setattr("fedrobust.clients.population.train_alone", fail)
    app = apps.make_client_app(lambda _context: prepared.population)
    rows: list[Any] = []
    apps.play_rounds(prepared.federation, LocalGrid(app, num_nodes), rows.append)
    assert [one["client"] for one in rows[0]["rejected"]] == [0, 1, 2, 3]
    for one in rows[0]["rejected"]:
        assert one["reason"].startswith("failed: ")
        assert len(one["reason"]) <= MAX_REASON + len("failed: ")
        assert all(unicodedata.category(letter) not in ("Cc", "Cf") for letter in one["reason"])
    assert all("\x1b" not in record.getMessage() for record in caplog.records)


ANSWERS: dict[str, Any] = {
    "None": lambda: None,
    "a number": lambda: 17,
    "a text": lambda: "done",
    "a dict": dict,
    "SystemExit": lambda: (_ for _ in ()).throw(SystemExit(3)),
    "sys.exit of a text": lambda: (_ for _ in ()).throw(SystemExit("bye")),
    "an exception": lambda: (_ for _ in ()).throw(RuntimeError("boom")),
    "an exception of its own": lambda: (_ for _ in ()).throw(type("Odd", (Exception,), {})("x")),
    "a recursion": lambda: (_ for _ in ()).throw(RecursionError("deep")),
    "no memory": lambda: (_ for _ in ()).throw(MemoryError()),
}


@pytest.mark.fault("Clients", "an app that answers with no message, or leaves", "its clients are rejected")
@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("node", [0, 3])
def test_a_strange_app(name: str, node: int) -> None:
    prepared = prepare(build_scenario(compose_config(TINY)[0]))
    inner = apps.make_client_app(lambda _context: prepared.population)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Any:
        return ANSWERS[name]() if context.node_config["partition-id"] == node else inner(message, context)

    rows: list[Any] = []
    apps.play_rounds(prepared.federation, LocalGrid(app, 4), rows.append)
    assert [one["client"] for one in rows[0]["rejected"]] == [node]
    assert rows[0]["num_received"] == 3


def test_ctrl_c_in_an_app_ends_the_run() -> None:
    prepared = prepare(build_scenario(compose_config(TINY)[0]))
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apps.play_rounds(prepared.federation, LocalGrid(app, 4), print)


class _Runtime(LocalGrid):
    """A grid in which some nodes die: the runtime answers for them, with an id of its own, or with none."""

    def __init__(self, app: ClientApp, dead: tuple[int, ...], source: int) -> None:
        super().__init__(app, 2)
        self.dead, self.source = dead, source

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        replies = []
        for reply in super().send_and_receive(messages, timeout=timeout):
            if reply.metadata.src_node_id in self.dead:
                from flwr.app import Error

                asked = reply.metadata.reply_to_message_id
                order = Message(reply.content, reply.metadata.src_node_id, "train")
                reply = Message(Error(code=3, reason="Error: Node Unavailable"), reply_to=order)
                reply.metadata.__dict__["_src_node_id"] = self.source
                reply.metadata.__dict__["_reply_to_message_id"] = asked
            replies.append(reply)
        return replies


@pytest.mark.fault("Clients", "a node that dies in a round", "each of its clients is rejected once, by its id")
@pytest.mark.parametrize("source", [0, 1, 2, 3, 99, 2**63])
@pytest.mark.parametrize("dead", [(2,), (3,), (2, 3)])
def test_a_dead_node(dead: tuple[int, ...], source: int) -> None:
    prepared = prepare(build_scenario(compose_config(TINY)[0]))
    app = apps.make_client_app(lambda _context: prepared.population)
    rows: list[Any] = []
    apps.play_rounds(prepared.federation, _Runtime(app, dead, source), rows.append)
    lost = [client for client in range(4) if 2 + client // 2 in dead]
    assert [one["client"] for one in rows[0]["rejected"]] == lost
    assert {one["reason"] for one in rows[0]["rejected"]} == {"failed: Error: Node Unavailable"}
    assert rows[0]["clients"] == [client for client in range(4) if client not in lost]


@pytest.mark.parametrize(
    "wanted", ["engine.num_cpus_per_node=640", "engine.num_gpus_per_node=64", "engine.num_gpus_per_node=8.5"]
)
def test_ray_nodes_that_cannot_fit_are_refused_before_anything_starts(wanted: str) -> None:
    pytest.importorskip("ray")
    from fedrobust.config.building import ConfigError

    field = wanted.split("=")[0]
    with pytest.raises(ConfigError, match=rf"^{field}: must be at most \d+, the (cores|GPUs) of this machine, got"):
        build_scenario(compose_config([*TINY, "engine=ray", wanted])[0])
    build_scenario(compose_config([*TINY, "engine=ray", wanted, "engine.address=ray://host:10001"])[0])


@pytest.mark.fault("Clients", "a tensor of a strange kind in a reply", "its client is rejected; the round goes on")
@pytest.mark.parametrize("kind", ["sparse", "sparse rows", "complex", "boolean", "quantised", "integers", "half"])
@pytest.mark.parametrize("field", ["updates", "losses"])
def test_strange_tensors(kind: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace as changed

    from fedrobust.clients.population import Population

    prepared = prepare(build_scenario(compose_config(TINY)[0]))
    train = Population.train

    def strange(self: Population, round_number: int, clients: Any, *args: Any, **kwargs: Any) -> Any:
        found = train(self, round_number, clients, *args, **kwargs)
        if 1 not in clients:
            return found
        values = getattr(found, field)
        made = {
            "sparse": lambda: values.to_sparse(),
            "sparse rows": lambda: values.to_sparse_csr() if values.ndim == 2 else values.to_sparse(),
            "complex": lambda: values.to(torch.complex64),
            "boolean": lambda: values > 0,
            "quantised": lambda: torch.quantize_per_tensor(values, 0.1, 0, torch.qint8),
            "integers": lambda: values.long(),
            "half": lambda: values.half(),
        }[kind]()
        return changed(found, **{field: made})

    monkeypatch.setattr(Population, "train", strange)
    app = apps.make_client_app(lambda _context: prepared.population)
    rows: list[Any] = []
    apps.play_rounds(prepared.federation, LocalGrid(app, 4), rows.append)
    rejected = [one["client"] for one in rows[0]["rejected"]]
    assert rejected == ([] if kind == "half" else [1])  # numbers of fewer digits are numbers
    assert rows[0]["num_received"] == 4 - len(rejected)
