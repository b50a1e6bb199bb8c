"""Home measurements and answers of enrolled persons: their own usual values, moved by prodromes.

A weekly set is the person's usual value, plus a part that wanders from week to week, plus noise,
plus what a prodrome (or a passing bad week, which leads to nothing) adds. Nothing that comes after
the set enters it but through the prodrome. Gaps are drawn apart from everything. Called by
`cohort`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.synthetic.people import FloatArray, People
from models.synthetic.telemonitoring.anchors import Disease, numbers_of
from models.synthetic.telemonitoring.course import Course

SIGNALS: Final = ("spo2", "pulse", "sbp", "dbp", "weight")
DEVICE: Final = {"spo2": "oximeter", "sbp": "cuff", "dbp": "cuff"}
"""What a person must have to send a signal; pulse and weight everybody can."""
SYMPTOMS: Final[Mapping[Disease, Mapping[str, float]]] = {
    "copd": {
        "symptom_overall": 1.0,
        "symptom_dyspnoea": 1.0,
        "symptom_sputum_amount": 0.8,
        "symptom_sputum_colour": 0.7,
        "symptom_cough": 0.7,
        "symptom_fatigue": 0.6,
    },
    "heart_failure": {
        "symptom_overall": 1.0,
        "symptom_dyspnoea": 1.0,
        "symptom_cough": 0.3,
        "symptom_ankle_swelling": 0.9,
        "symptom_orthopnoea": 0.8,
        "symptom_fatigue": 0.7,
    },
}
"""Questions of each cohort's form, and how much of the anchored shift each takes: design choice."""
WORST_ANSWER: Final = 3.0


@dataclass(frozen=True, slots=True)
class Sets:
    """All sets of n persons, `(n, m)` each, unsorted: weekly ones first, then second ones.

    `day` counts from enrolment. `values` hold NaN where a part is lacking; so do `answers`, which
    are 0 to 3 steps, and `puffs` (as-needed inhaler a day) and `kccq` (0 to 100).
    """

    day: FloatArray
    sent: NDArray[np.bool_]
    values: Mapping[str, FloatArray]
    answers: Mapping[str, FloatArray]


def draw_sets(rng: np.random.Generator, people: People, course: Course, disease: Disease) -> Sets:
    """The sets each person sends in the year after enrolment, until death."""
    numbers, n = numbers_of(disease), people["age"].shape[0]
    weeks = int(numbers["weeks"])
    day, sent = _days(rng, people, disease)
    illness = prodrome(course, day, numbers["recovery_days"])
    bad = rng.random((n, weeks)) < numbers["bad_week"]
    passing = np.tile(bad * rng.uniform(0.0, numbers["bad_week_most"], (n, weeks)), 2)
    felt = np.maximum(illness, passing)
    values = {name: _signal(rng, people, felt, name=name, day=day, disease=disease)
              for name in SIGNALS}  # fmt: skip
    answers = _answers(rng, people, felt, disease)
    _leave_gaps(rng, people, values, answers=answers, disease=disease)
    sent &= day < course.death[:, None]
    return Sets(day, sent, values, answers)


def prodrome(course: Course, day: FloatArray, recovery_days: float) -> FloatArray:
    """How much of a deterioration there is on each day, `(n, m)`: rising to `size` at the onset,
    if it shows before, and falling back to 0 after it."""
    felt = np.zeros_like(day)
    for event in range(course.onset.shape[1]):
        ahead = course.onset[:, event, None] - day
        length = np.maximum(course.prodrome_days[:, event, None], 1e-9)
        rising = np.where(ahead > 0.0, 1.0 - ahead / length, 0.0)
        falling = np.where(ahead <= 0.0, 1.0 + ahead / recovery_days, 0.0)
        share = np.clip(rising, 0.0, 1.0) + np.clip(falling, 0.0, 1.0)
        felt = np.maximum(felt, share * course.size[:, event, None])
    return felt


def _days(
    rng: np.random.Generator, people: People, disease: Disease
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """When sets are sent, in days from enrolment: weekly in the morning, at times a second one."""
    numbers, n = numbers_of(disease), people["age"].shape[0]
    weeks = int(numbers["weeks"])
    weekly = 3.0 + 7.0 * np.arange(weeks) + rng.integers(-1, 2, (n, weeks))
    second = weekly + rng.integers(1, 4, (n, weeks))
    of_day = rng.uniform(6.0, 10.0, (n, 2 * weeks)) / 24.0
    on_time = rng.random((n, weeks)) < people["adherence"][:, None]
    again = on_time & (rng.random((n, weeks)) < numbers["extra_set"])
    return np.hstack([weekly, second]) + of_day, np.hstack([on_time, again])


def _signal(
    rng: np.random.Generator,
    people: People,
    felt: FloatArray,
    *,
    name: str,
    day: FloatArray,
    disease: Disease,
) -> FloatArray:
    """One signal in every set, in its unit."""
    numbers = numbers_of(disease)
    spread = numbers[f"sd_{name}"]
    moved = felt * numbers.get(f"shift_{name}", 0.0)
    value = people[f"{name}_usual"][:, None] + spread * (moved + _noise(rng, felt.shape, disease))
    if name == "weight":
        value += people["weight_trend"][:, None] * day / 365.25
    return np.minimum(value, 100.0) if name == "spo2" else value


def _noise(rng: np.random.Generator, shape: tuple[int, ...], disease: Disease) -> FloatArray:
    """Noise of standard deviation 1; part of it wanders from week to week, and second sets of a
    week share that part with the first."""
    numbers = numbers_of(disease)
    share, keep = numbers["wander_share"], numbers["wander_week"]
    n, weeks = shape[0], shape[1] // 2
    wander = rng.normal(0.0, 1.0, (n, weeks))
    for week in range(1, weeks):
        fresh = np.sqrt(1.0 - keep**2) * wander[:, week]
        wander[:, week] = keep * wander[:, week - 1] + fresh
    noise = rng.normal(0.0, 1.0, shape)
    return np.asarray(np.sqrt(share) * np.tile(wander, 2) + np.sqrt(1.0 - share) * noise)


def _answers(
    rng: np.random.Generator, people: People, felt: FloatArray, disease: Disease
) -> dict[str, FloatArray]:
    """The answers of every set; one wandering part is shared by all questions."""
    numbers = numbers_of(disease)
    spread, shift = numbers["sd_symptom"], numbers["shift_symptom"]
    mood = _noise(rng, felt.shape, disease)
    answers: dict[str, FloatArray] = {}
    for name, share in SYMPTOMS[disease].items():
        own = people["symptom_usual"] + rng.normal(0.0, 0.3, felt.shape[0])
        noise = 0.6 * mood + 0.8 * rng.normal(0.0, 1.0, felt.shape)
        level = own[:, None] + spread * (share * shift * felt + noise)
        answers[name] = np.clip(np.round(level), 0.0, WORST_ANSWER)
    if disease == "copd":
        usual = np.exp(0.4 + 0.4 * people["symptom_usual"])[:, None]
        mean = usual * np.exp(0.5 * felt)
        puffs = mean + np.sqrt(mean) * rng.normal(0.0, 1.0, felt.shape)
        answers["rescue_inhaler_use"] = np.maximum(np.round(puffs), 0.0)
    else:
        usual = 84.0 - 11.0 * (people["nyha"] - 1.0) - 5.0 * people["symptom_usual"]
        score = usual[:, None] - 6.0 * felt + 5.0 * _noise(rng, felt.shape, disease)
        answers["kccq"] = np.clip(np.round(score), 0.0, 100.0)
    return answers


def _leave_gaps(
    rng: np.random.Generator,
    people: People,
    values: Mapping[str, FloatArray],
    *,
    answers: Mapping[str, FloatArray],
    disease: Disease,
) -> None:
    """Takes out what was not sent: no device, a part forgotten, no form, none with a second set."""
    numbers = numbers_of(disease)
    shape = values["pulse"].shape
    for name, value in values.items():
        value[rng.random(shape) < numbers["part_missing"]] = np.nan
        if name in DEVICE:
            value[people[DEVICE[name]] < 0.5] = np.nan
    values["dbp"][np.isnan(values["sbp"])] = np.nan
    unanswered = rng.random(shape) < numbers["answers_missing"]
    unanswered[:, shape[1] // 2 :] = True
    for answer in answers.values():
        answer[unanswered] = np.nan
    if "kccq" in answers:
        week = np.arange(shape[1])
        answers["kccq"][:, week % 4 != 0] = np.nan
