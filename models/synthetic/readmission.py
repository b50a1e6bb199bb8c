"""The synthetic readmission cohort: true risk of each index discharge, and what then happened.

One eligible index discharge per patient, in 2023 to 2025. The log-odds are a sum of published odds
ratios on the true values plus normal risk that no feature carries; the intercepts are solved once
on a fixed reference population, so that any block of patients can be drawn alone and comes out the
same. Patients are written as FHIR by `fhir_lines`; folders by `bulk`. Called by `bulk`, the
training gate and the tests.

How the index is found again in the written record: it is the first inpatient stay with at least
365 days of record before its admission. Every record begins with an outpatient contact just over
365 days before the index admission, so that earlier stays have a shorter history.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.synthetic import contacts, people
from models.synthetic.anchors import load_anchors
from models.synthetic.contacts import MIN_STAY_DAYS
from models.synthetic.people import FloatArray, People

GENERATOR_VERSION: Final = "1.0.0"
BLOCK_SIZE: Final = 1000
STUDY_START: Final = datetime(2023, 1, 1, tzinfo=UTC)
STUDY_END: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Index discharges lie from the first to before the second; the record runs 91 days past them."""

DAY_S: Final = 86_400
ED_WINDOW_DAYS: Final = 179.5
YEAR_DAYS: Final = 365.0
FIRST_DAY: Final = 0.2
"""No readmission and no death comes sooner after discharge: 4.8 hours."""
HORIZON_DAYS: Final = 30.0
REFERENCE_SEED: Final = 20_230_101
REFERENCE_SIZE: Final = 60_000

KINDS: Final = (
    "eligible", "in-hospital-death", "under-18", "obstetric", "short-contact", "psychiatric",
    "palliative",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Calibration:
    """Intercepts solved on the reference population, and the competing part of death."""

    conditions: Mapping[str, float]
    readmission: float
    death: float
    death_first: float
    """Chance that death comes before readmission when both would fall within 30 days."""


class Outcomes(NamedTuple):
    """What follows the index discharge, `(n,)` each: days after it, infinite where never."""

    true_risk: FloatArray
    readmission_day: FloatArray
    death_day: FloatArray
    planned_day: FloatArray
    short_day: FloatArray
    ed_day: FloatArray
    late_day: FloatArray
    stay_days: FloatArray


def risk_terms(true: People) -> People:
    """Each anchored odds ratio's multiplier per patient, by the name of the odds ratio."""
    terms = {name: true[name] for name in load_anchors().odds_ratio if name in true}
    since = true["days_since_discharge"]
    return terms | {
        "age": people.decades(true),
        "acute_admissions": np.minimum(true["acute_admissions"], 6.0),
        "ed_visits": np.minimum(true["ed_visits"], 4.0),
        "discharged_30_days": (since <= 30.0).astype(float),
        "discharged_90_days": ((since > 30.0) & (since <= 90.0)).astype(float),
        "long_stay": (true["stay_days"] >= 5.0).astype(float),
        "haemoglobin": true["haemoglobin"] - 8.0,
        "low_sodium": (true["sodium"] < 135.0).astype(float),
        "albumin": true["albumin"] - 36.0,
        "creatinine": np.log2(true["creatinine"] / 80.0),
        "crp": np.log(true["crp"] / 13.0),
        "crp_not_falling": (true["crp"] >= true["crp_first"]).astype(float),
        "abnormal_potassium": ((true["potassium"] < 3.5) | (true["potassium"] > 5.0)).astype(float),
        "drugs": true["drugs"] - 6.0,
        "frailty_scale": true["frailty_scale"] - 4.0,
    }


def known_log_odds(true: People) -> FloatArray:
    """Log-odds of readmission from the anchored odds ratios alone, without intercept, `(n,)`."""
    odds_ratio = load_anchors().odds_ratio
    total = np.zeros_like(true["age"])
    for name, term in risk_terms(true).items():
        total += np.log(odds_ratio[name].value) * term
    return total


def death_log_odds(true: People) -> FloatArray:
    """Log-odds of death within 30 days of discharge, without intercept, `(n,)`."""
    ratio = {name: np.log(anchor.value) for name, anchor in load_anchors().death_odds_ratio.items()}
    total = ratio["age"] * people.decades(true) + ratio["albumin"] * (true["albumin"] - 36.0)
    for name in ("frailty", "cancer", "metastatic_cancer", "heart_failure"):
        total = total + ratio[name] * true[name]
    return np.asarray(total)


def draw_readmission_day(rng: np.random.Generator, n: int) -> FloatArray:
    """Days to readmission of those readmitted: exponential, cut at 30 days, anchored median."""
    rate = _readmission_rate(load_anchors().marginal["readmission_median_days"].value)
    share = rng.random(n) * (1.0 - np.exp(-rate * (HORIZON_DAYS - FIRST_DAY)))
    return np.asarray(FIRST_DAY - np.log1p(-share) / rate)


@cache
def _readmission_rate(median_days: float) -> float:
    """The daily rate at which an exponential cut at 30 days has the given median."""
    low, high = 1e-6, 5.0
    for _ in range(people.BISECTION_STEPS):
        rate = (low + high) / 2
        share = np.expm1(-rate * median_days) / np.expm1(-rate * HORIZON_DAYS)
        low, high = (rate, high) if share < 0.5 else (low, rate)
    return (low + high) / 2


@cache
def calibrate() -> Calibration:
    """Intercepts that bring shares, readmission and death to their anchors (takes a second)."""
    rng = np.random.default_rng(REFERENCE_SEED)
    anchors = load_anchors()
    persons = people.draw_persons(rng, REFERENCE_SIZE)
    conditions = {
        name: people.solve_intercept(
            people.prevalence_log_odds(name, persons, anchors), anchor.value
        )
        for name, anchor in anchors.prevalence.items()
    }
    true = people.draw_people(rng, REFERENCE_SIZE, conditions)
    add_earlier_stays(rng, true)
    death_odds = death_log_odds(true)
    death = people.solve_intercept(death_odds, anchors.marginal["died_30d"].value)
    days = draw_readmission_day(rng, REFERENCE_SIZE) - FIRST_DAY
    first = float(np.mean(days)) / (HORIZON_DAYS - FIRST_DAY)
    spared = 1.0 - first * people.sigmoid(death_odds + death)
    readmission = people.solve_intercept(
        known_log_odds(true) + draw_unobserved(rng, REFERENCE_SIZE),
        anchors.marginal["readmitted_30d"].value,
        scale=spared,
    )
    return Calibration(conditions, readmission, death, first)


def draw_unobserved(rng: np.random.Generator, n: int) -> FloatArray:
    """Risk on the log-odds scale that no feature carries, normal with the anchored SD."""
    return rng.normal(0.0, load_anchors().marginal["unobserved_sd"].value, n)


def add_earlier_stays(rng: np.random.Generator, true: People) -> contacts.EarlierStays:
    """Places the earlier stays and adds what follows from them: days since discharge, bed-days."""
    stays = contacts.place_stays(rng, true["acute_admissions"], planned=true["planned_admissions"])
    true["days_since_discharge"] = np.nan_to_num(stays.end_days[:, 0], nan=np.inf)
    true["bed_days"] = np.nansum(stays.start_days - stays.end_days, axis=1)
    return stays


def draw_outcomes(rng: np.random.Generator, true: People) -> Outcomes:
    """True risk, and the events after discharge of eligible stays; death ends the follow-up.

    Contacts that are not outcomes (planned, under 12 hours, emergency visits, after day 30) are
    dropped where they would come within 10 hours of another contact or after death.
    """
    fixed, n = calibrate(), true["age"].shape[0]
    death_risk = people.sigmoid(death_log_odds(true) + fixed.death)
    risk = people.sigmoid(known_log_odds(true) + draw_unobserved(rng, n) + fixed.readmission)
    death = _days(rng, death_risk, low=FIRST_DAY, high=HORIZON_DAYS)
    readmission = np.where(rng.random(n) < risk, draw_readmission_day(rng, n), np.inf)
    readmission = np.where(readmission < death, readmission, np.inf)
    # Who dies in the first hours of a readmission lives in it for the half day that makes it one.
    death = np.where(np.isinf(readmission), death, np.maximum(death, readmission + MIN_STAY_DAYS))
    after = _Diary(rng, death)
    after.add(readmission, STAY_AFTER_DAYS)
    drawn = {
        "planned": after.draw("planned_after", low=2.0, high=29.0, length=STAY_AFTER_DAYS),
        "late": after.draw("late_admission", low=30.1, high=90.0, length=STAY_AFTER_DAYS),
        "short": after.draw("short_after", low=1.0, high=29.0, length=SHORT_DAYS),
        "ed": after.draw("ed_after", low=0.5, high=29.0, length=SHORT_DAYS),
    }
    late_death = _days(rng, _share(n, "died_111_180d"), low=91.0 + STAY_AFTER_DAYS, high=180.0)
    return Outcomes(
        true_risk=risk * (1.0 - fixed.death_first * death_risk),
        readmission_day=readmission,
        death_day=np.minimum(death, late_death),
        planned_day=drawn["planned"],
        short_day=drawn["short"],
        ed_day=drawn["ed"],
        late_day=drawn["late"],
        stay_days=np.clip(np.exp(rng.normal(1.0, 0.8, n)), MIN_STAY_DAYS, STAY_AFTER_DAYS),
    )


STAY_AFTER_DAYS: Final = 20.0
"""No stay after discharge is longer than this."""
SHORT_DAYS: Final = 0.3
"""No emergency visit and no contact under 12 hours is longer than this (7 hours)."""


class _Diary:
    """The days taken after discharge, to keep later contacts clear of those drawn before."""

    def __init__(self, rng: np.random.Generator, death: FloatArray) -> None:
        self._rng = rng
        self._death = death
        self._taken: list[tuple[FloatArray, float]] = []

    def add(self, day: FloatArray, length: float) -> None:
        """Takes `length` days from `day` on; infinite days take nothing."""
        self._taken.append((day, length))

    def draw(self, name: str, *, low: float, high: float, length: float) -> FloatArray:
        """A day for the anchored share of patients; infinite where it would touch or outlive."""
        day = _days(self._rng, _share(self._death.shape[0], name), low=low, high=high)
        clear = day + length < self._death
        for other, other_length in self._taken:
            before = day + length + contacts.PAD_DAYS < other
            clear &= before | (day > other + other_length + contacts.PAD_DAYS)
        day = np.where(clear | np.isinf(day), day, np.inf)
        # An infinite day compares as after everything, so absent contacts never block a later one.
        self.add(np.where(np.isinf(day), -np.inf, day), length)
        return day


def _share(n: int, name: str) -> FloatArray:
    return np.full(n, load_anchors().marginal[name].value)


def _days(rng: np.random.Generator, risk: FloatArray, *, low: float, high: float) -> FloatArray:
    """A day between low and high with the given chance, else infinity."""
    happens = rng.random(risk.shape[0]) < risk
    return np.where(happens, rng.uniform(low, high, risk.shape[0]), np.inf)


@dataclass(frozen=True, slots=True)
class Block:
    """Patients drawn together: true values, what the record shows, outcomes and contacts."""

    seed: int
    number: int
    kind: NDArray[np.int64]
    true: People
    seen: People
    outcomes: Outcomes
    stays: contacts.EarlierStays
    visits: People
    index_start: NDArray[np.int64]
    index_end: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.kind.shape[0])

    @property
    def first_patient(self) -> int:
        """The cohort number of the block's first patient."""
        return self.number * len(self)

    @property
    def eligible(self) -> NDArray[np.bool_]:
        """Which patients' index stay counts."""
        return np.equal(self.kind, KINDS.index("eligible"))


def generate_block(seed: int, block: int, size: int = BLOCK_SIZE) -> Block:
    """Patients `block * size` onwards of the cohort with this seed; no other block is needed.

    The same seed, block and size give the same patients, to the byte.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, block, size])))
    true = people.draw_people(rng, size, calibrate().conditions)
    kind = _draw_kinds(rng, size)
    _fit_to_kind(rng, true, kind)
    stays = add_earlier_stays(rng, true)
    outcomes = draw_outcomes(rng, true)
    index_end = _discharge_times(rng, size)
    index_start = index_end - np.round(true["stay_days"] * DAY_S).astype(np.int64)
    visits = _place_visits(rng, true, stays)
    return Block(
        seed=seed,
        number=block,
        kind=kind,
        true=true,
        seen=people.observe(rng, true),
        outcomes=outcomes,
        stays=stays,
        visits=visits,
        index_start=index_start,
        index_end=index_end,
    )


def _draw_kinds(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Index of `KINDS` per patient: eligible, or why the index stay does not count."""
    marginal = load_anchors().marginal
    shares = [marginal["excluded_" + kind.replace("-", "_")].value for kind in KINDS[1:]]
    return rng.choice(len(KINDS), size=size, p=[1.0 - sum(shares), *shares])


def _fit_to_kind(rng: np.random.Generator, true: People, kind: NDArray[np.int64]) -> None:
    """Makes age, sex, illness and length of stay agree with the reason for exclusion."""
    size = kind.shape[0]
    child, mother = kind == KINDS.index("under-18"), kind == KINDS.index("obstetric")
    true["age"] = np.where(child, rng.uniform(0.5, 17.8, size), true["age"])
    true["age"] = np.where(mother, rng.uniform(20.0, 43.0, size), true["age"])
    true["male"] = np.where(mother, 0.0, true["male"])
    for name in (*load_anchors().prevalence, "metastatic_cancer"):
        true[name] = np.where(child | mother, 0.0, true[name])
    short = kind == KINDS.index("short-contact")
    true["stay_days"] = np.where(short, rng.uniform(0.15, 0.46, size), true["stay_days"])


def _discharge_times(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Moments between 8 and 17 UTC on days of the study period, in UTC seconds."""
    first = int(STUDY_START.timestamp()) // DAY_S
    last = int(STUDY_END.timestamp()) // DAY_S
    minutes = rng.integers(8 * 60, 17 * 60, size)
    return rng.integers(first, last, size) * DAY_S + minutes * 60


def _place_visits(rng: np.random.Generator, true: People, stays: contacts.EarlierStays) -> People:
    """Starts of visits in days before the index admission, `(n, most)` per kind, NaN where none."""
    short = people.yes_no(rng, _share(true["age"].shape[0], "short_prior"))
    count_most_window = {
        "emergency": (true["ed_visits"], people.MAX_ED_VISITS, (0.5, ED_WINDOW_DAYS)),
        "outpatient": (true["outpatient"], people.MAX_OUTPATIENT, (0.5, contacts.WINDOW_DAYS)),
        "short": (short, 1, (181.0, contacts.WINDOW_DAYS)),
    }
    placed = {
        name: contacts.place_visits(rng, stays, count, window=window, most=most)
        for name, (count, most, window) in count_most_window.items()
    }
    newest = np.nan_to_num(stays.start_days[:, 0], nan=30.0)
    placed["first"] = YEAR_DAYS + np.minimum(newest, 30.0) * rng.uniform(0.1, 0.9, newest.shape[0])
    return placed
