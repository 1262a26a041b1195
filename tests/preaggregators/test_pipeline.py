import pytest

from fedrobust.aggregators import CoordinateMedian, FoolsGold
from fedrobust.config.component import FieldError
from fedrobust.preaggregators import Bucketing, ClientMomentum, Clipping
from fedrobust.preaggregators.pipeline import Pipeline


def test_whoever_follows_clients_must_come_before_they_are_merged() -> None:
    bucketing, momentum = Bucketing(bucket_size=2), ClientMomentum()
    Pipeline(preaggregators=(momentum, bucketing), aggregator=CoordinateMedian())
    with pytest.raises(FieldError, match="Bucketing merges clients, ClientMomentum follows each"):
        Pipeline(preaggregators=(bucketing, momentum), aggregator=CoordinateMedian())
    with pytest.raises(FieldError, match="Bucketing merges clients, FoolsGold follows each"):
        Pipeline(preaggregators=(bucketing,), aggregator=FoolsGold())


def test_a_class_is_no_pre_aggregator() -> None:
    """It has all that one has, `__call__` included, and would only fail in the first round."""
    with pytest.raises(FieldError, match=r"preaggregators\[1\]: must be a pre-aggregator, got <class .*Clipping'>"):
        Pipeline(preaggregators=(Bucketing(), Clipping), aggregator=CoordinateMedian())
