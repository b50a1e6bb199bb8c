"""LACE, HOSPITAL (2013, 2016) and simplified HOSPITAL: readmission after a hospital stay.

Sources:
- LACE: van Walraven et al., CMAJ 2010;182:551-7, doi 10.1503/cmaj.091117. Its comorbidity weights
  also in Wang et al., BMC Cardiovasc Disord 2014;14:97, table 1; AIDS with BMJ Open's LACE table.
- HOSPITAL 2013: Donzé et al., JAMA Intern Med 2013;173:632-8, doi 10.1001/jamainternmed.2013.3023.
- HOSPITAL 2016: Donzé et al., JAMA Intern Med 2016;176:496-502,
  doi 10.1001/jamainternmed.2015.8462.
- simplified: Aubert et al., BMJ Qual Saf 2017;26:799-805, doi 10.1136/bmjqs-2016-006239.
Read 2026-11. LACE+ needs Canadian case-mix groups and is not here. Called by `from_record`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

from models.scores.score import ANY, ScoreResult, Steps, known, lacking, logistic, points_at

LACE_STAY_DAYS: Steps = ((ANY, 0), (1, 1), (2, 2), (3, 3), (4, 4), (7, 5), (14, 7))
LACE_ACUTE = 3
LACE_COMORBIDITY: Steps = ((ANY, 0), (1, 1), (2, 2), (3, 3), (4, 5))
LACE_EMERGENCY_VISITS: Steps = ((ANY, 0), (1, 1), (2, 2), (3, 3), (4, 4))
LACE_BANDS = ((10, "high"), (5, "moderate"), (0, "low"))

# The comorbidity of LACE has weights of its own. Of a family only the severest counts. The code
# table's renal group is moderate or severe disease (Charlson 1987), so it has that weight. Peptic
# ulcer and paralysis do not count.
LACE_FAMILIES: tuple[Mapping[str, int], ...] = (
    {"charlson_mi": 1},
    {"charlson_cvd": 1},
    {"charlson_pvd": 1},
    {"charlson_dm_uncomp": 1, "charlson_dm_comp": 2},
    {"charlson_chf": 2},
    {"charlson_cpd": 2},
    {"charlson_dementia": 3},
    {"charlson_rheum": 3},
    {"charlson_liver_mild": 2, "charlson_liver_severe": 4},
    {"charlson_renal": 4},
    {"charlson_hiv": 4},
    {"charlson_cancer": 2, "charlson_metastatic": 6},
)

# Expected risk. Published ends: 0 points 2.0 %, 19 points 43.7 %. Between them this line in
# log-odds through the ends, 2026-11: an interpolation, not the paper's own table.
LACE_INTERCEPT, LACE_SLOPE = -3.892, 0.1915

HospitalVariant = Literal["2013", "2016"]
HAEMOGLOBIN_LIMIT_G_DL = 12.0
SODIUM_LIMIT = 135.0
HOSPITAL_ONCOLOGY = 2
HOSPITAL_STAY_POINTS = 2
HOSPITAL_STAY_DAYS = 5
HOSPITAL_ADMISSIONS: Mapping[HospitalVariant, Steps] = {
    "2013": ((ANY, 0), (1, 2), (6, 5)),
    "2016": ((ANY, 0), (2, 2), (6, 5)),
}
HOSPITAL_BANDS = ((7, "high"), (5, "intermediate"), (0, "low"))
# Potentially avoidable readmission within 30 days by band, in the validation of 2016.
HOSPITAL_RISK_2016 = {"low": 0.058, "intermediate": 0.119, "high": 0.228}

SimplifiedVariant = Literal["5-days", "8-days"]
# The paper's abstract names three changes, none of them to the length of stay, and later studies
# use 5 days. A limit of 8 days circulates too and could not be confirmed in the paper. Both are
# given, under names that say which.
SIMPLIFIED_STAY_DAYS: Mapping[SimplifiedVariant, int] = {"5-days": 5, "8-days": 8}
SIMPLIFIED_BANDS = ((5, "likely"), (0, "unlikely"))


class Lace(NamedTuple):
    """The inputs of LACE; None is unknown.

    `stay_days`: length of the stay, days. `acute`: the admission was acute. `comorbidity`: points
    of `lace_comorbidity`. `emergency_visits`: to an emergency department in the six months before
    the stay, the one that led into it left out.
    """

    stay_days: float | None
    acute: bool | None
    comorbidity: int | None
    emergency_visits: int | None


class Hospital(NamedTuple):
    """The inputs of the HOSPITAL score; None is unknown.

    Haemoglobin (g/dL) and sodium (mmol/L) are the last before discharge. `oncology`: discharged
    from an oncology service. `procedure`: any coded procedure in the stay. `admissions_12m`: in the
    year before this stay. `stay_days`: length of the stay, days.
    """

    haemoglobin: float | None
    oncology: bool | None
    sodium: float | None
    procedure: bool | None
    acute: bool | None
    admissions_12m: int | None
    stay_days: float | None


class SimplifiedHospital(NamedTuple):
    """The inputs of the simplified HOSPITAL score, as those of `Hospital`.

    `cancer`: a cancer diagnosis, or discharge from an oncology service.
    """

    haemoglobin: float | None
    cancer: bool | None
    sodium: float | None
    acute: bool | None
    admissions_12m: int | None
    stay_days: float | None


def lace_comorbidity(groups: Collection[str]) -> int:
    """The comorbidity points of LACE from Charlson groups (`fhir_adapters.charlson`)."""
    return sum(
        max((points for group, points in family.items() if group in groups), default=0)
        for family in LACE_FAMILIES
    )


def lace(inputs: Lace) -> ScoreResult:
    """LACE, 0 to 19 points, with the expected risk of death or unplanned readmission in 30 days."""
    missing = lacking(inputs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    parts = {
        "stay_days": points_at(LACE_STAY_DAYS, known(inputs.stay_days)),
        "acute": LACE_ACUTE if inputs.acute else 0,
        "comorbidity": points_at(LACE_COMORBIDITY, known(inputs.comorbidity)),
        "emergency_visits": points_at(LACE_EMERGENCY_VISITS, known(inputs.emergency_visits)),
    }
    points = sum(parts.values())
    risk = logistic(LACE_INTERCEPT + LACE_SLOPE * points)
    return ScoreResult(points, risk, _band(LACE_BANDS, points), parts)


def hospital(inputs: Hospital, variant: HospitalVariant) -> ScoreResult:
    """The HOSPITAL score, 0 to 13 points. `variant`: which publication's rows of admissions.

    Risk, of potentially avoidable readmission within 30 days, by band for 2016 only.
    """
    missing = lacking(inputs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    parts = {
        "haemoglobin": int(known(inputs.haemoglobin) < HAEMOGLOBIN_LIMIT_G_DL),
        "oncology": HOSPITAL_ONCOLOGY if inputs.oncology else 0,
        "sodium": int(known(inputs.sodium) < SODIUM_LIMIT),
        "procedure": int(known(inputs.procedure)),
        "acute": int(known(inputs.acute)),
        "admissions_12m": points_at(HOSPITAL_ADMISSIONS[variant], known(inputs.admissions_12m)),
        "stay_days": _stay_points(inputs.stay_days, HOSPITAL_STAY_DAYS),
    }
    points = sum(parts.values())
    band = _band(HOSPITAL_BANDS, points)
    return ScoreResult(points, HOSPITAL_RISK_2016[band] if variant == "2016" else None, band, parts)


def simplified_hospital(inputs: SimplifiedHospital, variant: SimplifiedVariant) -> ScoreResult:
    """The simplified HOSPITAL score, 0 to 12 points; "likely" to be readmitted from 5.

    `variant`: from how many days on the length of stay counts.
    """
    missing = lacking(inputs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    admissions = HOSPITAL_ADMISSIONS["2016"]
    parts = {
        "haemoglobin": int(known(inputs.haemoglobin) < HAEMOGLOBIN_LIMIT_G_DL),
        "cancer": HOSPITAL_ONCOLOGY if inputs.cancer else 0,
        "sodium": int(known(inputs.sodium) < SODIUM_LIMIT),
        "acute": int(known(inputs.acute)),
        "admissions_12m": points_at(admissions, known(inputs.admissions_12m)),
        "stay_days": _stay_points(inputs.stay_days, SIMPLIFIED_STAY_DAYS[variant]),
    }
    points = sum(parts.values())
    return ScoreResult(points, band=_band(SIMPLIFIED_BANDS, points), parts=parts)


def _stay_points(stay_days: float | None, limit: int) -> int:
    return HOSPITAL_STAY_POINTS if math.floor(known(stay_days)) >= limit else 0


def _band(bands: tuple[tuple[int, str], ...], points: int) -> str:
    return next(name for limit, name in bands if points >= limit)
