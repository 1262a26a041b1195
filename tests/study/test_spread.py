import statistics

import pytest

from fedrobust.study import mean_and_deviation, median_and_range, percent


def test_means_and_deviations_are_those_of_the_statistics_module():
    values = [0.91, 0.935, 0.972]
    rates = [100 * value for value in values]
    assert percent(values) == f"{statistics.mean(rates):.1f} ± {statistics.stdev(rates):.1f} %"
    expected = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} dB"
    assert mean_and_deviation(values, 3, " dB") == expected
    assert mean_and_deviation(iter(values), 3, " dB") == expected


@pytest.mark.parametrize(("values", "shown"), [([0.5], "50.0 ± 0.0 %"), ([], "")])
def test_few_values(values, shown):
    assert percent(values) == shown


def test_median_and_range_by_hand():
    assert median_and_range([3.0, 1.0, 2.0, 10.0]) == "2.50 (1.00 to 10.00)"
    assert median_and_range([3.0, 1.04, 2.0], 1) == "2.0 (1.0 to 3.0)"
