"""One telemonitored person's chart in, FHIR R4 resources as JSON lines out.

Chooses codes, units and forms by the person's record system, and also writes what a reader must
cope with: measurements that cannot be right, sent twice, or entered in error, diagnoses that were
refuted. Names are not written; the only identifier is a synthetic one. Called by `cohort`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from models.synthetic import codings as base
from models.synthetic.codings import Form, coded
from models.synthetic.fhir_lines import (
    CATEGORY,
    DAY_S,
    FINISHED,
    HOUR_S,
    IDENTIFIER_SYSTEM,
    Contact,
    Line,
    Resource,
    birth_date,
    day,
    stamp,
)
from models.synthetic.telemonitoring import codings
from models.synthetic.telemonitoring.anchors import numbers_of
from models.synthetic.telemonitoring.chart import Chart, HomeSet, Supply
from models.synthetic.telemonitoring.people import CONDITIONS

RESOURCE_TYPES: Final = (
    "Patient", "EpisodeOfCare", "Encounter", "Condition", "Observation", "QuestionnaireResponse",
    "MedicationRequest",
)  # fmt: skip
MINUTE_S: Final = 60
WORDS: Final = ("Slet ikke", "Lidt", "En del", "Meget")
"""The four answers of the Danish forms, from 0 to 3."""
CANNOT_BE: Final[Mapping[str, tuple[float, float]]] = {
    "spo2": (8.0, 45.0), "pulse": (4.0, 20.0), "weight": (2.0, 20.0), "sbp": (270.0, 320.0),
    "dbp": (165.0, 200.0),
}  # fmt: skip
"""Values outside what can be, as slipped fingers and cold hands make them."""
_encode: Final = msgspec.json.Encoder().encode


def person_lines(chart: Chart) -> list[Line]:
    """The whole record of one person, the Patient first, then by type as in `RESOURCE_TYPES`."""
    disease = _problem(chart, codings.ILLNESS[chart.person.disease])
    contacts, reasons = _encounters(chart)
    resources = [_patient(chart), _episode(chart, disease["id"]), *contacts]
    resources += [disease, *_illnesses(chart), *reasons]
    resources += [*_clinic(chart), *_home(chart)]
    resources += [_form(chart, one) for one in chart.sets if one.answers]
    resources += [_medicine(chart, supply) for supply in chart.supplies]
    return [(resource["resourceType"], _encode(resource)) for resource in resources]


def _new(chart: Chart, kind: str, **fields: object) -> Resource:
    """A resource of the person with the next id."""
    name = f"{chart.person.patient_id}-{kind[0].lower()}{next(chart.numbers)}"
    return {"resourceType": kind, "id": name, "subject": _subject(chart), **fields}


def _subject(chart: Chart) -> dict[str, str]:
    return {"reference": f"Patient/{chart.person.patient_id}"}


def _patient(chart: Chart) -> Resource:
    person = chart.person
    resource: Resource = {
        "resourceType": "Patient",
        "id": person.patient_id,
        "meta": {"security": [{"system": base.ACT_REASON, "code": "HTEST"}]},
        "identifier": [{"system": IDENTIFIER_SYSTEM, "value": person.patient_id}],
        "gender": "male" if person.true["male"] > 0.5 else "female",
        "birthDate": birth_date(person.enrolled, person.true["age"]),
    }
    if person.died_at is not None:
        resource["deceasedDateTime"] = stamp(person.died_at)
    return resource


def _episode(chart: Chart, condition_id: str) -> Resource:
    """The course of telemedicine; it ends with death."""
    person = chart.person
    period = {"start": stamp(person.enrolled)}
    if person.died_at is not None:
        period["end"] = stamp(person.died_at)
    return {
        "resourceType": "EpisodeOfCare",
        "id": f"{person.patient_id}-tele",
        "status": "active" if person.died_at is None else "finished",
        "type": [coded((codings.TELEMEDICINE, "hacc"))],
        "diagnosis": [{"condition": {"reference": f"Condition/{condition_id}"}}],
        "patient": _subject(chart),
        "period": period,
    }


# ---- contacts and diagnoses ---------------------------------------------------------------------


def _encounters(chart: Chart) -> tuple[list[Resource], list[Resource]]:
    """All contacts, and the Conditions that are the diagnoses of those in a ward or emergency."""
    acute = chart.choices.one_of(("A", "A", "EM", "UR"))
    contacts, conditions = [], []
    for contact in chart.contacts:
        encounter = _encounter(chart, contact, acute)
        condition = _contact_diagnosis(chart, contact, encounter["id"])
        reference = {"condition": {"reference": f"Condition/{condition['id']}"}, "rank": 1}
        encounter["diagnosis"] = [reference]
        contacts.append(encounter)
        conditions.append(condition)
    return contacts, conditions


def _encounter(chart: Chart, contact: Contact, acute_code: str) -> Resource:
    resource = _new(
        chart,
        "Encounter",
        status=FINISHED,
        **{"class": {"system": base.ACT_CODE, "code": contact.class_code}},
        priority=coded((base.ACT_PRIORITY, acute_code if contact.acute else "EL")),
        period={"start": stamp(contact.start), "end": stamp(contact.end)},
        reasonCode=[codings.diagnosis(contact.reason, chart.system)],
    )
    if contact.died:
        resource["hospitalization"] = {"dischargeDisposition": coded((base.DISPOSITION, "exp"))}
    return resource


def _contact_diagnosis(chart: Chart, contact: Contact, encounter_id: str) -> Resource:
    recorded = min(contact.start + 2 * HOUR_S, contact.end)
    return _condition(
        chart,
        contact.reason,
        category="encounter-diagnosis",
        encounter={"reference": f"Encounter/{encounter_id}"},
        onsetDateTime=stamp(contact.start),
        recordedDate=stamp(recorded),
    )


def _condition(chart: Chart, icd: str, *, category: str, **fields: object) -> Resource:
    """A confirmed diagnosis; MedCom systems leave both states out, as MedCom's own examples do."""
    stated = chart.system != base.MEDCOM_SYSTEM
    states = {
        "clinicalStatus": coded((base.CLINICAL, "active")),
        "verificationStatus": coded((base.VERIFICATION, "confirmed")),
    }
    return _new(
        chart,
        "Condition",
        **(states if stated else {}),
        category=[coded((base.CONDITION_CATEGORY, category))],
        code=codings.diagnosis(icd, chart.system),
        **fields,
    )


def _problem(chart: Chart, codes: tuple[str, ...]) -> Resource:
    """A lasting disease, known before enrolment; a person's own years where they are drawn."""
    years = chart.person.true.get("years_known", 0.0) if codes == _HEART_FAILURE else 0.0
    before = 365.25 * (years or chart.choices.between(1.5, 12.0))
    onset = chart.person.enrolled - before * DAY_S
    length = chart.choices.one_of((7, 10, 10))
    return _condition(
        chart,
        chart.choices.one_of(codes),
        category="problem-list-item",
        onsetDateTime=day(onset)[:length],
        recordedDate=stamp(min(onset + 20 * DAY_S, chart.person.enrolled - DAY_S)),
    )


_HEART_FAILURE: Final = codings.ILLNESS["heart_failure"]


def _illnesses(chart: Chart) -> Iterator[Resource]:
    """Other diseases, palliative care, and at times a diagnosis that is none."""
    person, choices = chart.person, chart.choices
    for name in CONDITIONS[person.disease]:
        if person.true[name] > 0.5:
            yield _problem(chart, codings.ILLNESS[name])
    if person.true["palliative"] > 0.5:
        at = stamp(person.enrolled - choices.between(5.0, 80.0) * DAY_S)
        yield _condition(chart, codings.PALLIATIVE, category="problem-list-item", recordedDate=at)
    if choices.happens(numbers_of(person.disease)["refuted"]):
        status = choices.one_of(("refuted", "unconfirmed", "entered-in-error"))
        doubted = _condition(
            chart,
            choices.one_of(codings.ILLNESS["cancer"]),
            category="encounter-diagnosis",
            recordedDate=stamp(person.enrolled - 40 * DAY_S),
        )
        yield doubted | {"verificationStatus": coded((base.VERIFICATION, status))}


# ---- in the clinic ------------------------------------------------------------------------------


def _observation(
    chart: Chart, at: float, category: str, code: msgspec.Raw, **value: object
) -> Resource:
    return _new(
        chart,
        "Observation",
        status="final",
        category=CATEGORY[category],
        code=code,
        effectiveDateTime=stamp(at),
        **value,
    )


def _system_for(chart: Chart) -> int:
    """The record system of one measurement: mostly the person's own, at times another."""
    if chart.choices.happens(1 / 7):
        return int(chart.choices.chance() * len(base.SYSTEM_SHARES))
    return chart.system


def _measured(chart: Chart, name: str, value: float, *, at: float, category: str) -> Resource:
    form = codings.FORMS[name][_system_for(chart)]
    quantity = form.quantity(value)
    return _observation(chart, at, category, coded(*form.codings), valueQuantity=quantity)


def _clinic(chart: Chart) -> Iterator[Resource]:
    """What is measured at enrolment and now and then after: height, severity, kidneys, habits."""
    person, choices = chart.person, chart.choices
    before = person.enrolled - choices.between(1.0, 25.0) * DAY_S
    last = person.died_at or person.enrolled + 365 * DAY_S
    if choices.happens(0.9):
        yield _measured(chart, "height", person.true["height"], at=before, category="vital-signs")
    yield from _habits(chart, before)
    for name, every_days, share, spread in CLINIC[person.disease]:
        at = before
        while at < last:
            if choices.happens(share):
                yield _clinical(chart, name, spread, at)
            at += every_days * choices.between(0.8, 1.2) * DAY_S


CLINIC: Final[Mapping[str, tuple[tuple[str, float, float, float], ...]]] = {
    "copd": (
        ("fev1", 365.0, 0.9, 2.5),
        ("mrc", 182.0, 0.85, 0.0),
        ("cat", 91.0, 0.6, 2.5),
        ("creatinine", 182.0, 0.7, 0.07),
    ),
    "heart_failure": (
        ("nyha", 120.0, 0.85, 0.0),
        ("lvef", 300.0, 0.85, 3.0),
        ("nt_probnp", 120.0, 0.7, 0.25),
        ("creatinine", 91.0, 0.8, 0.07),
    ),
}
"""What each disease's clinic measures: how often (days), how faithfully, and with what error: in
the measurement's unit, of creatinine and NT-proBNP as a share. Design choices."""


def _clinical(chart: Chart, name: str, spread: float, at: float) -> Resource:
    """One measurement of the clinic, around the person's true value."""
    true, choices = chart.person.true, chart.choices
    error = spread * (choices.chance() + choices.chance() + choices.chance() - 1.5) * 2.0
    if name == "nyha":
        return _nyha(chart, int(true["nyha"]), at)
    if name == "cat":
        score = 8.0 + 4.0 * (true["mrc"] - 1.0) + 3.0 * true["symptom_usual"] + error
        return _measured(chart, "cat", min(max(score, 0.0), 40.0), at=at, category="survey")
    if name in ("creatinine", "nt_probnp"):
        value = true[name] * (1.0 + error)
        return _measured(chart, name, value, at=at, category="laboratory")
    return _measured(chart, name, max(true[name] + error, 1.0), at=at, category="survey")


def _nyha(chart: Chart, level: int, at: float) -> Resource:
    system, code_of = codings.NYHA_ANSWERS[_system_for(chart)]
    value = coded((system, code_of[level]))
    return _observation(chart, at, "survey", coded(codings.NYHA), valueCodeableConcept=value)


def _habits(chart: Chart, at: float) -> Iterator[Resource]:
    """Smoking and, of those who have it, home oxygen."""
    true, choices = chart.person.true, chart.choices
    if choices.happens(0.92):
        first = 2 if true["smoker"] > 0.5 else 0
        code = codings.SMOKING_ANSWERS[first + choices.happens(0.6)]
        value = coded((base.SNOMED, code))
        yield _observation(chart, at, "survey", coded(codings.SMOKING), valueCodeableConcept=value)
    if chart.person.disease == "copd":
        yes = true["home_oxygen"] > 0.5
        yield _observation(chart, at, "survey", coded(codings.HOME_OXYGEN), valueBoolean=yes)


# ---- at home ------------------------------------------------------------------------------------


def _home(chart: Chart) -> Iterator[Resource]:
    """Every measurement of every set, minutes apart, the form having been answered first."""
    for one in chart.sets:
        for minute, name in enumerate(("weight", "spo2", "pulse"), start=1):
            if name in one.values:
                at = one.at + minute * MINUTE_S
                yield from _sent(chart, name, one.values[name], at)
        if "sbp" in one.values:
            yield from _pressure(chart, one, one.at + 4 * MINUTE_S)


def _sent(chart: Chart, name: str, value: float, at: float) -> Iterator[Resource]:
    """One home measurement as it arrives: right, impossible, twice, or beside a mistake."""
    choices, numbers = chart.choices, numbers_of(chart.person.disease)
    form = codings.FORMS[name][_system_for(chart)]
    if choices.happens(numbers["implausible"]):
        value = choices.between(*CANNOT_BE[name])
    elif name == "weight" and choices.happens(numbers["other_device"]):
        value += choices.between(12.0, 30.0)
    resource = _reading(chart, form, name, value=value, at=at)
    yield resource
    if choices.happens(numbers["duplicate"]):
        yield resource | {"id": f"{resource['id']}-again"}
    if choices.happens(numbers["entered_in_error"]):
        wrong = choices.between(*CANNOT_BE[name])
        later = _reading(chart, form, name, value=wrong, at=at + MINUTE_S / 2)
        yield later | {"status": "entered-in-error"}


def _reading(chart: Chart, form: Form, name: str, *, value: float, at: float) -> Resource:
    ranges = _limits(chart, form, name)
    quantity = form.quantity(value)
    code = coded(*form.codings)
    return _observation(chart, at, "vital-signs", code, valueQuantity=quantity, **ranges)


def _limits(chart: Chart, form: Form, name: str) -> dict[str, object]:
    """The person's own alarm limits as reference ranges, in the unit of the measurement."""
    agreed = chart.limits.get(name)
    if not agreed:
        return {}
    ranges = []
    for colour, code in (("red", "RAL"), ("yellow", "GAL")):
        ends = {
            side: form.quantity(agreed[f"{colour}-{side}"])
            for side in ("low", "high")
            if f"{colour}-{side}" in agreed
        }
        ranges.append({**ends, "type": coded((codings.LIMITS, code))})
    return {"referenceRange": ranges}


def _pressure(chart: Chart, one: HomeSet, at: float) -> Iterator[Resource]:
    """Blood pressure as one panel with components, or as two Observations."""
    choices, numbers = chart.choices, numbers_of(chart.person.disease)
    high, low, panel = codings.PRESSURE[_system_for(chart)]
    systolic = one.values["sbp"]
    if choices.happens(numbers["implausible"]):
        systolic = choices.between(*CANNOT_BE["sbp"])
    parts = [("sbp", high, systolic)]
    if "dbp" in one.values:
        parts.append(("dbp", low, one.values["dbp"]))
    if panel is None:
        for name, form, value in parts:
            yield _reading(chart, form, name, value=value, at=at)
        return
    components = [
        {
            "code": coded(*form.codings),
            "valueQuantity": form.quantity(value),
            **_limits(chart, form, name),
        }
        for name, form, value in parts
    ]
    yield _observation(chart, at, "vital-signs", coded(*panel), component=components)


def _form(chart: Chart, one: HomeSet) -> Resource:
    """The answers given with a set: words, or numbers from 0 to 3; counts and scores as numbers."""
    as_words = chart.system != base.AMERICAN_SYSTEM
    items: list[dict[str, Any]] = []
    for link_id, answer in one.answers.items():
        level = int(answer)
        words = as_words and link_id.startswith("symptom_")
        value = {"valueString": WORDS[level]} if words else {"valueInteger": level}
        items.append({"linkId": link_id, "answer": [value]})
    return _new(
        chart,
        "QuestionnaireResponse",
        questionnaire=codings.QUESTIONNAIRE + chart.person.disease.replace("_", "-"),
        status="completed",
        authored=stamp(one.at),
        item=items,
    )


# ---- medicine -----------------------------------------------------------------------------------


def _medicine(chart: Chart, supply: Supply) -> Resource:
    resource = _new(
        chart,
        "MedicationRequest",
        status="completed" if supply.over else "active",
        intent="order",
        medicationCodeableConcept=base.medicine(supply.atc, chart.system),
        authoredOn=stamp(supply.start),
    )
    if supply.dose_mg is not None:
        dose = {"value": supply.dose_mg, "unit": "mg", "system": base.UCUM, "code": "mg"}
        resource["dosageInstruction"] = [{"doseAndRate": [{"doseQuantity": dose}]}]
    if supply.end is not None:
        period = {"start": stamp(supply.start), "end": stamp(supply.end)}
        resource["dispenseRequest"] = {"validityPeriod": period}
    return resource
