"""Pictures of audits: what a report is of, and who is malicious, whatever the round."""

from pathlib import Path

import pytest
import torch

from fedrobust.audits.base import ClassVerdict, DataReport
from fedrobust.audits.data_auditing import DataFinding
from fedrobust.evaluation.audit import client_figures
from fedrobust.records.plot_audit import plot_client_audit, save_report
from fedrobust.records.run_folder import RunFolder


def report(num_examples: int) -> DataReport:
    labels, nothing = torch.zeros(num_examples, dtype=torch.int64), torch.zeros(num_examples)
    verdict = ClassVerdict(0, False, 0.0, num_examples)
    return DataReport("test", labels, nothing.double(), nothing.bool(), (verdict,), "score", "statistic")


@pytest.mark.parametrize(
    ("sizes", "reports", "reasons"),
    [
        ((30, 40), (30, 40), {}),
        ((30, 40), (70,), {}),
        ((30, 40), (40,), {0: "one class"}),
        ((30, 40), (), {0: "one class", 1: "one class"}),
        ((30,), (30,), {}),
    ],
    ids=["each its own", "pooled", "one could be judged", "none could be judged", "one client"],
)
def test_every_finding_is_drawn(tmp_path: Path, sizes, reports, reasons):
    """Of its own audit by one client alone, too, where others could not judge theirs."""
    masks = {client: torch.zeros(size, dtype=torch.bool) for client, size in enumerate(sizes)}
    finding = DataFinding(masks, masks, tuple(map(report, reports)), reasons)
    assert save_report(RunFolder(tmp_path), 3, finding).read_bytes().startswith(b"\x89PNG")


def test_who_is_malicious_does_not_depend_on_who_has_attacked_yet(tmp_path: Path):
    """Both judged clients are malicious, one has attacked: there is no curve of malicious against benign."""
    nothing = float("nan")
    figures = client_figures(torch.tensor([0.9, 0.4, nothing, nothing]), (), (0, 1))
    assert (figures["malicious_clients"], figures["client_auc"]) == ([0, 1], None)
    rows = [{"malicious_clients": [], "audit": None}, {"malicious_clients": [0], "audit": figures}]
    path = plot_client_audit(tmp_path / "clients.png", rows)
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")
