"""The whole validation of a set of predictions, in one straight line.

Lives here: `validate` and what it returns. Does not live here: how each figure is computed
(`statistics`, `resampling`), what is written and what is masked (`report`, `disclosure`).
Called by the command `varsel validate`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd

from validation import resampling, statistics
from validation.cohort import Cohort, FlowStep, Sample, sample_of, select_cohort
from validation.comparison import Comparator, Comparison, compare
from validation.resampling import MEASURES, Floats, Progress, Weighted
from validation.statistics import Statistic

DECISION_THRESHOLDS: Final = np.arange(1, 61) / 100
"""Where the decision curve is drawn: 1 % to 60 %."""

DEFAULT_DRAWS: Final = 1000
DEATH_AS_EVENT: Final = "death_as_event"
"""Prefix of the statistics of the sensitivity analysis."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Everything the report shows, exact and unmasked.

    `calibration_groups`, `calibration_curve`, `decision_curve` and `distribution` are the tables
    behind the figures; `at_thresholds` holds the proportions at each card threshold, `comparisons`
    the published scores beside the model; `first` and `last` are the earliest and latest index
    time analysed.
    """

    flow: tuple[FlowStep, ...]
    statistics: tuple[Statistic, ...]
    at_thresholds: Mapping[float, tuple[Statistic, ...]]
    comparisons: tuple[Comparison, ...]
    calibration_groups: pd.DataFrame
    calibration_curve: pd.DataFrame
    decision_curve: pd.DataFrame
    distribution: pd.DataFrame
    n: int
    patients: int
    events: int
    first: datetime
    last: datetime
    draws: int
    seed: int


def silent(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def validate(
    frame: pd.DataFrame,
    *,
    thresholds: Sequence[float],
    excluded: Mapping[str, int],
    comparators: Sequence[Comparator] = (),
    bootstrap: int = DEFAULT_DRAWS,
    seed: int = 0,
    progress: Progress = silent,
) -> Validation:
    """How well the risks held: flow, discrimination, calibration, decision curve, distribution.

    `frame` is described in `validation.cohort`; `thresholds` are the card thresholds (0 to 1);
    `excluded` is what the caller left out before, as reason and count; `comparators` are the
    published scores to compare with, which the frame has columns of; `bootstrap` is the number of
    draws. The same frame and seed give the same figures. Raises `InvalidFrame`, and
    `TooFewEvents` under ten patients with or without the outcome.
    """
    cohort = select_cohort(frame, excluded)
    sample = sample_of(cohort)
    statistics.require_events(sample)
    drawn = _draw(sample, draws=bootstrap, seed=seed, progress=progress)
    return Validation(
        flow=cohort.flow,
        statistics=(
            statistics.event_rate(sample),
            *_measures(sample, drawn, draws=bootstrap),
            statistics.calibration_in_the_large(sample),
            statistics.calibration_slope(sample),
            *_with_death_as_event(cohort, draws=bootstrap, seed=seed, progress=progress),
        ),
        at_thresholds={t: tuple(statistics.at_threshold(sample, t)) for t in thresholds},
        comparisons=tuple(
            compare(cohort, one, draws=bootstrap, seed=seed, progress=progress)
            for one in comparators
        ),
        calibration_groups=statistics.calibration_groups(sample),
        calibration_curve=statistics.calibration_curve(sample),
        decision_curve=_decision_curve(sample, drawn),
        distribution=statistics.risk_distribution(sample),
        n=sample.n,
        patients=sample.patients,
        events=sample.events,
        first=cohort.rows["index_time"].min().to_pydatetime(),
        last=cohort.rows["index_time"].max().to_pydatetime(),
        draws=bootstrap,
        seed=seed,
    )


def _everything(sample: Weighted) -> Floats:
    """All measures, then the net benefit at each threshold of the decision curve."""
    measures = [measure(sample) for measure in MEASURES.values()]
    return np.concatenate([measures, resampling.net_benefit(sample, DECISION_THRESHOLDS)])


def _draw(sample: Sample, *, draws: int, seed: int, progress: Progress) -> Floats:
    rows = resampling.rank(sample)
    return resampling.replicates(rows, _everything, draws=draws, seed=seed, progress=progress)


def _measures(sample: Sample, drawn: Floats, *, draws: int) -> list[Statistic]:
    whole = resampling.weigh_equally(sample)
    method = f"percentile bootstrap of patients, {draws} draws"
    found = []
    for place, (name, measure) in enumerate(MEASURES.items()):
        low, high = resampling.percentile_interval(drawn[:, place])
        found.append(Statistic(name, measure(whole), low, high, method, sample.n, sample.events))
    return found


def _with_death_as_event(
    cohort: Cohort, *, draws: int, seed: int, progress: Progress
) -> list[Statistic]:
    """The main statistics with death as an event too; nothing where nobody died."""
    if not cohort.has_competing:
        return []
    sample = sample_of(cohort, death_as_event=True)
    statistics.require_events(sample)
    drawn = _draw(sample, draws=draws, seed=seed, progress=progress)
    found = [
        statistics.event_rate(sample),
        *_measures(sample, drawn, draws=draws),
        statistics.calibration_slope(sample),
    ]
    return [replace(one, name=f"{DEATH_AS_EVENT}_{one.name}") for one in found]


def _decision_curve(sample: Sample, drawn: Floats) -> pd.DataFrame:
    """Columns threshold, net_benefit, low, high, treat_all, flagged (how many are at or above)."""
    whole = resampling.weigh_equally(sample)
    low, high = np.quantile(drawn[:, len(MEASURES) :], [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "threshold": DECISION_THRESHOLDS,
            "net_benefit": resampling.net_benefit(whole, DECISION_THRESHOLDS),
            "low": low,
            "high": high,
            "treat_all": resampling.net_benefit_of_all(whole, DECISION_THRESHOLDS),
            "flagged": [int((sample.risk >= t).sum()) for t in DECISION_THRESHOLDS],
        }
    )
