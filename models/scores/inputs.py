"""The inputs of the reference scores, said in the feature language.

A score's inputs are features: windows, provenance and the rule that zero is not missing come with
them. Names are `<score>.<input>`. What cannot be a feature (the length of the stay in days, visits
to an emergency department, one set of vital signs) is made in `patient.py` and `vital_signs.py`.
Concepts of the kind `answer` are known only where a package maps the questions of a form to them.
Called by `from_record`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fhir_adapters.charlson import GROUPS
from fhir_adapters.features.language import FeatureSpec, Text

NOT_SUPPLIED = "not supplied"
"""Stands for the query of what no prefetch key supplies: not asked, unless the record is whole."""

IN_STAY = ["stay.start", "stay.end"]
BEFORE_STAY_12M = ["stay.start - 365 d", "stay.start"]
BEFORE_STAY_6M = ["stay.start - 183 d", "stay.start"]
ADMISSION_DAY = ["stay.start", "stay.start + 24 h"]
# A diagnosis counts for five years, as in the bundled models; DECAF and MAGGIC ask for it ever.
DIAGNOSES_BACK = "5 y"
DIAGNOSES = [f"as_of - {DIAGNOSES_BACK}", "as_of"]
# Measurements before an operation and forms about it, as in the specification of colorectal
# surgery; measurements for MAGGIC as in that of heart failure.
BEFORE_SURGERY = ["as_of - 90 d", "as_of"]
YEAR = ["as_of - 365 d", "as_of"]
DRUGS = ["as_of - 120 d", "as_of"]
# eMRCD is asked for a good day within three months.
THREE_MONTHS_TO_STAY = ["stay.start - 92 d", "stay.start"]
THREE_MONTHS_TO_NOW = ["stay.start - 92 d", "as_of"]
# An exacerbation may have begun, and been dated, before the patient came.
ABOUT_STAY = ["stay.start - 14 d", "stay.end"]

VITAL_SIGNS_WINDOW = ["as_of - 24 h", "as_of"]
VITAL_SIGNS = {
    "resp_rate": "resp_rate",
    "spo2": "spo2",
    "on_oxygen": "on_oxygen",
    "oxygen_flow": "supplemental_oxygen",
    "sbp": "sbp",
    "pulse": "pulse",
    "not_alert": "consciousness",
    "temperature": "temperature",
}
"""The parts of NEWS2 by the name of their feature, and the concept behind each."""

PLANNED_SURGERY = [
    "planned_urgency",
    "planned_open",
    "planned_rectal_resection",
    "planned_multivisceral",
    "planned_anastomosis",
    "planned_stoma",
    "surgery_urgency",
]
"""Answers that are given about a planned colorectal operation only."""


def _feature(name: str, recipe: str, of: str | list[str], **words: Any) -> FeatureSpec:
    concepts = [of] if isinstance(of, str) else of
    return FeatureSpec(name, recipe, Text(da=name, en=name), of=concepts, **words)


def _last(prefix: str, window: list[str] | None, **concepts: str) -> Iterator[FeatureSpec]:
    for name, concept in concepts.items():
        yield _feature(f"{prefix}.{name}", "last", concept, window=window)


def _any(prefix: str, window: list[str] | None, **concepts: str) -> Iterator[FeatureSpec]:
    for name, concept in concepts.items():
        yield _feature(f"{prefix}.{name}", "any", concept, window=window)


def _patient(name: str) -> FeatureSpec:
    return FeatureSpec(f"patient.{name}", "patient", Text(da=name, en=name), attribute=name)


def _general() -> Iterator[FeatureSpec]:
    yield from (_patient("age"), _patient("male"))
    yield FeatureSpec("stay.acute", "index", Text(da="akut", en="acute"), attribute="acute")
    yield _feature("stay.admissions_12m", "count", "stay", window=BEFORE_STAY_12M)


def _news2() -> Iterator[FeatureSpec]:
    yield _feature(
        "news2.pregnant", "any", "pregnancy", window=["as_of - 42 w", "as_of"], when="start"
    )
    yield from _last("news2", VITAL_SIGNS_WINDOW, **VITAL_SIGNS)
    yield from _last("news2", None, scale_2="news2_scale_2")


def _readmission() -> Iterator[FeatureSpec]:
    # says whether they are known; which were to an emergency department: `patient.py`
    yield _feature("lace.visits_6m", "count", ["stay", "contact"], window=BEFORE_STAY_6M)
    yield from _last("hospital", IN_STAY, haemoglobin="haemoglobin", sodium="sodium")
    yield from _last("hospital", IN_STAY, oncology="oncology_service")
    yield from _any("hospital", IN_STAY, procedure="procedure")
    yield from _any("hospital", DIAGNOSES, cancer="cancer")


def _charlson() -> Iterator[FeatureSpec]:
    # one feature for all groups, that says whether they are known; which there are: `patient.py`
    yield _feature("charlson.groups", "count_concepts", sorted(GROUPS), window=DIAGNOSES)


def _surgery() -> Iterator[FeatureSpec]:
    # counted, not asked for: an answer "no" is an answer about a planned operation too
    yield _feature("surgery.planned", "count", PLANNED_SURGERY, window=BEFORE_SURGERY)
    yield _feature("surgery.done", "any", "colorectal_resection", window=["as_of - 30 d", "as_of"])
    yield from _last("surgery", BEFORE_SURGERY, urgency="surgery_urgency")
    yield from _last(
        "cr-possum",
        BEFORE_SURGERY,
        sbp="sbp",
        pulse="pulse",
        haemoglobin="haemoglobin",
        urea="urea",
        cardiac_failure="cardiac_failure_grade",
        severity="operative_severity",
        soiling="peritoneal_soiling",
        stage="dukes_stage",
    )
    yield from _last("sort", BEFORE_SURGERY, asa="asa_class", xmajor_complex="surgery_xmajor")
    yield from _any("sort", DIAGNOSES, cancer="cancer")


def _heart_failure() -> Iterator[FeatureSpec]:
    yield from _any("maggic", None, heart_failure="heart_failure")
    yield _feature("maggic.days_known", "days_since_first", "heart_failure")
    yield from _last("maggic", ["as_of - 5 y", "as_of"], lvef="lvef", height="height")
    yield from _last("maggic", ["as_of - 2 y", "as_of"], smoker="smoking")
    yield from _last(
        "maggic", YEAR, sbp="sbp", measured_bmi="bmi", weight="weight", creatinine="creatinine"
    )
    yield from _last("maggic", YEAR, nyha="nyha")
    yield FeatureSpec(
        "maggic.made_bmi",
        "formula",
        Text(da="BMI", en="BMI"),
        from_=["maggic.weight", "maggic.height"],
        formula="body_mass_index",
    )
    yield from _any("maggic", DIAGNOSES, diabetes="diabetes", copd="copd")
    yield from _any("maggic", DRUGS, beta_blocker="beta_blocker", acei_arb="acei_arb")


def _copd() -> Iterator[FeatureSpec]:
    yield FeatureSpec(
        "copd.reason",
        "index",
        Text(da="KOL i forværring", en="COPD exacerbation"),
        of=["copd_exacerbation"],
        attribute="reason",
    )
    yield _feature("copd.diagnosis", "any", "copd_exacerbation", window=ABOUT_STAY, when="start")
    yield from _last("copd", THREE_MONTHS_TO_NOW, emrcd="emrcd")
    yield from _last("copd", THREE_MONTHS_TO_STAY, mrc="mrc_dyspnoea")
    yield _feature("decaf.eosinophils", "first", "eosinophils", window=ADMISSION_DAY)
    yield _feature("decaf.ph", "first", "ph_arterial", window=ADMISSION_DAY)
    yield _feature("decaf.gases", "count", "ph_arterial", window=ADMISSION_DAY)
    yield _feature("decaf.spo2", "first", "spo2", window=ADMISSION_DAY)
    yield _feature("decaf.on_oxygen", "max", "on_oxygen", window=ADMISSION_DAY)
    yield _feature("decaf.oxygen_flow", "max", "supplemental_oxygen", window=ADMISSION_DAY)
    yield from _last("decaf", ADMISSION_DAY, consolidation="consolidation")
    yield from _any("decaf", None, af="af")
    yield from _any("pearl", None, right_heart_failure="cor_pulmonale")
    yield from _any("pearl", None, left_heart_failure="heart_failure")


FEATURES: tuple[FeatureSpec, ...] = tuple(
    spec
    for part in (
        _general,
        _news2,
        _readmission,
        _charlson,
        _surgery,
        _heart_failure,
        _copd,
    )
    for spec in part()
)


def sources() -> frozenset[str]:
    """The concepts and sources the inputs are made of, `stay` and `contact` among them."""
    return frozenset(name for spec in FEATURES for name in spec.of)
