"""Trackers that fail: one line, and the run comes out as it would without them."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SCENARIO, assert_same_run, command

from fedrobust.records.loggers import MLflow, WandB, open_tracker
from fedrobust.records.run_folder import RunFolder

# What MLflow imports warns of its own use of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::sqlalchemy.exc.SADeprecationWarning")


def breaks(*methods: str) -> Callable[[pytest.MonkeyPatch], None]:
    """TensorBoard that raises in some of its methods."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("the share is gone\x1b[31m")

        names = {"open": "TensorBoard.open", "log": "_TensorBoardRun.log_round", "finish": "_TensorBoardRun.finish"}
        for method in methods:
            monkeypatch.setattr(f"fedrobust.records.loggers.{names[method]}", fail)

    return patch


@pytest.mark.fault("Trackers", "a tracker that raises", "one line; the run goes on to the same bytes")
@pytest.mark.parametrize("methods", [("open",), ("log",), ("finish",), ("log", "finish")], ids="-".join)
def test_a_tracker_that_raises(
    tmp_path: Path,
    whole: Path,
    methods: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    breaks(*methods)(monkeypatch)
    code, said = command([*SCENARIO, "logger=tensorboard", f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert code == 0, said
    lines = [line for line in (tmp_path / "run" / "fedrobust.log").read_text().splitlines() if "tracker" in line]
    assert len(lines) == 1
    assert lines[0].endswith("the tracker has failed, and the run goes on without it: OSError: the share is gone")
    (tmp_path / "run" / "choices.json").write_bytes((whole / "choices.json").read_bytes())
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.fault("Trackers", "an MLflow server that is not there", "one line within seconds; the run goes on")
@pytest.mark.parametrize("uri", ["http://localhost:1", "http://127.0.0.1:9", "https://localhost:2/x"])
def test_a_dead_server(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    folder = RunFolder(tmp_path / "run")
    folder.create()
    started = time.monotonic()
    tracker = open_tracker(MLflow(tracking_uri=uri), folder, {"seed": 0})
    tracker.log_round({"round": 1, "clean_accuracy": 0.5})
    tracker.finish(None)
    assert time.monotonic() - started < 30
    assert len([one for one in caplog.records if "goes on without it" in one.getMessage()]) == 1


@pytest.mark.fault("Trackers", "a store that is half made or damaged", "made anew, or one line; the run goes on")
@pytest.mark.parametrize("left", ["unfinished", "unfinished empty", "damaged", "directory"])
def test_half_a_store(tmp_path: Path, left: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    folder = RunFolder(tmp_path / "run")
    folder.create()
    if left == "unfinished":
        with sqlite3.connect(folder.path / ".mlflow.db.unfinished") as half:
            half.execute("CREATE TABLE evaluation_datasets (x INTEGER)")
        half.close()
    elif left == "unfinished empty":
        (folder.path / ".mlflow.db.unfinished").write_bytes(b"")
    elif left == "damaged":
        (folder.path / "mlflow.db").write_bytes(b"no database at all" * 100)
    else:
        (folder.path / "mlflow.db").mkdir()
    tracker = open_tracker(MLflow(), folder, {"seed": 0})
    tracker.log_round({"round": 1, "clean_accuracy": 0.5})
    tracker.finish({"clean_accuracy": 0.5})
    lines = [one for one in caplog.records if "goes on without it" in one.getMessage()]
    assert len(lines) == (0 if left.startswith("unfinished") else 1)
    if not lines:
        assert (folder.path / "mlflow.db").is_file()
        assert not (folder.path / ".mlflow.db.unfinished").exists()


def test_the_runs_of_a_sweep_share_a_store(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    (tmp_path / "multirun.yaml").write_text("hydra: {}\n")
    for number in (0, 1):
        folder = RunFolder(tmp_path / str(number))
        folder.create()
        tracker = MLflow().open(folder, {"seed": number})
        tracker.log_round({"round": 1, "clean_accuracy": 0.5})
        tracker.finish({})
        assert not (folder.path / "mlflow.db").exists()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("fedrobust").experiment_id])
    assert {run.data.params["seed"] for run in runs} == {"0", "1"}


class FakeRun:
    """What `wandb.init` returns, as far as it is used."""

    def __init__(self, **given: Any) -> None:
        self.given, self.id = given, given["id"] or "r1"
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.exit_code: int | None = None

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


def test_wandb_is_told_the_rounds_and_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    made: list[FakeRun] = []
    monkeypatch.setattr(wandb, "init", lambda **given: made.append(FakeRun(**given)) or made[-1])
    folder = RunFolder(tmp_path / "run")
    folder.create()
    first = WandB().open(folder, {"seed": 3})
    first.log_round({"round": 1, "clean_accuracy": 0.5, "clients": [0, 1], "train_loss": float("nan")})
    first.finish(None)
    second = WandB(mode="online").open(folder, {"seed": 3}, start_round=1)
    second.log_round({"round": 2, "clean_accuracy": 0.75})
    second.finish({"clean_accuracy": 0.75})
    assert [run.given["mode"] for run in made] == ["offline", "online"]
    assert made[0].given["config"] == {"seed": 3}
    assert made[0].logged == [(1, {"clean_accuracy": 0.5})]
    assert (made[0].exit_code, made[1].exit_code) == (1, 0)
    assert (made[0].given["id"], made[1].given["id"], made[1].given["resume"]) == (None, "r1", "allow")
    assert made[1].summary == {"summary/clean_accuracy": 0.75}


@pytest.mark.slow
def test_wandb_offline_writes_below_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    folder = RunFolder(tmp_path / "run")
    folder.create()
    tracker = WandB().open(folder, {"seed": 3})
    tracker.log_round({"round": 1, "clean_accuracy": 0.5})
    tracker.finish({"clean_accuracy": 0.5})
    (written,) = (folder.path / "wandb").glob("offline-run-*/run-*.wandb")
    assert written.stat().st_size > 100
    assert json.loads((folder.path / "wandb_run.json").read_text())["run_id"]


def test_a_tracker_whose_package_is_missing_is_refused_before_training(tmp_path: Path, monkeypatch: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with pytest.raises(ValueError, match=r'logger=wandb needs wandb: pip install "fedrobust\[wandb\]"'):
        open_tracker(WandB(), folder, {})
