"""True risks of an operation for bowel cancer, and what then happens, in days.

Five chances are drawn, each with log-odds that are a sum of anchored odds ratios on the true values
plus normal risk that no feature carries: death, a leak where there is an anastomosis, a reoperation
for anything else, a complication without reoperation, an acute readmission of who leaves hospital
alive. The risks of the heads follow from them exactly: a leak is a reoperation, and a reoperation
is a complication. Intercepts are solved once on a fixed reference population. Called by `cohort`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.synthetic.people import FloatArray, People, decades, sigmoid, solve_intercept
from models.synthetic.readmission import FIRST_DAY, draw_readmission_day
from models.synthetic.surgery import people
from models.synthetic.surgery.anchors import load_anchors

REFERENCE_SEED: Final = 20_230_102
REFERENCE_SIZE: Final = 60_000
CHANCES: Final = ("mortality", "leak", "reoperation", "complication", "readmission")

# Times after the operation, design choices: complications come early (median about 5 days), deaths
# late (median about 25), and who has a complication stays some days longer for it.
COMPLICATION_DAYS: Final = (0.6, 29.0)
COMPLICATION_MEAN_DAYS: Final = 6.0
DEATH_DAYS: Final = (1.5, 89.0)
DEATH_MEAN_DAYS: Final = 45.0
LONGEST_STAY_DAYS: Final = 45.0
SHORTEST_LIFE_AT_HOME_DAYS: Final = 1.5
STAYS_UNTIL_DEATH: Final = 0.6
"""Share that never leaves hospital, of those who die before the longest stay is over."""
SHARE_OF_LIFE: Final = 0.8
"""A complication of who dies comes before this share of the days left."""
HOME_MARGIN_DAYS: Final = 0.7
"""Who is readmitted and dies lives at least so long in the readmission: it lasts half a day."""


def terms_of(true: People) -> People:
    """Every anchored odds ratio's multiplier per patient, by the name of the odds ratio."""
    plain = (
        "male", "who", "emergency", "heart_failure", "copd", "ckd", "dementia", "liver_disease",
        "diabetes", "metastatic", "t4", "obstruction", "multivisceral", "open", "rectum",
        "neoadjuvant", "stoma", "smoker", "steroid", "immunosuppressant", "anticoagulant",
    )  # fmt: skip
    return {name: true[name] for name in plain} | {
        "age": decades(true),
        "asa_2": _yes(true["asa"] == 2.0),
        "asa_3": _yes(true["asa"] >= 3.0),
        "asa_4": _yes(true["asa"] >= 4.0),
        "frailty_scale": np.maximum(true["frailty_scale"] - 3.0, 0.0),
        "underweight": _yes(true["bmi"] < 18.5),
        "obese": _yes(true["bmi"] >= 30.0),
        "weight_loss": np.maximum(true["weight_loss"], 0.0),
        "albumin": true["albumin"] - 38.0,
        "haemoglobin": true["haemoglobin"] - 8.0,
        "crp": np.log(true["crp"] / 5.0),
        "creatinine": np.log2(true["creatinine"] / 80.0),
        "low_sodium": _yes(true["sodium"] < 135.0),
        "low_mets": _yes(true["mets"] < 4.0),
        "low_tumour": np.maximum(12.0 - true["distance"], 0.0),
        "heavy_drinker": _yes(true["drinks"] > 14.0),
        "ten_drugs": _yes(true["drugs"] >= 10.0),
        "acute_admissions": np.minimum(true["acute_admissions"], 4.0),
        "ed_visits": np.minimum(true["ed_visits"], 4.0),
    }


def _yes(found: NDArray[np.bool_]) -> FloatArray:
    return found.astype(np.float64)


def known_log_odds(true: People, chance: str) -> FloatArray:
    """The log-odds of one of `CHANCES` from the anchored odds ratios alone, `(n,)`.

    Without intercept. `asa_4` is the odds ratio against class 1, so it stands in place of `asa_3`.
    """
    ratios = {n: a.value for n, a in load_anchors().odds_ratios(chance).items()}
    if "asa_4" in ratios:
        ratios["asa_4"] /= ratios["asa_3"]
    terms = terms_of(true)
    total = np.zeros_like(true["age"])
    for name, ratio in ratios.items():
        total += np.log(ratio) * terms[name]
    return total


@dataclass(frozen=True, slots=True)
class Calibration:
    """Intercepts solved on the reference population: of the illnesses, and of the five chances."""

    prevalences: Mapping[str, float]
    chances: Mapping[str, float]


@cache
def calibrate() -> Calibration:
    """Intercepts that bring illnesses and outcomes to their anchors (takes a second)."""
    rng = np.random.default_rng(REFERENCE_SEED)
    prevalences = people.solve_prevalences(people.draw_persons(rng, REFERENCE_SIZE))
    true = people.draw_people(rng, REFERENCE_SIZE, prevalences)
    odds = {name: _log_odds(rng, true, name) for name in CHANCES}
    target = {n: load_anchors().marginal[n].value for n in _TARGETS}
    joined = true["anastomosis"]
    fixed = {"mortality": solve_intercept(odds["mortality"], target["died_90d"])}
    fixed["leak"] = solve_intercept(odds["leak"][joined > 0], target["leaked_30d"])
    leak = joined * sigmoid(odds["leak"] + fixed["leak"])
    fixed["reoperation"] = _solve_rest(odds["reoperation"], target["reoperated_30d"], leak)
    again = _either(leak, sigmoid(odds["reoperation"] + fixed["reoperation"]))
    fixed["complication"] = _solve_rest(odds["complication"], target["complicated_30d"], again)
    risks = {n: sigmoid(odds[n] + fixed[n]) for n in CHANCES[:4]} | {"leak": leak}
    home = np.isfinite(_draw_course(rng, true, risks).discharge_day)
    fixed["readmission"] = solve_intercept(odds["readmission"][home], target["readmitted_30d"])
    return Calibration(prevalences, fixed)


_TARGETS: Final = ("died_90d", "leaked_30d", "reoperated_30d", "complicated_30d", "readmitted_30d")


def _solve_rest(log_odds: FloatArray, target: float, taken: FloatArray) -> float:
    """The intercept that makes `taken` or the further chance together reach the target."""
    rest = target - float(np.mean(taken))
    return solve_intercept(log_odds, rest, scale=1.0 - taken)


def _either(one: FloatArray, other: FloatArray) -> FloatArray:
    return np.asarray(1.0 - (1.0 - one) * (1.0 - other))


def _log_odds(rng: np.random.Generator, true: People, chance: str) -> FloatArray:
    """With the unobserved part, without intercept."""
    sd = load_anchors().marginal[f"unobserved_sd_{chance}"].value
    return known_log_odds(true, chance) + rng.normal(0.0, sd, true["age"].shape[0])


class Course(NamedTuple):
    """What follows an operation, `(n,)` each: days after it, infinite where never.

    `discharge_day` is infinite for those who die in the stay.
    """

    death_day: FloatArray
    leak_day: FloatArray
    reoperation_day: FloatArray
    complication_day: FloatArray
    discharge_day: FloatArray


class Outcomes(NamedTuple):
    """True risks of the five heads, NaN where a head does not ask, and what happens.

    `readmission_day` and the other contacts count from discharge, in days, infinite where never.
    """

    mort90: FloatArray
    compl30: FloatArray
    leak30: FloatArray
    reop30: FloatArray
    readm30: FloatArray
    course: Course
    readmission_day: FloatArray
    planned_day: FloatArray
    visit_day: FloatArray
    late_day: FloatArray
    late_death_day: FloatArray


def draw_outcomes(rng: np.random.Generator, true: People) -> Outcomes:
    """True risks and the events after the operation.

    Whoever dies has a complication or a readmission that was drawn for them before it, so that
    death hides no outcome and the risks are exact.
    """
    fixed = calibrate().chances
    chance = {name: sigmoid(_log_odds(rng, true, name) + fixed[name]) for name in CHANCES}
    chance["leak"] = chance["leak"] * true["anastomosis"]
    course = _draw_course(rng, true, chance)
    again = _either(chance["leak"], chance["reoperation"])
    home = np.isfinite(course.discharge_day)
    alive = np.where(np.isfinite(course.death_day), course.death_day - course.discharge_day, np.inf)
    readmission = _readmission_day(rng, chance["readmission"], home=home, alive=alive)
    later = _later_contacts(rng, readmission, home=home, alive=alive)
    late_death = _happens(rng, np.full_like(alive, 0.02), low=100.0, high=170.0)
    return Outcomes(
        mort90=chance["mortality"],
        compl30=_either(again, chance["complication"]),
        leak30=np.where(true["anastomosis"] > 0, chance["leak"], np.nan),
        reop30=again,
        readm30=np.where(home, chance["readmission"], np.nan),
        course=course,
        readmission_day=readmission,
        planned_day=later[0],
        visit_day=later[1],
        late_day=later[2],
        late_death_day=np.where(np.isfinite(course.death_day), np.inf, late_death),
    )


def _draw_course(
    rng: np.random.Generator, true: People, chance: Mapping[str, FloatArray]
) -> Course:
    """Death, complications and discharge of the operated, from the first four chances."""
    size = true["age"].shape[0]
    dies = rng.random(size) < chance["mortality"]
    death = np.where(dies, _early(rng, size, DEATH_DAYS, DEATH_MEAN_DAYS), np.inf)
    days = [_early(rng, size, COMPLICATION_DAYS, COMPLICATION_MEAN_DAYS) for _ in range(3)]
    limit = np.minimum(SHARE_OF_LIFE * death / COMPLICATION_DAYS[1], 1.0)
    happens = [rng.random(size) < chance[name] for name in CHANCES[1:4]]
    drawn = [np.where(h, d * limit, np.inf) for h, d in zip(happens, days, strict=True)]
    leak = drawn[0]
    reoperation = np.minimum(leak, drawn[1])
    complication = np.minimum(reoperation, drawn[2])
    last = np.max([np.where(np.isfinite(d), d, 0.0) for d in drawn], axis=0)
    return Course(
        death_day=death,
        leak_day=leak,
        reoperation_day=reoperation,
        complication_day=complication,
        discharge_day=_discharge_day(rng, true, last=last, death=death),
    )


def _early(
    rng: np.random.Generator, size: int, between: tuple[float, float], mean: float
) -> FloatArray:
    """Days from an exponential with the given mean, cut to lie between two days."""
    low, high = between
    share = rng.random(size) * -np.expm1(-(high - low) / mean)
    return np.asarray(low - mean * np.log1p(-share))


def _discharge_day(
    rng: np.random.Generator, true: People, *, last: FloatArray, death: FloatArray
) -> FloatArray:
    """Day of discharge: some days after the last complication; infinite for a death in the stay."""
    log_days = np.log(3.8) + 0.3 * true["rectum"] + 0.35 * true["open"] + 0.35 * true["emergency"]
    days = np.clip(np.exp(rng.normal(log_days + 0.1 * true["frailty"], 0.45)), 1.4, 30.0)
    after = np.where(last > 0, last + rng.uniform(2.0, 8.0, last.shape[0]), 0.0)
    discharge = np.minimum(np.maximum(days, after), LONGEST_STAY_DAYS)
    stays = (rng.random(death.shape[0]) < STAYS_UNTIL_DEATH) & (death <= LONGEST_STAY_DAYS)
    never = stays | (discharge + SHORTEST_LIFE_AT_HOME_DAYS > death)
    return np.where(never, np.inf, discharge)


def _readmission_day(
    rng: np.random.Generator, risk: FloatArray, *, home: NDArray[np.bool_], alive: FloatArray
) -> FloatArray:
    """Days from discharge to the readmission; sooner where little life is left."""
    day = draw_readmission_day(rng, risk.shape[0])
    room = np.where(home, alive, np.inf) - HOME_MARGIN_DAYS - FIRST_DAY
    day = np.where(day < room, day, FIRST_DAY + rng.random(risk.shape[0]) * np.maximum(room, 0.0))
    return np.where(home & (rng.random(risk.shape[0]) < risk), day, np.inf)


def _later_contacts(
    rng: np.random.Generator,
    readmission: FloatArray,
    *,
    home: NDArray[np.bool_],
    alive: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Days from discharge of contacts that are no outcome: planned, emergency visit, late.

    Of those who are not readmitted: a planned stay (closing a stoma, chemotherapy), an emergency
    visit without admission, an acute admission after day 30. All end before death.
    """
    free = home & np.isinf(readmission)
    drawn = (
        _happens(rng, np.full_like(readmission, 0.08), low=12.0, high=26.0),
        _happens(rng, np.full_like(readmission, 0.07), low=2.0, high=9.0),
        _happens(rng, np.full_like(readmission, 0.06), low=31.5, high=70.0),
    )
    planned, visit, late = (
        np.where(free & (d + LATER_STAY_DAYS < alive), d, np.inf) for d in drawn
    )
    return planned, visit, late


LATER_STAY_DAYS: Final = 3.0
"""No stay after discharge that is no readmission is longer than this."""


def _happens(rng: np.random.Generator, risk: FloatArray, *, low: float, high: float) -> FloatArray:
    """A day between low and high with the given chance, else infinity."""
    size = risk.shape[0]
    return np.where(rng.random(size) < risk, rng.uniform(low, high, size), np.inf)
