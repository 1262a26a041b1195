"""Set up what must be in place before torch and flwr are imported; small models are trained on one thread."""

import os

# As the command line does: threads that spin while they wait slow every test down where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits

_THREADED = {"_linalg", "aggregators", "preaggregators", "server_optimizers"}
"""Folders of what runs on several threads, and must be tested so."""
_RAY = ("test_ray.py", "test_attacks_on_engines.py", "test_flower_app.py", "test_quickstart_example.py")


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one worker play a whole file, whose fixtures it then makes once, and one worker all that starts Ray."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "Ray" if path.endswith(_RAY) else path

    return ByFile(config, log)
