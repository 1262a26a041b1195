import pytest

from fedrobust.aggregators import CoordinateMedian, FoolsGold
from fedrobust.component import FieldError
from fedrobust.preaggregators import Bucketing, ClientMomentum
from fedrobust.preaggregators.pipeline import Pipeline


def test_whoever_follows_clients_must_come_before_they_are_merged() -> None:
    bucketing, momentum = Bucketing(bucket_size=2), ClientMomentum()
    Pipeline(preaggregators=(momentum, bucketing), aggregator=CoordinateMedian())
    with pytest.raises(FieldError, match="Bucketing merges clients, ClientMomentum follows each"):
        Pipeline(preaggregators=(bucketing, momentum), aggregator=CoordinateMedian())
    with pytest.raises(FieldError, match="Bucketing merges clients, FoolsGold follows each"):
        Pipeline(preaggregators=(bucketing,), aggregator=FoolsGold())
