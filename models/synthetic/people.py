"""Invented adults at a hospital discharge: who they are, what they have, what was measured.

Marginals and loadings come from `anchors`; one latent frailty ties illness, use of hospitals and
laboratory values together. Also what a record would show of the true values: noise and gaps. No
risk, no time, no FHIR here. Called by `readmission`.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.synthetic.anchors import Anchors, load_anchors

FloatArray = NDArray[np.float64]
People = dict[str, FloatArray]
"""True values by name, each `(n,)`; yes or no as 1.0 or 0.0."""

MAX_ACUTE_ADMISSIONS: Final = 10
MAX_ED_VISITS: Final = 6
MAX_OUTPATIENT: Final = 5
MAX_FILLER_DRUGS: Final = 18
# How strongly illness and frailty raise the use of hospitals, on the log scale: design choice (D).
USE_PER_FRAILTY_SD: Final = 0.62
USE_OVERDISPERSION: Final = 1.1
BISECTION_STEPS: Final = 50


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """The probability of the given log-odds."""
    return 1.0 / (1.0 + np.exp(-log_odds))


def solve_intercept(
    log_odds: FloatArray, target: float, *, scale: float | FloatArray = 1.0
) -> float:
    """The number that, added to `log_odds`, makes the mean of `scale` times the risk `target`."""
    low, high = -20.0, 20.0
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        if float(np.mean(scale * sigmoid(log_odds + middle))) > target:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def draw_persons(rng: np.random.Generator, n: int) -> People:
    """Age in years, sex and latent frailty (mean 0, SD 1) of n adults."""
    marginal = load_anchors().marginal
    age = np.clip(rng.normal(marginal["age_mean"].value, marginal["age_sd"].value, n), 18.5, 101.0)
    return {
        "age": age,
        "male": yes_no(rng, np.full(n, marginal["male"].value)),
        "frailty": rng.normal(0.0, 1.0, n),
    }


def prevalence_log_odds(name: str, people: People, anchors: Anchors) -> FloatArray:
    """The log-odds of one condition without its intercept: its loadings on age and frailty."""
    anchor = anchors.prevalence[name]
    return anchor.per_10_years * decades(people) + anchor.per_frailty_sd * people["frailty"]


def draw_people(rng: np.random.Generator, n: int, intercepts: Mapping[str, float]) -> People:
    """The true values of n adults; `intercepts` bring each condition to its anchored share."""
    people = draw_persons(rng, n)
    for name, intercept in intercepts.items():
        risk = sigmoid(intercept + prevalence_log_odds(name, people, load_anchors()))
        people[name] = yes_no(rng, risk)
    _draw_cancer_spread(rng, people)
    _draw_hospital_use(rng, people)
    _draw_stay(rng, people)
    _draw_laboratory(rng, people)
    _draw_vitals(rng, people)
    _draw_medicines(rng, people)
    return people


def decades(people: People) -> FloatArray:
    """Age in decades from 70 years."""
    return (people["age"] - 70.0) / 10.0


def yes_no(rng: np.random.Generator, risk: FloatArray) -> FloatArray:
    """1.0 with the given probability, else 0.0."""
    return (rng.random(risk.shape[0]) < risk).astype(np.float64)


def _draw_cancer_spread(rng: np.random.Generator, people: People) -> None:
    share = load_anchors().marginal["metastatic_share"].value
    people["metastatic_cancer"] = people["cancer"] * yes_no(rng, np.full_like(people["age"], share))


def _counts(rng: np.random.Generator, mean: FloatArray, dispersion: float) -> FloatArray:
    """Overdispersed counts (negative binomial) around `mean`."""
    return rng.negative_binomial(dispersion, dispersion / (dispersion + mean)).astype(np.float64)


def _scaled(log_mean: FloatArray, target: float) -> FloatArray:
    """`exp(log_mean)` for normal loadings, scaled so that its expectation is about `target`.

    The variance is that of the loadings used below; the remaining error is inside the tolerance
    that the tests hold the marginals to.
    """
    return target * np.exp(log_mean)


def _draw_hospital_use(rng: np.random.Generator, people: People) -> None:
    """The year before: acute and planned admissions, emergency and outpatient visits."""
    marginal = load_anchors().marginal
    ill = 0.3 * (people["copd"] + people["heart_failure"] + people["cancer"])
    load = 0.07 * decades(people) + USE_PER_FRAILTY_SD * people["frailty"] + ill
    use = load - 0.41  # centres exp(load) on 1: mean illness 0.13, half the variance of the rest
    acute = _counts(rng, _scaled(use, marginal["acute_admissions_mean"].value), USE_OVERDISPERSION)
    people["acute_admissions"] = np.minimum(acute, MAX_ACUTE_ADMISSIONS)
    planned = rng.poisson(marginal["planned_admissions_mean"].value, people["age"].shape[0])
    people["planned_admissions"] = np.minimum(planned, 2).astype(np.float64)
    visits = _counts(rng, _scaled(use, marginal["ed_visits_mean"].value), USE_OVERDISPERSION)
    people["ed_visits"] = np.minimum(visits, MAX_ED_VISITS)
    outpatient = rng.poisson(_scaled(0.3 * use, marginal["outpatient_mean"].value))
    people["outpatient"] = np.minimum(outpatient, MAX_OUTPATIENT).astype(np.float64)


def _draw_stay(rng: np.random.Generator, people: People) -> None:
    """The index stay: acute or planned, length in days, operation, intensive care."""
    marginal = load_anchors().marginal
    size = people["age"].shape[0]
    people["acute_index"] = yes_no(rng, np.full(size, marginal["acute_index"].value))
    log_days = np.log(marginal["stay_median_days"].value)
    log_days = log_days + 0.15 * people["frailty"] + 0.05 * decades(people)
    people["stay_days"] = np.clip(np.exp(rng.normal(log_days, 0.85)), 0.55, 60.0)
    people["procedure"] = yes_no(rng, np.full(size, marginal["procedure"].value))
    people["icu"] = yes_no(rng, np.full(size, marginal["icu"].value))


def _draw_laboratory(rng: np.random.Generator, people: People) -> None:
    """True blood values at discharge, and CRP and the others at admission, in Danish units."""
    size, frailty = people["age"].shape[0], people["frailty"]
    haemoglobin = 7.9 - 0.18 * decades(people) - 0.25 * frailty + 0.25 * people["male"]
    haemoglobin = rng.normal(haemoglobin - 0.35 * people["cancer"], 1.1)
    people["haemoglobin"] = np.clip(haemoglobin, 3.8, 11.3)
    people["sodium"] = np.clip(rng.normal(138.4 - 0.25 * frailty, 3.6), 116.0, 155.0)
    people["potassium"] = np.clip(rng.normal(4.0, 0.45, size), 2.4, 6.4)
    log_creatinine = 4.38 + 0.55 * people["ckd"] + 0.08 * people["male"]
    people["creatinine"] = np.clip(np.exp(rng.normal(log_creatinine, 0.25)), 32.0, 900.0)
    albumin = rng.normal(36.0 - 0.8 * decades(people) - 0.9 * frailty, 5.0)
    people["albumin"] = np.clip(albumin, 15.0, 50.0)
    people["leukocytes"] = np.clip(np.exp(rng.normal(2.1, 0.32, size)), 1.5, 40.0)
    people["crp"] = np.clip(np.exp(rng.normal(2.6 + 0.1 * frailty, 1.2)), 1.0, 400.0)
    first = people["crp"] * np.exp(rng.normal(0.8, 0.9, size))
    people["crp_first"] = np.clip(first, 1.0, 450.0)


def _draw_vitals(rng: np.random.Generator, people: People) -> None:
    """Vital signs at discharge around an early warning score, and the Clinical Frailty Scale."""
    size, frailty, copd = people["age"].shape[0], people["frailty"], people["copd"]
    score = np.minimum(rng.poisson(np.exp(0.1 + 0.15 * frailty + 0.25 * copd)), 12).astype(float)
    people["early_warning"] = score
    people["oxygen"] = yes_no(rng, sigmoid(-4.2 + 1.5 * copd + 0.35 * score))
    people["spo2"] = np.clip(rng.normal(96.8 - 0.5 * score - 1.5 * copd, 1.3), 82.0, 100.0)
    people["pulse"] = np.clip(rng.normal(75.0 + 2.5 * score, 11.0), 42.0, 150.0)
    people["systolic"] = np.clip(rng.normal(133.0 - 1.5 * score, 18.0), 82.0, 215.0)
    people["diastolic"] = np.clip(rng.normal(0.32 * people["systolic"] + 33.0, 7.0), 42.0, 118.0)
    people["temperature"] = np.clip(rng.normal(36.8 + 0.06 * score, 0.4), 35.0, 39.8)
    people["respiration"] = np.clip(rng.normal(16.0 + 0.8 * score, 1.8), 9.0, 34.0)
    level = 3.4 + 0.55 * decades(people) + 0.7 * frailty + rng.normal(0.0, 0.9, size)
    people["frailty_scale"] = np.clip(np.round(level), 1.0, 9.0)


def _draw_medicines(rng: np.random.Generator, people: People) -> None:
    """High-risk medicines, whether an as-needed opioid was begun, and the number of medicines."""
    marginal = load_anchors().marginal
    fibrillation = people["atrial_fibrillation"]
    people["opioid"] = yes_no(rng, sigmoid(-1.3 + 0.7 * people["cancer"] + 0.2 * people["frailty"]))
    started = people["opioid"] * yes_no(rng, np.full_like(people["age"], 0.35))
    people["opioid_started_as_needed"] = started
    people["anticoagulant"] = yes_no(rng, np.where(fibrillation > 0, 0.85, 0.06))
    people["insulin"] = people["diabetes"] * yes_no(rng, np.full_like(people["age"], 0.3))
    people["diuretic"] = yes_no(rng, np.where(people["heart_failure"] > 0, 0.8, 0.14))
    people["digoxin"] = fibrillation * yes_no(rng, np.full_like(people["age"], 0.12))
    log_mean = np.log(marginal["drugs_mean"].value) + 0.12 * decades(people)
    fillers = rng.poisson(np.exp(log_mean + 0.22 * people["frailty"] - 0.05))
    people["filler_drugs"] = np.minimum(fillers, MAX_FILLER_DRUGS).astype(np.float64)
    groups = ("opioid", "anticoagulant", "insulin", "diuretic", "digoxin")
    people["drugs"] = people["filler_drugs"] + sum(people[group] for group in groups)


PROPORTIONAL: Final = ("haemoglobin", "creatinine", "albumin", "crp", "leukocytes")
ADDITIVE: Final = (
    "sodium", "potassium", "pulse", "spo2", "systolic", "diastolic", "temperature", "respiration",
)  # fmt: skip
PANEL: Final = ("haemoglobin", "sodium", "potassium", "creatinine")
VITALS: Final = (
    "pulse", "spo2", "systolic", "diastolic", "temperature", "respiration", "oxygen",
)  # fmt: skip
ALONE: Final = (
    "albumin", "crp", "potassium", "leukocytes", "early_warning", "frailty_scale", "living_alone",
    "home_care", "nursing_home",
)  # fmt: skip


def observe(rng: np.random.Generator, people: People) -> People:
    """What the record shows of the measured values: with noise, and NaN where nothing was measured.

    What is missing is drawn apart from everything else, so that a gap says nothing of the risk.
    The basic blood panel is missing as a whole, and so are both CRP values.
    """
    noise, size = load_anchors().noise, people["age"].shape[0]
    seen: People = {}
    for name in PROPORTIONAL:
        seen[name] = people[name] * (1.0 + rng.normal(0.0, noise[name].value, size))
    for name in ADDITIVE:
        seen[name] = people[name] + rng.normal(0.0, noise[name].value, size)
    seen["crp_first"] = people["crp_first"] * (1.0 + rng.normal(0.0, noise["crp"].value, size))
    seen["spo2"] = np.minimum(seen["spo2"], 100.0)
    for name in ("oxygen", "early_warning", "frailty_scale", "living_alone", "home_care"):
        seen[name] = people[name].copy()
    seen["nursing_home"] = people["nursing_home"].copy()
    _remove(rng, seen)
    return seen


def _remove(rng: np.random.Generator, seen: People) -> None:
    missing, size = load_anchors().missing, seen["pulse"].shape[0]
    for name in VITALS:
        seen[name][rng.random(size) < missing["vitals"].value] = np.nan
    for name in ALONE:
        seen[name][rng.random(size) < missing[name].value] = np.nan
    seen["crp_first"][np.isnan(seen["crp"])] = np.nan
    no_panel = rng.random(size) < missing["lab_panel"].value
    for name in PANEL:
        seen[name][no_panel] = np.nan
