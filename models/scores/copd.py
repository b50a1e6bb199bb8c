"""DECAF and PEARL: patients admitted with an exacerbation of COPD.

Sources: DECAF, Steer et al., Thorax 2012;67:970-6, doi 10.1136/thoraxjnl-2012-202103; the rule for
patients without a blood gas and the bands, Echevarria et al., Thorax 2016;71:133-40,
doi 10.1136/thoraxjnl-2015-207775. PEARL, Echevarria et al., Thorax 2017;72:686-93,
doi 10.1136/thoraxjnl-2016-209298. Read 2026-11. Not for patients at home. Called by `from_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from models.scores.score import ScoreResult, known, lacking

Emrcd = Literal["1", "2", "3", "4", "5a", "5b"]
"""Extended MRC dyspnoea scale on a good day within three months: 5a too breathless to leave the
house unassisted, 5b needs help with washing and dressing too."""

DECAF_EMRCD: Mapping[Emrcd, int] = {"1": 0, "2": 0, "3": 0, "4": 0, "5a": 1, "5b": 2}
EOSINOPHILS_LIMIT = 0.05
PH_LIMIT = 7.30
NO_GAS_SPO2 = 93.0
"""From this saturation on, breathing air, a patient without a blood gas is taken not to have
acidaemia."""

PEARL_EMRCD: Mapping[Emrcd, int] = {"1": 0, "2": 0, "3": 0, "4": 1, "5a": 2, "5b": 3}
PEARL_ADMISSIONS, PEARL_ADMISSIONS_FROM = 3, 2
PEARL_AGE_FROM = 80


class Decaf(NamedTuple):
    """The inputs of DECAF at admission; None is unknown.

    `eosinophils` in 10^9/L, `consolidation` on the chest radiograph, `ph` of arterial blood, `af`:
    atrial fibrillation, also paroxysmal, also earlier. `spo2_on_air` in %: only where it is known
    that no blood gas was taken, in whose stead it stands.
    """

    emrcd: Emrcd | None
    eosinophils: float | None
    consolidation: bool | None
    ph: float | None
    af: bool | None
    spo2_on_air: float | None = None


class Pearl(NamedTuple):
    """The inputs of PEARL; None is unknown.

    `admissions_12m`: to hospital, in the year before this stay. `age` in years.
    `right_heart_failure`: cor pulmonale. `left_heart_failure`: left ventricular failure.
    """

    admissions_12m: int | None
    emrcd: Emrcd | None
    age: float | None
    right_heart_failure: bool | None
    left_heart_failure: bool | None


def decaf(inputs: Decaf) -> ScoreResult:
    """DECAF, 0 to 6 points: death in hospital; low risk 0 to 1, intermediate 2, high from 3."""
    acidaemia = _acidaemia(inputs)
    needed = {**inputs._asdict(), "ph": acidaemia}
    del needed["spo2_on_air"]
    missing = lacking(needed)
    if missing:
        return ScoreResult(missing=missing)
    parts = {
        "emrcd": DECAF_EMRCD[known(inputs.emrcd)],
        "eosinophils": int(known(inputs.eosinophils) < EOSINOPHILS_LIMIT),
        "consolidation": int(known(inputs.consolidation)),
        "ph": int(known(acidaemia)),
        "af": int(known(inputs.af)),
    }
    points = sum(parts.values())
    band = "high" if points >= 3 else "intermediate" if points == 2 else "low"
    return ScoreResult(points, band=band, parts=parts)


def _acidaemia(inputs: Decaf) -> bool | None:
    if inputs.ph is not None:
        return inputs.ph < PH_LIMIT
    spo2 = inputs.spo2_on_air
    return False if spo2 is not None and spo2 >= NO_GAS_SPO2 else None


def pearl(inputs: Pearl) -> ScoreResult:
    """PEARL, 0 to 9 points: readmission or death within 90 days; low 0 to 1, high from 5."""
    missing = lacking(inputs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    often = known(inputs.admissions_12m) >= PEARL_ADMISSIONS_FROM
    parts = {
        "admissions_12m": PEARL_ADMISSIONS if often else 0,
        "emrcd": PEARL_EMRCD[known(inputs.emrcd)],
        "age": int(known(inputs.age) >= PEARL_AGE_FROM),
        "right_heart_failure": int(known(inputs.right_heart_failure)),
        "left_heart_failure": int(known(inputs.left_heart_failure)),
    }
    points = sum(parts.values())
    band = "high" if points >= 5 else "intermediate" if points >= 2 else "low"
    return ScoreResult(points, band=band, parts=parts)
