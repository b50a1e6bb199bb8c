"""Statistics with their intervals: proportions, calibration, curves and distributions.

Lives here: `Statistic`, Wilson intervals, the calibration models, the tables behind the figures.
Does not live here: who is analysed (`cohort`), the bootstrap (`resampling`), drawing (`plots`).
Called by `validation.analysis`. The only module that imports statsmodels.

All intervals are 95 % and allow for several predictions of one patient.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import statsmodels.api as sm

from validation.cohort import Sample
from validation.errors import TooFewEvents
from validation.resampling import Floats, Interval

MIN_PATIENTS: Final = 10
"""Fewest patients with, and without, the outcome for which anything is computed."""

Z95: Final = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""

DECILES: Final = 10
HISTOGRAM_BINS: Final = 40
KNOT_QUANTILES: Final = (0.05, 0.35, 0.65, 0.95)
"""Four knots: Harrell, Regression Modeling Strategies, 2nd ed. 2015, table 2.3."""
CURVE_POINTS: Final = 101
CURVE_QUANTILES: Final = (0.005, 0.995)
"""The flexible curve is drawn where 99 % of the risks lie; outside it is extrapolation."""

WILSON: Final = "Wilson"
WILSON_CLUSTERED: Final = "Wilson, effective sample size for repeated patients"
CLUSTER_ROBUST: Final = "logistic regression, standard errors clustered by patient"


class Fit(Protocol):
    """What we read of a fitted statsmodels regression."""

    params: Floats
    bse: Floats

    def cov_params(self) -> Floats:
        """Covariance of the coefficients, clustered by patient."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A value and its 95 % interval, which travel together.

    `value` is None where the statistic is not estimable; `method` then says why. `low` and `high`
    are None where there is no interval. `n` is what it was computed on (for a proportion its
    denominator), `events` the events among them (for a proportion its numerator); both are None
    only where `disclosure` has hidden a small count, its own or one that could be had from it.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    method: str
    n: int | None
    events: int | None


def require_events(sample: Sample) -> None:
    """Raises `TooFewEvents` under ten patients with the outcome, or ten without.

    Patients are counted and not predictions: ten predictions of one patient are one patient.
    """
    with_event = len(np.unique(sample.patient[sample.event]))
    without = len(np.unique(sample.patient[~sample.event]))
    if min(with_event, without) < MIN_PATIENTS:
        raise TooFewEvents(with_event, without, needed=MIN_PATIENTS)


def not_estimable(name: str, why: str, *, n: int, events: int) -> Statistic:
    """A statistic that has no value here, and why."""
    return Statistic(name, None, None, None, f"not estimable: {why}", n, events)


# Proportions


def wilson(hits: float, n: float) -> Interval:
    """The Wilson score interval of `hits` out of `n`; both may be effective (broken) numbers.

    Wilson, J Am Stat Assoc 1927;22:209-212; as given by Newcombe, Stat Med 1998;17:857-872,
    whose worked examples are the known answers of the test.
    """
    share, z2 = hits / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return Interval(
        0.0 if hits == 0 else float(middle - half), 1.0 if hits == n else float(middle + half)
    )


def effective_n(hit: npt.NDArray[np.bool_], patient: npt.NDArray[np.intp]) -> float:
    """How many independent rows the rows are worth: n over the design effect, at most n.

    The design effect is the variance of the proportion clustered by patient over that of
    independent rows. Where all or none are hits it cannot be seen: then each patient counts once.
    Korn & Graubard, Surv Methodol 1998;24:193-201; Dean & Pagano, J Surv Stat Methodol
    2015;3:484-503 (Wilson with the effective sample size).
    """
    n, share = len(hit), float(hit.mean())
    _, codes = np.unique(patient, return_inverse=True)
    patients = int(codes.max()) + 1
    if patients == n:
        return float(n)
    if share in (0.0, 1.0) or patients == 1:
        return float(patients)
    sums = np.bincount(codes, weights=hit - share)
    clustered = patients / (patients - 1) * float(sums @ sums) / n**2
    return min(float(n), share * (1 - share) / clustered) if clustered else float(n)


def proportion(name: str, hit: npt.NDArray[np.bool_], patient: npt.NDArray[np.intp]) -> Statistic:
    """The share of rows that are hits, with its Wilson interval; not estimable without rows."""
    n, hits = len(hit), int(hit.sum())
    if n == 0:
        return not_estimable(name, "nobody in the denominator", n=0, events=0)
    worth = effective_n(hit, patient)
    low, high = wilson(worth * hits / n, worth)
    clustered = len(np.unique(patient)) < n
    return Statistic(name, hits / n, low, high, WILSON_CLUSTERED if clustered else WILSON, n, hits)


def event_rate(sample: Sample) -> Statistic:
    """The share of predictions followed by the outcome."""
    return proportion("event_rate", sample.event, sample.patient)


def at_threshold(sample: Sample, threshold: float) -> list[Statistic]:
    """Sensitivity, specificity, positive predictive value and flag rate at a threshold.

    Flagged is a risk at or above the threshold, as on the card.
    """
    flagged, event, patient = sample.risk >= threshold, sample.event, sample.patient
    at = f"at_{threshold:g}"
    return [
        proportion(f"flag_rate_{at}", flagged, patient),
        proportion(f"sensitivity_{at}", flagged[event], patient[event]),
        proportion(f"specificity_{at}", ~flagged[~event], patient[~event]),
        proportion(f"ppv_{at}", event[flagged], patient[flagged]),
    ]


# Calibration models


def log_odds(risk: Floats) -> Floats:
    """The log-odds of a risk."""
    return np.asarray(np.log(risk / (1 - risk)), dtype=np.float64)


def calibration_in_the_large(sample: Sample) -> Statistic:
    """The intercept of observed log-odds with the predicted log-odds as offset.

    0 is ideal; above 0 the risks are too low on the whole. Raises `TooFewEvents` under ten
    patients with or without the outcome. Cox, Biometrika 1958;45:562-565; Van Calster et al.,
    BMC Med 2019;17:230.
    """
    require_events(sample)
    fit = _logistic(sample, np.ones((sample.n, 1)), offset=log_odds(sample.risk))
    return _coefficient("calibration_in_the_large", fit, 0, sample=sample)


def calibration_slope(sample: Sample) -> Statistic:
    """The slope of observed log-odds on predicted log-odds.

    1 is ideal; below 1 the risks are too extreme, above 1 too moderate. Not estimable when all
    risks are the same, or when the risks part events from non-events completely (the slope is
    then infinite). Raises `TooFewEvents` under ten patients with or without the outcome.
    Cox 1958 and Van Calster 2019, as above; known answers in tests/statistics/test_calibration.py.
    """
    require_events(sample)
    if why := _no_finite_slope(sample):
        return not_estimable("calibration_slope", why, n=sample.n, events=sample.events)
    design = np.column_stack([np.ones(sample.n), log_odds(sample.risk)])
    return _coefficient("calibration_slope", _logistic(sample, design), 1, sample=sample)


def _no_finite_slope(sample: Sample) -> str:
    events, others = sample.risk[sample.event], sample.risk[~sample.event]
    if sample.risk.min() == sample.risk.max():
        return "every risk is the same"
    if events.min() >= others.max() or events.max() <= others.min():
        return "the risks part events from non-events completely"
    return ""


def _logistic(sample: Sample, design: Floats, *, offset: Floats | None = None) -> Fit:
    model = sm.GLM(
        sample.event.astype(np.float64), design, family=sm.families.Binomial(), offset=offset
    )
    fit: Fit = model.fit(cov_type="cluster", cov_kwds={"groups": sample.patient})
    return fit


def _coefficient(name: str, fit: Fit, place: int, *, sample: Sample) -> Statistic:
    value, error = float(fit.params[place]), float(fit.bse[place])
    return Statistic(
        name,
        value,
        value - Z95 * error,
        value + Z95 * error,
        CLUSTER_ROBUST,
        sample.n,
        sample.events,
    )


# Tables behind the figures


def calibration_groups(sample: Sample) -> pd.DataFrame:
    """Observed share against mean risk in tenths of the risk, with Wilson intervals.

    Columns: n, events, mean_risk, observed, low, high. Equal risks stay in one group, so there may
    be fewer than ten.
    """
    edges = np.unique(np.quantile(sample.risk, np.arange(1, DECILES) / DECILES))
    group = np.searchsorted(edges, sample.risk, side="right")
    return pd.DataFrame([_group(sample, group == number) for number in np.unique(group)])


def _group(sample: Sample, chosen: npt.NDArray[np.bool_]) -> dict[str, float | int | None]:
    observed = proportion("observed", sample.event[chosen], sample.patient[chosen])
    return {
        "n": observed.n,
        "events": observed.events,
        "mean_risk": float(sample.risk[chosen].mean()),
        "observed": observed.value,
        "low": observed.low,
        "high": observed.high,
    }


def calibration_curve(sample: Sample) -> pd.DataFrame:
    """The flexible calibration curve: observed risk as a smooth function of predicted risk.

    Columns: risk, observed, low, high (pointwise). Logistic regression on a natural cubic spline
    of the predicted log-odds with four knots, standard errors clustered by patient; drawn over
    the middle 99 % of risks. Where the knots do not differ, or no finite slope exists, it is empty.
    Harrell 2015, section 2.4.5; Austin & Steyerberg, Stat Med 2014;33:517-535. (A lowess
    on 0/1 outcomes with the usual robustness iterations is badly biased, so none is used.)
    """
    require_events(sample)
    x = log_odds(sample.risk)
    knots = np.unique(np.quantile(x, KNOT_QUANTILES))
    if _no_finite_slope(sample) or len(knots) < len(KNOT_QUANTILES):
        return pd.DataFrame(columns=["risk", "observed", "low", "high"], dtype=np.float64)
    fit = _logistic(sample, _spline(x, knots))
    low, high = np.quantile(sample.risk, CURVE_QUANTILES)
    where = np.linspace(low, high, CURVE_POINTS)
    basis = _spline(log_odds(where), knots)
    middle = basis @ fit.params
    error = np.sqrt(np.einsum("ij,jk,ik->i", basis, fit.cov_params(), basis))
    return pd.DataFrame(
        {
            "risk": where,
            "observed": _inverse_log_odds(middle),
            "low": _inverse_log_odds(middle - Z95 * error),
            "high": _inverse_log_odds(middle + Z95 * error),
        }
    )


def _spline(x: Floats, knots: Floats) -> Floats:
    """Constant, linear and restricted cubic terms; linear outside the outer knots."""
    last, before = knots[-1], knots[-2]

    def cubed(knot: float) -> Floats:
        return np.asarray(np.maximum(x - knot, 0) ** 3, dtype=np.float64)

    terms = [
        (
            cubed(knot)
            - cubed(before) * (last - knot) / (last - before)
            + cubed(last) * (before - knot) / (last - before)
        )
        / (last - knots[0]) ** 2
        for knot in knots[:-2]
    ]
    return np.column_stack([np.ones_like(x), x, *terms])


def _inverse_log_odds(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)


def risk_distribution(sample: Sample) -> pd.DataFrame:
    """How many with and without the outcome got which risk: columns low, high, events, others.

    Forty equal bins from 0 to the highest risk, rounded up to the next 5 percentage points.
    """
    top = min(1.0, float(np.ceil(sample.risk.max() * 20) / 20))
    edges = np.linspace(0, top, HISTOGRAM_BINS + 1)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "events": np.histogram(sample.risk[sample.event], edges)[0],
            "others": np.histogram(sample.risk[~sample.event], edges)[0],
        }
    )
