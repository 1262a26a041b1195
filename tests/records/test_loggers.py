"""The loggers, read back with TensorBoard's and MLflow's own readers."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fedrobust.config.component import FieldError
from fedrobust.records.loggers import Logger, MLflow, NoLogger, TensorBoard
from fedrobust.records.run_folder import RunFolder

CONFIG: dict[str, Any] = {"seed": 1, "attack": {"scale": 2.5, "target": None}}
SUMMARY = {"clean_accuracy": 0.75, "rounds": 2}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "sweep" / "0")
    made.create()
    return made


def _row(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "attack_active": number > 1,
        "clients": [0, 1],
        "update_norms": [0.5, 1.0],
        "clean_accuracy": number / 4,
        "attack_success_rate": None,
        "train_loss": float("nan"),
        "per_class_accuracy": [0.25, 0.5],
        "diagnostics": {"num_kept": 2.0},
    }


CURVES = {"attack_active", "clean_accuracy", "per_class_accuracy/0", "per_class_accuracy/1", "diagnostics/num_kept"}


@pytest.mark.parametrize("logger", [NoLogger(), TensorBoard(), MLflow()])
def test_each_is_a_logger(logger: object) -> None:
    assert isinstance(logger, Logger)


def test_no_logger_leaves_nothing(folder: RunFolder) -> None:
    run = NoLogger().open(folder, CONFIG)
    run.log_round(_row(1))
    run.finish(SUMMARY)
    assert list(folder.path.iterdir()) == []


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(FieldError, match="experiment"):
        MLflow(experiment="")


@pytest.mark.parametrize(
    ("logger", "module", "extra"), [(TensorBoard(), "tensorboard", "tensorboard"), (MLflow(), "mlflow", "mlflow")]
)
def test_a_missing_package_names_the_extra(
    logger: Logger, module: str, extra: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`None` in sys.modules is Python's own way to make an import fail."""
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf'pip install "fedrobust\[{extra}\]"'):
        logger.open(folder, CONFIG)


def _events(path: Path) -> Any:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(path))
    events.Reload()
    return events


def test_tensorboard_has_curves_config_and_summary(folder: RunFolder) -> None:
    pytest.importorskip("tensorboard")
    run = TensorBoard().open(folder, CONFIG)
    run.log_round(_row(1))
    run.log_round(_row(2))
    run.finish(SUMMARY)
    events = _events(folder.path / "tensorboard")
    assert set(events.Tags()["scalars"]) == CURVES | {"summary/clean_accuracy", "summary/rounds"}
    assert [(event.step, event.value) for event in events.Scalars("clean_accuracy")] == [(1, 0.25), (2, 0.5)]
    assert b'"scale": 2.5' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_tensorboard_resumed_shows_each_round_once(folder: RunFolder) -> None:
    """Killed after round 3 with a checkpoint of round 2: round 3 is logged again, its first copy must go."""
    pytest.importorskip("tensorboard")
    run = TensorBoard().open(folder, CONFIG)
    for number in (1, 2, 3):
        run.log_round(_row(number))
    resumed = TensorBoard().open(folder, CONFIG, start_round=2)
    resumed.log_round(_row(3))
    resumed.finish(None)
    run.finish(None)
    steps = [event.step for event in _events(folder.path / "tensorboard").Scalars("clean_accuracy")]
    assert steps == [1, 2, 3]


def test_tensorboard_keeps_runs_in_one_folder_apart(folder: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    TensorBoard(folder=str(tmp_path / "all")).open(folder, CONFIG).finish(SUMMARY)
    assert list((tmp_path / "all" / "sweep" / "0").glob("events.*"))


# SQLAlchemy deprecates an option that MLflow's store still uses when its tables are set up.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
def test_mlflow_has_parameters_curves_and_one_run_after_resuming(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{folder.path / 'mlflow.db'}"
    many = {f"name_{number}": number for number in range(150)}  # more than MLflow takes at once

    run = MLflow().open(folder, {**CONFIG, **many})
    run.log_round(_row(1))
    run.finish(None)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fedrobust").experiment_id
    (failed,) = client.search_runs([experiment])
    assert failed.info.status == "FAILED"
    assert failed.info.run_name == "sweep/0"

    run = MLflow().open(folder, {**CONFIG, **many}, start_round=1)
    run.log_round(_row(2))
    run.finish(SUMMARY)
    (found,) = client.search_runs([experiment])
    assert found.info.status == "FINISHED"
    expected = {"seed": "1", "attack.scale": "2.5", "attack.target": "None"}
    assert found.data.params == expected | {name: str(value) for name, value in many.items()}
    assert set(found.data.metrics) == CURVES | {"summary/clean_accuracy", "summary/rounds"}
    history = client.get_metric_history(found.info.run_id, "clean_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.25), (2, 0.5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]  # nothing is left where the run was started
