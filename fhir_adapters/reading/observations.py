"""Observations: measurements, scores and coded findings, alone, in panels and derived."""

from __future__ import annotations

from collections.abc import Mapping

from fhir_adapters import resources as r
from fhir_adapters.codes import Concept
from fhir_adapters.reading.shared import WITHDRAWN, Found, Reading, codings
from fhir_adapters.reading.versions import current
from fhir_adapters.record import Fact, FactStatus
from fhir_adapters.references import reference_key
from fhir_adapters.units import to_concept_unit

COUNTS = frozenset({"final", "amended", "corrected", "preliminary"})
"""FHIR R4 ObservationStatus that holds a result; others, and none, do not."""

ALARM_LIMITS: Mapping[str | None, str] = {"RAL": "red", "GAL": "yellow"}
ALARM_LIMIT_SYSTEM = "1.2.208.184.100.1"
"""MedCom's code for the kind of a reference range, as the national telemedicine platform sends it
(implementation guide of FUT infrastructure, seen 2026-11): red and yellow alarm limits."""
BELOW = frozenset({"<", "<="})
COMPARATORS = BELOW | {">", ">="}
"""FHIR R4, http://hl7.org/fhir/R4/valueset-quantity-comparator.html: a modifier of the number."""
UCUM = "http://unitsofmeasure.org"
YES = frozenset({"373066001", "LA33-6", "Y", "true", "52101004"})  # SNOMED CT, LOINC, v2-0136
NO = frozenset({"373067005", "LA32-8", "N", "false", "2667000"})
_DERIVED = frozenset({"derived"})
_UNTAGGED: frozenset[str] = frozenset()


def read_observations(reading: Reading) -> None:
    """Every observation of a wanted concept that counts, as facts."""
    voided = _withdrawn_results(reading)
    gathered = reading.gathered
    for o in current(gathered, "Observation") if gathered.mixed else gathered.of("Observation"):
        found = reading.meanings(o.code)
        if not found and not o.component:
            continue
        if o.status not in COUNTS or (voided and f"Observation/{o.id}" in voided):
            continue
        parts: list[_Part] = [(one, o) for one in found]
        for component in o.component or ():
            parts += [(one, component) for one in reading.meanings(component.code)]
        if parts:
            _add(reading, o, parts)


def _withdrawn_results(reading: Reading) -> frozenset[str]:
    """The results of reports that were withdrawn."""
    reports: list[r.DiagnosticReport] = current(reading.gathered, "DiagnosticReport")
    urls = reading.gathered.ids_by_full_url
    keys = (
        reference_key(result.reference, urls)
        for report in reports
        if report.status in WITHDRAWN
        for result in report.result or ()
    )
    return frozenset(key for key in keys if key)


_Part = tuple[Found, r.Observation | r.ObservationComponent]
"""What was found, and the observation, or the part of it, that says how much."""


def _add(reading: Reading, o: r.Observation, parts: list[_Part]) -> None:
    start = _observed_at(reading, o)
    if start is None:
        reading.no_time("Observation", "Observation without a time")
        return
    issued = reading.time(o.issued, "Observation")
    known = start if issued is None or issued < start else issued
    source = f"Observation/{o.id}"
    tags = _DERIVED if o.derived_from else _UNTAGGED
    for (concept, own_unit, code), part in parts:
        known_as = reading.table.concept(concept)
        worth = _worth(reading, part, known_as, own_unit)
        if worth is not None:
            value, status, original, unit = worth
            quantity = part.value_quantity
            reading.add(
                Fact(
                    concept,
                    start=start,
                    end=start,
                    known=known,
                    value=value,
                    status=status,
                    original=original,
                    unit=unit,
                    source=source,
                    code=code,
                    tags=tags,
                    bound=(quantity.comparator or "") if quantity else "",
                    limits=_own_limits(part, known_as, own_unit) if part.reference_range else (),
                )
            )


def _own_limits(
    part: r.Observation | r.ObservationComponent, concept: Concept, own_unit: str | None
) -> tuple[tuple[str, float], ...]:
    """The patient's own alarm limits; those whose unit cannot be read are left out."""
    limits = {}
    for stated in part.reference_range or ():
        for colour in {ALARM_LIMITS[c.code] for c in codings([stated.type]) if _is_limit(c)}:
            for side, quantity in (("low", stated.low), ("high", stated.high)):
                worth = quantity and _quantity(quantity, concept, own_unit)
                if worth and worth[0] is not None:
                    limits[f"{colour}-{side}"] = worth[0]
    return tuple(limits.items())


def _is_limit(coding: r.Coding) -> bool:
    return coding.code in ALARM_LIMITS and (coding.system or "").endswith(ALARM_LIMIT_SYSTEM)


def _observed_at(reading: Reading, o: r.Observation) -> float | None:
    period = o.effective_period
    text = (
        o.effective_date_time
        or o.effective_instant
        or (period and (period.start or period.end))
        or o.issued
    )
    return reading.time(text, "Observation")


_Worth = tuple[float | None, FactStatus, float | None, str]
"""Value in the concept's unit, whether it may be used, and what stood there with its unit."""


def _worth(
    reading: Reading,
    part: r.Observation | r.ObservationComponent,
    concept: Concept,
    own_unit: str | None,
) -> _Worth | None:
    """What an observation, or a part of one, is worth; None where it holds no value."""
    if part.value_quantity is not None:
        return _quantity(part.value_quantity, concept, own_unit)
    if part.value_integer is not None:
        return _judged(float(part.value_integer), concept, float(part.value_integer), "")
    if part.value_boolean is not None:
        return float(part.value_boolean), "ok", None, ""
    if part.value_codeable_concept is not None:
        return _coded(reading, part.value_codeable_concept, concept.name)
    return None


def _quantity(q: r.Quantity, concept: Concept, own_unit: str | None) -> _Worth | None:
    if q.value is None:
        return None
    unit = q.code if q.code and q.system == UCUM else (q.unit or q.code)
    converted = to_concept_unit(q.value, unit, concept, own_unit)
    if converted.value is None:
        return None, "refused-unit", q.value, unit or ""
    if q.comparator is not None:
        return _bounded(converted.value, concept, q, unit or "")
    return _judged(converted.value, concept, q.value, unit or "")


def _bounded(value: float, concept: Concept, q: r.Quantity, unit: str) -> _Worth:
    """A bound, not a value, but below the detection limit; implausible where all it allows is.

    A comparator FHIR R4 does not have leaves the number without a meaning: it is no value either.
    """
    if q.comparator not in COMPARATORS:
        return None, "bound", q.value, unit
    low, high = concept.plausible_low, concept.plausible_high
    if q.comparator in BELOW:
        if concept.detection_limit is not None and value <= concept.detection_limit:
            return value, "ok", q.value, unit
        out = low is not None and (value < low or (value == low and q.comparator == "<"))
    else:
        out = high is not None and (value > high or (value == high and q.comparator == ">"))
    return value, "implausible" if out else "bound", q.value, unit


def _judged(value: float, concept: Concept, original: float, unit: str) -> _Worth:
    low, high = concept.plausible_low, concept.plausible_high
    out = (low is not None and value < low) or (high is not None and value > high)
    return value, "implausible" if out else "ok", original, unit


def _coded(reading: Reading, coded: r.CodeableConcept, concept: str) -> _Worth | None:
    for coding in coded.coding or ():
        worth = reading.table.answer_of(concept, coding.system, coding.code)
        if worth is not None:
            return worth, "ok", None, ""
        if coding.code in YES:
            return 1.0, "ok", None, ""
        if coding.code in NO:
            return 0.0, "ok", None, ""
    return None
