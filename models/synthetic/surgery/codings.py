"""The codes of surgical records: operations, complications, tumour stages, scales and habits.

Adds to `models.synthetic.codings` what only the surgery cohort needs, for the same five record
systems. Only constants and their look-up; `before` and `after` put them into resources.
"""

from functools import cache
from typing import Final

import msgspec

from models.synthetic import codings
from models.synthetic.codings import (
    AMERICAN_SYSTEM,
    LOINC,
    MCS,
    MCS_URL,
    NPU,
    NPU_URL,
    SKS,
    SNOMED,
    Form,
    coded,
)

KIP: Final = "https://kip.rkkp.dk/fhir/CodeSystem/"
KG_IN_POUND: Final = 0.45359237
CM_IN_INCH: Final = 2.54


def _form(system: str, code: str, unit: str, decimals: int, factor: float = 1.0) -> Form:
    return Form(((system, code),), unit, unit, decimals, factor)


_SURGICAL_FORMS: Final[dict[str, tuple[Form, Form, Form, Form, Form]]] = {
    "platelets": (
        _form(NPU, "NPU03568", "10*9/L", 0),
        _form(NPU_URL, "NPU03568", "10*9/L", 0),
        _form(LOINC, "777-3", "10*3/uL", 0),
        _form(LOINC, "26515-7", "10*9/L", 0),
        Form(((NPU, "NPU03568"),), "10^9/L", None, 0),
    ),
    "hba1c": (
        _form(NPU, "NPU27300", "mmol/mol", 0),
        _form(NPU_URL, "NPU27300", "mmol/mol", 0),
        _form(LOINC, "59261-8", "mmol/mol", 0),
        _form(LOINC, "59261-8", "mmol/mol", 0),
        _form(NPU, "NPU27300", "mmol/mol", 0),
    ),
    "weight": (
        _form(NPU, "NPU03804", "kg", 1),
        _form(NPU_URL, "NPU03804", "kg", 1),
        _form(LOINC, "29463-7", "[lb_av]", 1, 1 / KG_IN_POUND),
        _form(LOINC, "29463-7", "kg", 1),
        Form(((NPU, "NPU03804"),), "kg", None, 1),
    ),
    "height": (
        _form(NPU, "NPU03794", "m", 2, 0.01),
        _form(NPU_URL, "NPU03794", "m", 2, 0.01),
        _form(LOINC, "8302-2", "[in_i]", 1, 1 / CM_IN_INCH),
        _form(LOINC, "8302-2", "cm", 0),
        Form(((NPU, "NPU03794"),), "m", None, 2, 0.01),
    ),
    "drinks": (
        _form(MCS, "MCS88036", "{drinks}/wk", 0),
        _form(MCS_URL, "MCS88036", "{drinks}/wk", 0),
        _form(LOINC, "74013-4", "{drinks}/d", 2, 1 / 7),
        _form(LOINC, "74013-4", "{drinks}/d", 2, 1 / 7),
        _form(MCS, "MCS88036", "{drinks}/wk", 0),
    ),
    "pack_years": (
        _form(MCS, "MCS88024", "a", 0),
        _form(MCS_URL, "MCS88024", "a", 0),
        _form(MCS, "MCS88024", "a", 0),
        _form(MCS, "MCS88024", "a", 0),
        _form(MCS, "MCS88024", "a", 0),
    ),
}
FORMS: Final = codings.FORMS | _SURGICAL_FORMS
"""Forms of each measurement by record system."""
LABORATORY: Final = (
    "haemoglobin", "sodium", "creatinine", "albumin", "crp", "leukocytes", "platelets", "hba1c",
)  # fmt: skip
VITALS: Final = ("spo2", "pulse")

# Scales by record system: the code asked, and the coded answers in rising order.
_SNOMED_ASA: Final = tuple(
    (SNOMED, f"{code}") for code in (413495001, 413496000, 413497009, 413498004)
)
_KIP_ASA: Final = tuple((KIP + "ASAClassification", f"asa{n}") for n in ("i", "ii", "iii", "iv"))
ASA: Final = (SNOMED, "302132005")
ASA_ANSWERS: Final = (_KIP_ASA, _SNOMED_ASA, _SNOMED_ASA, _SNOMED_ASA, _KIP_ASA)
_LOINC_ECOG: Final = tuple((LOINC, f"LA962{n}") for n in ("2-7", "3-5", "4-3", "5-0", "6-8"))
_KIP_ECOG: Final = tuple((KIP + "PerformanceStatusScore", f"grade_{n}") for n in range(5))
WHO: Final = (LOINC, "89247-1")
WHO_ANSWERS: Final = (_KIP_ECOG, _LOINC_ECOG, _LOINC_ECOG, _LOINC_ECOG, _KIP_ECOG)
SMOKING: Final = (LOINC, "72166-2")
_NEVER, _FORMER, _CURRENT = (SNOMED, "266919005"), (SNOMED, "8517006"), (SNOMED, "449868002")
_KIP_SMOKING: Final = tuple(
    (KIP + "Smoking", n) for n in ("never-smoker", "formersmoker", "smoker")
)
SMOKING_ANSWERS: Final = (
    _KIP_SMOKING, (_NEVER, _FORMER, _CURRENT), (_NEVER, _FORMER, _CURRENT),
    (_NEVER, _FORMER, _CURRENT), _KIP_SMOKING,
)  # fmt: skip
"""Never, former and current smoker."""

# Diagnoses by ICD-10 code without dot.
ILLNESS: Final = {
    "heart_failure": codings.ILLNESS["heart_failure"],
    "ihd": ("I251", "I252", "I209"),
    "af": codings.ILLNESS["atrial_fibrillation"],
    "copd": codings.ILLNESS["copd"],
    "stroke": ("I639", "I619", "I64"),
    "diabetes": codings.ILLNESS["diabetes"],
    "ckd": codings.ILLNESS["ckd"],
    "liver_disease": codings.ILLNESS["liver_disease"],
    "dementia": codings.ILLNESS["dementia"],
}
COLON_CANCER: Final = ("C180", "C182", "C184", "C187")
RECTAL_CANCER: Final = ("C209",)
METASTASES: Final = ("C787", "C780")
OBSTRUCTION: Final = ("K566", "K566", "K631")
RADIOTHERAPY: Final = "Z510"
WORK_UP_REASON: Final = "Z031"
"""Observation for suspected cancer: what the contacts of the year before may be for."""
T4, M1, M0 = (SKS, "AZCD16"), (SKS, "AZCD41"), (SKS, "AZCD40")
CHEMOTHERAPY: Final = ((SKS, "BWHA1"), (SNOMED, "367336001"))

# Complications of the first 30 days, by kind: ICD-10 codes of which one is written.
COMPLICATIONS: Final = {
    "wound-or-bleeding": ("T813", "T814", "T810"),
    "pneumonia": ("J189", "J159"),
    "myocardial-infarction": ("I214", "I219"),
    "pulmonary-embolism": ("I269",),
    "kidney-injury": ("N179",),
    "sepsis": ("A419", "A415"),
}
COMPLICATION_SHARES: Final = {
    "wound-or-bleeding": 0.34,
    "pneumonia": 0.24,
    "myocardial-infarction": 0.05,
    "pulmonary-embolism": 0.04,
    "kidney-injury": 0.12,
    "sepsis": 0.10,
    "intensive-care": 0.11,
}
"""Share of each among complications without reoperation: design choice."""
READMISSION_REASONS: Final = ("K567", "R509", "N390", "A099", "E869", "K922", "R104")
"""What readmissions are for: nothing that is itself a complication of the heads."""

# Operations, SKS (NOMESCO with a K before it). Reoperations: KJW, third letter the cause; KJWB and
# KJWD are superficial (infection, bleeding) and no abdominal reoperation.
LEAK_OPERATIONS: Final = ((SKS, "KJWF00"), (SKS, "KJWF01"))
OTHER_REOPERATIONS: Final = (
    (SKS, "KJWA00"), (SKS, "KJWC00"), (SKS, "KJWC01"), (SKS, "KJWE00"), (SKS, "KJWE01"),
    (SKS, "KJWW96"),
)  # fmt: skip
SUPERFICIAL_OPERATION: Final = (SKS, "KJWB00")
EARLIER_OPERATIONS: Final = (
    (SKS, "KJEA00"), (SKS, "KJEA01"), (SKS, "KJKA20"), (SKS, "KJKA21"), (SKS, "KJAH00"),
)  # fmt: skip
"""Appendix, gall bladder, laparotomy, years before."""
_AMERICAN_RESECTION: Final = (SNOMED, "43075005")

# Open and laparoscopic code of each resection.
COLON_JOINED: Final = (("KJFB30", "KJFB31"), ("KJFB43", "KJFB44"), ("KJFB46", "KJFB47"))
COLON_STOMA: Final = (("KJFB60", "KJFB61"), ("KJFB63", "KJFB64"))
RECTUM_JOINED: Final = (("KJGB00", "KJGB01"),)
RECTUM_STOMA: Final = (("KJGB30", "KJGB31"), ("KJGB10", "KJGB11"))

_NO_OTHER_DRUGS: Final = {"H02AB06", "A11CC05", "A12AX01", "B03BA03", "A03FA01", "N05BA04"}
OTHER_DRUGS: Final = tuple(atc for atc in codings.OTHER_DRUGS if atc not in _NO_OTHER_DRUGS)
"""A prime number of medicines without steroids, so that any step walks through all."""
STEROID: Final = ("H02AB06", "H02AB07")
IMMUNOSUPPRESSANT: Final = ("L04AX01", "L04AX03")
THROMBOSIS_PROPHYLAXIS: Final = "B01AB05"


def resection_pairs(*, rectum: bool, joined: bool) -> tuple[tuple[str, str], ...]:
    """The (open, laparoscopic) SKS codes of the resections that fit a plan."""
    if rectum:
        return RECTUM_JOINED if joined else RECTUM_STOMA
    return COLON_JOINED if joined else COLON_STOMA


@cache
def resection(sks: str, system: int) -> msgspec.Raw:
    """One resection as the record system codes it."""
    return coded(_AMERICAN_RESECTION) if system == AMERICAN_SYSTEM else coded((SKS, sks))
