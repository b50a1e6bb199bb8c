"""Invented adults before an operation for bowel cancer: who they are, their illness, the plan.

Marginals and loadings come from `anchors`; one latent frailty ties illness, function, use of
hospitals and laboratory values together. Also what a record would show of the true values: noise
and gaps. No risk, no time, no FHIR here. Called by `risks` and `cohort`.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from models.synthetic.people import FloatArray, People, decades, sigmoid, solve_intercept, yes_no
from models.synthetic.surgery.anchors import load_anchors

MAX_ACUTE_ADMISSIONS: Final = 6
MAX_ED_VISITS: Final = 5
MAX_OUTPATIENT: Final = 6
MAX_OTHER_DRUGS: Final = 17

# Where the latent burden is cut into the classes of the two scales: design choices that give the
# anchored shares (`asa_1` ... and `who_0` ... of the anchor table; a test holds them together).
ASA_CUTS: Final = (-0.60, 1.02, 2.67)
WHO_CUTS: Final = (0.60, 1.66, 2.52, 3.58)

# How often each part of the plan is chosen: design choices around the anchored shares.
RECTUM_IN_EMERGENCY: Final = 0.15
LOW_TUMOUR_CM: Final = 5.0
NO_TUMOUR_DISTANCE_CM: Final = 40.0
"""The distance given to colon tumours: no record shows it."""


def draw_persons(rng: np.random.Generator, n: int) -> People:
    """Age in years, sex and latent frailty (mean 0, SD 1) of n adults."""
    marginal = load_anchors().marginal
    age = rng.normal(marginal["age_mean"].value, marginal["age_sd"].value, n)
    return {
        "age": np.clip(age, 22.0, 97.0),
        "male": yes_no(rng, np.full(n, marginal["male"].value)),
        "frailty": rng.normal(0.0, 1.0, n),
    }


def solve_prevalences(people: People) -> dict[str, float]:
    """The intercepts that bring every illness of a population to its anchored share."""
    return {
        name: solve_intercept(_prevalence_log_odds(name, people), anchor.value)
        for name, anchor in load_anchors().prevalence.items()
    }


def _prevalence_log_odds(name: str, people: People) -> FloatArray:
    anchor = load_anchors().prevalence[name]
    return anchor.per_10_years * decades(people) + anchor.per_frailty_sd * people["frailty"]


def draw_people(rng: np.random.Generator, n: int, intercepts: Mapping[str, float]) -> People:
    """The true values of n adults; `intercepts` bring each illness to its anchored share."""
    people = draw_persons(rng, n)
    for name, intercept in intercepts.items():
        people[name] = yes_no(rng, sigmoid(intercept + _prevalence_log_odds(name, people)))
    _draw_function(rng, people)
    _draw_tumour(rng, people)
    _draw_plan(rng, people)
    _draw_body(rng, people)
    _draw_laboratory(rng, people)
    _draw_vitals(rng, people)
    _draw_lifestyle(rng, people)
    _draw_medicines(rng, people)
    _draw_prior_care(rng, people)
    return people


def _burden(people: People) -> FloatArray:
    """How much the illnesses weigh together: design choice, heart failure the heaviest."""
    weights = {
        "heart_failure": 0.9,
        "ihd": 0.5,
        "copd": 0.7,
        "diabetes": 0.4,
        "ckd": 0.6,
        "stroke": 0.5,
    }
    return np.asarray(sum(weight * people[name] for name, weight in weights.items()))


def _draw_function(rng: np.random.Generator, people: People) -> None:
    """ASA class, WHO performance status, Clinical Frailty Scale and exercise capacity."""
    size, old, frailty, burden = _parts(people)
    asa = 0.35 * old + 0.9 * burden + 0.45 * frailty + rng.normal(0.0, 0.75, size)
    people["asa"] = 1.0 + np.digitize(asa, ASA_CUTS).astype(np.float64)
    who = 0.45 * old + 0.55 * burden + 0.7 * people["dementia"] + 0.55 * frailty
    who = who + rng.normal(0.0, 0.85, size)
    people["who"] = np.digitize(who, WHO_CUTS).astype(np.float64)
    scale = 2.7 + 0.35 * old + 0.6 * people["who"] + 0.3 * frailty + rng.normal(0.0, 0.7, size)
    people["frailty_scale"] = np.clip(np.round(scale), 1.0, 9.0)
    mets = 7.0 - 0.8 * old - 1.0 * people["who"] - 0.4 * frailty + rng.normal(0.0, 1.4, size)
    people["mets"] = np.clip(np.round(2 * mets) / 2, 1.5, 14.0)


def _parts(people: People) -> tuple[int, FloatArray, FloatArray, FloatArray]:
    """Number of people, decades from 70 years, frailty, and the weight of their illnesses."""
    return people["age"].shape[0], decades(people), people["frailty"], _burden(people)


def _draw_tumour(rng: np.random.Generator, people: People) -> None:
    """Emergency or not, where the tumour sits, its stage, obstruction and treatment before."""
    size, marginal = people["age"].shape[0], load_anchors().marginal
    emergency = yes_no(rng, np.full(size, marginal["emergency"].value))
    people["emergency"] = emergency
    rectum = np.full(size, marginal["rectum"].value) * np.where(
        emergency > 0, RECTUM_IN_EMERGENCY, 1.0
    )
    people["rectum"] = yes_no(rng, rectum)
    people["t4"] = yes_no(rng, marginal["t4"].value + 0.15 * emergency)
    people["metastatic"] = yes_no(rng, marginal["metastatic"].value + 0.10 * emergency)
    people["obstruction"] = yes_no(rng, np.where(emergency > 0, 0.80, 0.03))
    people["neoadjuvant"] = people["rectum"] * yes_no(rng, np.where(emergency > 0, 0.0, 0.28))
    distance = np.round(2 * rng.triangular(1.0, 9.0, 15.0, size)) / 2
    people["distance"] = np.where(people["rectum"] > 0, distance, NO_TUMOUR_DISTANCE_CM)


def _draw_plan(rng: np.random.Generator, people: People) -> None:
    """What the conference plans: access, resection of other organs, anastomosis, stoma."""
    emergency, rectum = people["emergency"], people["rectum"]
    low = people["distance"] < LOW_TUMOUR_CM
    people["open"] = yes_no(rng, np.where(emergency > 0, 0.62, 0.11))
    people["multivisceral"] = yes_no(rng, 0.04 + 0.22 * people["t4"])
    joined = np.where(emergency > 0, 0.62, np.where(rectum > 0, np.where(low, 0.25, 0.80), 0.96))
    people["anastomosis"] = yes_no(rng, joined)
    protected = np.where(rectum > 0, 0.45, 0.04)
    stoma = np.where(people["anastomosis"] > 0, yes_no(rng, protected), 1.0)
    people["stoma"] = stoma


def _draw_body(rng: np.random.Generator, people: People) -> None:
    """Height in cm, weight now and three to five months ago in kg, and the loss in per cent."""
    size, old, frailty, _ = _parts(people)
    people["bmi"] = np.clip(rng.normal(26.6 - 0.4 * frailty, 4.8), 15.5, 52.0)
    height = 165.0 + 12.5 * people["male"] - 1.0 * old
    people["height"] = np.clip(rng.normal(height, 6.3), 142.0, 204.0)
    people["weight"] = people["bmi"] * (people["height"] / 100) ** 2
    mean = 0.4 + 1.6 * people["t4"] + 2.2 * people["emergency"] + 0.6 * frailty
    people["weight_loss"] = np.clip(rng.normal(mean, 3.6, size), -4.0, 22.0)
    people["weight_before"] = people["weight"] / (1.0 - people["weight_loss"] / 100.0)


def _draw_laboratory(rng: np.random.Generator, people: People) -> None:
    """True blood values before the operation, in Danish units."""
    size, old, frailty, burden = _parts(people)
    emergency, male = people["emergency"], people["male"]
    haemoglobin = 8.0 - 0.15 * old - 0.3 * (1.0 - people["rectum"]) + 0.3 * male - 0.15 * frailty
    people["haemoglobin"] = np.clip(rng.normal(haemoglobin, 1.05), 4.0, 11.4)
    albumin = 38.5 - 0.6 * old - 5.0 * emergency - 0.6 * burden - 0.5 * frailty
    people["albumin"] = np.clip(rng.normal(albumin, 3.9), 15.0, 50.0)
    log_crp = 1.5 + 1.2 * emergency + 0.25 * people["t4"] + 0.1 * frailty
    people["crp"] = np.clip(np.exp(rng.normal(log_crp, 1.1)), 0.6, 400.0)
    log_creatinine = 4.30 + 0.16 * male + 0.04 * old + 0.50 * people["ckd"]
    people["creatinine"] = np.clip(np.exp(rng.normal(log_creatinine, 0.22)), 32.0, 900.0)
    sodium = 139.3 - 0.9 * emergency - 0.4 * people["heart_failure"] - 0.2 * frailty
    people["sodium"] = np.clip(rng.normal(sodium, 2.9), 116.0, 153.0)
    leukocytes = np.exp(rng.normal(1.98 + 0.25 * emergency, 0.28))
    people["leukocytes"] = np.clip(leukocytes, 1.5, 40.0)
    people["platelets"] = np.clip(np.exp(rng.normal(5.6, 0.30, size)), 40.0, 1100.0)
    hba1c = np.where(people["diabetes"] > 0, rng.normal(54.0, 11.0, size), 37.0)
    people["hba1c"] = np.clip(rng.normal(hba1c, 3.0), 20.0, 130.0)


def _draw_vitals(rng: np.random.Generator, people: People) -> None:
    """Systolic and diastolic pressure, saturation and pulse at the assessment."""
    emergency, copd = people["emergency"], people["copd"]
    people["systolic"] = np.clip(rng.normal(138.0 - 8.0 * emergency, 18.0), 84.0, 215.0)
    people["diastolic"] = np.clip(rng.normal(0.32 * people["systolic"] + 33.0, 7.0), 42.0, 118.0)
    saturation = 96.9 - 1.6 * copd - 0.4 * people["heart_failure"] - 0.6 * emergency
    people["spo2"] = np.clip(rng.normal(saturation, 1.3), 84.0, 100.0)
    people["pulse"] = np.clip(rng.normal(74.0 + 14.0 * emergency, 11.0), 42.0, 150.0)


def _draw_lifestyle(rng: np.random.Generator, people: People) -> None:
    """Smoking, pack-years and drinks a week (one drink is 12 g of alcohol)."""
    size, marginal = people["age"].shape[0], load_anchors().marginal
    smoker = yes_no(rng, np.full(size, marginal["smoker"].value))
    people["smoker"] = smoker
    ever = np.maximum(smoker, yes_no(rng, np.where(people["copd"] > 0, 0.85, 0.42)))
    years = rng.gamma(2.2, 11.0, size) + 6.0 * people["copd"]
    people["pack_years"] = np.clip(np.round(ever * years), 0.0, 110.0)
    mean = 4.2 + 2.4 * people["male"] + 4.0 * people["liver_disease"]
    drinks = rng.negative_binomial(0.65, 0.65 / (0.65 + mean))
    people["drinks"] = np.minimum(drinks, 70).astype(np.float64)


def _draw_medicines(rng: np.random.Generator, people: People) -> None:
    """Steroid, immunosuppressant and anticoagulant, and the number of other medicines."""
    _, old, frailty, burden = _parts(people)
    people["steroid"] = yes_no(rng, 0.03 + 0.08 * people["copd"])
    people["immunosuppressant"] = yes_no(rng, np.full_like(old, 0.02))
    people["anticoagulant"] = yes_no(rng, np.where(people["af"] > 0, 0.85, 0.04))
    mean = np.exp(1.55 + 0.14 * old + 0.20 * frailty + 0.25 * burden)
    other = np.minimum(rng.poisson(mean), MAX_OTHER_DRUGS)
    people["other_drugs"] = other.astype(np.float64)
    special = people["steroid"] + people["immunosuppressant"] + people["anticoagulant"]
    people["drugs"] = people["other_drugs"] + special


def _draw_prior_care(rng: np.random.Generator, people: People) -> None:
    """Admissions, emergency and outpatient visits of the year before, and earlier operations."""
    marginal = load_anchors().marginal
    _, old, frailty, burden = _parts(people)
    size = old.shape[0]
    use = np.exp(0.05 * old + 0.45 * frailty + 0.35 * burden - 0.25)
    acute = _counts(rng, marginal["acute_admissions_mean"].value * use)
    people["acute_admissions"] = np.minimum(acute, MAX_ACUTE_ADMISSIONS)
    planned = rng.poisson(marginal["planned_admissions_mean"].value, size)
    people["planned_admissions"] = np.minimum(planned, 2).astype(np.float64)
    visits = _counts(rng, marginal["ed_visits_mean"].value * use)
    people["ed_visits"] = np.minimum(visits, MAX_ED_VISITS)
    outpatient = rng.poisson(marginal["outpatient_mean"].value, size)
    people["outpatient"] = np.minimum(outpatient, MAX_OUTPATIENT).astype(np.float64)
    earlier = np.full(size, marginal["abdominal_surgery"].value)
    people["abdominal_surgery"] = yes_no(rng, earlier)


def _counts(rng: np.random.Generator, mean: FloatArray) -> FloatArray:
    """Overdispersed counts (negative binomial) around `mean`."""
    return rng.negative_binomial(1.2, 1.2 / (1.2 + mean)).astype(np.float64)


PROPORTIONAL: Final = (
    "haemoglobin", "albumin", "crp", "creatinine", "leukocytes", "platelets", "hba1c",
)  # fmt: skip
ADDITIVE: Final = ("sodium", "systolic", "diastolic", "spo2", "pulse", "weight", "weight_before")
PANEL: Final = ("haemoglobin", "sodium", "creatinine")
VITALS: Final = ("systolic", "diastolic", "spo2", "pulse")
ALONE: Final = (
    "albumin", "crp", "leukocytes", "platelets", "hba1c", "who", "frailty_scale", "mets",
    "weight_before", "height", "smoker", "pack_years", "drinks", "living_alone", "home_care",
    "nursing_home", "distance",
)  # fmt: skip
CODED: Final = ("t4", "metastatic", "obstruction", "neoadjuvant", "abdominal_surgery")
"""Yes or no by whether a code is there: a gap looks like a no."""


def observe(rng: np.random.Generator, people: People) -> People:
    """What the record shows: values with noise, NaN where nothing was measured or answered.

    What is missing is drawn apart from everything else, so that a gap says nothing of the risk.
    Haemoglobin, sodium and creatinine are missing together; illness and stage that nobody coded
    (`CODED` and the anchored illnesses) stand as 0.
    """
    anchors, size = load_anchors(), people["age"].shape[0]
    noise, missing = anchors.noise, anchors.missing
    seen: People = {}
    for name in PROPORTIONAL:
        seen[name] = people[name] * (1.0 + rng.normal(0.0, noise[name].value, size))
    for name in ADDITIVE:
        seen[name] = people[name] + rng.normal(0.0, noise[name].value, size)
    seen["spo2"] = np.minimum(seen["spo2"], 100.0)
    for name in ALONE:
        seen[name] = seen.get(name, people[name]).copy()
        seen[name][rng.random(size) < missing[name].value] = np.nan
    seen["distance"] = np.where(people["rectum"] > 0, seen["distance"], np.nan)
    for name in VITALS:
        seen[name][rng.random(size) < missing["vitals"].value] = np.nan
    no_panel = rng.random(size) < missing["lab_panel"].value
    for name in PANEL:
        seen[name][no_panel] = np.nan
    seen["weight"][rng.random(size) < missing["weight"].value] = np.nan
    for name in (*CODED, *ILLNESSES):
        coded = rng.random(size) >= missing["uncoded"].value
        seen[name] = people[name] * coded
    return seen


ILLNESSES: Final = (
    "heart_failure", "ihd", "af", "copd", "stroke", "diabetes", "ckd", "liver_disease", "dementia",
)  # fmt: skip
"""The anchored prevalences that are diagnoses; the others are circumstances of daily life."""
