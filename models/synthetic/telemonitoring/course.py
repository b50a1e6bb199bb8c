"""What happens to enrolled persons over two years: deteriorations first, then everything else.

Deteriorations come by a hazard a day: the person's own rate, uneven between persons in a way that
nothing records, another draw around it for each of the two years (regression to the mean), higher
in winter, zero for two weeks after an onset and raised for some weeks after that. Whether, and how
long before, a deterioration can be seen in measurements is drawn apart from it. Days count from
enrolment. No measurements, no FHIR here. Called by `cohort`.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.synthetic.people import FloatArray, People
from models.synthetic.telemonitoring.anchors import Disease, numbers_of
from models.synthetic.telemonitoring.people import log_rate

FIRST_DAY: Final = -365
LAST_DAY: Final = 385
"""Deteriorations are drawn until three weeks after the last weekly set."""
MOST_EVENTS: Final = 24
DAYS_A_YEAR: Final = 365.25
MIDWINTER_DAY: Final = 15
QUIET_DAYS: Final = 28.0
"""A course of prednisolone sooner after another is the same treatment: then it is a contact."""
ADMISSION, VISIT, COURSE = 0, 1, 2
KINDS: Final = ("admission", "visit", "course")


class Course(NamedTuple):
    """The true course of n persons; events `(n, MOST_EVENTS)`, days from enrolment, inf for none.

    `kind` indexes `KINDS`. `prodrome_days`: how long before its onset it shows, 0 where never.
    `size`: how much, in units of the anchored shifts. `death` `(n,)` is inf for the living.
    `rate`: deteriorations a year after enrolment, before season and after-effects.
    """

    onset: FloatArray
    kind: NDArray[np.int64]
    prodrome_days: FloatArray
    size: FloatArray
    death: FloatArray
    rate: FloatArray


def draw_course(
    rng: np.random.Generator, people: People, disease: Disease, *, enrolled: NDArray[np.int64]
) -> Course:
    """The course of each person; `enrolled`: the day of enrolment, in days since 1970."""
    numbers, n = numbers_of(disease), people["age"].shape[0]
    own = rng.gamma(numbers["rate_shape"], 1.0 / numbers["rate_shape"], n)
    mean_rate = numbers["event_rate"] * np.exp(log_rate(people, disease)) * own
    shape = numbers["phase_shape"]
    before = mean_rate * numbers["year_before"] * rng.gamma(shape, 1.0 / shape, n)
    after = mean_rate * rng.gamma(shape, 1.0 / shape, n)
    onset = draw_onsets(rng, before, after, disease=disease, enrolled=enrolled)
    kind = _kinds(rng, onset, numbers["admitted"], visit=numbers["visit"])
    visible = rng.random(onset.shape) < numbers["visible"]
    spread = np.exp(rng.normal(0.0, 0.35, onset.shape))
    size = numbers["amplitude"] * rng.uniform(0.5, 1.5, onset.shape)
    death = _death(rng, people, onset, kind=kind, disease=disease)
    return Course(onset, kind, numbers["prodrome_days"] * spread * visible, size, death, after)


def season(day: FloatArray | NDArray[np.int64]) -> FloatArray:
    """1 in mid-January, -1 in mid-July, for days since 1970."""
    return np.asarray(np.cos(2.0 * np.pi * (day - MIDWINTER_DAY) / DAYS_A_YEAR))


def draw_onsets(
    rng: np.random.Generator,
    before: FloatArray,
    after: FloatArray,
    *,
    disease: Disease,
    enrolled: NDArray[np.int64],
) -> FloatArray:
    """Onsets `(n, MOST_EVENTS)` in days from enrolment, oldest first; `before` and `after` are
    rates a year before and after it."""
    numbers, n = numbers_of(disease), before.shape[0]
    onset = np.full((n, MOST_EVENTS), np.inf)
    count = np.zeros(n, dtype=np.int64)
    newest = np.full(n, -np.inf)
    for day in range(FIRST_DAY, LAST_DAY):
        swing = 1.0 + numbers["season_swing"] * season(enrolled + day)
        hazard = (before if day < 0 else after) / DAYS_A_YEAR * swing
        since = day - newest
        hazard = np.where(since < numbers["relapse_days"], hazard * numbers["relapse"], hazard)
        hazard = np.where(since < numbers["calm_days"], 0.0, hazard)
        begins = (rng.random(n) < -np.expm1(-hazard)) & (count < MOST_EVENTS)
        who = np.flatnonzero(begins)
        onset[who, count[who]] = newest[who] = day + rng.random(who.size)
        count[who] += 1
    return onset


def _kinds(
    rng: np.random.Generator, onset: FloatArray, admitted: float, *, visit: float
) -> NDArray[np.int64]:
    """What each deterioration leads to; soon after another one it is never only a new course."""
    share = rng.random(onset.shape)
    earlier = np.hstack([np.full((onset.shape[0], 1), -np.inf), onset[:, :-1]])
    soon = onset < earlier + QUIET_DAYS
    share = np.where(soon, share * (admitted + visit), share)
    return np.where(share < admitted, ADMISSION, np.where(share < admitted + visit, VISIT, COURSE))


def _death(
    rng: np.random.Generator,
    people: People,
    onset: FloatArray,
    *,
    kind: NDArray[np.int64],
    disease: Disease,
) -> FloatArray:
    """The day of death, `(n,)`: of an admission, or of something else; inf where none comes."""
    numbers = numbers_of(disease)
    fatal = rng.random(onset.shape) < numbers["fatal"]
    of_event = np.where(fatal & (kind == ADMISSION) & (onset > 0.0), onset, np.inf)
    of_event = of_event + rng.uniform(1.0, 12.0, onset.shape)
    rate = numbers["death_rate"] * np.exp(0.06 * (people["age"] - 70.0))
    of_else = rng.exponential(DAYS_A_YEAR / rate)
    death = np.minimum(of_event.min(axis=1), of_else)
    return np.where(death < LAST_DAY, death, np.inf)
