"""Plans: what fits together, and in which rounds."""

import pytest

from fedrobust.audits import AuditPlan, NeuralCleanse, RuleScores, SpectralSignatures, Strip, UpdateClustering
from fedrobust.config.component import FieldError


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (SpectralSignatures(), "data"),
        (Strip(), "data"),
        (NeuralCleanse(), "model"),
        (RuleScores(), "clients"),
        (UpdateClustering(), "clients"),
        (None, None),
    ],
)
def test_what_a_method_looks_at(method, kind):
    assert AuditPlan(method=method, auditor="trusted" if kind == "data" else "server").kind == kind


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"method": SpectralSignatures(), "auditor": "server"},
            r"auditor: must be client or trusted for SpectralSignatures, an audit of data, got 'server'",
        ),
        ({"method": NeuralCleanse(), "auditor": "client"}, r"auditor: must be server for NeuralCleanse"),
        (
            {"method": NeuralCleanse(), "action": "drop_samples"},
            r"action: must be report or unlearn for NeuralCleanse, an audit of model",
        ),
        ({"method": RuleScores(), "action": "unlearn"}, r"action: must be report or exclude_clients for RuleScores"),
        (
            {"method": SpectralSignatures(), "auditor": "trusted", "action": "drop_samples"},
            r"action: must be report for SpectralSignatures, which is not calibrated \(.*\), got 'drop_samples'; "
            r"audit.allow_uncalibrated=true allows it",
        ),
        (
            {"method": Strip(), "auditor": "client", "action": "exclude_clients"},
            r"action: must be report or drop_samples where clients audit themselves",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(FieldError, match=message):
        AuditPlan(**fields)


def test_rounds_of_audits():
    plan = AuditPlan(method=RuleScores(), start=4, every=3)
    assert [number for number in range(1, 12) if plan.is_due(number)] == [4, 7, 10]
    assert not any(AuditPlan().is_due(number) for number in range(1, 12))
