"""Times of pieces of work, and what they were measured on."""

import os
import time
from collections.abc import Callable, Sequence

import torch


def seconds_in_turns(works: Sequence[Callable[[], object]], repeats: int, device: torch.device) -> list[list[float]]:
    """Seconds of each repetition of each piece of work; they take turns, so that what else runs here hits all alike.

    Args:
        works: what to do.
        repeats: how often.
        device: where it is done; a GPU is waited for.
    """
    turns = [[_seconds_of(work, device) for work in works] for _ in range(repeats)]
    return [list(column) for column in zip(*turns, strict=True)]


def hardware(device: torch.device) -> str:
    """The processors, how busy they are, and PyTorch's version, in words."""
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    processors = f"{len(os.sched_getaffinity(0))} CPU cores, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        processors = f"{torch.cuda.get_device_name(device)}; {processors}"
    return f"{processors}; load average at the start {busy} (1, 5, 15 minutes); PyTorch {torch.__version__}"


def _seconds_of(work: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
