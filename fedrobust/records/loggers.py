"""Where else the rounds of a run go, besides its folder: nowhere, TensorBoard, MLflow or Weights & Biases.

A tracker is a copy for looking at: where it fails, the run says so in one line and goes on without it.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from annotated_types import MinLen

from fedrobust.config.component import component
from fedrobust.error_text import reason_of
from fedrobust.records.files import to_json, write_atomically
from fedrobust.records.run_folder import Row, RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("fedrobust")

# One value a client, not a curve over the rounds.
_PER_CLIENT = frozenset({"clients", "malicious_clients", "rejected", "update_norms", "shares", "scores"})


class RunLogger(Protocol):
    """A logger that is open for one run."""

    def log_round(self, row: Row) -> None:
        """Log the figures of one round."""
        ...

    def finish(self, summary: Row | None) -> None:
        """Log the final figures and close; `None` says that the run failed."""
        ...


@runtime_checkable
class Logger(Protocol):
    """A place to log runs to, as a config names it."""

    def open(self, folder: RunFolder, config: Mapping[str, Any], *, start_round: int = 0) -> RunLogger:
        """Start logging the run in `folder`, made from `config`; `start_round` > 0 continues it after that round."""
        ...


@component
class NoLogger:
    """Log nowhere else than the run folder."""

    def open(self, folder: RunFolder, config: Mapping[str, Any], *, start_round: int = 0) -> RunLogger:
        """A logger that does nothing."""
        return _Nowhere()


@component
class TensorBoard:
    """Log to TensorBoard.

    Attributes:
        folder: where the event files go, in a folder of their own for each run; `None` is tensorboard/ in the run
            folder.
    """

    folder: Annotated[str, MinLen(1)] | None = None

    def open(self, folder: RunFolder, config: Mapping[str, Any], *, start_round: int = 0) -> RunLogger:
        """Open an event file and write the config as text.

        Raises:
            ValueError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ValueError('logger=tensorboard needs tensorboard: pip install "fedrobust[tensorboard]"') from error
        target = Path(self.folder, *_name_parts(folder)) if self.folder else folder.path / "tensorboard"
        # What a killed run logged after its checkpoint is logged again: purge_step hides the first copy.
        writer = SummaryWriter(str(target), purge_step=start_round + 1 if start_round else None)
        if not start_round:
            writer.add_text("config", f"```json\n{to_json(config, indent=2)}\n```", 0)
        return _TensorBoardRun(writer)


@component
class MLflow:
    """Log to MLflow: the config as parameters, the rounds as metrics.

    Attributes:
        tracking_uri: a store or a tracking server; `None` is an SQLite store, mlflow.db in the run folder, or in that
            of its sweep, whose runs are then side by side.
        experiment: the name of the MLflow experiment, made if there is none.
    """

    tracking_uri: Annotated[str, MinLen(1)] | None = None
    experiment: Annotated[str, MinLen(1)] = "fedrobust"

    def open(self, folder: RunFolder, config: Mapping[str, Any], *, start_round: int = 0) -> RunLogger:
        """Start an MLflow run, or continue the one that this run folder started.

        Raises:
            ValueError: mlflow is not installed.
        """
        # A simulation calls nobody; MLflow reads this when it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # A server that is not there costs seconds: by default MLflow waits for two minutes, seven times.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Param
        except ModuleNotFoundError as error:
            raise ValueError('logger=mlflow needs mlflow: pip install "fedrobust[mlflow]"') from error
        # The client, not mlflow.start_run: no active run in global state, no look at git, no system metrics.
        client = MlflowClient(tracking_uri=self.tracking_uri or _own_store(folder))
        note = folder.path / "mlflow_run.json"
        if start_round and (known := _noted_run(note)) is not None:
            client.update_run(known, status="RUNNING")
            return _MLflowRun(client, known)
        run_id = client.create_run(self._experiment_id(client), run_name="/".join(_name_parts(folder))).info.run_id
        write_atomically(note, to_json({"run_id": run_id}).encode())
        parameters = [Param(name, str(value)) for name, value in _flatten(config)]
        for start in range(0, len(parameters), 100):  # MLflow takes 100 parameters at a time
            client.log_batch(run_id, params=parameters[start : start + 100])
        return _MLflowRun(client, run_id)

    def _experiment_id(self, client: "MlflowClient") -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return client.create_experiment(self.experiment)
            except MlflowException as error:
                # Another run of the same sweep was faster.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(self.experiment)
        if found is None:
            raise ValueError(f"the MLflow experiment {self.experiment!r} exists but cannot be read (is it deleted?)")
        return found.experiment_id


@component
class WandB:
    """Log to Weights & Biases, offline unless told otherwise: `wandb sync FOLDER/wandb/offline-run-*` sends it later.

    Attributes:
        project: the name of the project.
        mode: `offline` writes below the run folder and calls nobody; `online` sends figures as they come.
    """

    project: Annotated[str, MinLen(1)] = "fedrobust"
    mode: Literal["offline", "online"] = "offline"

    def open(self, folder: RunFolder, config: Mapping[str, Any], *, start_round: int = 0) -> RunLogger:
        """Start a run, or continue the one that this run folder started.

        Raises:
            ValueError: wandb is not installed.
        """
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ValueError('logger=wandb needs wandb: pip install "fedrobust[wandb]"') from error
        note = folder.path / "wandb_run.json"
        known = json.loads(note.read_text("utf-8"))["run_id"] if start_round and note.exists() else None
        run = wandb.init(
            project=self.project,
            name="/".join(_name_parts(folder)),
            config=dict(config),
            dir=str(folder.path.resolve()),
            mode=self.mode,
            id=known,
            resume="allow" if known else None,
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False, init_timeout=20),
        )
        write_atomically(note, to_json({"run_id": run.id}).encode())
        return _WandBRun(run)


def open_tracker(logger: Logger, folder: RunFolder, config: Mapping[str, Any], *, start_round: int = 0) -> RunLogger:
    """Open a logger that cannot end the run: what it raises is one warning, and nothing more is logged there.

    Raises:
        ValueError: its package is not installed.
    """
    try:
        return _Guarded(logger.open(folder, config, start_round=start_round))
    except ValueError:
        raise
    except Exception as error:
        _give_up(error)
        return _Nowhere()


def _give_up(error: Exception) -> None:
    log.warning("the tracker has failed, and the run goes on without it: %s", reason_of(error))


def _own_store(folder: RunFolder) -> str:
    """The URI of the SQLite store of a run, or of its sweep."""
    from mlflow import MlflowClient

    above = folder.path.resolve().parent
    place = above if (above / "multirun.yaml").exists() else folder.path.resolve()
    store, unfinished = place / "mlflow.db", place / ".mlflow.db.unfinished"
    if store.exists() and not store.is_file():  # which MLflow would try for minutes
        raise IsADirectoryError(f"{store} must be a file")
    if not store.exists():  # made under another name: a store that a kill left half made could never be opened
        unfinished.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{unfinished}").search_experiments(max_results=1)
        os.replace(unfinished, store)
    return f"sqlite:///{store}"


class _Guarded:
    """A logger that is given up once it raises."""

    def __init__(self, inner: RunLogger) -> None:
        self._inner: RunLogger = inner

    def log_round(self, row: Row) -> None:
        self._try(lambda: self._inner.log_round(row))

    def finish(self, summary: Row | None) -> None:
        self._try(lambda: self._inner.finish(summary))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            _give_up(error)
            self._inner = _Nowhere()


class _Nowhere:
    def log_round(self, row: Row) -> None:
        pass

    def finish(self, summary: Row | None) -> None:
        pass


class _TensorBoardRun:
    def __init__(self, writer: "SummaryWriter") -> None:
        self._writer = writer
        self._last_round = 0

    def log_round(self, row: Row) -> None:
        self._last_round = row["round"]
        for name, value in _metrics(row):
            self._writer.add_scalar(name, value, self._last_round)
        self._writer.flush()

    def finish(self, summary: Row | None) -> None:
        for name, value in _metrics(summary or {}):
            self._writer.add_scalar(f"summary/{name}", value, self._last_round)
        self._writer.close()


def _noted_run(note: Path) -> str | None:
    """The id of the MLflow run that a folder's rounds went to; `None` where there is no note, or none to read."""
    if not note.exists():
        return None
    try:
        return str(json.loads(note.read_text("utf-8"))["run_id"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s cannot be read: a new run is begun in MLflow", note)
        return None


class _MLflowRun:
    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._last_round = 0

    def log_round(self, row: Row) -> None:
        self._last_round = row["round"]
        self._log(_metrics(row))

    def finish(self, summary: Row | None) -> None:
        self._log((f"summary/{name}", value) for name, value in _metrics(summary or {}))
        self._client.set_terminated(self._run_id, status="FAILED" if summary is None else "FINISHED")

    def _log(self, figures: Iterable[tuple[str, float]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)  # milliseconds
        metrics = [Metric(name, value, now, self._last_round) for name, value in figures]
        for start in range(0, len(metrics), 1000):  # MLflow takes 1000 metrics at a time
            self._client.log_batch(self._run_id, metrics=metrics[start : start + 1000])


class _WandBRun:
    def __init__(self, run: Any) -> None:
        self._run = run

    def log_round(self, row: Row) -> None:
        self._run.log(dict(_metrics(row)), step=row["round"])

    def finish(self, summary: Row | None) -> None:
        self._run.summary.update({f"summary/{name}": value for name, value in _metrics(summary or {})})
        self._run.finish(exit_code=0 if summary is not None else 1)


def _name_parts(folder: RunFolder) -> tuple[str, ...]:
    """The run's name: its folder and the one above, since the runs of a sweep are called 0, 1, 2, …"""
    return folder.path.resolve().parts[-2:]


def _metrics(row: Row) -> Iterator[tuple[str, float]]:
    """The finite numbers of a row that make curves, by name; nested ones as `diagnostics/name`."""
    curves = {name: value for name, value in row.items() if name not in _PER_CLIENT and name != "round"}
    for name, value in _flatten(curves, separator="/"):
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)


def _flatten(value: Any, name: str = "", *, separator: str = ".") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings and lists, with their path."""
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from _flatten(item, f"{name}{separator}{key}" if name else str(key), separator=separator)
