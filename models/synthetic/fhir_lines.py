"""One synthetic patient's plain values in, FHIR R4 resources as JSON lines out.

A `Chart` says what a hospital would know; this module chooses codes, units and times within the
stay by the patient's record system and writes Patient, Encounter, Condition, Observation,
Procedure and MedicationRequest. It also writes what a reader must leave out: results entered in
error, suspected diagnoses that were refuted, medicines that were stopped. Names are not written;
the only identifier is a synthetic one. Called by `readmission`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from models.synthetic import codings
from models.synthetic.codings import coded

HOUR_S: Final = 3600
DAY_S: Final = 86_400
ZONE: Final = ZoneInfo("Europe/Copenhagen")
IDENTIFIER_SYSTEM: Final = "http://example.org/varsel/synthetic-patient"
RESOURCE_TYPES: Final = (
    "Patient", "Encounter", "Condition", "Observation", "Procedure", "MedicationRequest",
)  # fmt: skip
MOST_CHOICES: Final = 400
"""More random choices than one patient's record can use."""

Option = TypeVar("Option")
Resource = dict[str, Any]
Line = tuple[str, bytes]
_encode: Final = msgspec.json.Encoder().encode

FINISHED = "finished"
CATEGORY: Final = {
    name: msgspec.Raw(
        msgspec.json.encode([{"coding": [{"system": codings.OBSERVATION_CATEGORY, "code": name}]}])
    )
    for name in ("laboratory", "vital-signs", "survey")
}
LAB: Final = ("haemoglobin", "sodium", "potassium", "creatinine", "leukocytes", "crp")
VITALS: Final = ("pulse", "spo2", "temperature", "respiration")


class Contact(NamedTuple):
    """One hospital contact: class (IMP, EMER or AMB), UTC seconds, acute or not, ICD-10 reason."""

    class_code: str
    start: int
    end: int
    acute: bool | None
    reason: str
    died: bool = False


class Choices:
    """A patient's random choices, uniform numbers in a fixed order."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self._numbers = iter(numbers)

    def chance(self) -> float:
        """The next number in [0, 1)."""
        return next(self._numbers)

    def happens(self, share: float) -> bool:
        """True with the given share."""
        return next(self._numbers) < share

    def one_of(self, options: Sequence[Option]) -> Option:
        """One option, all equally likely."""
        return options[int(next(self._numbers) * len(options))]

    def between(self, low: float, high: float) -> float:
        """A number between low and high."""
        return low + next(self._numbers) * (high - low)


@dataclass(frozen=True, slots=True)
class Chart:
    """What the record holds of one patient, before codes.

    `seen`: measured values in Danish units, NaN where nothing was measured; `illnesses`: names of
    `codings.ILLNESS`; `index`: the position in `contacts` of the index stay's last contact.
    """

    patient_id: str
    system: int
    male: bool
    birth_date: str
    deceased_at: int | None
    contacts: Sequence[Contact]
    index: int
    index_start: int
    index_end: int
    illnesses: Sequence[str]
    seen: Mapping[str, float]
    high_risk_drugs: Sequence[str]
    opioid_started_as_needed: bool
    other_drugs: int
    procedure: bool
    icu: bool
    palliative: bool
    choices: Choices
    numbers: Iterator[int] = field(default_factory=count)


def patient_lines(chart: Chart) -> list[Line]:
    """The whole record of one patient, the Patient first, then by type as in `RESOURCE_TYPES`."""
    resources = [_patient(chart)]
    contacts, reasons = _encounters(chart)
    observations = [*_laboratory(chart), *_vitals(chart), *_function(chart), *_mistakes(chart)]
    resources += contacts
    resources += [*reasons, *_illnesses(chart), *_doubtful(chart)]
    resources += observations
    resources += [*_procedures(chart), *_medicines(chart)]
    return [(resource["resourceType"], _encode(resource)) for resource in resources]


@lru_cache(maxsize=64)
def stamp(second: float) -> str:
    """A moment as a FHIR instant in Danish local time with its offset."""
    return datetime.fromtimestamp(int(second), ZONE).isoformat()


def day(second: float) -> str:
    """The Danish calendar date of a moment."""
    return stamp(second)[:10]


def birth_date(moment: int, age_years: float) -> str:
    """The birth date of somebody of the given age (years of 365.25 days) at a moment."""
    return (
        (datetime.fromtimestamp(moment, UTC) - timedelta(days=age_years * 365.25))
        .date()
        .isoformat()
    )


def _new(chart: Chart, kind: str, **fields: object) -> Resource:
    """A resource of the patient with the next id."""
    letter = kind[0].lower()
    return {
        "resourceType": kind,
        "id": f"{chart.patient_id}-{letter}{next(chart.numbers)}",
        **fields,
    }


def _subject(chart: Chart) -> dict[str, str]:
    return {"reference": f"Patient/{chart.patient_id}"}


def _patient(chart: Chart) -> Resource:
    resource: Resource = {
        "resourceType": "Patient",
        "id": chart.patient_id,
        "meta": {"security": [{"system": codings.ACT_REASON, "code": "HTEST"}]},
        "identifier": [{"system": IDENTIFIER_SYSTEM, "value": chart.patient_id}],
        "gender": "male" if chart.male else "female",
        "birthDate": chart.birth_date,
    }
    if chart.deceased_at is not None:
        resource["deceasedDateTime"] = stamp(chart.deceased_at)
    return resource


# ---- contacts and diagnoses ---------------------------------------------------------------------

PRIORITY_ACUTE: Final = ("A", "A", "EM", "UR")
"""v3-ActPriority codes of an acute contact; dk-core uses A, other systems EM and UR."""


def _encounters(chart: Chart) -> tuple[list[Resource], list[Resource]]:
    """All contacts, and the Conditions that are their diagnoses: the index stay's, some others'."""
    acute = chart.choices.one_of(PRIORITY_ACUTE)
    contacts, conditions = [], []
    for position, contact in enumerate(chart.contacts):
        encounter = _encounter(chart, contact, acute)
        inpatient = contact.class_code == "IMP"
        if position == chart.index or (inpatient and chart.choices.happens(0.25)):
            condition = _stay_diagnosis(chart, contact, encounter["id"])
            encounter["diagnosis"] = [
                {"condition": {"reference": f"Condition/{condition['id']}"}, "rank": 1}
            ]
            conditions.append(condition)
        contacts.append(encounter)
    return contacts, conditions


def _encounter(chart: Chart, contact: Contact, acute_code: str) -> Resource:
    resource = _new(
        chart,
        "Encounter",
        status=FINISHED,
        **{"class": {"system": codings.ACT_CODE, "code": contact.class_code}},
        subject=_subject(chart),
        period={"start": stamp(contact.start), "end": stamp(contact.end)},
        reasonCode=[codings.diagnosis(contact.reason, chart.system)],
    )
    if contact.acute is not None:
        code = acute_code if contact.acute else "EL"
        resource["priority"] = coded((codings.ACT_PRIORITY, code))
    if contact.died:
        resource["hospitalization"] = {"dischargeDisposition": coded((codings.DISPOSITION, "exp"))}
    return resource


def _stay_diagnosis(chart: Chart, contact: Contact, encounter_id: str) -> Resource:
    return _new(
        chart,
        "Condition",
        **_confirmed(chart, "encounter-diagnosis"),
        code=codings.diagnosis(contact.reason, chart.system),
        subject=_subject(chart),
        encounter={"reference": f"Encounter/{encounter_id}"},
        onsetDateTime=stamp(contact.start),
        recordedDate=stamp(min(contact.start + 6 * HOUR_S, contact.end)),
    )


def _confirmed(chart: Chart, category: str) -> Resource:
    """Status and category; MedCom systems leave the two states out, as MedCom's own examples do."""
    fields: Resource = {"category": [coded((codings.CONDITION_CATEGORY, category))]}
    if chart.system != codings.MEDCOM_SYSTEM:
        fields["clinicalStatus"] = coded((codings.CLINICAL, "active"))
        fields["verificationStatus"] = coded((codings.VERIFICATION, "confirmed"))
    return fields


def _illnesses(chart: Chart) -> list[Resource]:
    """Chronic illness, known before the index stay; onset is at times only a year or a month."""
    return [_illness(chart, codings.ILLNESS[name]) for name in chart.illnesses] + (
        [_palliative(chart)] if chart.palliative else []
    )


def _illness(chart: Chart, codes: Sequence[str]) -> Resource:
    choices = chart.choices
    code = codings.diagnosis(choices.one_of(codes), chart.system)
    onset = chart.index_start - choices.between(0.2, 12.0) * 365.25 * DAY_S
    length = choices.one_of((4, 7, 10, 10))
    return _new(
        chart,
        "Condition",
        **_confirmed(chart, "problem-list-item"),
        code=code,
        subject=_subject(chart),
        onsetDateTime=day(onset)[:length],
        recordedDate=stamp(min(onset + 30 * DAY_S, chart.index_start - DAY_S)),
    )


def _palliative(chart: Chart) -> Resource:
    return _new(
        chart,
        "Condition",
        **_confirmed(chart, "encounter-diagnosis"),
        code=codings.diagnosis(codings.PALLIATIVE, chart.system),
        subject=_subject(chart),
        recordedDate=stamp(chart.index_start + 4 * HOUR_S),
    )


def _doubtful(chart: Chart) -> list[Resource]:
    """At times a suspicion that was refuted or never confirmed; it is no diagnosis."""
    choices = chart.choices
    if not choices.happens(0.03):
        return []
    name = choices.one_of(tuple(codings.ILLNESS))
    status = choices.one_of(("refuted", "unconfirmed", "entered-in-error"))
    if name in chart.illnesses:
        return []
    return [
        _new(
            chart,
            "Condition",
            verificationStatus=coded((codings.VERIFICATION, status)),
            category=[coded((codings.CONDITION_CATEGORY, "encounter-diagnosis"))],
            code=codings.diagnosis(codings.ILLNESS[name][0], chart.system),
            subject=_subject(chart),
            recordedDate=stamp(chart.index_start + 2 * HOUR_S),
        )
    ]


# ---- measurements -------------------------------------------------------------------------------


def _observation(
    chart: Chart, at: float, category: str, code: msgspec.Raw, **value: object
) -> Resource:
    return _new(
        chart,
        "Observation",
        status="final",
        category=CATEGORY[category],
        code=code,
        subject=_subject(chart),
        effectiveDateTime=stamp(at),
        **value,
    )


def _measured(chart: Chart, name: str, value: float, *, at: float, category: str) -> Resource:
    """One measurement in the form of the record system, one in seven in another system's form."""
    form = codings.FORMS[name][_system_for(chart)]
    code = coded(*form.codings)
    return _observation(chart, at, category, code, valueQuantity=form.quantity(value))


def _system_for(chart: Chart) -> int:
    """The record system of one measurement: mostly the patient's own, at times another."""
    if chart.choices.happens(1 / 7):
        return int(chart.choices.chance() * len(codings.SYSTEM_SHARES))
    return chart.system


def _laboratory(chart: Chart) -> Iterator[Resource]:
    """Blood tests on admission and on the day of discharge; albumin once, on admission."""
    choices, seen = chart.choices, chart.seen
    first_at = chart.index_start + choices.between(0.5, 2.5) * HOUR_S
    last_at = chart.index_end - choices.between(3.0, 6.0) * HOUR_S
    if _known(seen["albumin"]):
        yield _measured(chart, "albumin", seen["albumin"], at=first_at, category="laboratory")
    for name in LAB:
        last = seen[name]
        if not _known(last):
            continue
        first = seen["crp_first"] if name == "crp" else last * choices.between(0.9, 1.1)
        if last_at > first_at:
            yield _measured(chart, name, first, at=first_at, category="laboratory")
        yield _measured(chart, name, last, at=max(last_at, first_at), category="laboratory")


def _known(value: float) -> bool:
    return value == value  # NaN is the only number unequal to itself


def _vitals(chart: Chart) -> Iterator[Resource]:
    """Vital signs on arrival, worse than at discharge, and the discharge set with its score."""
    choices, seen = chart.choices, chart.seen
    arrival = chart.index_start + choices.between(0.1, 0.4) * HOUR_S
    last = chart.index_end - choices.between(0.7, 2.8) * HOUR_S
    for name, worse in (("pulse", 12.0), ("spo2", -2.0)):
        if _known(seen[name]):
            value = max(seen[name] + worse, 75.0) if name == "spo2" else seen[name] + worse
            yield _measured(chart, name, value, at=arrival, category="vital-signs")
    for name in VITALS:
        if _known(seen[name]):
            yield _measured(chart, name, seen[name], at=last, category="vital-signs")
    yield from _pressure(chart, last)
    if _known(seen["oxygen"]):
        flow = seen["oxygen"] * (1 + int(choices.chance() * 3))
        yield _measured(chart, "oxygen", flow, at=last, category="vital-signs")
    if _known(seen["early_warning"]):
        score = seen["early_warning"]
        yield _measured(chart, "early_warning", score, at=last, category="vital-signs")


def _pressure(chart: Chart, at: float) -> Iterator[Resource]:
    """Blood pressure as one panel with components, or as two Observations."""
    systolic, diastolic = chart.seen["systolic"], chart.seen["diastolic"]
    high, low, panel = codings.PRESSURE[_system_for(chart)]
    known = [
        (coded(*form.codings), form.quantity(value))
        for form, value in ((high, systolic), (low, diastolic))
        if _known(value)
    ]
    if panel is None:
        for code, quantity in known:
            yield _observation(chart, at, "vital-signs", code, valueQuantity=quantity)
    elif known:
        parts = [{"code": code, "valueQuantity": quantity} for code, quantity in known]
        yield _observation(chart, at, "vital-signs", coded(*panel), component=parts)


def _function(chart: Chart) -> Iterator[Resource]:
    """Frailty scale, living alone, home care, nursing home: asked once in the stay."""
    choices, seen = chart.choices, chart.seen
    at = chart.index_start + 0.6 * (chart.index_end - chart.index_start)
    if _known(seen["frailty_scale"]):
        level = int(seen["frailty_scale"])
        score = {"value": level, "unit": "{score}", "system": codings.UCUM, "code": "{score}"}
        value = {"valueInteger": level} if choices.happens(0.5) else {"valueQuantity": score}
        yield _observation(chart, at, "survey", coded(codings.FRAILTY_SCALE), **value)
    for name, codes in codings.YES_NO.items():
        if _known(seen[name]):
            code = coded((codings.SNOMED, choices.one_of(codes)))
            yield _observation(chart, at, "survey", code, valueBoolean=seen[name] > 0.5)


def _mistakes(chart: Chart) -> list[Resource]:
    """At times a result entered in error, later than the right one and far off."""
    if not chart.choices.happens(0.02):
        return []
    wrong = _measured(
        chart, "potassium", 7.9, at=chart.index_end - HOUR_S / 2, category="laboratory"
    )
    return [wrong | {"status": "entered-in-error"}]


# ---- procedures and medicines -------------------------------------------------------------------


def _procedures(chart: Chart) -> list[Resource]:
    choices = chart.choices
    at = chart.index_start + choices.between(0.1, 0.4) * (chart.index_end - chart.index_start)
    found = []
    if chart.procedure:
        bowel = chart.contacts[chart.index].reason.startswith("C18")
        codes = choices.one_of(codings.BOWEL_OPERATIONS if bowel else codings.OPERATIONS)
        found.append(_procedure(chart, coded(*codes), performedDateTime=stamp(at)))
    if chart.icu:
        until = at + choices.between(0.1, 0.5) * (chart.index_end - at)
        period = {"start": stamp(at), "end": stamp(until)}
        codes = choices.one_of(codings.INTENSIVE_CARE)
        found.append(_procedure(chart, coded(*codes), performedPeriod=period))
    return found


def _procedure(chart: Chart, code: msgspec.Raw, **when: object) -> Resource:
    return _new(chart, "Procedure", status="completed", code=code, subject=_subject(chart), **when)


def _medicines(chart: Chart) -> Iterator[Resource]:
    """The medicines in use at discharge, some begun in the stay, and at times a stopped one."""
    choices = chart.choices
    for group in chart.high_risk_drugs:
        as_needed = group == "opioid" and chart.opioid_started_as_needed
        begun_now = as_needed or (group != "opioid" and choices.happens(0.15))
        atc = choices.one_of(codings.HIGH_RISK_DRUGS[group])
        yield _medicine(chart, atc, begun_now=begun_now, as_needed=as_needed)
    total = len(codings.OTHER_DRUGS)
    start, step = int(choices.chance() * total), 1 + int(choices.chance() * (total - 1))
    for k in range(chart.other_drugs):
        atc = codings.OTHER_DRUGS[(start + k * step) % total]
        yield _medicine(chart, atc, begun_now=choices.happens(0.15), as_needed=False)
    if choices.happens(0.1):
        atc = codings.OTHER_DRUGS[(start + chart.other_drugs * step) % total]
        stopped = _medicine(chart, atc, begun_now=False, as_needed=False)
        yield stopped | {"status": "stopped"}


def _medicine(chart: Chart, atc: str, *, begun_now: bool, as_needed: bool) -> Resource:
    choices = chart.choices
    stay = chart.index_end - chart.index_start
    at = (
        chart.index_start + choices.between(0.15, 0.9) * stay
        if begun_now
        else chart.index_start - choices.between(5.0, 340.0) * DAY_S
    )
    return _new(
        chart,
        "MedicationRequest",
        status="active",
        intent="order",
        medicationCodeableConcept=codings.medicine(atc, chart.system),
        subject=_subject(chart),
        authoredOn=stamp(at),
        dosageInstruction=[{"asNeededBoolean": as_needed}],
    )
