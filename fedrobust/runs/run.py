"""One run: prepare a scenario, play it on an engine, and leave everything in a folder.

Whatever ends a run early (Ctrl-C, an error, `kill -9`) leaves the rounds played so far; `resume` goes on from the last
checkpoint and ends with the same bytes as a run that was never stopped.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from fedrobust.config.building import GROUPS, ConfigError
from fedrobust.config.foreign import foreign_modules
from fedrobust.config.settings import flat_settings
from fedrobust.data.partition import class_histogram
from fedrobust.engines import Engine, Local
from fedrobust.evaluation.attack_success import stamp_all
from fedrobust.federation.round import Row, evaluate_model
from fedrobust.federation.standstill import StandstillError, reason_for_standstill
from fedrobust.figures.style import figures_of
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.records.checkpoint import RUN, TWIN
from fedrobust.records.console import RunConsole, print_summary
from fedrobust.records.environment import versions
from fedrobust.records.lock import FolderInUseError, locked
from fedrobust.records.loggers import open_tracker
from fedrobust.records.plot_audit import save_report
from fedrobust.records.plot_deployment import plot_deployment
from fedrobust.records.plot_pictures import plot_examples, plot_partition
from fedrobust.records.plots import plot_run
from fedrobust.records.run_folder import OtherDataError, RunFolder
from fedrobust.runs.choices import known_choices
from fedrobust.runs.deployment import deploy
from fedrobust.runs.keeper import Keeper
from fedrobust.runs.resuming import Part, Plan, Resumption, Start, check_fit, plan_resumption, restore
from fedrobust.scenario import Prepared, Scenario, build_scenario, prepare
from fedrobust.scenario.auditing import futile_audits
from fedrobust.scenario.futile_attacks import futile_attacks
from fedrobust.scenario.population import population_of_config
from fedrobust.scenario.twin import reason_for_twin

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
    is_locked: bool = False,
) -> Row:
    """Run what a resolved root config describes.

    Args:
        values: the root config, plain containers.
        folder: where the run's records go.
        choices: which option of each config group was chosen.
        resume: go on from the folder's checkpoint (from the start, if there is none yet).
        resumption: from where, and whether changed settings are accepted; `None` is from the newest checkpoint.
        drive: plays the rounds instead of the config's engine (Flower's own runtime does, under `flwr run`).
        is_locked: whether the caller holds the folder's lock.

    Returns:
        The summary.

    Raises:
        ConfigError: the config cannot run, or the folder cannot be resumed, or another process writes into it; nothing
            in the folder has been changed then.
        KeyboardInterrupt: after everything computed so far has been kept.
        StandstillError: no round changed the model; after everything has been kept.
    """
    scenario = build_scenario(values)
    records = RunFolder(folder)
    with contextlib.ExitStack() as locks:
        try:
            if not is_locked:
                locks.enter_context(locked(folder))
            records.create(resume=resume)
            plan = Plan(records)
            if resume:
                plan = plan_resumption(records, flat_settings(values), resumption or Resumption())
                choices = known_choices(records, values, choices, plan.choices)
            prepared = prepare(scenario)
            check_fit(plan.run.checkpoint, prepared.federation, folder)
            twin_reason = _announce(scenario, prepared)
            if resume and not plan.starts_again:
                records.check_partition(_histogram(prepared))
            if twin_reason is not None and not resume:
                records.control.create()
            plan.apply()
            if twin_reason is not None:
                locks.enter_context(locked(records.control.path))
        except FileExistsError as error:
            raise ConfigError(f"hydra.run.dir: {error}") from None
        except (FolderInUseError, OtherDataError) as error:
            raise ConfigError(f"{'resume' if resume else 'hydra.run.dir'}: {error}") from None
        locks.enter_context(figures_of(_caption(scenario, choices), scenario.plot_formats))
        _write_start(records, scenario, prepared, values, choices)
        summary = _play_all(scenario, prepared, plan, values, drive, with_twin=twin_reason is not None)
    if scenario.verbose:
        print_summary(summary)
    if reason := reason_for_standstill(records.read_rounds()[1:]):
        raise StandstillError(reason)
    return summary


def _caption(scenario: Scenario, choices: Mapping[str, str]) -> str:
    """What a picture is of, wherever it is copied to."""
    groups = ("attack", "preaggregator", "aggregator", "dataset", "model", "partition")
    shown = [f"{group}={choices[group]}" for group in groups if group in choices and choices[group] != "none"]
    return ", ".join([*shown, f"clients={scenario.num_clients}", f"seed={scenario.seed}"])


def _announce(scenario: Scenario, prepared: Prepared) -> str | None:
    """Say before training what will be futile, and why a twin is played; returns that reason."""
    futile = (*futile_attacks(scenario, prepared.population), *futile_audits(scenario))
    for warning in (*futile, *prepared.federation.notices):
        log.warning(warning)
    reason = reason_for_twin(scenario, prepared.dataset)
    if reason is not None:
        log.info("a benign twin is played after the run, which about doubles the time: %s", reason)
    return reason


def _write_start(
    records: RunFolder,
    scenario: Scenario,
    prepared: Prepared,
    values: Mapping[str, Any],
    choices: Mapping[str, str],
) -> None:
    """Write what is known before the first round."""
    # The choices first: a folder with a config can be resumed, and must know them by then.
    records.write_choices({group: choices[group] for group in GROUPS if group in choices})
    records.write_config(_to_yaml(values))
    changed = records.write_environment(str(prepared.federation.state.vector.device))
    if changed:
        log.warning("this part of the run has other versions than the first: %s", ", ".join(changed))
    write_data(records, scenario, prepared)


def _play_all(
    scenario: Scenario,
    prepared: Prepared,
    plan: Plan,
    values: Mapping[str, Any],
    drive: Drive | None,
    *,
    with_twin: bool,
) -> Row:
    """Play the rounds, the deployment and the benign twin; returns the summary, which is written."""
    records = plan.records
    drive = drive or partial(drive_engine, scenario.engine, _to_yaml(values))
    summary = play(scenario, prepared, Part(records, RUN, records.path), values, drive, plan.run)
    if scenario.attack.deployed_model is not None:
        deployed = deploy(scenario.attack.deployed_model, prepared.federation, records)
        summary |= deployed
        if scenario.plot_formats:
            plot_deployment(records, deployed)
    control: Sequence[Row] | None = None
    if with_twin:
        control, summary = play_control(scenario, records, values, summary, plan.twin)
    records.write_summary(summary)
    plot_run(records, records.read_rounds(), control=control, with_partition=False)  # drawn before the first round
    return summary


def _to_yaml(values: Mapping[str, Any]) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


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
    part: Part,
    values: Mapping[str, Any],
    drive: Drive,
    start: Start,
) -> Row:
    """Play a prepared scenario's rounds (those that are left) and keep their records; returns the summary.

    Args:
        scenario: as it was prepared.
        prepared: its federation is at the start.
        part: where the records go: of the run, or of its twin.
        values: the root config, for trackers.
        drive: plays the rounds.
        start: where to go on.
    """
    records = part.records
    federation = dataclasses.replace(
        prepared.federation, on_report=partial(save_report, records) if scenario.plot_formats else None
    )
    prepared = dataclasses.replace(prepared, federation=federation)
    seconds_before = restore(federation, records, start.checkpoint)
    started = time.perf_counter()
    about = {
        "config": flat_settings(values),
        "choices": RunFolder(part.whole).read_choices(),
        "versions": versions(),
        "part": part.name,
    }
    keeper = Keeper(
        federation, records, scenario.checkpoint_every, lambda: seconds_before + time.perf_counter() - started, about
    )
    tracker = open_tracker(scenario.logger, records, values, start_round=federation.state.round_number)
    label = "" if part.name == RUN else "benign twin"
    first = federation.state.round_number
    with RunConsole(scenario.verbose, federation.num_rounds, first, label=label) as console:

        def on_round(row: Row) -> None:
            keeper.keep(row)
            tracker.log_round(row)
            console.on_round(row)

        summary: Row | None = None
        try:
            if start.checkpoint is None:
                initial = evaluate_model(federation)
                keeper.keep(initial)
                tracker.log_round(initial)
                console.on_round(initial)
            if federation.state.round_number < federation.num_rounds:
                drive(prepared, on_round)
            summary = summarise(records.read_rounds(), keeper.seconds(), scenario.has_clean_start)
        except (Exception, KeyboardInterrupt):
            _keep_what_there_is(keeper, console, _resume_command(part.whole, values))
            raise
        finally:
            tracker.finish(summary)
    if scenario.checkpoint_every:
        keeper.checkpoint()
    records.save_model(keeper.model_tensors())
    return summary


def _resume_command(folder: Path, values: Mapping[str, Any]) -> str:
    """What to type to go on, with trust in the components that are not fedrobust's."""
    trusted = ",".join(foreign_modules(values))
    return f"fedrobust resume={folder}{f' trust={trusted}' if trusted else ''}"


def _keep_what_there_is(keeper: Keeper, console: RunConsole, command: str) -> None:
    """Of a run that ends early: checkpoint, model and plots, each if it can be written, and how to go on."""
    records = keeper.records
    steps: dict[str, Callable[[], object]] = {
        "the checkpoint": keeper.checkpoint,
        "the model": lambda: records.save_model(keeper.model_tensors()),
        "plots": lambda: plot_run(records, records.read_rounds()),
        # Last, since a terminal that was closed takes no message.
        "a message": lambda: console.message(f"stopped after round {keeper.round_number}; go on with: {command}"),
    }
    for name, step in steps.items():
        try:
            step()
        except Exception as error:  # what ended the run counts, and who called tells it
            with contextlib.suppress(OSError):
                log.warning("%s of the stopped run: not written (%s: %s)", name, type(error).__name__, error)


def play_control(
    scenario: Scenario, records: RunFolder, values: Mapping[str, Any], summary: Row, start: Start
) -> tuple[list[Row], Row]:
    """Play the benign twin in the folder's `control`, and put its figure into the summary."""
    log.info("the benign twin:")
    twin = dataclasses.replace(scenario.benign_twin(), engine=Local())
    drive = partial(drive_engine, twin.engine, "")
    part = Part(records.control, TWIN, records.path)
    twin_summary = play(twin, prepare(twin), part, values, drive, start)
    records.control.write_summary(twin_summary)
    figures = {
        "control": "benign_twin",
        "control_attack_success_rate": twin_summary["attack_success_rate"],
        "control_clean_accuracy": twin_summary["clean_accuracy"],
    }
    return records.control.read_rounds(), {**summary, **figures}


def summarise(rows: Sequence[Mapping[str, Any]], seconds: float, has_clean_start: bool = True) -> Row:
    """What a run came to: the last evaluation, and detection averaged over the rounds that have it.

    Attack success is at its highest over the evaluations of `first_attack_round` and later rounds. That is the first
    in which an attacker took part, or 0 where the initial model is attacked: before it, there was nothing to succeed.
    There is no control here; a benign twin's figures are added where one is played.

    Raises:
        ValueError: `rows` are not those of rounds 0, 1, 2, …
    """
    if not rows or any(row["round"] != number for number, row in enumerate(rows)):
        raise ValueError(f"a summary needs every round from 0 on, got {[row['round'] for row in rows]}")
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
        "seconds_attack": sum(row.get("seconds_attack", 0.0) for row in played),  # older runs count it as aggregation
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
    dataset, assignment, histogram = prepared.dataset, prepared.assignment, _histogram(prepared)
    records.write_partition(
        histogram, seed=scenario.seed, sizes=[len(indices) for indices in assignment], indices=assignment
    )
    attack = scenario.attack.goal
    if not scenario.plot_formats:
        return
    plot_partition(records, histogram)
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


def _histogram(prepared: Prepared) -> torch.Tensor:
    """`(clients, classes)`, the examples of each class at each client."""
    dataset = prepared.dataset
    return class_histogram(dataset.train.labels.cpu(), prepared.assignment, dataset.num_classes)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
