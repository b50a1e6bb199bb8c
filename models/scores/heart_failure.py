"""MAGGIC: death within one and three years in heart failure, 0 to 57 points.

Source: Pocock et al., Eur Heart J 2013;34:1404-13, doi 10.1093/eurheartj/ehs337, figures of the
integer score and of risk by score; checked against two public implementations (acribis-scores 0.4.0
for the points, laqua-stack/MAGGICCalculator for the risks), 2026-11. Called by `from_record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from models.scores.score import ANY, ScoreResult, Steps, known, lacking, points_at

LVEF: Steps = ((ANY, 7), (20, 6), (25, 5), (30, 3), (35, 2), (40, 0))
# Age and systolic pressure weigh differently by ejection fraction: below 30, 30 to 39, from 40 on.
LVEF_COLUMN: Steps = ((ANY, 0), (30, 1), (40, 2))
AGE: tuple[Steps, ...] = (
    ((ANY, 0), (55, 1), (60, 2), (65, 4), (70, 6), (75, 8), (80, 10)),
    ((ANY, 0), (55, 2), (60, 4), (65, 6), (70, 8), (75, 10), (80, 13)),
    ((ANY, 0), (55, 3), (60, 5), (65, 7), (70, 9), (75, 12), (80, 15)),
)
SBP: tuple[Steps, ...] = (
    ((ANY, 5), (110, 4), (120, 3), (130, 2), (140, 1), (150, 0)),
    ((ANY, 3), (110, 2), (120, 1), (130, 1), (140, 0), (150, 0)),
    ((ANY, 2), (110, 1), (120, 1), (130, 0), (140, 0), (150, 0)),
)
BMI: Steps = ((ANY, 6), (15, 5), (20, 3), (25, 2), (30, 0))
CREATININE_UMOL_L: Steps = (
    (ANY, 0),
    (90, 1),
    (110, 2),
    (130, 3),
    (150, 4),
    (170, 5),
    (210, 6),
    (250, 8),
)
NYHA: Mapping[int, int] = {1: 0, 2: 2, 3: 6, 4: 8}
YES_OR_NO: Mapping[str, int] = {
    "male": 1,
    "smoker": 1,
    "diabetes": 3,
    "copd": 2,
    "diagnosed_18_months": 2,
    "no_beta_blocker": 3,
    "no_acei_arb": 1,
}

# Risk of death by points, 0 to 50; higher sums (57 is possible) have the risk of 50.
# fmt: off
RISK: Mapping[Literal[1, 3], tuple[float, ...]] = {
    1: (0.015, 0.016, 0.018, 0.020, 0.022, 0.024, 0.027, 0.029, 0.032, 0.036,
        0.039, 0.043, 0.048, 0.052, 0.058, 0.063, 0.070, 0.077, 0.084, 0.093,
        0.102, 0.111, 0.122, 0.134, 0.147, 0.160, 0.175, 0.191, 0.209, 0.227,
        0.248, 0.269, 0.292, 0.316, 0.342, 0.369, 0.398, 0.427, 0.458, 0.490,
        0.523, 0.557, 0.591, 0.625, 0.659, 0.692, 0.725, 0.757, 0.787, 0.816,
        0.842),
    3: (0.039, 0.043, 0.048, 0.052, 0.058, 0.063, 0.070, 0.077, 0.084, 0.092,
        0.102, 0.111, 0.122, 0.134, 0.146, 0.160, 0.175, 0.191, 0.209, 0.227,
        0.247, 0.269, 0.292, 0.316, 0.342, 0.369, 0.397, 0.427, 0.458, 0.490,
        0.523, 0.556, 0.590, 0.625, 0.658, 0.692, 0.725, 0.756, 0.787, 0.815,
        0.842, 0.866, 0.889, 0.908, 0.926, 0.941, 0.953, 0.964, 0.973, 0.980,
        0.985),
}
# fmt: on


class Maggic(NamedTuple):
    """The inputs of MAGGIC; None is unknown.

    `lvef` in %, `age` in years, `sbp` in mmHg, `bmi` in kg/m2, `creatinine` in umol/L, `nyha` 1 to
    4. `smoker`: now. `diagnosed_18_months`: heart failure was diagnosed at least 18 months ago.
    `no_acei_arb`: on no ACE inhibitor, ARB or ARNI.
    """

    lvef: float | None
    age: float | None
    sbp: float | None
    bmi: float | None
    creatinine: float | None
    nyha: int | None
    male: bool | None
    smoker: bool | None
    diabetes: bool | None
    copd: bool | None
    diagnosed_18_months: bool | None
    no_beta_blocker: bool | None
    no_acei_arb: bool | None


def maggic(inputs: Maggic, years: Literal[1, 3]) -> ScoreResult:
    """MAGGIC with the risk of death within one or three years."""
    said = inputs._asdict()
    missing = lacking(said)
    if missing:
        return ScoreResult(missing=missing)
    lvef = known(inputs.lvef)
    column = points_at(LVEF_COLUMN, lvef)
    parts = {
        "lvef": points_at(LVEF, lvef),
        "age": points_at(AGE[column], known(inputs.age)),
        "sbp": points_at(SBP[column], known(inputs.sbp)),
        "bmi": points_at(BMI, known(inputs.bmi)),
        "creatinine": points_at(CREATININE_UMOL_L, known(inputs.creatinine)),
        "nyha": NYHA[known(inputs.nyha)],
        **{name: points if said[name] else 0 for name, points in YES_OR_NO.items()},
    }
    points = sum(parts.values())
    risks = RISK[years]
    return ScoreResult(points, risks[min(points, len(risks) - 1)], parts=parts)
