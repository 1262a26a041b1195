"""How well audits did, against counts by hand."""

import pytest
import torch
from torch import Tensor

from fedrobust.audits.data_auditing import DataFinding
from fedrobust.evaluation.audit import client_figures, data_figures


def flags(*places: int, of: int) -> Tensor:
    found = torch.zeros(of, dtype=torch.bool)
    found[list(places)] = True
    return found


def finding(flagged: dict[int, Tensor], poisoned: dict[int, Tensor]) -> DataFinding:
    return DataFinding(flagged, poisoned, (), {})


def test_rates_are_of_the_poisoned_and_of_the_clean_examples() -> None:
    """Client 0 has 10 examples, 4 poisoned; client 5 has 6, 1 poisoned: 5 poisoned in all, 11 clean ones."""
    figures = data_figures(
        finding(
            {0: flags(0, 1, 7, of=10), 5: flags(0, 3, of=6)},
            {0: flags(0, 1, 2, 3, of=10), 5: flags(0, of=6)},
        )
    )
    assert figures["num_examples"] == 16
    assert figures["num_poisoned"] == 5
    assert figures["num_flagged"] == 5
    assert figures["recall"] == pytest.approx(3 / 5)
    assert figures["false_positive_rate"] == pytest.approx(2 / 11)


def test_a_rate_of_nothing_is_none() -> None:
    assert data_figures(finding({0: flags(1, of=4)}, {0: flags(of=4)}))["recall"] is None
    assert data_figures(finding({0: flags(1, of=2)}, {0: flags(0, 1, of=2)}))["false_positive_rate"] is None


def test_excluded_rates_are_of_the_malicious_and_of_the_benign_clients() -> None:
    """Ten clients, 0, 1, 2 malicious; 1, 2, 5, 9 are excluded: 2 of 3 malicious ones and 2 of 7 benign ones."""
    averages = torch.tensor([0.1, 0.9, 0.8, 0.2, 0.2, 0.7, 0.2, 0.2, 0.2, 0.6])
    figures = client_figures(averages, (1, 2, 5, 9), (0, 1, 2))
    assert figures["excluded_tpr"] == pytest.approx(2 / 3)
    assert figures["excluded_fpr"] == pytest.approx(2 / 7)
    # Of the 21 pairs (malicious, benign) the malicious one is the more suspicious in 7 + 7 + 0: client 0 is above none.
    assert figures["client_auc"] == pytest.approx(14 / 21)


def test_clients_that_were_never_judged_do_not_count_in_the_auc() -> None:
    figures = client_figures(torch.tensor([0.9, torch.nan, 0.1, torch.nan]), (), (0, 3))
    assert figures["client_auc"] == 1.0
    assert figures["reputations"] == [pytest.approx(0.9), None, pytest.approx(0.1), None]
    assert (figures["excluded_tpr"], figures["excluded_fpr"]) == (0.0, 0.0)
    everyone = client_figures(torch.tensor([0.9, 0.8]), (0, 1), (0, 1))
    assert (everyone["client_auc"], everyone["excluded_tpr"], everyone["excluded_fpr"]) == (None, 1.0, None)
