"""Audits within a federation: who is asked no more, what is left out of training, what the model unlearns."""

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from chosen_seeds import first_of
from torch import nn

from fedrobust.audits import AuditPlan
from fedrobust.audits.base import ClassVerdict, DataReport
from fedrobust.audits.data_auditing import DataAuditing
from fedrobust.config.building import ConfigError
from fedrobust.config.component import component
from fedrobust.config.compose import compose_config
from fedrobust.evaluation.audit import data_figures
from fedrobust.scenario import Prepared, build_scenario, prepare
from fedrobust.study import play_rounds


@component
class WhiteCorner:
    """Flags pictures whose first row begins with two white pixels: on digits, those with BadNets's trigger."""

    def __call__(self, examples, model, generator, clean=None):
        flagged = (examples.inputs[:, 0, 0, :2] == 1.0).all(dim=1).cpu()
        labels = examples.labels.cpu()
        verdicts = tuple(
            ClassVerdict(label, bool(flagged[labels == label].any()), 0.0, int((labels == label).sum()))
            for label in labels.unique().tolist()
        )
        return DataReport("white corner", labels, flagged.double(), flagged, verdicts, "white", "white")


@component
class WhiteCornerAtNoRate(WhiteCorner):
    """The same, of which nobody knows how often it is wrong."""

    def __call__(self, examples, model, generator, clean=None):
        return replace(super().__call__(examples, model, generator, clean), uncalibrated="nobody knows its rate")


@component
class Confused:
    """Refuses all data."""

    def __call__(self, examples, model, generator, clean=None):
        raise ValueError("cannot read this")


def prepared(*overrides: str) -> Prepared:
    return prepare(build_scenario(compose_config(list(overrides))[0]))


def with_audit(one: Prepared, plan: AuditPlan) -> Prepared:
    """The same federation under an audit of data that no config names."""
    auditing = DataAuditing(plan, one.dataset.train.subset(torch.arange(50)), 0)
    return replace(one, population=replace(one.population, auditing=auditing))


@pytest.mark.parametrize("seed", first_of((0, 1, 2)))
def test_suspects_are_asked_no_more(seed):
    """The default scenario, in which the spectral filter's scores tell attackers: after `min_rounds` they are gone.

    The truth is the attack's own draw, which no rule or audit sees.
    """
    one = prepared(
        *[f"seed={seed}", "attack=dba", "aggregator=spectral_filter", "audit=reputation", "num_rounds=8"],
        *["audit.action=exclude_clients", "audit.reputation.min_rounds=4"],
    )
    rows = play_rounds(one, 8)
    malicious = set(one.federation.adversary.malicious)
    assert all(malicious <= set(row["clients"]) for row in rows[:4])
    assert not any(malicious & set(row["clients"]) for row in rows[5:])
    assert rows[-1]["audit"]["client_auc"] == 1.0
    assert rows[-1]["audit"]["excluded_clients"] == sorted(malicious)
    assert (rows[-1]["audit"]["excluded_tpr"], rows[-1]["audit"]["excluded_fpr"]) == (1.0, 0.0)


def test_where_all_are_excluded_the_records_say_so():
    """Everybody has ranks above zero on average: after one round nobody is left, and the model stays as it is."""
    one = prepared(
        *["attack=none", "aggregator=spectral_filter", "audit=reputation", "num_clients=4", "num_rounds=2"],
        *["audit.action=exclude_clients", "audit.reputation.min_rounds=1", "audit.reputation.exclusion_threshold=0"],
    )
    first, second = play_rounds(one, 2)
    assert (first["num_received"], first["refusal"]) == (4, None)
    assert (second["clients"], second["num_received"]) == ([], 0)
    assert second["refusal"] == "no client is left to ask: the audit has excluded 4"
    assert second["clean_accuracy"] == first["clean_accuracy"]


def test_among_benign_clients_nobody_stands_out():
    """Ranks of benign clients average 1/2: with 20 of them over 8 rounds the threshold 0.8 is seldom passed.

    A mean of 8 uniform ranks has a standard deviation of 0.102, so 0.8 is 2.9 of them away: 0.2 % a client.
    """
    excluded = 0
    for seed in range(5):
        one = prepared(
            *[f"seed={seed}", "attack=none", "aggregator=spectral_filter", "audit=reputation", "num_rounds=8"],
            *["audit.action=exclude_clients", "audit.reputation.min_rounds=8", "partition=iid"],
        )
        rows = play_rounds(one, 8)
        assert rows[-1]["audit"]["client_auc"] is None
        excluded += len(rows[-1]["audit"]["excluded_clients"])
    assert excluded <= 5  # of 100: seven standard errors above what independent ranks give


def test_dropping_poison_is_training_without_it():
    """An audit that finds exactly the stamped examples: attackers then train on what they left clean, by hand below."""
    one = prepared("attack=badnets", "aggregator=mean", "client.vectorize=false", "num_rounds=3")
    population, state = one.population, one.federation.state
    plan = AuditPlan(method=WhiteCorner(), auditor="client", action="drop_samples")
    audited = with_audit(one, plan).population
    clients = list(range(20))
    finding = audited.audit(1, clients, state.vector, state.buffers)
    assert finding is not None
    assert sum(int(mask.sum()) for mask in finding.is_poisoned.values()) > 0
    for client in clients:
        assert torch.equal(finding.flagged[client], finding.is_poisoned[client])
    trained = audited.train(1, clients, state.vector, state.buffers)
    for client in one.federation.adversary.malicious:
        kept = one.assignment[client][~finding.is_poisoned[client]]
        assignment = (*one.assignment[:client], kept, *one.assignment[client + 1 :])
        benign = replace(population, assignment=assignment, adversary=population.adversary.at_rest())
        expected = benign.train(1, [client], state.vector, state.buffers)
        assert torch.equal(trained.updates[client], expected.updates[0])
        assert int(trained.num_examples[client]) == len(kept)


@pytest.mark.parametrize("auditor", ["client", "trusted"])
def test_nothing_is_dropped_on_flags_without_a_rate_unless_the_plan_allows_it(auditor):
    """The same updates as without an audit; the record has the reason. If it does, the flagged are left out."""
    one = prepared("attack=badnets", "aggregator=mean", "client.vectorize=false", "num_rounds=2")
    state, clients = one.federation.state, list(range(20))
    plain = one.population.train(1, clients, state.vector, state.buffers)
    for allowed in (False, True):
        plan = AuditPlan(
            method=WhiteCornerAtNoRate(), auditor=auditor, action="drop_samples", allow_uncalibrated=allowed
        )
        population = with_audit(one, plan).population
        finding = population.audit(1, clients, state.vector, state.buffers)
        assert finding is not None
        assert sum(int(flags.sum()) for flags in finding.flagged.values()) > 0
        trained = population.train(1, clients, state.vector, state.buffers)
        assert torch.equal(trained.updates, plain.updates) == (not allowed)
        assert data_figures(finding)["uncalibrated"] == ["nobody knows its rate"]


def test_the_log_says_once_that_an_audit_is_not_calibrated(caplog):
    """Of a model that has not learnt anything yet clusters say nothing: 10 % of ten classes are guessed."""
    options = ["attack=badnets", "aggregator=mean", "num_rounds=2", "audit=activation_clustering", "audit.start=1"]
    options += ["audit.action=drop_samples", "audit.method.min_accuracy=0.999", "audit.method.num_starts=1"]
    rows = play_rounds(prepared(*options), 2)
    assert [row["audit"]["num_flagged"] for row in rows] == [0, 0]
    assert [row["audit"]["undecided_labels"] for row in rows] == [list(range(10))] * 2
    lines = [record.message for record in caplog.records if "calibrated" in record.message]
    assert lines[0].startswith(
        "round 1: the audit is not calibrated, and drop_samples waits (audit.allow_uncalibrated=true allows it): the "
        "model is right about"
    )
    assert len(lines) == len(set(lines))


def test_whoever_hosts_the_clients_the_trusted_auditor_finds_the_same():
    """Clients on one node, and each on its own."""
    overrides = ("attack=badnets", "aggregator=mean", "audit=spectral_signatures", "audit.start=2", "num_rounds=3")
    overrides = (*overrides, "audit.action=drop_samples", "audit.allow_uncalibrated=true", "client.vectorize=false")
    together, apart = play_rounds(prepared(*overrides), 3), play_rounds(prepared(*overrides), 3, num_nodes=20)
    assert together[0]["audit"] is None
    for one, other in zip(together[1:], apart[1:], strict=True):
        for name in ("num_examples", "num_poisoned", "num_flagged"):
            assert one["audit"][name] == other["audit"][name]
        assert one["audit"]["recall"] == pytest.approx(other["audit"]["recall"], abs=0.02)
    assert together[1]["audit"]["num_poisoned"] > 0


def test_a_client_whose_data_cannot_be_judged_is_named():
    one = prepared("attack=badnets", "aggregator=mean", "num_rounds=2")
    plan = AuditPlan(method=Confused(), auditor="client", action="drop_samples")
    audited = with_audit(one, plan).population
    state = one.federation.state
    finding = audited.audit(1, [0, 3], state.vector, state.buffers)
    assert finding is not None
    assert dict(finding.reasons) == {0: "cannot read this", 3: "cannot read this"}
    kept = audited.train(1, [0, 3], state.vector, state.buffers)
    plain = one.population.train(1, [0, 3], state.vector, state.buffers)
    assert torch.equal(kept.updates, plain.updates)
    pooled = with_audit(one, AuditPlan(method=Confused(), auditor="trusted")).population
    with pytest.raises(ValueError, match="cannot read this"):
        pooled.audit(1, [0, 3], state.vector, state.buffers)


@pytest.mark.parametrize("auditor", ["client", "trusted"])
def test_a_report_changes_nothing(auditor):
    """With the same seeds the model is byte for byte that of a run without an audit."""
    overrides = ("attack=badnets", "aggregator=mean", "num_rounds=2")
    plain = prepared(*overrides)
    audited = prepared(*overrides, "audit=spectral_signatures", f"audit.auditor={auditor}", "audit.start=1")
    play_rounds(plain, 2)
    rows = play_rounds(audited, 2)
    assert torch.equal(plain.federation.state.vector, audited.federation.state.vector)
    assert rows[0]["audit"]["num_examples"] == len(plain.dataset.train)


@component
class Normed:
    """A network with batch normalisation."""

    has_convolutions: ClassVar[bool] = False

    def build(self, input_shape, num_classes):
        layers = [nn.Linear(math.prod(input_shape), 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes)]
        return nn.Sequential(nn.Flatten(), *layers)


def test_the_model_that_has_unlearnt_goes_on_with_its_own_statistics():
    """200 clean examples in batches of 32 are 7 steps, which batch normalisation counts as it gathers statistics."""
    options = ["attack=none", "aggregator=mean", "num_rounds=1", "audit=neural_cleanse", "audit.start=1"]
    options += ["audit.method.threshold=0.01", "audit.method.inversion.success_rate=0"]  # somebody is suspected
    options += ["audit.method.inversion.num_checks=2"]
    buffers = {}
    for action in ("report", "unlearn"):
        values = compose_config([*options, f"audit.action={action}"])[0]
        one = prepare(build_scenario({**values, "model": {"_target_": "test_federated_audits.Normed"}}))
        (row,) = play_rounds(one, 1)
        assert row["audit"]["is_backdoored"] is True
        assert row["audit"]["unlearnt"] is (action == "unlearn")
        buffers[action] = one.federation.state.buffers
    steps = {name: int(values["2.num_batches_tracked"]) for name, values in buffers.items()}
    assert steps["unlearn"] - steps["report"] == 7
    assert not torch.equal(buffers["unlearn"]["2.running_mean"], buffers["report"]["2.running_mean"])


def test_a_rule_that_judges_nobody_leaves_nothing_to_gather():
    values = compose_config(["aggregator=coordinate_median", "audit=reputation"])[0]
    with pytest.raises(ConfigError, match=r"audit.method: RuleScores reads the rule's scores or shares"):
        prepare(build_scenario(values))


def test_more_clean_examples_than_there_are():
    values = compose_config(["audit=reputation", "audit.num_clean=100000"])[0]
    with pytest.raises(ConfigError, match=r"audit.num_clean: must be at most 1297"):
        prepare(build_scenario(values))
