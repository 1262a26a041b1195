"""Set up what must be in place before torch and flwr are imported; small models are trained on one thread."""

import os

# As the command line does: threads that spin while they wait slow every test down where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

_THREADED = {"aggregators", "contracts", "preaggregators", "server_optimizers", "statistics"}
"""Folders of what runs on several threads, and must be tested so."""


@pytest.fixture(scope="module", autouse=True)
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where small models are trained, or trees grown: a second thread costs them more than it gives."""
    below = Path(request.path).relative_to(Path(__file__).parent).parts
    if below[0] in _THREADED:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker play a whole file, whose fixtures it then makes once; Ray starts in one worker alone."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            name = "ray" if item.get_closest_marker("ray") else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(name))
