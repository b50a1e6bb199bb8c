"""What a record holds of a patient before the operation: history, tumour, assessment, plan.

Everything written here is known at the moment of the assessment. It also writes what a reader must
leave out or read with care: refuted diagnoses, results entered in error, the same result twice, a
form nobody finished, a plan that was changed, a medicine that was stopped. Called by `records`.
"""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Final

from models.synthetic import codings as shared
from models.synthetic.codings import coded
from models.synthetic.fhir_lines import IDENTIFIER_SYSTEM, Contact, birth_date, day, stamp
from models.synthetic.surgery import codings, people
from models.synthetic.surgery.cohort import DAY_S, HOUR_S
from models.synthetic.surgery.resources import (
    Chart,
    Resource,
    begun,
    condition,
    encounter,
    illness,
    measured,
    medicine,
    new,
    observation,
    procedure,
    stay,
    subject,
    system_for,
)


def resources_before(chart: Chart) -> list[Resource]:
    """The patient and everything known at the assessment, by type."""
    return [
        patient(chart),
        *_contacts(chart),
        *_diagnoses(chart),
        *_tumour(chart),
        *_laboratory(chart),
        *_vitals(chart),
        *_body(chart),
        *_scales(chart),
        *_habits(chart),
        *_daily_life(chart),
        *_mistakes(chart),
        *_forms(chart),
        *_procedures(chart),
        *_medicines(chart),
    ]


def patient(chart: Chart) -> Resource:
    """The Patient, labelled as test data."""
    resource: Resource = {
        "resourceType": "Patient",
        "id": chart.patient_id,
        "meta": {"security": [{"system": shared.ACT_REASON, "code": "HTEST"}]},
        "identifier": [{"system": IDENTIFIER_SYSTEM, "value": chart.patient_id}],
        "gender": "male" if chart.is_so("male") else "female",
        "birthDate": birth_date(chart.assessed_at, chart.true["age"]),
    }
    if chart.died_at is not None:
        resource["deceasedDateTime"] = stamp(chart.died_at)
    return resource


# ---- contacts -----------------------------------------------------------------------------------


def _contacts(chart: Chart) -> Iterator[Resource]:
    """Earlier stays and visits, and the outpatient visit in which an elective patient is seen."""
    choices = chart.choices
    names = ("start_days", "end_days", "acute")
    for start, end, acute in zip(*(chart.stays[name] for name in names), strict=True):
        if isfinite(start):
            reasons = shared.ACUTE_REASONS if acute else shared.PLANNED_REASONS
            first, last = (chart.history_end - round(days * DAY_S) for days in (start, end))
            reason = choices.one_of(reasons)
            yield from stay(chart, first, last, acute=bool(acute), reason=reason)
    for name, days in chart.visits.items():
        for start in days if isinstance(days, list) else [days]:
            if isfinite(start):
                yield _visit(chart, name, chart.history_end - round(start * DAY_S))
    if not chart.emergency:
        seen_at = chart.assessed_at - round(choices.between(0.3, 1.5) * HOUR_S)
        yield encounter(chart, Contact("AMB", seen_at, chart.assessed_at + HOUR_S, None, "C189"))


def _visit(chart: Chart, name: str, start: int) -> Resource:
    """A contact that is no admission: an emergency visit of 1 to 5 hours, or an outpatient one."""
    choices = chart.choices
    if name == "emergency":
        end = start + round(choices.between(1.0, 5.0) * HOUR_S)
        reason = choices.one_of(shared.ACUTE_REASONS)
        return encounter(chart, Contact("EMER", start, end, True, reason))
    end = start + round(choices.between(0.4, 1.0) * HOUR_S)
    reasons = (*shared.OUTPATIENT_REASONS, codings.WORK_UP_REASON)
    return encounter(chart, Contact("AMB", start, end, None, choices.one_of(reasons)))


# ---- diagnoses ----------------------------------------------------------------------------------


def _diagnoses(chart: Chart) -> Iterator[Resource]:
    """Chronic illness as far as it was coded, past illness, and what was only suspected."""
    choices = chart.choices
    for name in people.ILLNESSES:
        if chart.seen[name] > 0.5:
            yield illness(chart, codings.ILLNESS[name])
    if choices.happens(0.05):
        yield begun(chart, "J189", chart.assessed_at - choices.between(100.0, 700.0) * DAY_S)
    if choices.happens(0.04):
        name = choices.one_of(people.ILLNESSES)
        status = choices.one_of(("refuted", "unconfirmed", "entered-in-error"))
        code = shared.diagnosis(codings.ILLNESS[name][0], chart.system)
        recorded = chart.assessed_at - choices.between(3.0, 300.0) * DAY_S
        yield condition(chart, code, recorded=recorded, verification=status)
    if chart.kind == "palliative":
        code = shared.diagnosis(shared.PALLIATIVE, chart.system)
        yield condition(chart, code, recorded=chart.assessed_at - 2 * DAY_S)


def _tumour(chart: Chart) -> Iterator[Resource]:
    """The cancer, its clinical stage as far as it was coded, and obstruction or perforation."""
    choices = chart.choices
    lead = (0.1, 0.4) if chart.emergency else (8.0, 45.0)
    found = chart.assessed_at - choices.between(*lead) * DAY_S
    codes = codings.RECTAL_CANCER if chart.is_so("rectum") else codings.COLON_CANCER
    cancer = shared.diagnosis(choices.one_of(codes), chart.system)
    yield condition(chart, cancer, recorded=found, onset=day(found))
    staged = found + 0.5 * (chart.assessed_at - found)
    if chart.seen["t4"] > 0.5:
        yield condition(chart, coded(codings.T4), recorded=staged)
    if chart.seen["metastatic"] > 0.5:
        yield _metastases(chart, staged)
    elif choices.happens(0.6):
        yield condition(chart, coded(codings.M0), recorded=staged)
    if chart.seen["obstruction"] > 0.5:
        code = shared.diagnosis(choices.one_of(codings.OBSTRUCTION), chart.system)
        at = chart.assessed_at - choices.between(0.05, 0.3) * DAY_S
        yield condition(chart, code, recorded=at, onset=stamp(at))


def _metastases(chart: Chart, at: float) -> Resource:
    """Distant metastases as the stage cM1, or as their own diagnosis."""
    if chart.system == shared.AMERICAN_SYSTEM or chart.choices.happens(0.3):
        code = shared.diagnosis(chart.choices.one_of(codings.METASTASES), chart.system)
    else:
        code = coded(codings.M1)
    return condition(chart, code, recorded=at)


# ---- measurements -------------------------------------------------------------------------------


def _known(value: float) -> bool:
    return value == value  # NaN is the only number unequal to itself


def _days_before(chart: Chart, low: float, high: float) -> float:
    """A moment so many days before the assessment; in an emergency the last hours."""
    if chart.emergency:
        return chart.assessed_at - chart.choices.between(0.5, 5.0) * HOUR_S
    return chart.assessed_at - chart.choices.between(low, high) * DAY_S


def _laboratory(chart: Chart) -> Iterator[Resource]:
    """Blood tests before the assessment; haemoglobin is at times there twice, or an older one."""
    choices = chart.choices
    at = _days_before(chart, 0.3, 14.0)
    for name in codings.LABORATORY:
        value = chart.seen[name]
        if _known(value):
            yield measured(chart, name, value, at=at)
            if name == "haemoglobin" and choices.happens(0.05):
                yield measured(chart, name, value, at=at)
            if name == "haemoglobin" and choices.happens(0.5):
                older = value + choices.between(-0.6, 1.4)
                yield measured(chart, name, min(older, 11.5), at=at - 40 * DAY_S)


def _vitals(chart: Chart) -> Iterator[Resource]:
    """Saturation, pulse and blood pressure at the assessment."""
    at = chart.assessed_at - chart.choices.between(0.2, 2.0) * HOUR_S
    for name in codings.VITALS:
        if _known(chart.seen[name]):
            yield measured(chart, name, chart.seen[name], at=at, category="vital-signs")
    high, low, panel = shared.PRESSURE[system_for(chart)]
    known = [
        (coded(*form.codings), form.quantity(chart.seen[name]))
        for form, name in ((high, "systolic"), (low, "diastolic"))
        if _known(chart.seen[name])
    ]
    if panel is None:
        for code, quantity in known:
            yield observation(chart, at, "vital-signs", code, valueQuantity=quantity)
    elif known:
        parts = [{"code": code, "valueQuantity": quantity} for code, quantity in known]
        yield observation(chart, at, "vital-signs", coded(*panel), component=parts)


def _body(chart: Chart) -> Iterator[Resource]:
    """Height, weight now and weight some months ago."""
    choices, seen = chart.choices, chart.seen
    days_ago = {
        "height": choices.between(0.1, 900.0),
        "weight": choices.between(0.05, 12.0),
        "weight_before": choices.between(70.0, 170.0),
    }
    for name, days in days_ago.items():
        if _known(seen[name]):
            form = "height" if name == "height" else "weight"
            at = chart.assessed_at - days * DAY_S
            yield measured(chart, form, seen[name], at=at, category="vital-signs")


def _scales(chart: Chart) -> Iterator[Resource]:
    """ASA class at the moment of the assessment; performance status and frailty before it."""
    choices, seen, system = chart.choices, chart.seen, chart.system
    yield asa(chart, chart.true["asa"], chart.assessed_at)
    at = _days_before(chart, 0.05, 10.0)
    if _known(seen["who"]):
        answer = codings.WHO_ANSWERS[system][int(seen["who"])]
        code = coded(codings.WHO)
        yield observation(chart, at, "survey", code, valueCodeableConcept=coded(answer))
    if _known(seen["frailty_scale"]):
        level = int(seen["frailty_scale"])
        score = {"value": level, "unit": "{score}", "system": shared.UCUM, "code": "{score}"}
        value = {"valueInteger": level} if choices.happens(0.5) else {"valueQuantity": score}
        yield observation(chart, at, "survey", coded(shared.FRAILTY_SCALE), **value)


def asa(chart: Chart, level: float, at: float) -> Resource:
    """The ASA class given at a moment."""
    answer = codings.ASA_ANSWERS[chart.system][int(level) - 1]
    return observation(chart, at, "exam", coded(codings.ASA), valueCodeableConcept=coded(answer))


def _habits(chart: Chart) -> Iterator[Resource]:
    """Smoking, pack-years and alcohol, asked in the weeks before."""
    choices, seen = chart.choices, chart.seen
    at = _days_before(chart, 0.05, 30.0)
    if _known(seen["smoker"]):
        ever = chart.true["pack_years"] > 0
        status = 2 if seen["smoker"] > 0.5 else int(ever)
        answer = codings.SMOKING_ANSWERS[chart.system][status]
        value = coded(answer)
        code = coded(codings.SMOKING)
        yield observation(chart, at, "social-history", code, valueCodeableConcept=value)
    for name in ("drinks", "pack_years"):
        if _known(seen[name]):
            yield measured(chart, name, seen[name], at=at, category="social-history")
    if choices.happens(0.1) and _known(seen["drinks"]):
        yield measured(chart, "drinks", 3.0, at=at - 300 * DAY_S, category="social-history")


def _daily_life(chart: Chart) -> Iterator[Resource]:
    """Living alone, home care, nursing home: asked at the assessment, answered yes or no."""
    at = _days_before(chart, 0.05, 20.0)
    for name, codes in shared.YES_NO.items():
        if _known(chart.seen[name]):
            code = coded((shared.SNOMED, chart.choices.one_of(codes)))
            yield observation(chart, at, "survey", code, valueBoolean=chart.seen[name] > 0.5)


def _mistakes(chart: Chart) -> Iterator[Resource]:
    """At times a result entered in error, later than the right one and far off."""
    if chart.choices.happens(0.03):
        wrong = measured(chart, "albumin", 12.0, at=chart.assessed_at - 600)
        yield wrong | {"status": "entered-in-error"}
    if chart.choices.happens(0.02):
        yield asa(chart, 4.0, chart.assessed_at - 300) | {"status": "entered-in-error"}


# ---- the plan -----------------------------------------------------------------------------------

PLAN: Final = {
    "planned_urgency": "emergency",
    "planned_open": "open",
    "planned_rectal_resection": "rectum",
    "planned_multivisceral": "multivisceral",
    "planned_anastomosis": "anastomosis",
    "planned_stoma": "stoma",
}
"""Link ids of the conference form, and the true values behind their yes or no."""
NUMBERS: Final = {"exercise_capacity_mets": "mets", "anal_verge_distance": "distance"}


def _forms(chart: Chart) -> Iterator[Resource]:
    """The conference form; at times one nobody finished, or an earlier one with another plan."""
    choices = chart.choices
    if chart.kind == "no-form":
        return
    hours = (0.2, 1.0) if chart.emergency else (0.2, 90.0)
    at = chart.assessed_at - choices.between(*hours) * HOUR_S
    changed = choices.happens(0.08) and not chart.emergency
    if changed:
        yield _form(chart, at - 6 * DAY_S, opposite=("planned_open", "planned_stoma"))
    if choices.happens(0.04):
        opposite = ("planned_urgency", "planned_multivisceral")
        yield _form(chart, chart.assessed_at - 60, opposite=opposite) | {"status": "in-progress"}
    yield _form(chart, at) | ({"status": "amended"} if changed else {})


def _form(chart: Chart, at: float, opposite: Sequence[str] = ()) -> Resource:
    items: list[Resource] = []
    for link, name in PLAN.items():
        yes = chart.is_so(name) != (link in opposite)
        items.append({"linkId": link, "answer": [_answer(chart, yes)]})
    for link, name in NUMBERS.items():
        if _known(chart.seen[name]):
            items.append({"linkId": link, "answer": [{"valueDecimal": chart.seen[name]}]})
    return new(
        chart,
        "QuestionnaireResponse",
        status="completed",
        subject=subject(chart),
        authored=stamp(at),
        item=[{"linkId": "conference", "item": items}],
    )


def _answer(chart: Chart, yes: bool) -> Resource:
    """Yes or no as the form of the record system says it."""
    if chart.system in (shared.NPU_URL_SYSTEM, shared.AMERICAN_SYSTEM):
        return {"valueBoolean": yes}
    return {"valueString": "Ja" if yes else "Nej"}


# ---- procedures and medicines -------------------------------------------------------------------


def _procedures(chart: Chart) -> Iterator[Resource]:
    """Treatment before the operation, and operations in the abdomen years ago."""
    choices = chart.choices
    if chart.seen["neoadjuvant"] > 0.5:
        at = chart.assessed_at - choices.between(50.0, 120.0) * DAY_S
        if choices.happens(0.4):
            code = shared.diagnosis(codings.RADIOTHERAPY, chart.system)
            yield condition(chart, code, recorded=at)
        else:
            american = chart.system == shared.AMERICAN_SYSTEM
            code = coded(codings.CHEMOTHERAPY[int(american)])
            yield procedure(chart, code, performedDateTime=stamp(at))
    if chart.seen["abdominal_surgery"] > 0.5:
        code = coded(choices.one_of(codings.EARLIER_OPERATIONS))
        done = day(chart.assessed_at - choices.between(1.5, 45.0) * 365.25 * DAY_S)
        yield procedure(chart, code, performedDateTime=done)


def _medicines(chart: Chart) -> Iterator[Resource]:
    """The medicines in use, and at times a steroid that was stopped long ago."""
    choices = chart.choices
    special = {
        "steroid": codings.STEROID,
        "immunosuppressant": codings.IMMUNOSUPPRESSANT,
        "anticoagulant": shared.HIGH_RISK_DRUGS["anticoagulant"],
    }
    for name, codes in special.items():
        if chart.is_so(name):
            yield _ordered(chart, choices.one_of(codes))
    total = len(codings.OTHER_DRUGS)
    start, step = int(choices.chance() * total), 1 + int(choices.chance() * (total - 1))
    for k in range(int(chart.true["other_drugs"])):
        yield _ordered(chart, codings.OTHER_DRUGS[(start + k * step) % total])
    if choices.happens(0.06):
        at = chart.assessed_at - choices.between(150.0, 300.0) * DAY_S
        yield medicine(chart, codings.STEROID[0], at=at, status="stopped")


def _ordered(chart: Chart, atc: str) -> Resource:
    return medicine(chart, atc, at=chart.assessed_at - chart.choices.between(4.0, 110.0) * DAY_S)
