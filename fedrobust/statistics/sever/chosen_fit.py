"""Sever's rounds, and which of their fits is kept."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import get_tags

from fedrobust.statistics.sever.filtered_fit import FilteredFit, FilterRounds, Groups, relative_to_quantile
from fedrobust.statistics.sever.fit_comparison import TOLERANCE, SampleGradients, as_good_as_any, gradient_ratios
from fedrobust.statistics.sever.per_sample_gradients import Floats, GradientFunction

log = logging.getLogger("fedrobust")

_MOST_ROUNDS = 9
"""Where the authors' rounds found something: corrupted samples that hide others may take as many to be seen."""

_LEAST_KEPT = 0.5
"""Of each class: beyond the authors' rounds no round leaves less."""

_AUTHORS_CONTAMINATION = 0.1
"""Up to this part their experiments go, and so their number of rounds is known to serve."""


@dataclass(frozen=True, eq=False)
class ChosenFit:
    """A fit, and how it came about.

    Attributes:
        fit: with the iterations of all rounds that were played, those beyond it included.
        rounds_used: after how many rounds.
        num_screened: samples that were dropped before, by their features.
        over_plain: the fit's mean squared gradient over the plain fit's, see `gradient_ratios`.
    """

    fit: FilteredFit
    rounds_used: int
    num_screened: int
    over_plain: float


def choose_fit(
    estimator: Any,
    X: Any,
    y: Any,
    gradients: GradientFunction,
    *,
    groups: Groups,
    contamination: float,
    drop_fraction: float,
    authors_rounds: int,
    num_rounds: int | None,
) -> ChosenFit:
    """Play `num_rounds` and take the last fit; or play the authors' number, perhaps more, and take the best.

    Args:
        estimator: as for `filtered_fit`.
        X: likewise.
        y: likewise.
        gradients: from a fitted estimator, `X` and `y` to whatever `as_gradients` takes.
        groups: as for `filtered_fit`.
        contamination: ε, the part of the samples that need not be described by a fit.
        drop_fraction: as for `filtered_fit`.
        authors_rounds: how many rounds to play if it is not said.
        num_rounds: how many to play; `None` to choose.
    """
    pairwise = bool(get_tags(estimator).input_tags.pairwise)
    samples = SampleGradients(gradients, X, y, is_pairwise=pairwise)
    rounds = FilterRounds(estimator, X, y, samples.scores, groups=groups, drop_fraction=drop_fraction)
    for _ in range(authors_rounds if num_rounds is None else num_rounds):
        if not rounds.play():
            break
    last = len(rounds.fits) - 1
    if last == 0:
        return ChosenFit(rounds.fit_after(0), 0, 0, 1.0)
    if num_rounds is not None:
        return _given(rounds, samples, contamination)

    screened = _screened(samples, groups, drop_fraction, authors_rounds)
    others: FilterRounds | None = None
    if screened is not None:
        others = FilterRounds(
            estimator, X, y, samples.scores, groups=groups, drop_fraction=drop_fraction, start=screened
        )

    def compare() -> Floats:
        fits = rounds.fits + ([] if others is None else others.fits)
        return gradient_ratios(samples.squared_lengths(fits), contamination)

    ratios = compare()
    good = as_good_as_any(ratios)
    if not good[0]:
        _go_on(rounds)
        if others is not None and not good[: last + 1].any():
            _go_on(others)
        ratios = compare()
        good = as_good_as_any(ratios)
    used = last if contamination <= _AUTHORS_CONTAMINATION and good[last] else int(np.flatnonzero(good)[0])
    if used < len(rounds.fits):
        chosen = ChosenFit(rounds.fit_after(used), used, 0, float(ratios[used, 0]))
        is_last = used == len(rounds.fits) - 1 > last
    else:
        assert others is not None
        used_after = used - len(rounds.fits)
        num_screened = len(y) - len(others.fits[0].kept)
        chosen = ChosenFit(others.fit_after(used_after), used_after, num_screened, float(ratios[used, 0]))
        is_last = used_after == len(others.fits) - 1 > 0
    if used == 0:
        log.warning("Sever: the plain fit is kept, as no round shortens the gradients of the samples by enough")
    elif is_last:
        log.warning(
            "Sever: of all rounds that may be played (%d) the last gives the best fit; corrupted samples may be left, "
            "which a larger num_rounds or drop_fraction may find",
            chosen.rounds_used,
        )
    return chosen


def _given(rounds: FilterRounds, samples: SampleGradients, contamination: float) -> ChosenFit:
    """The last fit, whatever it is; a line in the log if the plain one is better."""
    last = len(rounds.fits) - 1
    lengths = samples.squared_lengths([rounds.fits[0], rounds.fits[last]])
    over_plain = float(gradient_ratios(lengths, contamination)[1, 0])
    if over_plain > TOLERANCE:
        log.warning(
            "Sever: after num_rounds=%d the squared gradients are %.3g times the plain fit's over the samples that "
            "both describe; num_rounds=None would choose among the fits",
            last,
            over_plain,
        )
    return ChosenFit(rounds.fit_after(last), last, 0, over_plain)


def _go_on(rounds: FilterRounds) -> None:
    while len(rounds.iterations) < _MOST_ROUNDS and rounds.play(least_kept=_LEAST_KEPT):
        pass


def _screened(
    samples: SampleGradients, groups: Groups, drop_fraction: float, num_rounds: int
) -> tuple[NDArray[np.intp], Floats] | None:
    """The samples that are left by the same rounds on the features alone, and the scores of all; `None`: all are."""
    kept, scores = np.arange(len(groups)), np.zeros(len(groups))
    sizes = np.bincount(groups)
    for _ in range(num_rounds):
        found = samples.feature_scores(kept, groups[kept])
        if found is None:
            return None
        scores[kept] = relative_to_quantile(found[1], groups[kept], drop_fraction, sizes=sizes)
        kept = kept[scores[kept] < 1]
    return (kept, scores) if len(kept) < len(groups) else None
