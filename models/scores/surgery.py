"""CR-POSSUM and SORT: risk of death after surgery.

Sources: CR-POSSUM, Tekkis et al., Br J Surg 2004;91:1174-82, doi 10.1002/bjs.4430. SORT, Protopapa
et al., Br J Surg 2014;101:1774-83, doi 10.1002/bjs.9638; coefficients as in its authors' calculator
(dannyjnwong/SORTWebCalc, server.R). Read 2026-11. **The SORT formula may not be changed**: a
modified one may not bear the name. Called by `from_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from models.scores.score import (
    ANY,
    ScoreResult,
    Steps,
    known,
    lacking,
    logistic,
    nearest,
    points_at,
)

CardiacFailure = Literal["none_mild", "moderate", "severe"]
Severity = Literal["minor", "intermediate", "major", "complex"]
Soiling = Literal["none", "local_pus", "free"]
Stage = Literal["none_AB", "C", "D"]
PossumUrgency = Literal["elective", "urgent", "emergency"]
SortUrgency = Literal["elective", "expedited", "urgent", "immediate"]

AGE: Steps = ((ANY, 1), (61, 3), (71, 4), (81, 8))
CARDIAC_FAILURE: Mapping[CardiacFailure, int] = {"none_mild": 1, "moderate": 2, "severe": 3}
SBP: Steps = ((ANY, 3), (90, 2), (100, 1), (171, 2))
PULSE: Steps = ((ANY, 3), (40, 1), (101, 2), (121, 3))
HAEMOGLOBIN_G_DL: Steps = ((ANY, 3), (10.0, 2), (13.0, 1), (16.1, 2), (18.1, 3))
UREA_MMOL_L: Steps = ((ANY, 1), (10.1, 2), (15.1, 3))
SEVERITY: Mapping[Severity, int] = {"minor": 1, "intermediate": 3, "major": 4, "complex": 8}
SOILING: Mapping[Soiling, int] = {"none": 1, "local_pus": 2, "free": 3}
STAGE: Mapping[Stage, int] = {"none_AB": 1, "C": 2, "D": 3}
POSSUM_URGENCY: Mapping[PossumUrgency, int] = {"elective": 1, "urgent": 3, "emergency": 8}
POSSUM_INTERCEPT, PHYSIOLOGICAL, OPERATIVE = -9.167, 0.338, 0.308

SORT_INTERCEPT = -7.366
SORT_ASA: Mapping[int, float] = {1: 0.0, 2: 0.0, 3: 1.411, 4: 2.388, 5: 4.081}
SORT_URGENCY: Mapping[SortUrgency, float] = {
    "elective": 0.0,
    "expedited": 1.236,
    "urgent": 1.657,
    "immediate": 2.452,
}
SORT_GI_THORACIC_VASCULAR = 0.712
SORT_XMAJOR_COMPLEX = 0.381
SORT_CANCER = 0.667
SORT_AGE_65, SORT_AGE_80 = 0.777, 1.591


class CrPossum(NamedTuple):
    """The inputs of CR-POSSUM; None is unknown.

    `age` in years, `sbp` in mmHg, `pulse` per minute, `haemoglobin` in g/dL, `urea` in mmol/L.
    `severity` of the operation (complex: complex major), `soiling` of the peritoneum (none or
    serous; local pus; free pus, faeces or blood), `stage`: no cancer or Dukes A to B; C; D.
    """

    age: float | None
    cardiac_failure: CardiacFailure | None
    sbp: float | None
    pulse: float | None
    haemoglobin: float | None
    urea: float | None
    severity: Severity | None
    soiling: Soiling | None
    stage: Stage | None
    urgency: PossumUrgency | None


class Sort(NamedTuple):
    """The inputs of SORT; None is unknown.

    `asa`: ASA class, 1 to 5. `urgency` by NCEPOD. `gi_thoracic_vascular`: specialty of the
    operation. `xmajor_complex`: extra-major or complex by the procedure list. `age` in years.
    """

    asa: int | None
    urgency: SortUrgency | None
    gi_thoracic_vascular: bool | None
    xmajor_complex: bool | None
    cancer: bool | None
    age: float | None


def cr_possum(inputs: CrPossum) -> ScoreResult:
    """CR-POSSUM, 10 to 45 points, with the risk of death in hospital or within 30 days.

    `parts`: the physiological and the operative score. It overestimates today's mortality; read it
    as a rank. Measured values are rounded to the table's steps.
    """
    missing = lacking(inputs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    parts = {"physiological": _physiological(inputs), "operative": _operative(inputs)}
    logit = (
        POSSUM_INTERCEPT + PHYSIOLOGICAL * parts["physiological"] + OPERATIVE * parts["operative"]
    )
    return ScoreResult(sum(parts.values()), logistic(logit), parts=parts)


def _physiological(x: CrPossum) -> int:
    return (
        points_at(AGE, known(x.age))
        + CARDIAC_FAILURE[known(x.cardiac_failure)]
        + points_at(SBP, nearest(known(x.sbp)))
        + points_at(PULSE, nearest(known(x.pulse)))
        + points_at(HAEMOGLOBIN_G_DL, nearest(known(x.haemoglobin), 1))
        + points_at(UREA_MMOL_L, nearest(known(x.urea), 1))
    )


def _operative(x: CrPossum) -> int:
    return (
        SEVERITY[known(x.severity)]
        + SOILING[known(x.soiling)]
        + STAGE[known(x.stage)]
        + POSSUM_URGENCY[known(x.urgency)]
    )


def sort(inputs: Sort) -> ScoreResult:
    """SORT, the Surgical Outcome Risk Tool: the risk of death within 30 days; it has no points."""
    missing = lacking(inputs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    logit = (
        SORT_INTERCEPT
        + SORT_ASA[known(inputs.asa)]
        + SORT_URGENCY[known(inputs.urgency)]
        + (SORT_GI_THORACIC_VASCULAR if inputs.gi_thoracic_vascular else 0.0)
        + (SORT_XMAJOR_COMPLEX if inputs.xmajor_complex else 0.0)
        + (SORT_CANCER if inputs.cancer else 0.0)
        + _sort_age(known(inputs.age))
    )
    return ScoreResult(risk=logistic(logit))


def _sort_age(age: float) -> float:
    if age >= 80:
        return SORT_AGE_80
    return SORT_AGE_65 if age >= 65 else 0.0
