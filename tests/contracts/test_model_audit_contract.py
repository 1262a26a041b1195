"""What every audit of a model promises, over a table of all of them."""

import copy
import dataclasses
import math

import pytest
import torch
from matplotlib.figure import Figure
from model_audit_cases import CASES, Case, digits, ordinary, trained
from torch import nn

from fedrobust.audits import AuditedModel, ModelAudit, ModelReport
from fedrobust.data.datasets import Examples
from fedrobust.seeds import torch_generator


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=[name for name, one in CASES.items() if one.reads_examples])
def reader(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def some(num: int = 200) -> Examples:
    return digits().test.subset(torch.arange(num))


def audit(case: Case, model: AuditedModel, examples: Examples | None = None, seed: int = 0) -> ModelReport:
    return case.quick()(model, some() if examples is None else examples, torch_generator(seed, "audit"))


def test_every_model_audit_is_one(case):
    assert isinstance(case.make(), ModelAudit)


def test_what_it_looks_for_is_found_and_the_report_covers_every_label(case):
    report = case.make()(trained(case.kind), some(), torch_generator(0, "audit"))
    assert report.is_backdoored is True
    assert (report.scores.shape, report.scores.dtype) == ((10,), torch.float64)
    assert (report.flagged.shape, report.flagged.dtype) == ((10,), torch.bool)
    assert not bool(report.flagged[report.scores.isnan()].any())
    if case.label is not None:
        assert bool(report.flagged[case.label])
        assert int(report.scores.nan_to_num(-math.inf).argmax()) == case.label
    assert isinstance(report.plot(), Figure)


def test_clean_models_are_not_convicted(case):
    """At most one of three; rates are 1 of 20 in the experiments (Neural Cleanse), and 1e-6 by design (ownership)."""
    verdicts = [case.make()(ordinary(seed), digits().test, torch_generator(seed, "audit")) for seed in range(3)]
    assert sum(report.is_backdoored for report in verdicts) <= 1
    assert all(report.is_backdoored == bool(report.flagged.any()) for report in verdicts)


def test_examples_and_model_are_left_as_they_were(case):
    """The examples, parameters, buffers, the mode of every part, gradients, hooks, the global generator and threads."""
    examples, module = some(), copy.deepcopy(trained(case.kind).module)
    module.train()
    module[4].eval()
    before = copy.deepcopy((examples.inputs, examples.labels, module.state_dict()))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    audit(case, AuditedModel(module, digits().normalise), examples)
    assert torch.equal(examples.inputs, before[0])
    assert torch.equal(examples.labels, before[1])
    assert all(torch.equal(tensor, before[2][name]) for name, tensor in module.state_dict().items())
    assert [name for name, part in module.named_modules() if not part.training] == ["4"]
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_same_generator_gives_the_same_report(case):
    first, second = (audit(case, trained(case.kind), seed=3) for _ in range(2))
    assert torch.equal(first.scores.nan_to_num(-9), second.scores.nan_to_num(-9))
    assert torch.equal(first.flagged, second.flagged)


def test_the_mode_of_the_model_changes_nothing(case):
    """Dropout and batch statistics would make every answer another."""
    module = copy.deepcopy(trained(case.kind).module)
    report = audit(case, AuditedModel(module.train(), digits().normalise))
    assert torch.equal(report.scores.nan_to_num(-9), audit(case, trained(case.kind)).scores.nan_to_num(-9))


def test_few_examples_will_do(case):
    """Two a class, the fewest that say anything of each: a report, or an error that says how many it takes."""
    labels = digits().test.labels
    chosen = torch.cat([(labels == label).nonzero().flatten()[:2] for label in range(10)])
    assert audit(case, trained(case.kind), digits().test.subset(chosen)).scores.shape == (10,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda one: one.subset((one.labels == 3).nonzero().flatten()), "examples of two classes at least"),
        (lambda one: one.subset(torch.arange(0)), "at least one"),
        (lambda one: Examples(one.inputs.where(one.inputs < 1, math.nan), one.labels), "finite pictures"),
        (lambda one: Examples(one.inputs * 255, one.labels), r"raw pictures in \[0, 1\], got values from 0 to 255"),
        (lambda one: Examples(one.inputs.flatten(1), one.labels), r"pictures \(N, C, H, W\)"),
        (lambda one: Examples(one.inputs, one.labels + 5), "labels must be below 10"),
        (lambda one: Examples(one.inputs[:, :, :7], one.labels), r"cannot read pictures of shape \(1, 7, 8\)"),
    ],
    ids=["one class", "none", "NaN", "bytes", "no pictures", "unknown labels", "another size"],
)
def test_examples_that_cannot_be_used_are_clear_errors(reader, make, message):
    with pytest.raises(ValueError, match=message):
        audit(reader, trained(reader.kind), make(some()))


def test_a_model_that_gives_nan_convicts_nobody(case):
    """Weights that overflowed in training: an error that says so, or a verdict that finds nothing."""
    module = copy.deepcopy(trained("clean").module)
    with torch.no_grad():
        module[5].bias[2] = math.nan
    broken = dataclasses.replace(trained("clean"), module=module)
    if case.reads_examples:
        with pytest.raises(ValueError, match="finite logits"):
            audit(case, broken)
    else:
        assert audit(case, broken).is_backdoored is False


def test_a_module_without_logits_is_a_clear_error(reader):
    with pytest.raises(ValueError, match=r"finite logits \(N, num_classes\), got shape \(200, 1, 8, 8\)"):
        audit(reader, AuditedModel(nn.Sequential(nn.Identity(), nn.BatchNorm2d(1)).eval(), digits().normalise))
