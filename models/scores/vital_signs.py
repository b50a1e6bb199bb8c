"""Which measurements are one set of vital signs: the newest complete one within 24 hours.

NEWS2 is a score of one moment; parts measured hours apart are not added up. Measurements at most
an hour before the last of them are a set. Called by `from_record`.
"""

from __future__ import annotations

from collections.abc import Mapping

from fhir_adapters.clock import HOUR_S
from fhir_adapters.features.compute import FeatureRow
from models.scores.inputs import VITAL_SIGNS
from models.scores.news2 import VitalSigns
from models.scores.score import lacking

SET_SPAN_S = HOUR_S
"""How far apart the parts of one set may be: a round with the patient, written down as it goes.
Engineering choice, 2026-11-21."""

Readings = Mapping[str, tuple[tuple[float, float], ...]]
"""Each part's (time, value), oldest first."""


NO_SET = (VitalSigns(None, None, None, None, None, None, None, scale_2=False), None)
"""Nothing measured."""


def newest_set(row: FeatureRow) -> tuple[VitalSigns, float | None]:
    """The newest complete set, and when its last part was measured.

    Where none is complete: the most complete one, whose lacking parts are None; the time is None
    where nothing was measured at all. A part that was measured later and cannot be right is
    unknown: an older set does not answer it.
    """
    readings = _readings(row)
    moments = sorted({time for series in readings.values() for time, _ in series}, reverse=True)
    scale_2 = row.values["news2.scale_2"].value == 1.0
    sets = [(_set_at(readings, moment, scale_2=scale_2), moment) for moment in moments]
    if not sets:
        return NO_SET[0]._replace(scale_2=scale_2), None
    signs, moment = min(sets, key=lambda found: len(lacking(found[0]._asdict())))
    return _without_doubtful(signs, moment, row), moment


def _readings(row: FeatureRow) -> Readings:
    found = {name: row.values[f"news2.{name}"].series for name in VITAL_SIGNS}
    flow = tuple((time, float(litres > 0.0)) for time, litres in found.pop("oxygen_flow"))
    return {**found, "on_oxygen": tuple(sorted((*found["on_oxygen"], *flow)))}


def _set_at(readings: Readings, moment: float, *, scale_2: bool) -> VitalSigns:
    def newest(name: str) -> float | None:
        inside = (v for time, v in reversed(readings[name]) if 0 <= moment - time <= SET_SPAN_S)
        return next(inside, None)

    on_oxygen, not_alert = newest("on_oxygen"), newest("not_alert")
    return VitalSigns(
        resp_rate=newest("resp_rate"),
        spo2=newest("spo2"),
        on_oxygen=None if on_oxygen is None else on_oxygen > 0.0,
        sbp=newest("sbp"),
        pulse=newest("pulse"),
        alert=None if not_alert is None else not_alert == 0.0,
        temperature=newest("temperature"),
        scale_2=scale_2,
    )


def _without_doubtful(signs: VitalSigns, moment: float, row: FeatureRow) -> VitalSigns:
    concepts = {fact.concept for fact in row.implausible if fact.start > moment - SET_SPAN_S}
    doubtful = {_FIELDS.get(name, name) for name, c in VITAL_SIGNS.items() if c in concepts}
    return VitalSigns(**{**signs._asdict(), **dict.fromkeys(doubtful)})


_FIELDS = {"oxygen_flow": "on_oxygen", "not_alert": "alert"}
