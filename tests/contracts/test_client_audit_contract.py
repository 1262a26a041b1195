"""What every audit of clients promises, over a table of all of them: the server's, and clients' own of their data."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from client_audit_cases import (
    CASES,
    NUM_CLIENTS,
    NUM_EXAMPLES,
    Case,
    Round,
    finding,
    ordinary,
    ordinary_finding,
    suspicion,
    trusted,
)
from data_audit_cases import pictures, trained_model

from fedrobust.aggregators import SpectralFilter
from fedrobust.audits import ClientAudit, Reputation
from fedrobust.commands.registry import audit_entries
from fedrobust.config.compose import compose_config
from fedrobust.data.examples import Examples
from fedrobust.engines import Local
from fedrobust.federation.round import Row
from fedrobust.flower.apps import make_client_app, make_server_app
from fedrobust.scenario import build_scenario, prepare
from fedrobust.seeds import torch_generator
from fedrobust.types import UnusableUpdatesError

READERS = [name for name, one in CASES.items() if one.reads_data]
SERVERS = [name for name, one in CASES.items() if not one.reads_data]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def reader(name: str) -> Case:
    return CASES[name]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.nan_to_num(-9.0), other.nan_to_num(-9.0))


def test_the_table_has_every_audit_of_clients_and_of_data():
    assert set(CASES) == {entry.name for entry in audit_entries() if entry.kind in ("clients", "data")}


def test_suspicion_is_a_fraction_for_each_client(case):
    found = suspicion(case, ordinary())
    assert (found.shape, found.dtype, found.device.type) == ((NUM_CLIENTS,), torch.float64, "cpu")
    assert bool(((found >= 0) & (found <= 1)).all())


def test_the_same_seed_gives_the_same_and_nothing_is_changed(case):
    """Updates, data, the clean examples, the model and the global generator."""
    seen, model = ordinary(), trained_model().module
    watched = [seen.updates, *[part.inputs for part in seen.data], *[part.labels for part in seen.data]]
    watched += [trusted().inputs, trusted().labels, *model.state_dict().values(), torch.get_rng_state()]
    before = [one.clone() for one in watched]
    first = suspicion(case, seen)
    assert same(first, suspicion(case, seen))
    watched[-1] = torch.get_rng_state()
    assert all(torch.equal(one, other) for one, other in zip(watched, before, strict=True))


def test_the_order_of_clients_is_irrelevant(case):
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        suspicion(case, ordinary(), order), suspicion(case, ordinary())[order], atol=1e-9, rtol=0, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_updates_of_any_precision(server, dtype):
    """Powers of two and their multiples are the same number in each of the formats."""
    updates = torch.randint(-4, 5, (9, 40), generator=torch_generator(0, "whole")).float() + 4
    seen = Round(updates, ())
    found = suspicion(server, replace(seen, updates=updates.to(dtype)), list(range(9)))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, suspicion(server, seen, list(range(9))), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "updates",
    [torch.ones(1, 8), torch.ones(2, 8), torch.ones(7, 8), torch.zeros(7, 8), torch.ones(7, 1)],
    ids=["one client", "two clients", "the same update", "no update", "one parameter"],
)
def test_among_clients_who_cannot_be_told_apart_nobody_is_more_suspicious(server, updates):
    found = suspicion(server, Round(updates, ()), list(range(len(updates))))
    assert len(set(found.tolist())) == 1
    assert float(found[0]) <= 0.5


@pytest.mark.parametrize("num_parameters", [30, 300])
def test_between_two_groups_of_the_same_size_the_order_of_clients_does_not_decide(server, num_parameters):
    """Half of the clients point the other way: whoever is suspected, it is not who has the larger ids."""
    signs = torch.tensor([1.0] * 5 + [-1.0] * 5)[:, None]
    updates = signs + 0.3 * torch.randn(10, num_parameters, generator=torch_generator(0, "groups"))
    found = suspicion(server, Round(updates, ()), list(range(10)))
    order = list(range(9, -1, -1))
    torch.testing.assert_close(suspicion(server, Round(updates, ()), order), found[order], atol=1e-9, rtol=0)


def test_updates_that_are_not_finite_are_refused(server):
    updates = ordinary().updates.clone()
    updates[2, 3] = math.nan
    with pytest.raises(UnusableUpdatesError, match=r"updates must be finite, rows \[2\]"):
        suspicion(server, Round(updates, ()), list(range(NUM_CLIENTS)))
    assert isinstance(server.method, ClientAudit)
    good = SpectralFilter(assumed_fraction=0.2)(ordinary().updates)
    if server is CASES["update_clustering"]:  # the other one reads the rule's answer alone
        with pytest.raises(UnusableUpdatesError, match=r"rows \[2\]"):
            server.method.suspicion(updates, good)


@pytest.mark.parametrize("name", ["spectral_signatures", "frequency_detector"])
def test_flags_go_with_their_examples(name):
    """Audits in which chance has no part beside the clean examples."""
    examples = ordinary().data[0]
    order = torch.randperm(len(examples), generator=torch_generator(0, "order"))
    (first,), (second,) = (finding(CASES[name], {0: one}).reports for one in (examples, examples.subset(order)))
    assert [one.is_poisoned for one in first.verdicts] == [one.is_poisoned for one in second.verdicts]
    assert torch.equal(first.flagged[order], second.flagged)


def test_clusters_that_are_there_are_found_in_any_order_of_the_examples():
    """Fifteen zeros and six sixes that are labelled zero; of one class, 30 clean zeros convict six of 21."""
    train = pictures()[0]
    zeros, sixes = ((train.labels == label).nonzero().squeeze(1) for label in (0, 6))
    rows = torch.cat([zeros[:15], sixes[:6]])
    method = replace(CASES["activation_clustering"].method, reduction="pca")
    order = torch.randperm(21, generator=torch_generator(0, "order"))
    for chosen in (torch.arange(21), order):
        examples = Examples(train.inputs[rows[chosen]], torch.zeros(21, dtype=torch.int64))
        found = finding(replace(CASES["activation_clustering"], method=method), {0: examples})
        assert torch.equal(found.flagged[0], chosen >= 15)


def test_scores_under_random_overlays_go_with_their_examples():
    """STRIP draws overlays anew, so that scores are as close as means of N draws are.

    A draw lies in [0, b], b = log2(10) bits, and has a variance of b² / 4 at most (Popoviciu): the mean square of the
    difference of two means is b² / 2N at most, in expectation. From one example to another they differ more.
    """
    num_draws = 200
    case = replace(CASES["strip"], method=replace(CASES["strip"].method, num_overlays=num_draws))
    examples = ordinary().data[0].subset(torch.arange(0, NUM_EXAMPLES, 5))
    order = torch.randperm(len(examples), generator=torch_generator(0, "order"))
    (first,), (second,) = (finding(case, {0: one}).reports for one in (examples, examples.subset(order)))
    bound = math.log2(10) ** 2 / (2 * num_draws)
    assert float((first.scores[order] - second.scores).square().mean()) < bound
    assert float((first.scores - second.scores).square().mean()) > bound


ODD = {
    "one class": lambda: pictures()[0].subset((pictures()[0].labels == 1).nonzero().squeeze(1)),
    "nine": lambda: ordinary().data[1].subset(torch.arange(9)),
    "one": lambda: ordinary().data[1].subset(torch.arange(1)),
    "the same": lambda: Examples(ordinary().data[1].inputs[:1].repeat(60, 1, 1, 1), torch.arange(60) % 4),
}
SILENT = {
    "activation_clustering": {"nine": "no class was judged: 9 examples, 10 are needed",
                              "one": "no class was judged: 1 examples, 10 are needed",
                              "the same": "no class was judged: all features are equal"},
    "spectral_signatures": {"nine": "no class was judged: 9 examples, 10 are needed",
                            "one": "no class was judged: 1 examples, 10 are needed"},
}  # fmt: skip
"""What an audit cannot judge, and why: clusters and directions need classes of ten, or several of them."""


@pytest.mark.parametrize("rows", ODD)
def test_a_client_with_odd_data_has_a_verdict_or_a_reason_and_touches_no_other(name, reader, rows):
    """The other clients' flags are what they were; without a verdict nothing is flagged, and nobody is innocent."""
    odd = ODD[rows]()
    found, known = finding(reader, {0: ordinary().data[0], 1: odd}), ordinary_finding(name)
    assert torch.equal(found.flagged[0], known.flagged[0])
    assert (found.flagged[1].shape, found.flagged[1].dtype) == ((len(odd),), torch.bool)
    reason = SILENT.get(name, {}).get(rows)
    assert (1 in found.reasons) == (reason is not None), found.reasons
    if reason is None:
        assert 0 <= found.suspicion(1) <= 1
        assert len(found.reports) == 2
    else:
        assert reason in found.reasons[1]
        assert not bool(found.flagged[1].any())
        assert math.isnan(found.suspicion(1))
        assert len(found.reports) == 1


def test_not_a_number_in_a_clients_data_is_its_reason(reader):
    broken = Examples(ordinary().data[1].inputs.clone(), ordinary().data[1].labels)
    broken.inputs[7] = math.nan
    found = finding(reader, {0: ordinary().data[0], 1: broken})
    assert "must be finite" in found.reasons[1]
    assert set(found.reasons) == {1}
    assert not bool(found.flagged[1].any())


def test_a_broken_model_convicts_nobody(reader):
    """A model that has overflowed is a reason for each client, in place of flags."""
    module = copy.deepcopy(trained_model().module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(math.nan)
    found = finding(reader, dict(enumerate(ordinary().data)), replace(trained_model(), module=module))
    if reader is CASES["frequency_detector"]:  # it reads no model
        assert not found.reasons
        return
    assert all("must be finite" in found.reasons[client] for client in range(NUM_CLIENTS))
    assert not any(bool(flags.any()) for flags in found.flagged.values())


def test_reputations_are_averages_that_no_order_of_clients_changes(case):
    """Three rounds of the same suspicion average to it, and the memory of a round before is left alone."""
    found, reputation = suspicion(case, ordinary()), Reputation(exclusion_threshold=0.3, min_rounds=3)
    memory, order = {}, [3, 1, 0, 2]
    for round_number in range(3):
        before = {name: values.clone() for name, values in memory.items()}
        known = memory
        memory = reputation.remember(memory, order, found[order], NUM_CLIENTS)
        assert all(torch.equal(values, known[name]) for name, values in before.items())
        assert bool(reputation.excluded(memory, NUM_CLIENTS)) <= (round_number == 2)
    torch.testing.assert_close(reputation.averages(memory, NUM_CLIENTS), found, equal_nan=True)
    expected = [client for client in range(NUM_CLIENTS) if float(found[client]) > 0.3]
    assert list(reputation.excluded(memory, NUM_CLIENTS)) == expected


def play(name: str, *overrides: str) -> list[Row]:
    """A benign federation of four clients, for two rounds."""
    options = [f"audit={name}", "attack=none", "aggregator=mean", f"num_clients={NUM_CLIENTS}", "num_rounds=2"]
    options += ["audit.start=1", "verbose=false", "plot_formats=[]", *CASES[name].overrides, *overrides]
    options += ["audit.auditor=client"] if CASES[name].reads_data else []
    values, _ = compose_config(options)
    prepared = prepare(build_scenario({**values, "dataset": {"_target_": "client_audit_cases.LargeDigits"}}))
    rows: list[Row] = []
    app = make_server_app(prepared.federation, rows.append)
    Local().run(app, make_client_app(lambda _context: prepared.population), NUM_CLIENTS)
    return rows


@pytest.mark.parametrize("name", CASES)
def test_a_benign_federation_goes_on_and_its_records_say_what_was_audited(name):
    """No poison, no malicious client: rates of them are `None`, what was looked at is there, the model still learns."""
    rows = play(name)
    assert len(rows) == 2
    assert rows[-1]["clean_accuracy"] > 0.3
    for row in rows:
        figures = row["audit"]
        assert figures["method"] == type(CASES[name].method).__name__
        assert row["seconds_audit"] > 0
        if CASES[name].reads_data:
            assert (figures["auditor"], figures["num_poisoned"], figures["recall"]) == ("client", 0, None)
            assert figures["num_examples"] == NUM_CLIENTS * NUM_EXAMPLES
            assert figures["num_flagged"] == round(figures["false_positive_rate"] * figures["num_examples"])
            assert figures["num_not_judged"] == len(figures["reasons"])
        else:
            assert (figures["auditor"], figures["client_auc"], figures["excluded_clients"]) == ("server", None, [])
            assert len(figures["reputations"]) == NUM_CLIENTS
            assert all(0 <= one <= 1 for one in figures["reputations"])
