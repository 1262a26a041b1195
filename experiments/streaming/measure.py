"""One rule on one memory-mapped file, in a process of its own: seconds, peak anonymous memory, and the same in memory.

    python measure.py FILE N D RULE    # prints one line of JSON

`run.py` beside this file calls it.
"""

import ctypes
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor

from fedrobust._linalg.columns import open_memory_map
from fedrobust.aggregators.base import RoundContext, call_rule
from fedrobust.config.building import build
from fedrobust.config.compose import compose_config

FRACTION = 0.2
WARM_CALLS = 3
SAMPLE_SECONDS = 0.001
WARM_UP_COLUMNS = 1 << 13


class PeakOfAnonymousMemory:
    """The largest `RssAnon` of this process while the block runs, by a thread that looks a thousand times a second.

    Pages of the mapped file are not in it: they are the page cache's, which the kernel takes back when it needs them.
    """

    def __enter__(self) -> "PeakOfAnonymousMemory":
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator kept would hide what is taken next
        self.before = self.peak = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = max(self.peak, anonymous_bytes())
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def drop_from_page_cache(path: Path) -> None:
    """So that the next reader reads from the disk."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rule_call(name: str) -> Callable[[Tensor], Tensor]:
    config = compose_config([f"aggregator={name}"])[0]["aggregator"]
    if config.get("assumed_fraction") is not None:
        config["assumed_fraction"] = FRACTION
    rule = build(config, "aggregator")
    return lambda points: call_rule(rule, points, None, RoundContext()).update


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.perf_counter()
    answer = call()
    return time.perf_counter() - started, answer


def measure(path: Path, n: int, d: int, name: str) -> dict[str, Any]:
    rule = rule_call(name)
    rule(open_memory_map(path, n, d)[:, :WARM_UP_COLUMNS].clone())  # compiles and loads what any size needs
    drop_from_page_cache(path)
    with PeakOfAnonymousMemory() as memory:
        cold, answer = timed(lambda: rule(open_memory_map(path, n, d)))
        warm = [timed(lambda: rule(open_memory_map(path, n, d)))[0] for _ in range(WARM_CALLS)]
    in_memory = torch.from_numpy(np.fromfile(path, dtype=np.float32).reshape(n, d))
    seconds, expected = timed(lambda: rule(in_memory))
    return {
        "n": n,
        "d": d,
        "rule": name,
        "seconds_from_disk": cold,
        "seconds_from_cache": statistics.median(warm),
        "seconds_in_memory": seconds,
        "extra_bytes": memory.peak - memory.before,
        "is_equal": torch.equal(answer, expected),
        "largest_difference": float((answer - expected).abs().max()),
        "bytes_read": os.stat(path).st_size,
    }


if __name__ == "__main__":
    file, n_text, d_text, rule_name = sys.argv[1:]
    print(json.dumps(measure(Path(file), int(n_text), int(d_text), rule_name)))
