"""The schedule of λ, by hand."""

import pytest
import torch

from fedrobust.audits.model.mask_weight import MaskWeight


def test_schedule_by_hand():
    """Patience 2. Label 0 succeeds always: 1, 2, 2, 4. Label 1 never: 1, 2^-1.5, 2^-1.5, 2^-3. Label 2 in turn: 1."""
    weight = MaskWeight(torch.ones(3, dtype=torch.float64))
    seen = []
    for check in range(4):
        weight.update(torch.tensor([True, False, check % 2 == 0]), patience=2)
        seen += weight.values.tolist()
    low = 2**-1.5
    assert seen == pytest.approx([1, 1, 1, 2, low, 1, 2, low, 1, 4, low**2, 1])
    assert weight.was_raised.tolist() == [True, False, False]
    assert weight.was_lowered.tolist() == [False, True, False]


def test_a_failure_breaks_a_row_of_successes():
    """Successes 4, failure, successes 4: five in a row never come, so λ stays; then a fifth doubles it."""
    weight = MaskWeight(torch.ones(1))
    for succeeds in [True] * 4 + [False] + [True] * 4:
        weight.update(torch.tensor([succeeds]), patience=5)
    assert weight.values.tolist() == [1.0]
    weight.update(torch.tensor([True]), patience=5)
    assert weight.values.tolist() == [2.0]


def test_labels_that_are_left_go_on_as_before():
    """Two successes of five, then label 0 leaves: label 1 needs three more."""
    weight = MaskWeight(torch.tensor([1.0, 3.0]))
    for _ in range(2):
        weight.update(torch.tensor([True, True]), patience=5)
    weight = weight.of(torch.tensor([False, True]))
    for _ in range(3):
        weight.update(torch.tensor([True]), patience=5)
    assert weight.values.tolist() == [6.0]
