"""The server under `flwr run`: what a failure leaves, and that a run goes on over the nodes."""

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp.server_app import ServerApp

from fedrobust.config.building import ConfigError
from fedrobust.config.compose import compose_overrides
from fedrobust.engines.local import LocalGrid
from fedrobust.flower.apps import make_client_app
from fedrobust.flower_app import server_app
from fedrobust.records.run_folder import RunFolder
from fedrobust.scenario import build_scenario, prepare_clients

OVERRIDES = "num_clients=4 attack=none aggregator=mean checkpoint_every=1 verbose=false plot_formats=[] control=false"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plot_run", "plot_partition", "plot_examples"):
        monkeypatch.setattr(f"fedrobust.runs.run.{name}", lambda *_args, **_kwargs: None)


def serve(folder: Path, overrides: str, *, fails: bool = False, **options: Any) -> None:
    """What Flower's runtime does with the app, on two nodes of this process."""
    population = prepare_clients(build_scenario(compose_overrides(overrides)[0]))

    def load(_context: Context) -> Any:
        if fails:
            raise RuntimeError("no data on this node")
        return population

    config = {"overrides": overrides, "folder": str(folder), "num-nodes": 2, "start-timeout": 5.0, **options}
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    app: ServerApp = server_app.app
    app(LocalGrid(make_client_app(load), 2), context)


def rounds(folder: Path) -> list[dict[str, Any]]:
    rows = RunFolder(folder).read_rounds()
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]


def test_a_run_goes_on_over_the_nodes(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    serve(whole, f"{OVERRIDES} num_rounds=3")
    serve(cut, f"{OVERRIDES} num_rounds=2")
    with pytest.raises(ConfigError, match="already holds a run"):
        serve(cut, f"{OVERRIDES} num_rounds=3")
    serve(cut, f"{OVERRIDES} num_rounds=3", resume=True)
    assert rounds(cut) == rounds(whole)
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_another_scenario_is_not_gone_on_with(tmp_path: Path) -> None:
    serve(tmp_path / "run", f"{OVERRIDES} num_rounds=2")
    with pytest.raises(ConfigError, match=r"has changed since round 2 \(seed: 0 -> 1\)"):
        serve(tmp_path / "run", f"{OVERRIDES} num_rounds=3 seed=1", resume=True)


def test_a_failure_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="none of 2 Flower nodes could load the scenario"):
        serve(tmp_path / "run", f"{OVERRIDES} num_rounds=2", fails=True)
    failure = json.loads((tmp_path / "run" / "failure.json").read_text())
    assert "no data on this node" in failure["reason"]
    assert failure["traceback"].startswith("Traceback")
    serve(tmp_path / "run", f"{OVERRIDES} num_rounds=2", resume=True)
    assert not (tmp_path / "run" / "failure.json").exists()
    assert len(rounds(tmp_path / "run")) == 3
