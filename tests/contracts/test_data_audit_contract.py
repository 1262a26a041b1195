"""What every audit of data promises, over a table of all of them."""

import copy
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from data_audit_cases import CASES, Case, pictures, trained_model
from matplotlib.figure import Figure
from torch import Tensor, nn

from fedrobust.audits import DATA_AUDITS, AuditedModel, AuditPlan, DataAudit, DataReport
from fedrobust.config.component import FieldError
from fedrobust.data.examples import Examples


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def audit(case: Case, examples: Examples, model: AuditedModel | None = None, seed: int = 0) -> DataReport:
    model = trained_model() if model is None else model
    generator = torch.Generator().manual_seed(seed)
    return case.audit(examples, model, generator, clean=pictures()[1] if case.reads_clean or case.takes_clean else None)


def some(num: int = 200) -> Examples:
    return pictures()[0].subset(torch.arange(num))


def tensors_of(report: DataReport) -> Iterator[Tensor]:
    yield from (report.labels, report.scores.nan_to_num(-9.0), report.flagged)
    yield torch.tensor([verdict.statistic for verdict in report.verdicts]).nan_to_num(-9.0)


def test_the_table_has_every_data_audit():
    assert {type(case.audit) for case in CASES.values()} == set(DATA_AUDITS)
    assert all(isinstance(case.audit, DataAudit) for case in CASES.values())


def test_the_report_covers_every_example_and_class(case):
    examples = some()
    report = audit(case, examples)
    assert torch.equal(report.labels, examples.labels)
    assert (report.scores.shape, report.scores.dtype) == ((200,), torch.float64)
    assert (report.flagged.shape, report.flagged.dtype) == ((200,), torch.bool)
    assert [verdict.label for verdict in report.verdicts] == examples.labels.unique().tolist()
    for verdict in report.verdicts:
        assert verdict.num_examples == int((examples.labels == verdict.label).sum())
        assert (verdict.is_poisoned is None) == bool(verdict.reason)
        assert verdict.is_poisoned is None or math.isfinite(verdict.statistic)
    assert not bool(report.flagged[report.scores.isnan()].any())
    kept = report.kept(examples)
    assert torch.equal(kept.labels, examples.labels[~report.flagged])


def test_inputs_and_model_are_left_as_they_were(case):
    """The examples, the clean ones, parameters, buffers, the mode of every part, and no hooks."""
    examples, model = some(), copy.deepcopy(trained_model().module)
    model.train()
    model[3].eval()
    before = copy.deepcopy((examples.inputs, examples.labels, pictures()[1].inputs, model.state_dict()))
    audit(case, examples, AuditedModel(model, trained_model().normalise))
    assert torch.equal(examples.inputs, before[0])
    assert torch.equal(examples.labels, before[1])
    assert torch.equal(pictures()[1].inputs, before[2])
    assert all(torch.equal(tensor, before[3][name]) for name, tensor in model.state_dict().items())
    assert [name for name, part in model.named_modules() if not part.training] == ["3"]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_generator_gives_the_same_report(case):
    state = torch.get_rng_state()
    first, second = audit(case, some(), seed=3), audit(case, some(), seed=3)
    assert all(torch.equal(one, other) for one, other in zip(tensors_of(first), tensors_of(second), strict=True))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was drawn from"


def test_clean_data_are_flagged_at_the_stated_rate(case):
    """A calibrated threshold's rate is Beta(k, n - k + 1), k = ⌊rate (n + 1)⌋: within five standard deviations of it.

    Spectral signatures flag ⌊1.5 ε n⌋ of each class, poison or not. Clustering flags what it convicts, at no stated
    rate: at most half of a class.
    """
    examples = pictures()[0]
    report = audit(case, examples)
    for label in examples.labels.unique().tolist():
        of_class = report.flagged[examples.labels == label]
        if "spectral" in report.audit:
            assert int(of_class.sum()) == math.floor(1.5 * 0.1 * len(of_class))
        elif "clustering" in report.audit:  # without clean examples by which it could be calibrated
            convicted = label in report.poisoned_labels
            assert bool(of_class.any()) == convicted
            assert int(of_class.sum()) <= len(of_class) / 2
    if case.false_positive_rate is not None and case.num_calibration is not None:
        n = case.num_calibration
        k = math.floor(case.false_positive_rate * (n + 1))
        mean, variance = k / (n + 1), k * (n - k + 1) / ((n + 1) ** 2 * (n + 2))
        slack = 5 * math.sqrt(variance + mean * (1 - mean) / len(examples))
        assert float(report.flagged.double().mean()) < mean + slack
        assert sum(bool(verdict.is_poisoned) for verdict in report.verdicts) <= 2


def test_flags_come_with_a_stated_rate_or_say_that_they_have_none(case):
    """And a plan acts on the latter only if it is told to; without clean examples there is no rate."""
    report = audit(case, pictures()[0])
    assert bool(report.uncalibrated) == (not case.reads_clean and not case.takes_clean)
    if not case.reads_clean:
        alone = case.audit(some(), trained_model(), torch.Generator().manual_seed(0))
        assert alone.uncalibrated
    for action in ("drop_samples", "exclude_clients"):
        plan = {"method": case.audit, "auditor": "trusted", "action": action}
        assert AuditPlan(**plan, allow_uncalibrated=True).acts
        if getattr(case.audit, "uncalibrated", ""):
            says = (
                rf"action: must be report for \w+, which is not calibrated .*'{action}'; audit.allow_uncalibrated=true"
            )
            with pytest.raises(FieldError, match=says):
                AuditPlan(**plan)
        else:
            assert AuditPlan(**plan).acts


def test_a_class_of_fewer_than_ten_is_not_judged(case):
    examples = pictures()[0]
    nines = (examples.labels == 9).nonzero().squeeze(1)[:9]
    others = (examples.labels < 8).nonzero().squeeze(1)[:300]
    report = audit(case, examples.subset(torch.cat([nines, others])))
    small = report.verdicts[-1]
    assert (small.label, small.is_poisoned, small.num_examples) == (9, None, 9)
    assert small.reason == "9 examples, 10 are needed"
    assert all(verdict.is_poisoned is not None or verdict.reason for verdict in report.verdicts)


def test_one_class_only(case):
    """Judged, or refused with the reason."""
    examples = pictures()[0]
    ones = examples.subset((examples.labels == 1).nonzero().squeeze(1))
    if case.needs_classes:
        with pytest.raises(ValueError, match=r"examples of at least 2 classes, got labels \[1\]"):
            audit(case, ones)
    else:
        report = audit(case, ones)
        assert [verdict.label for verdict in report.verdicts] == [1]
        assert not bool(report.scores.isnan().any())


class Poisoned(nn.Module):
    """Its features are NaN for some inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(256, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs.flatten(1)
        return self.head(torch.where(features.mean(dim=1, keepdim=True) > 0.3, features / 0 - features / 0, features))


def test_nan_features_are_refused(case):
    """By name and row where features are read; in the logits by those that read logits."""
    if not case.reads_model:
        pytest.skip("reads no model")
    says = "features must be finite, rows" if case.reads_features else "logits must be finite"
    with pytest.raises(ValueError, match=says):
        audit(case, some(), AuditedModel(Poisoned(), lambda one: one))


def test_nan_inputs_are_refused(case):
    inputs, labels = some().inputs.clone(), some().labels
    inputs[7] = math.nan
    with pytest.raises(ValueError, match=r"must be finite"):
        audit(case, Examples(inputs, labels))


def test_a_layer_that_does_not_exist_is_named_with_those_that_do(case):
    if not case.reads_features:
        pytest.skip("reads no layer")
    wrong = dataclasses.replace(case, audit=dataclasses.replace(case.audit, layer="fc"))
    with pytest.raises(ValueError, match=r"feature layer must be one of 0, 1, .*9, got 'fc'"):
        audit(wrong, some())


def test_what_is_needed_must_be_given(case):
    generator = torch.Generator().manual_seed(0)
    if case.reads_model:
        with pytest.raises(ValueError, match="reads a model trained on the examples, got model=None"):
            case.audit(some(), None, generator, clean=pictures()[1])
    if case.reads_clean:
        with pytest.raises(ValueError, match=r"needs at least \d+ clean examples, got none"):
            case.audit(some(), trained_model(), generator)


def test_the_report_plots(case, tmp_path: Path):
    """Two panels whose axes say what they show, and a title with the counts."""
    report = audit(case, some())
    poisoned = torch.zeros(200, dtype=torch.bool)
    poisoned[:20] = True
    figure = report.plot(poisoned)
    assert isinstance(figure, Figure)
    assert [axes.get_ylabel() for axes in figure.axes] == [report.score_name, report.statistic_name]
    assert [axes.get_xlabel() for axes in figure.axes] == ["label", "label"]
    assert f"{int(report.flagged.sum())} of 200 examples flagged" in figure.get_suptitle()
    figure.savefig(tmp_path / "report.png")
