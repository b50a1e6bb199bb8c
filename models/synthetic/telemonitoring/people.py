"""Invented adults enrolled in telemedicine: who they are, how ill, and what is usual for them.

One latent frailty ties other diseases and severity together. No time, no events, no FHIR here.
Called by `cohort`.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from models.synthetic.people import FloatArray, People, decades, sigmoid, yes_no
from models.synthetic.telemonitoring.anchors import Disease, numbers_of, rate_ratios

CONDITIONS: Final[Mapping[Disease, tuple[str, ...]]] = {
    "copd": (
        "af", "ckd", "diabetes", "ihd", "anxiety", "depression", "cancer", "heart_failure",
    ),
    "heart_failure": ("af", "ckd", "diabetes", "ihd", "anxiety", "depression", "cancer", "copd"),
}  # fmt: skip
DRUGS: Final[Mapping[Disease, tuple[str, ...]]] = {
    "copd": ("beta_blocker", "triple_inhaler"),
    "heart_failure": ("beta_blocker", "loop_diuretic"),
}
# Design choices (D): how age and frailty raise the odds of another disease.
ODDS_PER_DECADE: Final = 0.25
ODDS_PER_FRAILTY_SD: Final = 0.35
LOOP_DOSES_MG: Final = (40.0, 80.0, 120.0, 160.0, 240.0)


def draw_people(rng: np.random.Generator, n: int, disease: Disease) -> People:
    """The lasting true values of n persons by name, each `(n,)`; yes or no as 1.0 or 0.0."""
    numbers = numbers_of(disease)
    age = np.clip(rng.normal(numbers["age_mean"], numbers["age_sd"], n), 40.0, 96.0)
    people: People = {"age": age, "frailty": rng.normal(0.0, 1.0, n)}
    people["male"] = yes_no(rng, np.full(n, numbers["male"]))
    people["smoker"] = yes_no(rng, np.full(n, numbers["smoker"]))
    for name in (*CONDITIONS[disease], *DRUGS[disease]):
        people[name] = _has(rng, people, name, disease)
    people["comorbidity"] = sum((people[name] for name in CONDITIONS[disease]), np.zeros(n))
    (_draw_copd if disease == "copd" else _draw_heart_failure)(rng, people)
    _draw_usual(rng, people, disease)
    _draw_habits(rng, people, disease)
    return people


def log_rate(people: People, disease: Disease) -> FloatArray:
    """How what is known moves the log of the rate of deteriorations, `(n,)`; 0 in the middle."""
    terms = rate_terms(people, disease)
    ratios = rate_ratios(disease)
    return np.asarray(sum(np.log(ratio) * terms[name] for name, ratio in ratios.items()))


def rate_terms(people: People, disease: Disease) -> People:
    """Each rate ratio's multiplier per person, by the name of the ratio."""
    terms = {"age": decades(people), "comorbidity": people["comorbidity"] - 1.5}
    if disease == "copd":
        return terms | {
            "fev1": (people["fev1"] - 48.0) / 10.0,
            "mrc": people["mrc"] - 3.0,
            "smoker": people["smoker"],
        }
    return terms | {
        "lvef": (people["lvef"] - 36.0) / 10.0,
        "nyha": people["nyha"] - 2.0,
        "years_known": (people["years_known"] >= 1.5).astype(float),
        "nt_probnp": np.log2(people["nt_probnp"] / 1500.0),
        "ckd": people["ckd"],
    }


def _has(rng: np.random.Generator, people: People, name: str, disease: Disease) -> FloatArray:
    """Whether each person has a disease or drug; age and frailty raise the odds of diseases."""
    share = numbers_of(disease)[name]
    log_odds = np.full_like(people["age"], np.log(share / (1.0 - share)))
    if name in CONDITIONS[disease]:
        log_odds += ODDS_PER_DECADE * decades(people) + ODDS_PER_FRAILTY_SD * people["frailty"]
    return yes_no(rng, sigmoid(log_odds))


def _draw_copd(rng: np.random.Generator, people: People) -> None:
    """Lung function, breathlessness in daily life, usual saturation, home oxygen."""
    numbers = numbers_of("copd")
    n, frailty = people["age"].shape[0], people["frailty"]
    people["fev1"] = np.clip(rng.normal(numbers["fev1_mean"], numbers["fev1_sd"], n), 15.0, 95.0)
    grade = 3.0 + 0.03 * (48.0 - people["fev1"]) + 0.35 * frailty + rng.normal(0.0, 0.7, n)
    people["mrc"] = np.clip(np.round(grade), 1.0, 5.0)
    usual = numbers["spo2_mean"] - 0.035 * (48.0 - people["fev1"]) + rng.normal(0.0, 1.5, n)
    people["home_oxygen"] = (usual < 90.5).astype(float) * yes_no(rng, np.full(n, 0.8))
    people["spo2_usual"] = np.clip(usual + 1.2 * people["home_oxygen"], 86.0, 99.0)


def _draw_heart_failure(rng: np.random.Generator, people: People) -> None:
    """Pump function, class, how long it is known, NT-proBNP, diuretic, usual saturation."""
    numbers = numbers_of("heart_failure")
    n, frailty = people["age"].shape[0], people["frailty"]
    people["lvef"] = np.clip(rng.normal(numbers["lvef_mean"], numbers["lvef_sd"], n), 12.0, 65.0)
    grade = 2.35 + 0.012 * (36.0 - people["lvef"]) + 0.3 * frailty + rng.normal(0.0, 0.45, n)
    people["nyha"] = np.clip(np.round(grade), 2.0, 4.0)
    people["years_known"] = np.clip(rng.exponential(3.5, n), 0.1, 20.0)
    log2 = 0.5 * (people["nyha"] - 2.4) + 0.4 * people["ckd"] + 0.2 * frailty
    people["nt_probnp"] = np.clip(1500.0 * np.exp2(log2 + rng.normal(0.0, 0.9, n)), 125.0, 30_000.0)
    step = people["nyha"] - 2.0 + people["ckd"] + rng.integers(0, 2, n)
    people["loop_step"] = np.clip(step, 0.0, len(LOOP_DOSES_MG) - 1.0)
    people["spo2_usual"] = np.clip(rng.normal(numbers["spo2_mean"], 1.3, n), 89.0, 99.0)
    people["home_oxygen"] = np.zeros(n)


def _draw_usual(rng: np.random.Generator, people: People, disease: Disease) -> None:
    """What is usual for each person: pulse, blood pressure, weight, height, kidneys, answers."""
    numbers, n = numbers_of(disease), people["age"].shape[0]
    slowed = 4.0 * people["beta_blocker"] - 3.0 * people["af"]
    pulse = rng.normal(numbers["pulse_mean"], 9.0, n) - slowed
    people["pulse_usual"] = np.clip(pulse, 48.0, 115.0)
    people["sbp_usual"] = np.clip(rng.normal(numbers["sbp_mean"], 14.0, n), 92.0, 185.0)
    people["dbp_usual"] = np.clip(
        0.32 * people["sbp_usual"] + rng.normal(33.0, 6.0, n), 45.0, 105.0
    )
    weight = rng.normal(numbers["weight_mean"], numbers["weight_sd"], n)
    people["weight_usual"] = np.clip(weight, 40.0, 160.0)
    people["weight_trend"] = np.asarray(rng.normal(-0.5, 2.0, n))
    people["height"] = np.clip(rng.normal(163.0 + 12.0 * people["male"], 6.5, n), 143.0, 200.0)
    log_creatinine = 4.35 + 0.4 * people["ckd"] + 0.08 * people["male"]
    people["creatinine"] = np.clip(np.exp(rng.normal(log_creatinine, 0.2)), 35.0, 600.0)
    people["symptom_usual"] = rng.normal(0.75 + 0.2 * people["frailty"], 0.35)


def _draw_habits(rng: np.random.Generator, people: People, disease: Disease) -> None:
    """How faithfully each person measures, with what, and whether limits were agreed."""
    numbers, n = numbers_of(disease), people["age"].shape[0]
    spread = numbers["adherence_concentration"]
    share = numbers["adherence"]
    adherence = rng.beta(share * spread, (1.0 - share) * spread, n)
    people["adherence"] = np.asarray(adherence)
    for name in ("cuff", "oximeter", "own_limits", "palliative"):
        people[name] = yes_no(rng, np.full(n, numbers[name]))
