"""A model beside published scores: how well each puts the same patients in order.

Lives here: what a comparison holds, and computing it on the predictions that have the whole score.
Does not live here: which score is compared with which outcome (the caller says), the scores
themselves, the page. Called by `validation.analysis`.

The cohort's columns `score:<id>` hold a number where every input of the score was known at the
moment of the prediction, else NaN; `score-risk:<id>` holds the risk it gives. A score that lacks an
input is never filled in: those predictions are left out of the comparison, for the model as well.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from validation import resampling, statistics
from validation.cohort import RISK_OF_SCORE, SCORE, Cohort, Sample, sample_of
from validation.errors import TooFewEvents
from validation.resampling import Floats, Progress
from validation.statistics import Statistic

SHARE: Final = "share_with"
AUROC: Final = "auroc_of"
MODEL_AUROC: Final = "model_auroc_beside"
DIFFERENCE: Final = "auroc_difference"
OBSERVED_EXPECTED: Final = "observed_expected_of"
SLOPE: Final = "calibration_slope_of"
"""What the names of the statistics begin with; the score's id follows."""


class Comparator(NamedTuple):
    """A score to compare with: its id, name and publication.

    `predicts`: the outcome its publication names, in words; empty where it names none.
    `risk_of`: what the risk it gives is a risk of, in the words of the model's outcome; None where
    it gives none of this outcome, so that only its rank can be compared.
    """

    id: str
    label: str
    version: str
    predicts: str
    risk_of: Literal["outcome", "outcome-or-death"] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score, the share of predictions that have it, and the statistics on those."""

    comparator: Comparator
    share: Statistic
    statistics: tuple[Statistic, ...]


def compare(
    cohort: Cohort, comparator: Comparator, *, draws: int, seed: int, progress: Progress
) -> Comparison:
    """AUROC of score and model on the predictions that have the score, and model less score.

    Where the score gives a risk of the outcome, also its O/E and calibration slope. Intervals draw
    patients; the difference measures both in each draw (DeLong's problem of correlated curves, for
    repeated patients). Not estimable under ten patients with, or without, the outcome.
    """
    whole = cohort.rows[f"{SCORE}{comparator.id}"].notna().to_numpy()
    share = statistics.proportion(f"{SHARE}_{comparator.id}", whole, sample_of(cohort).patient)
    having = Cohort(rows=cohort.rows[whole].reset_index(drop=True), flow=())
    found = _ranks(having, comparator, draws=draws, seed=seed, progress=progress)
    if comparator.risk_of:
        found += _risks(having, comparator, draws=draws, seed=seed, progress=progress)
    return Comparison(comparator, share, tuple(found))


def _ranks(
    having: Cohort, comparator: Comparator, *, draws: int, seed: int, progress: Progress
) -> list[Statistic]:
    names = [f"{kind}_{comparator.id}" for kind in (AUROC, MODEL_AUROC, DIFFERENCE)]
    model = sample_of(having)
    if why := _too_few(model):
        return [_none(name, why, model) for name in names]
    score = replace(model, risk=_numbers(having.rows, f"{SCORE}{comparator.id}"))
    drawn = resampling.paired_aurocs(
        resampling.rank(score), resampling.rank(model), draws=draws, seed=seed, progress=progress
    )
    of_score, of_model = (resampling.auroc(resampling.weigh_equally(one)) for one in (score, model))
    values = (of_score, of_model, of_model - of_score)
    columns = (drawn[:, 0], drawn[:, 1], drawn[:, 1] - drawn[:, 0])
    return [
        _bootstrapped(name, value, column, model, draws=draws)
        for name, value, column in zip(names, values, columns, strict=True)
    ]


def _risks(
    having: Cohort, comparator: Comparator, *, draws: int, seed: int, progress: Progress
) -> list[Statistic]:
    names = [f"{kind}_{comparator.id}" for kind in (OBSERVED_EXPECTED, SLOPE)]
    with_death = comparator.risk_of == "outcome-or-death"
    sample = replace(
        sample_of(having, death_as_event=with_death),
        risk=_numbers(having.rows, f"{RISK_OF_SCORE}{comparator.id}"),
    )
    if why := _too_few(sample):
        return [_none(name, why, sample) for name in names]
    drawn = resampling.replicates(
        resampling.rank(sample),
        lambda weighted: np.array([resampling.observed_expected(weighted)]),
        draws=draws,
        seed=seed,
        progress=progress,
    )
    value = resampling.observed_expected(resampling.weigh_equally(sample))
    return [
        _bootstrapped(names[0], value, drawn[:, 0], sample, draws=draws),
        replace(statistics.calibration_slope(sample), name=names[1]),
    ]


def _numbers(rows: pd.DataFrame, column: str) -> Floats:
    return rows[column].to_numpy(dtype=np.float64)


def _bootstrapped(
    name: str, value: float, drawn: Floats, sample: Sample, *, draws: int
) -> Statistic:
    low, high = resampling.percentile_interval(drawn)
    method = f"percentile bootstrap of patients, {draws} draws"
    return Statistic(name, value, low, high, method, sample.n, sample.events)


def _too_few(sample: Sample) -> str:
    """Why nothing can be said of a sample; empty where something can."""
    try:
        statistics.require_events(sample)
    except TooFewEvents as error:
        return str(error)
    return ""


def _none(name: str, why: str, sample: Sample) -> Statistic:
    return statistics.not_estimable(name, why, n=sample.n, events=sample.events)
