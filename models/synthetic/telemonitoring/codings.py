"""How home measurements, scores, drugs and diagnoses of telemonitoring are coded, beyond
`models.synthetic.codings`: the same five record systems, the same order. Only constants and their
look-up; `lines` puts them into resources.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final

import msgspec

from models.synthetic import codings as base
from models.synthetic.codings import (
    AMERICAN_SYSTEM,
    LOINC,
    MCS,
    MCS_URL,
    NPU,
    NPU_URL,
    SNOMED,
    Form,
    coded,
)

LIMITS: Final = "urn:oid:1.2.208.184.100.1"
"""FUT's types of alarm limits: RAL red, GAL yellow."""
NYHA_CLASSES: Final = "https://kip.rkkp.dk/fhir/CodeSystem/NYHACS"
TELEMEDICINE: Final = "http://terminology.hl7.org/CodeSystem/episodeofcare-type"
QUESTIONNAIRE: Final = "http://example.org/varsel/Questionnaire/"

Forms = tuple[Form, ...]


def _same(code: str, unit: str, decimals: int = 0) -> Forms:
    """A MedCom code that all systems share, under its two addresses."""
    addresses = (MCS, MCS_URL, MCS, MCS_URL, MCS)
    return tuple(Form(((address, code),), unit, unit, decimals) for address in addresses)


_LB_OF_KG: Final = 1 / 0.45359237
_PMOL_L_OF_NG_L: Final = 1 / 8.457
"""NT-proBNP, molar mass 8457 g/mol."""

FORMS: Final[Mapping[str, Forms]] = {
    "spo2": base.FORMS["spo2"],
    "pulse": base.FORMS["pulse"],
    "creatinine": base.FORMS["creatinine"],
    "weight": (
        Form(((NPU, "NPU03804"),), "kg", "kg", 1),
        Form(((NPU_URL, "NPU03804"),), "kg", "kg", 1),
        Form(((LOINC, "29463-7"),), "[lb_av]", "[lb_av]", 1, _LB_OF_KG),
        Form(((LOINC, "29463-7"), (SNOMED, "27113001")), "kg", "kg", 1),
        Form(((NPU, "NPU03804"),), "kg", None, 1),
    ),
    "height": (
        Form(((NPU, "NPU03794"),), "m", "m", 2, 0.01),
        Form(((NPU_URL, "NPU03794"),), "m", "m", 2, 0.01),
        Form(((LOINC, "8302-2"),), "cm", "cm", 0),
        Form(((LOINC, "8302-2"), (SNOMED, "1153637007")), "cm", "cm", 0),
        Form(((NPU, "NPU03794"),), "m", None, 2, 0.01),
    ),
    "fev1": (
        Form(((MCS, "MCS88023"),), "%", "%", 0),
        Form(((MCS_URL, "MCS88023"),), "%", "%", 0),
        Form(((LOINC, "20152-5"),), "%", "%", 0),
        Form(((MCS, "MCS88184"),), "%", "%", 0),
        Form(((MCS, "MCS88023"),), "%", None, 0),
    ),
    "mrc": _same("MCS88021", "{score}"),
    "cat": _same("MCS88137", "{score}"),
    "lvef": (
        Form(((MCS, "MCS88154"),), "%", "%", 0),
        Form(((MCS_URL, "MCS88154"),), "%", "%", 0),
        Form(((LOINC, "10230-1"),), "%", "%", 0),
        Form(((MCS, "MCS88154"), (LOINC, "10230-1")), "%", "%", 0),
        Form(((MCS, "MCS88154"),), "%", None, 0),
    ),
    "nt_probnp": (
        Form(((NPU, "NPU21571"),), "ng/L", "ng/L", 0),
        Form(((NPU_URL, "NPU21571"),), "ng/L", "ng/L", 0),
        Form(((LOINC, "33762-6"),), "pg/mL", "pg/mL", 0),
        Form(((LOINC, "33763-4"),), "pmol/L", "pmol/L", 0, _PMOL_L_OF_NG_L),
        Form(((NPU, "NPU21571"),), "ng/L", None, 0),
    ),
}
"""Forms of each measurement by record system."""

MCS_PRESSURE: Final = (
    Form(((MCS, "MCS88019"),), "mmHg", "mm[Hg]", 0),
    Form(((MCS, "MCS88020"),), "mmHg", "mm[Hg]", 0),
    None,
)
PRESSURE: Final = (*base.PRESSURE[:4], MCS_PRESSURE)
"""Blood pressure by record system, as in `models.synthetic.codings`; the last with MedCom codes."""

_NYHA_LOINC: Final = {2: "LA28405-1", 3: "LA28406-9", 4: "LA28407-7"}
_NYHA_SNOMED: Final = {2: "421704003", 3: "420913000", 4: "422293003"}
_NYHA_DANISH: Final = {2: "NYHAII", 3: "NYHAIII", 4: "NYHAIV"}
NYHA: Final = (LOINC, "88020-3")
NYHA_ANSWERS: Final = (
    (NYHA_CLASSES, _NYHA_DANISH),
    (NYHA_CLASSES, _NYHA_DANISH),
    (LOINC, _NYHA_LOINC),
    (SNOMED, _NYHA_SNOMED),
    (SNOMED, _NYHA_SNOMED),
)
"""How each record system says a NYHA class: the address and code of each class."""

HOME_OXYGEN: Final = (MCS, "MCS88159")
SMOKING: Final = (LOINC, "72166-2")
SMOKING_ANSWERS: Final = ("266919005", "8517006", "449868002", "77176002")
"""SNOMED CT: never, former, daily, current. The last two are smokers."""

ILLNESS: Final[Mapping[str, tuple[str, ...]]] = {
    "copd": ("J449", "J448", "J449", "J439"),
    "heart_failure": ("I509", "I501", "I420", "I110"),
    "af": ("I489", "I480"),
    "ckd": ("N183", "N184", "N189"),
    "diabetes": ("E119", "E112", "E109"),
    "ihd": ("I259", "I251", "I209"),
    "anxiety": ("F411", "F419"),
    "depression": ("F329", "F339"),
    "cancer": ("C349", "C509", "C619", "C679"),
}
"""ICD-10 codes, without dot, that one person's illness may have."""
REASONS: Final[Mapping[str, tuple[str, ...]]] = {
    "copd": ("J441", "J441", "J441", "J440", "J440", "J189", "J960"),
    "heart_failure": ("I509", "I509", "I501", "I509", "I110"),
}
"""What contacts for a deterioration are for."""
OTHER_REASONS: Final = ("N390", "A419", "I639", "S721", "N179", "R074", "A099", "K922", "L031")
PLANNED_REASONS: Final = ("K802", "M161", "K409", "M171", "H259", "N201")
PALLIATIVE: Final = "Z515"
_SNOMED_OF: Final = {"J441": "195951007", "J440": "195951007"}

PREDNISOLONE: Final = ("H02AB06", "H02AB06", "H02AB07")
ANTIBIOTICS: Final = ("J01CA08", "J01AA02", "J01CR02", "J01FA10")
MAINTENANCE: Final[Mapping[str, tuple[str, ...]]] = {
    "triple_inhaler": ("R03AL09", "R03AL08"),
    "beta_blocker": ("C07AB02", "C07AG02", "C07AB07"),
}
ALWAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "copd": ("R03AC02", "C10AA05"),
    "heart_failure": ("C09DX04", "A10BK01", "C03DA01"),
}
"""Drugs beside those a person may have: as in practice, and of no concept the package asks for."""
LOOP_DIURETIC: Final = "C03CA01"
"""Furosemide: the doses of `chart` are its own."""


@cache
def diagnosis(icd: str, system: int) -> msgspec.Raw:
    """One diagnosis as the record system codes it."""
    if system == AMERICAN_SYSTEM and icd in _SNOMED_OF:
        return coded((SNOMED, _SNOMED_OF[icd]))
    return base.diagnosis(icd, system)
