"""Every rule beside byzfl and Flower: milliseconds, ratios and extra memory.

Writes `README.md` and `results.json` beside this file. See there for the claim, the command and the last result.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As the command `fedrobust` does, before torch is imported: no threads that spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from peak import peak_gflops
from peers import DIRECTION, GRAM, peers
from report import write_report
from rich.progress import Progress
from torch import Tensor

from fedrobust._linalg.gram import robust_gram_matrix
from fedrobust._linalg.kernels.native import can_compile
from fedrobust._linalg.spectral import top_direction
from fedrobust.aggregators import RULES, RoundContext
from fedrobust.aggregators.base import SizedAggregator, call_rule
from fedrobust.config.building import build, config_folder
from fedrobust.config.component import has_trait
from fedrobust.config.compose import compose_config
from fedrobust.filters.soft_filter import soft_filter

SIZES = ((10, 10**6), (20, 10**6), (50, 10**6), (100, 10**6), (10, 10**7), (20, 10**7), (1000, 10**5))
GPU_SIZES = ((10, 10**7), (50, 10**6), (100, 10**6), (100, 10**7), (1000, 10**5))
"""On a GPU 40 MB are read in the time that a few launches take: sizes at which there is something to do."""

FRACTION = 0.2
SLOW_SECONDS = 5.0
"""A rule or peer that takes longer than this for its first call is timed once, and marked."""

FAST_SECONDS = 1.0
PARTS = ("time", "peers")

REST_SECONDS = 0.1
"""A faster call is made twice after a rest, and the second counts: by then what another left behind is over (cold
caches, threads of OpenBLAS that spin for a while)."""

BATCH_SECONDS = 0.02
"""A shorter call is made as often as lasts so long: one call after a rest would show how cold interpreter and threads
are, not the rule."""


@dataclass
class Timing:
    """Milliseconds of a call, each the mean over a batch of calls."""

    milliseconds: list[float]
    batch: int = 1

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.milliseconds)


def updates(n: int, d: int, f: int, device: torch.device) -> Tensor:
    """N(0, 1) rows of which the last f are shifted by 1: filters have something to do."""
    points = torch.empty(n, d, device=device)
    generator = torch.Generator(device).manual_seed(0)
    for row in points:  # row by row: no second matrix
        row.normal_(generator=generator)
    points[n - f :] += 1.0
    return points


def call_of(rule: Any, points: Tensor) -> Callable[[], object]:
    root = points[0] * 0.5 if has_trait(rule, "needs_root_update") else None
    return lambda: call_rule(rule, points, None, RoundContext(root_update=root))


def time_in_turn(calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, Timing]:
    """Time the calls in turns, after a first call each that is not counted."""
    timings = {name: Timing([]) for name in calls}
    first = {name: _seconds(call, device) for name, call in calls.items()}
    for name, seconds in first.items():
        if seconds > SLOW_SECONDS:
            timings[name].milliseconds.append(seconds * 1e3)
    fast = {name: calls[name] for name, seconds in first.items() if seconds <= FAST_SECONDS}
    for name, call in fast.items():
        timings[name].batch = _batch(call, device)
    for _ in range(repeats):
        for name, call in calls.items():
            if first[name] <= SLOW_SECONDS:
                if name in fast:
                    time.sleep(REST_SECONDS)
                    _seconds(call, device)
                timings[name].milliseconds.append(_seconds(call, device, timings[name].batch) * 1e3)
    return timings


def _batch(call: Callable[[], object], device: torch.device) -> int:
    """How many calls last `BATCH_SECONDS`."""
    number = 1
    while (seconds := number * _seconds(call, device, number)) < BATCH_SECONDS:
        number = max(number + 1, min(10 * number, math.ceil(1.2 * number * BATCH_SECONDS / seconds)))
    return number


def _seconds(call: Callable[[], object], device: torch.device, number: int = 1) -> float:
    """Of one call, the mean over `number` of them, each of which a GPU has finished before the next one starts."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(number):
        answer = call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    del answer
    return seconds / number


def fits(call: Callable[[], object], device: torch.device) -> bool:
    """Whether a peer's call finds room beside the input on a GPU; those that copy it several times may not."""
    if device.type != "cuda":
        return True
    try:
        call()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False
    return True


def returned_memory(call: Callable[[], Any], points: Tensor) -> float:
    """What a call's answer and state hold, as a fraction of the input."""
    answer = call()
    kept = (tensor.untyped_storage() for tensor in (answer.update, *answer.state.values()))
    sizes = {storage.data_ptr(): storage.nbytes() for storage in kept}  # the state may be the answer itself
    return sum(sizes.values()) / (points.numel() * points.element_size())


def extra_memory(call: Callable[[], object], points: Tensor) -> float | None:
    """The peak memory of a call beyond what was there before, as a fraction of the input; `None` if unknown."""
    size = points.numel() * points.element_size()
    gc.collect()
    if points.device.type == "cuda":
        call()  # the workspace of cuBLAS, which the first call creates, is no memory of the rule
        before = torch.cuda.memory_allocated(points.device)
        torch.cuda.reset_peak_memory_stats(points.device)
        call()
        return (torch.cuda.max_memory_allocated(points.device) - before) / size
    call()  # whatever is compiled, loaded or cached on the first call is no memory of the rule
    try:
        return min(_peak(call) for _ in range(3)) / size  # the allocator's own cache comes and goes
    except OSError:
        return None


def _peak(call: Callable[[], object]) -> int:
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept of the last call would hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak that VmHWM reports
    before = _kilobytes("VmRSS")
    call()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def read_floor(points: Tensor, repeats: int, device: torch.device) -> float:
    """Milliseconds of reading the matrix once, as a sum does."""
    return time_in_turn({"sum": points.sum}, repeats, device)["sum"].median


def measure(
    n: int, d: int, rules: list[str], repeats: int, device: torch.device, parts: frozenset[str]
) -> Iterator[dict[str, Any]]:
    """Measure `rules` at one size, one result each; of `parts` without "time" only the memory, without peers."""
    f = math.floor(FRACTION * n)
    points = updates(n, d, f, device)
    head: dict[str, Any] = {"n": n, "d": d, "f": f}
    if "time" in parts:
        head["read_ms"] = read_floor(points, repeats, device)
    for name in rules:
        if name not in (DIRECTION, GRAM):
            row = measure_rule(name, points, f, repeats, parts)
        elif "time" in parts:
            row = (measure_direction if name == DIRECTION else measure_gram)(points, repeats, device)
        else:
            continue
        yield {**head, "rules": {name: row}}


def measure_rule(name: str, points: Tensor, f: int, repeats: int, parts: frozenset[str]) -> dict[str, Any]:
    rule, device = make_rule(name), points.device
    call = call_of(rule, points)
    try:
        if isinstance(rule, SizedAggregator):
            rule.check_size(len(points))
        row: dict[str, Any] = {
            "extra_memory": extra_memory(call, points),
            "returned_memory": returned_memory(call, points),
        }
    except (ValueError, torch.OutOfMemoryError) as error:  # MDA says when there are too many subsets
        return {"refused": str(error)}
    if "time" not in parts:
        return row
    found = peers(name, points, f) if "peers" in parts else {}
    others = {who: peer for who, peer in found.items() if fits(peer, device)}
    row |= row_of(time_in_turn({"fedrobust": call, **others}, repeats, device))
    if name == "spectral_filter":
        filtered = soft_filter(robust_gram_matrix(points), max_removed=2 * f)
        row["num_directions"] = 1 + len(filtered.iterations)
    return row


def measure_direction(points: Tensor, repeats: int, device: torch.device) -> dict[str, Any]:
    """DnC's spectral step on the first 10,000 columns beside the SVD in whose place it stands."""
    sample = points[:, :10_000].contiguous()
    everyone = torch.ones(len(points), dtype=torch.float64)
    calls = {"fedrobust": lambda: top_direction(robust_gram_matrix(sample), everyone), **peers(DIRECTION, sample, 0)}
    return row_of(time_in_turn(calls, repeats, device))


def measure_gram(points: Tensor, repeats: int, device: torch.device) -> dict[str, Any]:
    """The matrix that rules which compare clients build, beside what BLAS takes for it in float32."""
    calls = {"fedrobust": lambda: robust_gram_matrix(points), **peers(GRAM, points, 0)}
    row = row_of(time_in_turn(calls, repeats, device))
    if device.type == "cpu" and can_compile():
        row["peak_gflops"] = peak_gflops()
    return row


def row_of(timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {
        "ms": {who: timing.median for who, timing in timings.items()},
        "spread": {who: [min(timing.milliseconds), max(timing.milliseconds)] for who, timing in timings.items()},
        "count": {who: len(timing.milliseconds) for who, timing in timings.items()},
        "batch": {who: timing.batch for who, timing in timings.items()},
    }


def make_rule(name: str) -> Any:
    """The rule of that name with its defaults from `conf`, at the benchmark's assumed fraction."""
    config = compose_config([f"aggregator={name}"])[0]["aggregator"]
    if config.get("assumed_fraction") is not None:
        config["assumed_fraction"] = FRACTION
    return build(config, "aggregator")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    all_rules = sorted(path.stem for path in (config_folder() / "aggregator").glob("*.yaml"))
    assert len(all_rules) >= len(RULES)
    all_rules.insert(all_rules.index("dnc") + 1, DIRECTION)
    all_rules.insert(all_rules.index("krum"), GRAM)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each")
    parser.add_argument("--rules", default=",".join(all_rules), metavar="NAME,NAME", help="others keep their results")
    parser.add_argument("--sizes", nargs="+", metavar="NxD", help="clients x parameters; chosen for the device")
    parser.add_argument("--output", type=Path, help="folder of README.md and results.json; here, or gpu/ in here")
    parser.add_argument("--without-peers", action="store_true", help="time our rules alone")
    parser.add_argument("--only-memory", action="store_true", help="time nothing: others of its results are kept")
    arguments = parser.parse_args()
    arguments.rules = arguments.rules.split(",")
    if unknown := set(arguments.rules) - set(all_rules):
        parser.error(f"--rules: {', '.join(sorted(unknown))} is none of {', '.join(all_rules)}")
    parts = frozenset() if arguments.only_memory else frozenset({"time"} if arguments.without_peers else PARTS)
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    is_whole = arguments.sizes is None and arguments.rules == all_rules and parts == frozenset(PARTS)
    if arguments.sizes is None:
        arguments.sizes = [f"{n}x{d}" for n, d in (GPU_SIZES if on_gpu else SIZES)]
    if arguments.output is None:
        arguments.output = Path(__file__).parent / ("gpu" if on_gpu else "")
    arguments.output.mkdir(parents=True, exist_ok=True)
    sizes = [(int(n), int(d)) for n, _, d in (text.partition("x") for text in arguments.sizes)]
    file = arguments.output / "results.json"
    # A run over everything keeps nothing of earlier ones.
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() and not is_whole else {}
    results: list[dict[str, Any]] = known.get("results", [])
    machine = {
        **known.get("machine", {}),
        "device": torch.cuda.get_device_name(device) if on_gpu else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": arguments.repeats,
    }
    with Progress() as progress:
        progress.add_task("rules", total=len(sizes) * len(arguments.rules))
        for size in sizes:
            for found in measure(*size, arguments.rules, arguments.repeats, device, parts):
                results = merged(results, found)
                if "time" in parts:
                    machine["load"] = [round(value, 1) for value in os.getloadavg()]
                file.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
                for name, row in found["rules"].items():
                    shown = ", ".join(f"{who} {ms:.3g}" for who, ms in row.get("ms", {}).items()) or row
                    progress.console.print(f"n={size[0]} d={size[1]} {name}: {shown}")
                progress.advance(progress.task_ids[0])
            write_report(arguments.output, machine, results)
            gc.collect()
    return 0


def merged(results: list[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, Any]]:
    """`results` with what was just measured of the rules of one size in place of what was known of it."""
    size = (found["n"], found["d"])
    before = next((one for one in results if (one["n"], one["d"]) == size), {"rules": {}})
    rules = {**before["rules"]}
    for name, row in found["rules"].items():
        rules[name] = row if "refused" in row else {**rules.get(name, {}), **row}
    read = before.get("read_ms", found.get("read_ms"))  # that of the run over all rules
    one = {**found, "read_ms": read, "rules": dict(sorted(rules.items()))}
    sizes = [(result["n"], result["d"]) for result in results]
    return [one if known == size else result for known, result in zip(sizes, results, strict=True)] + (
        [] if size in sizes else [one]
    )


if __name__ == "__main__":
    sys.exit(main())
