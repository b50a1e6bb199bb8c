"""Small counts are not shown: no cell of patients and outcome under five leaves the report.

Lives here: the limit and the functions that hide. Does not live here: the statistics themselves,
which stay exact inside `Validation`. Called by `validation.report`.

A hidden count is empty in the JSON and "<5" in tables. What this does not do: it cannot stop
someone from subtracting shown cells from a shown total where only one cell is hidden, and the
cohort flow is shown in full because it has to add up (docs/validation.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd

from validation.analysis import DEATH_AS_EVENT, Validation
from validation.cohort import FlowStep
from validation.comparison import Comparison
from validation.statistics import Statistic

SMALLEST_SHOWN: Final = 5
"""Counts from one to four are hidden; zero tells of nobody and is shown."""

HIDDEN: Final = f"<{SMALLEST_SHOWN}"
HIDDEN_BASIS: Final = f"not shown: fewer than {SMALLEST_SHOWN} are left out"


@dataclass(frozen=True, slots=True)
class Shown:
    """What may leave: the validation with small counts hidden."""

    flow: tuple[FlowStep, ...]
    statistics: tuple[Statistic, ...]
    at_thresholds: Mapping[float, tuple[Statistic, ...]]
    comparisons: tuple[Comparison, ...]
    calibration_groups: pd.DataFrame
    calibration_curve: pd.DataFrame
    decision_curve: pd.DataFrame
    distribution: pd.DataFrame

    @property
    def all_statistics(self) -> list[Statistic]:
        """Those of the whole sample, then those at each threshold and of each comparison."""
        at_thresholds = (s for at in self.at_thresholds.values() for s in at)
        compared = (s for c in self.comparisons for s in (c.share, *c.statistics))
        return [*self.statistics, *at_thresholds, *compared]


def hide_small_counts(validation: Validation) -> Shown:
    """The validation as it may be shown: each rule is a function below."""
    alone = [hide_small_statistics([one])[0] for one in validation.statistics]
    return Shown(
        flow=validation.flow,
        statistics=tuple(alone),
        at_thresholds={
            threshold: hide_small_statistics(together)
            for threshold, together in validation.at_thresholds.items()
        },
        comparisons=tuple(
            hide_small_rest(one, _wholes(validation)) for one in validation.comparisons
        ),
        calibration_groups=hide_small_groups(validation.calibration_groups),
        calibration_curve=validation.calibration_curve,
        decision_curve=hide_small_flagged(validation.decision_curve),
        distribution=hide_small_bins(validation.distribution),
    )


def is_small(count: int) -> bool:
    """Whether a count is of so few that it could point at someone."""
    return 0 < count < SMALLEST_SHOWN


def hide_small_statistics(together: Sequence[Statistic]) -> tuple[Statistic, ...]:
    """The statistics; all without their figures if one of them rests on a small count.

    They are hidden together because the four proportions at one threshold share the same four
    counts: from three of them the fourth can be had.
    """
    if not any(_rests_on_few(one) for one in together):
        return tuple(together)
    return tuple(_without_figures(one) for one in together)


def hide_small_rest(one: Comparison, wholes: Sequence[Statistic]) -> Comparison:
    """A comparison without its counts if those who lack the score can be counted as a few.

    `wholes`: statistics of everybody, shown beside it; what they count less what a row of the
    comparison counts are those without the score. Other small counts hide the figures too.
    """
    shown = replace(
        one,
        share=hide_small_statistics([one.share])[0],
        statistics=hide_small_statistics(one.statistics),
    )
    if not any(_leaves_few(row, whole) for row in one.statistics for whole in wholes):
        return shown
    return replace(
        shown,
        share=replace(shown.share, n=None, events=None),
        statistics=tuple(replace(row, n=None, events=None) for row in shown.statistics),
    )


def hide_small_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """Calibration groups; the outcome is empty where few had it, or few had it not."""
    few = _small(groups["events"]) | _small(groups["n"] - groups["events"])
    return _emptied(groups, few, ["events", "observed", "low", "high"])


def hide_small_bins(distribution: pd.DataFrame) -> pd.DataFrame:
    """The distribution of risk; each small count is empty."""
    shown = _emptied(distribution, _small(distribution["events"]), ["events"])
    return _emptied(shown, _small(distribution["others"]), ["others"])


def hide_small_flagged(curve: pd.DataFrame) -> pd.DataFrame:
    """The decision curve; empty where the threshold flags only a few."""
    columns = ["net_benefit", "low", "high", "flagged"]
    return _emptied(curve, _small(curve["flagged"]), columns)


def _wholes(validation: Validation) -> list[Statistic]:
    """What is counted of everybody, once with death as no event and once as one."""
    names = {"event_rate", f"{DEATH_AS_EVENT}_event_rate"}
    return [one for one in validation.statistics if one.name in names]


def _leaves_few(part: Statistic, whole: Statistic) -> bool:
    n = (whole.n or 0) - (part.n or 0)
    events = (whole.events or 0) - (part.events or 0)
    return is_small(n) or is_small(events) or is_small(n - events)


def _rests_on_few(one: Statistic) -> bool:
    n, events = one.n or 0, one.events or 0
    return is_small(events) or is_small(n - events)


def _without_figures(one: Statistic) -> Statistic:
    why = f"not shown: rests on a count under {SMALLEST_SHOWN}"
    return replace(one, value=None, low=None, high=None, method=why, n=None, events=None)


def _small(counts: pd.Series) -> pd.Series:
    return (counts > 0) & (counts < SMALLEST_SHOWN)


def _emptied(frame: pd.DataFrame, where: pd.Series, columns: list[str]) -> pd.DataFrame:
    shown = frame.copy()
    shown[columns] = shown[columns].astype(np.float64).mask(where)
    return shown
