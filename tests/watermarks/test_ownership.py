"""The ownership test against sums of binomial terms in exact fractions, and on models that know nothing."""

import math
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from marked_digits import material, pictures
from torch import Tensor

from fedrobust.data.examples import Examples
from fedrobust.watermarks import Noise, Triggers, verify
from fedrobust.watermarks.ownership import binomial_p_value, count_matches, required_matches, upper_bound


@dataclass(frozen=True)
class Says:
    """A model that answers the i-th input with the i-th of these labels."""

    answers: Tensor

    def logits(self, inputs: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(self.answers[: len(inputs)], 10).float()


def triggers(num: int = 20, right_label: int = 3, random: bool = False) -> Triggers:
    labels = torch.full((num,), right_label)
    return Triggers(Examples(torch.zeros(num, 1), labels), 10, has_random_labels=random)


def model_with(matches: int, num: int = 20, right_label: int = 3) -> Says:
    answers = torch.full((num,), (right_label + 1) % 10)
    answers[:matches] = right_label
    return Says(answers)


@pytest.mark.parametrize(("k", "n", "chance"), [(2, 3, "1/2"), (3, 10, "1/5"), (0, 5, "1/10"), (17, 20, "1/10")])
def test_the_p_value_is_the_sum_of_binomial_terms(k, n, chance):
    """In exact fractions; two or more heads of three are 4/8."""
    p = Fraction(chance)
    exact = sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))
    assert binomial_p_value(k, n, float(p)) == pytest.approx(float(exact), rel=1e-10)
    if (k, n) == (2, 3):
        assert exact == Fraction(1, 2)


def test_all_of_twenty_by_chance_is_ten_to_the_minus_twenty():
    assert binomial_p_value(20, 20, 0.1) == pytest.approx(1e-20, rel=1e-9)


def test_the_bound_above_no_match_is_closed():
    """(1 - p)^n = 1 - confidence for no match in n; for n of n it is 1."""
    assert upper_bound(0, 20, 0.99) == pytest.approx(1 - 0.01 ** (1 / 20), rel=1e-9)
    assert upper_bound(20, 20) == 1.0
    # At the bound, as few matches or fewer have probability 1 - confidence.
    bound = upper_bound(4, 20, 0.95)
    assert 1 - binomial_p_value(5, 20, bound) == pytest.approx(0.05, rel=1e-6)


def test_required_matches_are_the_first_that_convince():
    """Of 20 with chance 1/10: P(X >= 11) = 7.1e-7 and P(X >= 10) = 7.2e-6, by the exact sum."""
    tail = [sum(math.comb(20, j) * 0.1**j * 0.9 ** (20 - j) for j in range(k, 21)) for k in (10, 11)]
    assert tail[1] <= 1e-6 < tail[0]
    assert required_matches(20, 0.1, 1e-6) == 11
    assert required_matches(20, 0.1, 1e-6, min_accuracy=0.9) == 18
    assert required_matches(20, 1.0, 1e-6) == 21


@pytest.mark.parametrize(("matches", "is_owner"), [(20, True), (11, True), (10, False), (2, False)])
def test_the_verdict_on_random_labels(matches, is_owner):
    found = verify(model_with(matches), triggers(random=True))
    assert found.is_owner == is_owner
    assert (found.num_matches, found.num_triggers, found.accuracy) == (matches, 20, matches / 20)
    assert found.chance == 0.1
    assert found.required_matches == 11
    assert found.p_value == binomial_p_value(matches, 20, 0.1)


def test_a_small_p_value_is_not_enough_where_accuracy_is_asked_for():
    assert verify(model_with(15), triggers(random=True), min_accuracy=0.75).is_owner
    assert not verify(model_with(15), triggers(random=True), min_accuracy=0.8).is_owner


def test_one_label_for_all_is_judged_by_what_unmarked_models_do():
    """A model that any unmarked one resembles is nobody's; beside references that never match it is the owner's."""
    never, often = model_with(0), model_with(15)
    suspect = model_with(20)
    among_strangers = verify(suspect, triggers(), [never, never])
    assert among_strangers.is_owner
    assert among_strangers.chance == pytest.approx(1 - 0.01 ** (1 / 20))
    assert among_strangers.reference_accuracies == (0.0, 0.0)
    among_equals = verify(suspect, triggers(), [never, often])
    assert not among_equals.is_owner
    assert among_equals.chance == upper_bound(15, 20)
    assert verify(suspect, triggers(), [suspect]).p_value == 1.0


def test_a_chance_below_a_blind_guess_is_not_believed():
    hundred = triggers(num=100)
    assert verify(model_with(100, 100), hundred, [model_with(0, 100)]).chance == 0.1


def test_what_cannot_be_tested():
    with pytest.raises(ValueError, match="need unmarked reference models"):
        verify(model_with(20), triggers())
    with pytest.raises(ValueError, match=r"max_p_value must be in \(0, 1\)"):
        verify(model_with(20), triggers(random=True), max_p_value=0.0)


def test_a_model_that_has_blown_up_answers_nothing():
    class Nothing:
        def logits(self, inputs: Tensor) -> Tensor:
            return torch.full((len(inputs), 10), float("nan"))

    assert count_matches(Nothing(), triggers(right_label=0)) == 0


def test_p_values_of_a_model_that_always_says_the_same_are_those_of_chance():
    """Under random labels P(p-value <= α) <= α, whatever a model answers; the matches themselves average N / 10.

    2,000 trigger sets of 20: the mean number of matches is 2 ± 0.03 (1.34 / √2000), four of these are allowed.
    """
    dataset, says = pictures(), Says(torch.full((20,), 7))
    found = [verify(says, Noise().draw(material(dataset, seed=seed))) for seed in range(2000)]
    p_values = torch.tensor([one.p_value for one in found])
    assert float(torch.tensor([float(one.num_matches) for one in found]).mean()) == pytest.approx(2, abs=0.12)
    for alpha in (0.5, 0.1, 0.01):
        allowed = alpha + 4 * math.sqrt(alpha * (1 - alpha) / 2000)
        assert float((p_values <= alpha).double().mean()) <= allowed
    assert not any(one.is_owner for one in found)
