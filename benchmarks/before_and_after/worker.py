"""Measures one checkout of fedrobust; asked by run.py over standard input, one measurement a line.

The interpreter that runs this file has the checkout's root on its path, so that `import fedrobust` is that checkout.
"""

import itertools
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command `fedrobust` does, before torch is imported
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

import fedrobust
from fedrobust import aggregators
from fedrobust.aggregators import base
from fedrobust.study import play_rounds, prepare_scenario

CHECKOUT = Path(fedrobust.__file__).parent.parent
SHORTEST = 0.02
"""Calls are repeated until a measurement lasts this long, in seconds."""


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds of one call, a mean over as many as take `SHORTEST`, after one that is not counted."""
    call()
    num_calls, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < SHORTEST or not num_calls:
        call()
        num_calls += 1
    return passed / num_calls


class Measurements:
    """Every measurement by its kind; inputs that are large are kept between the repeats of one measurement."""

    def __init__(self) -> None:
        self.key: tuple[int, int] | None = None
        self.updates = torch.empty(0)

    def updates_of(self, num_clients: int, num_parameters: int) -> torch.Tensor:
        """(n, d) float32 updates; the last fifth of the clients is shifted by a tenth of a spread."""
        if self.key != (num_clients, num_parameters):
            self.key = (num_clients, num_parameters)
            generator = torch.Generator().manual_seed(0)
            self.updates = torch.randn(num_clients, num_parameters, generator=generator) * 0.01
            self.updates[num_clients - num_clients // 5 :] += 0.001
        return self.updates

    def read(self, num_clients: int, num_parameters: int) -> float:
        """Seconds of one pass over the updates (`Tensor.sum`), the floor of any rule."""
        return seconds_of(self.updates_of(num_clients, num_parameters).sum)

    def rule(self, name: str, num_clients: int, num_parameters: int) -> float:
        """Seconds of a rule that is told the truth, a fifth of the clients, where it asks."""
        updates = self.updates_of(num_clients, num_parameters)
        kind = {rule.__name__: rule for rule in aggregators.RULES}[name]
        try:
            rule = kind(assumed_fraction=0.2)
        except TypeError:
            rule = kind()
        context = base.RoundContext(root_update=updates[0] * 0.5)
        call = getattr(base, "call_rule", None) or base.apply_rule  # its name in older checkouts
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return seconds_of(lambda: call(rule, updates, None, context))

    def squared_norms(self, num_clients: int, num_parameters: int) -> float:
        """Seconds of the norms of all updates, which the rules that clip begin with."""
        from fedrobust._linalg.gram import squared_norms

        updates = self.updates_of(num_clients, num_parameters)
        return seconds_of(lambda: squared_norms(updates))

    def idle_round(self, num_clients: int, num_nodes: int) -> float:
        """Seconds of a round around clients that train nothing (benchmarks/engine_overhead), a median of 50."""
        if str(engine_overhead := CHECKOUT / "benchmarks" / "engine_overhead") not in sys.path:
            sys.path.insert(0, str(engine_overhead))
        from federation import federation_server_app, noop_federation, noop_population_app
        from noop import NUM_PARAMETERS

        from fedrobust.engines import Local

        times: list[float] = []
        client_app = noop_population_app(NUM_PARAMETERS, num_clients // num_nodes)
        server_app = federation_server_app(noop_federation(num_clients, 50), times)
        Local(num_nodes=num_nodes).run(server_app, client_app, num_clients)
        return statistics.median(end - start for start, end in itertools.pairwise(times[1:]))

    def played_round(self, *overrides: str) -> float:
        """Seconds of training, messages and aggregation of a round of a scenario, a median over all but the first."""
        rows = play_rounds(prepare_scenario(list(overrides)))
        parts = ("training", "messages", "aggregation")
        return statistics.median(sum(row[f"seconds_{part}"] for part in parts) for row in rows[1:])


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what the project prints may not stand among the answers
    torch.ones(1).sum()
    measurements = Measurements()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer: Any = getattr(measurements, name)(*arguments)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
