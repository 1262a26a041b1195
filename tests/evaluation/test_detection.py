"""Who counts as detected, against counts by hand."""

import pytest
import torch

from fedrobust.evaluation.detection import Detection, measure_detection


@pytest.mark.parametrize(
    ("shares", "attackers", "expected"),
    [
        # A small share is a share: nobody is detected, however unequal they are.
        ([0.9, 0.05, 0.05, 1e-9], (1, 3), Detection(0.0, 0.0)),
        ([0.5, 0.0, 0.3, 0.2], (1, 3), Detection(0.5, 0.0)),
        ([0.0, 0.0, 0.7, 0.3], (1, 3), Detection(0.5, 0.5)),
        ([0.0, 0.0, 1.0, 0.0], (1, 3), Detection(1.0, 0.5)),
        ([0.25, 0.25, 0.5, 0.0], (), Detection(None, 0.25)),
        ([0.25, 0.25, 0.5, 0.0], (0, 1, 2, 3), Detection(0.25, None)),
        ([0.25, 0.75, 0.0, 0.0], (2, 99), Detection(1.0, 1 / 3)),
    ],
)
def test_a_client_is_detected_if_its_share_is_zero(
    shares: list[float], attackers: tuple[int, ...], expected: Detection
) -> None:
    assert measure_detection((0, 1, 2, 3), attackers, torch.tensor(shares)) == expected


def test_clients_are_known_by_their_ids() -> None:
    assert measure_detection((4, 7, 9), (7,), torch.tensor([0.5, 0.0, 0.5])) == Detection(1.0, 0.0)
