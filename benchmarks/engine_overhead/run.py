"""What a round costs besides training: idle clients, 10^5 parameters, on Flower's own engine and on ours.

Writes results.json and the table in README.md beside this file. Needs the extra `ray`.
"""

import itertools
import json
import logging
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command `fedrobust` does, before torch is imported
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from federation import federation_server_app, noop_federation, noop_population_app
from noop import NUM_PARAMETERS, TimedFedAvg, fedavg_server_app, noop_client_app

from fedrobust.engines import Local

HERE = Path(__file__).parent
LOCAL_ROUNDS, RAY_ROUNDS = 50, 5


def ours(num_clients: int, num_nodes: int) -> list[float]:
    """Times of fedrobust's rounds on its local engine."""
    federation = noop_federation(num_clients, LOCAL_ROUNDS)
    times: list[float] = []
    client_app = noop_population_app(NUM_PARAMETERS, num_clients // num_nodes)
    Local(num_nodes=num_nodes).run(federation_server_app(federation, times), client_app, num_clients)
    return times


def fedavg_on_local(num_clients: int) -> list[float]:
    """Times of Flower's FedAvg on fedrobust's local engine."""
    strategy = TimedFedAvg(num_clients)
    Local(num_nodes=num_clients).run(fedavg_server_app(strategy, LOCAL_ROUNDS), noop_client_app(), num_clients)
    return strategy.times


def fedavg_on_ray(num_clients: int) -> list[float]:
    """Times of Flower's FedAvg on Flower's simulation runtime, its actors one to a core."""
    from flwr.simulation import run_simulation

    strategy = TimedFedAvg(num_clients)
    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(
        fedavg_server_app(strategy, RAY_ROUNDS),
        noop_client_app(),
        num_clients,
        backend_config={"client_resources": resources},
    )
    return strategy.times


def measure(num_clients: int) -> list[dict[str, object]]:
    """All engines for one number of clients."""
    runs = [
        ("fedrobust, local engine, all clients on one node", lambda: ours(num_clients, 1)),
        ("fedrobust, local engine, one client a node", lambda: ours(num_clients, num_clients)),
        ("Flower's FedAvg, fedrobust's local engine", lambda: fedavg_on_local(num_clients)),
        ("Flower's FedAvg, flwr[simulation] on Ray", lambda: fedavg_on_ray(num_clients)),
    ]
    rows = []
    for name, play in runs:
        called = time.perf_counter()
        times = play()
        rounds = [1e3 * (end - start) for start, end in itertools.pairwise(times)]
        later = rounds[1:]
        rows.append(
            {
                "setting": name,
                "num_clients": num_clients,
                "start_ms": 1e3 * (times[0] - called),
                "first_round_ms": rounds[0],
                "median_ms": statistics.median(later),
                "min_ms": min(later),
                "max_ms": max(later),
                "num_rounds": len(rounds),
            }
        )
        print(rows[-1], flush=True)
    return rows


def hardware() -> str:
    """Processor, cores and versions, in a line."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "flwr", "ray"))
    machine = f"{os.cpu_count()} cores, {model}, load average {load:.1f} at the start"
    return f"{machine}; Python {platform.python_version()}, {versions}"


def table(rows: list[dict[str, object]]) -> str:
    """The rows in Markdown."""
    lines = ["| clients | | start | first round | median | min | max | rounds |", "|--:|:--|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        figures = [f"{row[key]:.1f}" for key in ("start_ms", "first_round_ms", "median_ms", "min_ms", "max_ms")]
        lines.append(f"| {row['num_clients']} | {row['setting']} | {' | '.join(figures)} | {row['num_rounds']} |")
    return "\n".join(lines)


def main() -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    where = hardware()
    torch.ones(1).sum()  # torch's threads start here, not in the first round
    rows = [row for num_clients in (10, 100) for row in measure(num_clients)]
    (HERE / "results.json").write_text(json.dumps({"hardware": where, "results": rows}, indent=2) + "\n")
    readme = HERE / "README.md"
    head, _, rest = readme.read_text().partition("<!-- results -->")
    _, _, tail = rest.partition("<!-- end of results -->")
    body = f"\n{where}. Milliseconds.\n\n{table(rows)}\n"
    readme.write_text(f"{head}<!-- results -->{body}<!-- end of results -->{tail}")


if __name__ == "__main__":
    main()
