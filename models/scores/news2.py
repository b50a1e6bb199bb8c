"""NEWS2, the National Early Warning Score 2: 0 to 20 points from one set of vital signs.

Tables: Royal College of Physicians, National Early Warning Score (NEWS) 2, updated report of a
working party, December 2017, charts 1 and 2. For patients of 16 years and over who are not
pregnant. Which measurements are one set is decided in `vital_signs.py`. Called by `from_record`.
"""

from __future__ import annotations

from typing import NamedTuple

from models.scores.score import ANY, ScoreResult, Steps, known, lacking, nearest, points_at

RESP_RATE: Steps = ((ANY, 3), (9, 1), (12, 0), (21, 2), (25, 3))
SPO2_SCALE_1: Steps = ((ANY, 3), (92, 2), (94, 1), (96, 0))
SPO2_SCALE_2_AIR: Steps = ((ANY, 3), (84, 2), (86, 1), (88, 0))
SPO2_SCALE_2_OXYGEN: Steps = (*SPO2_SCALE_2_AIR, (93, 1), (95, 2), (97, 3))
SBP: Steps = ((ANY, 3), (91, 2), (101, 1), (111, 0), (220, 3))
PULSE: Steps = ((ANY, 3), (41, 1), (51, 0), (91, 1), (111, 2), (131, 3))
TEMPERATURE: Steps = ((ANY, 3), (35.1, 1), (36.1, 0), (38.1, 1), (39.1, 2))
OXYGEN_POINTS = 2
NOT_ALERT_POINTS = 3

MEDIUM_FROM, HIGH_FROM = 5, 7
RED = 3
"""Points of a single part that ask for an urgent review whatever the total ("low-medium")."""


class VitalSigns(NamedTuple):
    """One set of vital signs; None is unknown.

    `resp_rate` and `pulse` per minute, `spo2` in %, `on_oxygen` as against air, `sbp` in mmHg,
    `alert`: A of ACVPU, as against new confusion, voice, pain and unresponsive, `temperature` in
    degrees Celsius. `scale_2`: a clinician has decided that the saturation is judged by scale 2
    (hypercapnic respiratory failure, target 88 to 92 %); never concluded from a diagnosis.
    """

    resp_rate: float | None
    spo2: float | None
    on_oxygen: bool | None
    sbp: float | None
    pulse: float | None
    alert: bool | None
    temperature: float | None
    scale_2: bool = False


def news2(signs: VitalSigns) -> ScoreResult:
    """The NEWS2 of a complete set of vital signs; of an incomplete one no number at all.

    Measured values are rounded to the chart's steps (whole numbers, temperature one decimal).
    """
    missing = lacking(signs._asdict())
    if missing:
        return ScoreResult(missing=missing)
    parts = {
        "resp_rate": points_at(RESP_RATE, nearest(known(signs.resp_rate))),
        "spo2": _saturation(signs),
        "on_oxygen": OXYGEN_POINTS if signs.on_oxygen else 0,
        "sbp": points_at(SBP, nearest(known(signs.sbp))),
        "pulse": points_at(PULSE, nearest(known(signs.pulse))),
        "alert": 0 if signs.alert else NOT_ALERT_POINTS,
        "temperature": points_at(TEMPERATURE, nearest(known(signs.temperature), 1)),
    }
    return ScoreResult(points=sum(parts.values()), band=_band(parts), parts=parts)


def _saturation(signs: VitalSigns) -> int:
    steps = SPO2_SCALE_1
    if signs.scale_2:
        steps = SPO2_SCALE_2_OXYGEN if signs.on_oxygen else SPO2_SCALE_2_AIR
    return points_at(steps, nearest(known(signs.spo2)))


def _band(parts: dict[str, int]) -> str:
    total = sum(parts.values())
    if total >= HIGH_FROM:
        return "high"
    if total >= MEDIUM_FROM:
        return "medium"
    return "low-medium" if RED in parts.values() else "low"
