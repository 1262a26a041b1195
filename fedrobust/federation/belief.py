"""How belief about a population becomes f of a round: a bound on a population is not one on a sample of it.

With 10 malicious clients of 100, a sample of 10 holds two or more of them in a quarter of the rounds. A rule that
reckons with ⌊εn⌋ = 1 is then told too little although ε is right.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import scipy.stats

from fedrobust.aggregators.base import Aggregator, SizedAggregator, UnsuitableSizeError
from fedrobust.filters.filtering import assumed_count, says_none
from fedrobust.preaggregators import Pipeline, Preaggregator

DEFAULT_CONFIDENCE = 0.99
"""Of a round's f being at least the number of malicious clients in it, where clients are sampled."""


@functools.lru_cache(maxsize=4096)
def sampled_count(assumed_fraction: float, num_clients: int, num_sampled: int, confidence: float) -> int:
    """The least f with P(more than f of the sampled clients are malicious) <= 1 - `confidence`.

    Clients are drawn without replacement from `num_clients`, ⌊ε·`num_clients`⌋ of which are malicious, so their number
    in the sample follows the hypergeometric law; this is its upper quantile. All of them if everybody is sampled.

    Example:
        >>> sampled_count(0.1, 100, 10, 0.99), sampled_count(0.1, 100, 100, 0.99)
        (3, 10)
    """
    malicious = assumed_count(assumed_fraction, num_clients)
    if num_sampled >= num_clients:
        return malicious
    return int(scipy.stats.hypergeom.ppf(confidence, num_clients, malicious, num_sampled))


def believed_rule(
    rule: Aggregator, n: int, *, num_clients: int | None, num_asked: int | None, confidence: float | None
) -> Aggregator:
    """`rule` as it should be asked about n updates: every `assumed_fraction` says f/n, f the bound on this sample.

    f is `sampled_count` of those asked, however many of them answered, since it is up to attackers to answer; but no
    more than the part can work with, and no less than ⌊εn⌋. The fraction of a part behind a pre-aggregator that merges
    clients is one of merged rows, of which each malicious client spoils one.

    Args:
        rule: a rule or a `Pipeline`; parts without an `assumed_fraction` stay as they are.
        n: the updates at hand.
        num_clients: the population; `None`: as many as were asked.
        num_asked: clients asked for an update; `None`: n.
        confidence: of the quantile; `None`: f = ⌊εn⌋ in any case.
    """
    num_asked = n if num_asked is None else num_asked
    num_clients = num_asked if num_clients is None else num_clients
    if confidence is None or num_clients == num_asked == n:
        return rule
    if not isinstance(rule, Pipeline):
        told_rule: Aggregator = _told(rule, n, n, num_clients, num_asked, confidence)
        return told_rule
    told: list[Preaggregator] = []
    rows = n
    for one in rule.preaggregators:
        told.append(_told(one, rows, n, num_clients, num_asked, confidence))
        rows = told[-1].output_size(rows)
    aggregator = _told(rule.aggregator, rows, n, num_clients, num_asked, confidence)
    return dataclasses.replace(rule, preaggregators=tuple(told), aggregator=aggregator)


def belief_warnings(rule: Pipeline, num_clients: int, num_asked: int, confidence: float | None) -> Iterator[str]:
    """One line for each part of `rule` that reckons with nobody, or with fewer than the sample may hold."""
    believed = believed_rule(rule, num_asked, num_clients=num_clients, num_asked=num_asked, confidence=confidence)
    assert isinstance(believed, Pipeline)
    rows = num_asked
    for given, told in zip(_parts(rule), _parts(believed), strict=True):
        fraction = _fraction_of(given)
        if fraction is not None and fraction > 0:
            f = assumed_count(_fraction_of(told) or 0.0, rows)
            if f == 0:
                yield f"{type(given).__name__}: {says_none(fraction, rows)}"
            wanted = _wanted(fraction, rows, num_asked, num_clients, num_asked, confidence)
            if f < wanted:
                yield (
                    f"{type(given).__name__}: {num_asked} of {num_clients} clients are sampled, of which up to "
                    f"{wanted} may be malicious with assumed_fraction={fraction:g} (sampling_confidence="
                    f"{confidence:g}); the rule can work with f={f} at most, so that some rounds are beyond it"
                )
        if isinstance(told, Preaggregator):
            rows = told.output_size(rows)


def _parts(rule: Pipeline) -> tuple[Any, ...]:
    return (*rule.preaggregators, rule.aggregator)


def _fraction_of(part: object) -> float | None:
    """The one number by which a rule or pre-aggregator, shipped or a user's own, says what the server believes."""
    fields = {one.name for one in dataclasses.fields(part)} if dataclasses.is_dataclass(part) else set()
    fraction = getattr(part, "assumed_fraction", None) if "assumed_fraction" in fields else None
    return None if fraction is None else float(fraction)


def _wanted(fraction: float, rows: int, n: int, num_clients: int, num_asked: int, confidence: float | None) -> int:
    """How many of `rows`, made of n clients, may be malicious."""
    if confidence is None:
        return assumed_count(fraction, rows)
    return sampled_count(fraction * rows / n, num_clients, num_asked, confidence)


def _told(part: Any, rows: int, n: int, num_clients: int, num_asked: int, confidence: float) -> Any:
    """`part` with the fraction that makes its f the bound on this sample."""
    fraction = _fraction_of(part)
    if fraction is None:
        return part
    least = assumed_count(fraction, rows)
    wanted = _wanted(fraction, rows, n, num_clients, num_asked, confidence)
    for f in range(min(wanted, (rows - 1) // 2), least, -1):
        told = dataclasses.replace(part, assumed_fraction=f / rows)
        if _can_work(told, rows):
            return told
    return part


def _can_work(part: object, rows: int) -> bool:
    try:
        if isinstance(part, SizedAggregator):
            part.check_size(rows)
        if isinstance(part, Preaggregator):
            part.output_size(rows)
    except UnsuitableSizeError:
        return False
    return True
