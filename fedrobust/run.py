"""One run: prepare a scenario, play it on an engine, and leave everything in a folder.

Whatever ends a run early (Ctrl-C, an error, `kill -9`) leaves the rounds played so far; `resume` goes on from the last
checkpoint and ends with the same bytes as a run that was never stopped.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from fedrobust.config import GROUPS, ConfigError
from fedrobust.data.partition import class_histogram
from fedrobust.deployment import deploy
from fedrobust.engines import Engine, Local
from fedrobust.evaluation.attack_success import stamp_all
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.flower.client_app import population_of_config
from fedrobust.foreign import foreign_modules
from fedrobust.parameters import saved_tensors
from fedrobust.records.checkpoint import Checkpoint
from fedrobust.records.console import RunConsole, print_summary
from fedrobust.records.environment import versions
from fedrobust.records.lock import FolderInUseError, locked
from fedrobust.records.plot_audit import save_report
from fedrobust.records.plot_pictures import plot_examples, plot_partition
from fedrobust.records.plots import plot_run
from fedrobust.records.run_folder import RunFolder
from fedrobust.records.settings import flat_settings
from fedrobust.resuming import MEMORY, Resumption, find_start, restore
from fedrobust.round import Federation, Row, evaluate_model
from fedrobust.scenario import Prepared, Scenario, build_scenario, prepare
from fedrobust.scenario.auditing import futile_audits
from fedrobust.scenario.futile_attacks import futile_attacks
from fedrobust.scenario.twin import reason_for_twin
from fedrobust.standstill import StandstillError, reason_for_standstill

log = logging.getLogger("fedrobust")

Drive = Callable[[Prepared, Callable[[Row], None]], None]
"""Plays what is left of a federation's rounds, and calls back after each."""


def run_config(
    values: Mapping[str, Any],
    folder: Path,
    choices: Mapping[str, str],
    *,
    resume: bool = False,
    resumption: Resumption | None = None,
    drive: Drive | None = None,
) -> Row:
    """Run what a resolved root config describes.

    Args:
        values: the root config, plain containers.
        folder: where the run's records go.
        choices: which option of each config group was chosen.
        resume: go on from the folder's checkpoint (from the start, if there is none yet).
        resumption: from where, and whether changed settings are accepted; `None` is from the newest checkpoint.
        drive: plays the rounds instead of the config's engine (Flower's own runtime does, under `flwr run`).

    Returns:
        The summary.

    Raises:
        ConfigError: the config cannot run, or the folder cannot be resumed, or another process writes into it.
        KeyboardInterrupt: after everything computed so far has been kept.
        StandstillError: no round changed the model; after everything has been kept.
    """
    scenario = build_scenario(values)
    prepared = prepare(scenario)
    futile = (*futile_attacks(scenario, prepared.population), *futile_audits(scenario))
    for warning in (*futile, *prepared.federation.notices):
        log.warning(warning)
    twin_reason = reason_for_twin(scenario, prepared.dataset)
    if twin_reason is not None:
        log.info("a benign twin is played after the run, which about doubles the time: %s", twin_reason)
    records = RunFolder(folder)
    going_on = (resumption or Resumption()) if resume else None
    try:
        records.create(resume=resume)
        with locked(folder):
            records.create(resume=resume)  # somebody may have begun since
            return _run_in(records, scenario, prepared, values, choices, twin_reason, going_on, drive)
    except FileExistsError as error:
        raise ConfigError(f"hydra.run.dir: {error}") from None
    except FolderInUseError as error:
        raise ConfigError(f"{'resume' if resume else 'hydra.run.dir'}: {error}") from None


def _run_in(
    records: RunFolder,
    scenario: Scenario,
    prepared: Prepared,
    values: Mapping[str, Any],
    choices: Mapping[str, str],
    twin_reason: str | None,
    resumption: Resumption | None,
    drive: Drive | None,
) -> Row:
    """Run in a folder that is this process's own."""
    resume = resumption is not None
    start = None if resumption is None else find_start(records, flat_settings(values), resumption)
    config = OmegaConf.to_yaml(OmegaConf.create(dict(values)))
    # The choices first: a folder with a config can be resumed, and must know them by then.
    known = choices or (start.choices if start else {})
    records.write_choices({group: known[group] for group in GROUPS if group in known})
    records.write_config(config)
    changed = records.write_environment(str(prepared.federation.state.vector.device))
    if changed:
        log.warning("this part of the run has other versions than the first: %s", ", ".join(changed))
    write_data(records, scenario, prepared)
    drive = drive or partial(drive_engine, scenario.engine, config)
    summary = play(scenario, prepared, records, values, drive, resume, start=start)
    if scenario.attack.deployed_model is not None:
        summary |= deploy(scenario.attack.deployed_model, prepared.federation, records)
    control: Sequence[Row] | None = None
    if twin_reason is not None:
        control, summary = play_control(scenario, records, values, summary, resume)
    records.write_summary(summary)
    plot_run(records, records.read_rounds(), control=control)
    if scenario.verbose:
        print_summary(summary)
    if reason := reason_for_standstill(records.read_rounds()[1:]):
        raise StandstillError(reason)
    return summary


def drive_engine(engine: Engine, config: str, prepared: Prepared, on_round: Callable[[Row], None]) -> None:
    """Play the rounds on `engine`; clients in other processes are built there from `config` (YAML)."""
    if engine.shares_process:
        client_app = make_client_app(lambda _context: prepared.population)
    else:
        client_app = make_client_app(partial(population_of_config, config))
    engine.run(make_server_app(prepared.federation, on_round), client_app, prepared.federation.num_clients)


def play(
    scenario: Scenario,
    prepared: Prepared,
    records: RunFolder,
    values: Mapping[str, Any],
    drive: Drive,
    resume: bool,
    *,
    start: Checkpoint | None = None,
    whole: Path | None = None,
) -> Row:
    """Play a prepared scenario's rounds (those that are left) and keep their records; returns the summary.

    Args:
        scenario: as it was prepared.
        prepared: its federation is at the start.
        records: where the records go.
        values: the root config, for trackers.
        drive: plays the rounds.
        resume: go on with what the folder holds.
        start: the checkpoint to go on from; `None` begins at round 0.
        whole: the folder that can be resumed, if not that of the records: of the run whose twin this is.
    """
    federation = dataclasses.replace(prepared.federation, on_report=partial(save_report, records))
    prepared = dataclasses.replace(prepared, federation=federation)
    seconds_before = restore(federation, records, start) if resume else 0.0
    started = time.perf_counter()
    about = {"config": flat_settings(values), "choices": records.read_choices(), "versions": versions()}
    keeper = _Keeper(
        federation, records, scenario.checkpoint_every, lambda: seconds_before + time.perf_counter() - started, about
    )
    tracker = scenario.logger.open(records, values, start_round=federation.state.round_number)
    with RunConsole(scenario.verbose, federation.num_rounds, federation.state.round_number) as console:

        def on_round(row: Row) -> None:
            keeper.keep(row)
            tracker.log_round(row)
            console.on_round(row)

        summary: Row | None = None
        try:
            if federation.state.round_number == 0 and not records.read_rounds():
                initial = evaluate_model(federation)
                records.append_round(initial)
                tracker.log_round(initial)
                console.on_round(initial)
            if federation.state.round_number < federation.num_rounds:
                drive(prepared, on_round)
            summary = summarise(records.read_rounds(), keeper.seconds(), scenario.has_clean_start)
        except (Exception, KeyboardInterrupt):
            keeper.checkpoint()
            records.save_model(keeper.model_tensors())
            plot_run(records, records.read_rounds())
            others = ",".join(foreign_modules(values))
            command = f"fedrobust resume={whole or records.path}{f' trust={others}' if others else ''}"
            console.message(f"stopped after round {keeper.round_number}; go on with: {command}")
            raise
        finally:
            tracker.finish(summary)
    if scenario.checkpoint_every:
        keeper.checkpoint()
    records.save_model(keeper.model_tensors())
    return summary


def play_control(
    scenario: Scenario, records: RunFolder, values: Mapping[str, Any], summary: Row, resume: bool
) -> tuple[list[Row], Row]:
    """Run the benign twin in the folder's `control`, and put its figure into the summary."""
    log.info("the benign twin:")
    twin = dataclasses.replace(scenario.benign_twin(), engine=Local())
    prepared = prepare(twin)
    twin_records = RunFolder(records.path / "control")
    twin_records.create(resume=resume)
    drive = partial(drive_engine, twin.engine, "")
    start = find_start(twin_records, flat_settings(values), Resumption()) if resume else None
    twin_summary = play(twin, prepared, twin_records, values, drive, resume, start=start, whole=records.path)
    twin_records.write_summary(twin_summary)
    figures = {
        "control": "benign_twin",
        "control_attack_success_rate": twin_summary["attack_success_rate"],
        "control_clean_accuracy": twin_summary["clean_accuracy"],
    }
    return twin_records.read_rounds(), {**summary, **figures}


def summarise(rows: Sequence[Mapping[str, Any]], seconds: float, has_clean_start: bool = True) -> Row:
    """What a run came to: the last evaluation, and detection averaged over the rounds that have it.

    Attack success is at its highest over the evaluations of `first_attack_round` and later rounds. That is the first
    in which an attacker took part, or 0 where the initial model is attacked: before it, there was nothing to succeed.
    There is no control here; a benign twin's figures are added where one is played.
    """
    last = next(row for row in reversed(rows) if row["clean_accuracy"] is not None)
    first, played = rows[0], rows[1:]
    attacked = 0 if not has_clean_start else next((row["round"] for row in played if row["attack_active"]), None)
    attempts = [] if attacked is None else [row["attack_success_rate"] for row in rows if row["round"] >= attacked]
    watermark = {}
    if last.get("watermark_accuracy") is not None:
        watermark = {name: last[name] for name in ("watermark_accuracy", "watermark_p_value")}
        watermark["seconds_watermark"] = sum(row["seconds_watermark"] for row in played)
    return {
        "clean_accuracy": last["clean_accuracy"],
        "clean_loss": last["clean_loss"],
        "attack_success_rate": last["attack_success_rate"],
        "max_attack_success_rate": max((rate for rate in attempts if rate is not None), default=None),
        "first_attack_round": attacked,
        "local_attack_success_rates": last["local_attack_success_rates"],
        "initial_clean_accuracy": first["clean_accuracy"],
        "initial_attack_success_rate": first["attack_success_rate"],
        "detection_tpr": _mean([row["detection_tpr"] for row in played]),
        "detection_fpr": _mean([row["detection_fpr"] for row in played]),
        "num_rounds": rows[-1]["round"],
        "num_rejected": sum(row["num_rejected"] for row in played),
        "seconds": seconds,
        "seconds_training": sum(row["seconds_training"] for row in played),
        "seconds_messages": sum(row["seconds_messages"] for row in played),
        "seconds_aggregation": sum(row["seconds_aggregation"] for row in played),
        "milliseconds_per_aggregation": 1e3 * sum(row["seconds_aggregation"] for row in played) / max(len(played), 1),
        "seconds_evaluation": sum(row["seconds_evaluation"] for row in played),
        **watermark,
        **_audit_summary(played),
    }


def _audit_summary(rows: Sequence[Mapping[str, Any]]) -> Row:
    """What the last audit came to, the means of rates over audits of data, and the time of all; nothing without one."""
    audits = [row["audit"] for row in rows if row.get("audit")]
    if not audits:
        return {}
    long = ("reasons", "reputations", "malicious_clients")  # the lines of the rounds have them
    last = {f"audit_{name}": value for name, value in audits[-1].items() if name not in long}
    for name in ("recall", "false_positive_rate"):
        if name in audits[-1]:
            last[f"audit_{name}"] = _mean([one.get(name) for one in audits])
    return {**last, "seconds_audit": sum(row["seconds_audit"] for row in rows)}


def write_data(records: RunFolder, scenario: Scenario, prepared: Prepared) -> None:
    """Write how the data are divided, and what clean and triggered examples look like."""
    dataset, assignment = prepared.dataset, prepared.assignment
    histogram = class_histogram(dataset.train.labels.cpu(), assignment, dataset.num_classes)
    records.write_partition(
        histogram, seed=scenario.seed, sizes=[len(indices) for indices in assignment], indices=assignment
    )
    plot_partition(records, histogram)
    attack = scenario.attack.goal
    if attack is None or dataset.kind != "image":
        return
    wanted = attack.wanted_labels(dataset.test)
    parts = attack.local_triggers(dataset.input_shape)
    if wanted is None or not parts:  # no trigger, nothing to see
        return
    clean = dataset.test.subset((wanted != dataset.test.labels).nonzero().squeeze(1)[:8])
    stamped = {"global trigger": stamp_all(parts, clean.inputs)}
    if len(parts) > 1:
        stamped |= {f"local trigger {index}": part.stamp(clean.inputs) for index, part in enumerate(parts)}
    shown = {name: values.cpu() for name, values in stamped.items()}
    target_label = getattr(attack, "target_label", None)  # an attack need not have one target
    plot_examples(records, clean.inputs.cpu(), shown, clean.labels.cpu(), target_label=target_label)


class _Keeper:
    """Keeps what rounds leave behind; holds the state as of the last round that was kept."""

    def __init__(
        self,
        federation: Federation,
        records: RunFolder,
        checkpoint_every: int,
        seconds: Callable[[], float],
        about: Mapping[str, Mapping[str, str]],
    ) -> None:
        """`about`: what a checkpoint says of the run that it belongs to."""
        self.federation, self.records, self.checkpoint_every = federation, records, checkpoint_every
        self.seconds, self.about = seconds, about
        self._saved_round: int | None = None
        self._remember()

    def keep(self, row: Row) -> None:
        self.records.append_round(row)
        self._remember()
        if self.checkpoint_every and self.round_number % self.checkpoint_every == 0:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save the state, unless that has been done: the file before it must be of an earlier round."""
        if self.round_number == self._saved_round:
            return
        memory = {MEMORY + name: values.cpu() for name, values in self._memory.items()}
        meta = {"seconds": self.seconds()}
        self.records.save_checkpoint(Checkpoint(self.round_number, self.tensors() | memory, meta, **self.about))
        self._saved_round = self.round_number

    def tensors(self) -> dict[str, torch.Tensor]:
        """What training changes, by name."""
        return {name: view.cpu() for name, view in (self.federation.layout.views(self._vector) | self._buffers).items()}

    def model_tensors(self) -> dict[str, torch.Tensor]:
        """The model's whole `state_dict`."""
        state = self.federation.layout.views(self._vector)
        return {k: v.cpu() for k, v in saved_tensors(self.federation.model, state, self._buffers).items()}

    def _remember(self) -> None:
        # A round replaces the state's tensors and never writes to them, so references are a snapshot.
        state = self.federation.state
        self.round_number, self._vector, self._buffers = state.round_number, state.vector, dict(state.buffers)
        self._memory = state.memory


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
