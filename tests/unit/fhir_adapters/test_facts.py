"""One patient's record: whose it is, what was left out; order and repetition do not matter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.clock import parse_time
from fhir_adapters.decode import decode_bundle
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import build_record, newest_time
from fhir_adapters.features.compute import FeatureRow
from fhir_adapters.reading.wanted import Wanted
from tests.spec.drawn import AS_OF, bundle, bundle_of, feature_set, moment, record_of, resources

CRP = Wanted(frozenset({"crp"}))


def test_resources_of_another_patient_are_left_out_and_named() -> None:
    """Two patients' blood tests in one Bundle."""
    table = """
        Patient     | 1950-03-01 | female
        Observation | CRP | 2026-11-20 | 40 mg/L
        Observation | CRP | 2026-11-19 | 99 mg/L | of Patient/x77
    """
    record = build_record(decode_bundle(bundle(table)), CRP)
    assert [fact.value for fact in record.of("crp")] == [40.0]
    assert [(t.where, t.code) for t in record.troubles] == [("Observation", "wrong-patient")]
    assert "x77" not in record.troubles[0].text


@pytest.mark.parametrize(
    "reference",
    [
        "Patient/p",
        "Patient/p/_history/3",
        "https://ehr.example/fhir/Patient/p",
        "https://ehr.example/fhir/Patient/p/_history/3",
        "urn:uuid:p",
    ],
)
def test_the_patients_own_resources_are_known_however_they_refer(reference: str) -> None:
    """Relative, absolute, versioned, and by the urn:uuid of a Bundle."""
    table = f"Observation | CRP | 2026-11-20 | 40 mg/L | of {reference}"
    record = build_record(decode_bundle(bundle(table)), CRP)
    assert len(record.of("crp")) == 1
    assert record.troubles == []


@pytest.mark.parametrize("reference", ["Patient/px", "Patient/xp", "Group/p", "Patient/P"])
def test_a_similar_reference_is_somebody_else(reference: str) -> None:
    """Neither an id that begins alike nor another type of subject."""
    table = f"Observation | CRP | 2026-11-20 | 40 mg/L | of {reference}"
    assert build_record(decode_bundle(bundle(table)), CRP).of("crp") == []


@pytest.mark.parametrize(
    "resource",
    [
        {"resourceType": "Condition", "code": "here", "onsetDateTime": "2026-11-20"},
        {"resourceType": "Condition", "code": "here"},
        {
            "resourceType": "Procedure",
            "code": "here",
            "status": "completed",
            "performedDateTime": "2026-11-20",
        },
        {
            "resourceType": "MedicationRequest",
            "medicationCodeableConcept": "here",
            "status": "active",
            "intent": "order",
            "authoredOn": "2026-11-20",
            "dosageInstruction": [{"doseAndRate": [{"doseQuantity": {"value": 40}}]}],
        },
    ],
    ids=["dated diagnosis", "undated diagnosis", "procedure", "drug"],
)
def test_what_is_not_a_measurement_gives_no_number_whatever_it_is_coded_as(
    resource: dict[str, Any],
) -> None:
    """A diagnosis, a procedure or a drug under the code of a blood test is none of that test: its
    "yes" would be read as 1 mg/L, its dose as a result."""
    crp = {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]}
    coded = {name: crp if part == "here" else part for name, part in resource.items()}
    entries = [
        {"resource": {"resourceType": "Patient", "id": "p", "birthDate": "1950-03-01"}},
        {"resource": {**coded, "id": "x", "subject": {"reference": "Patient/p"}}},
    ]
    raw = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()
    assert build_record(decode_bundle(raw), CRP).of("crp") == []


def test_the_patient_in_context_is_chosen_among_several() -> None:
    """By id; another's tests are left out."""
    table = """
        Patient     | 1950-03-01 | female | id a
        Patient     | 1980-03-01 | male   | id b
        Observation | CRP | 2026-11-20 | 40 mg/L | of Patient/a
        Observation | CRP | 2026-11-20 | 50 mg/L | of Patient/b
    """
    record = build_record(decode_bundle(bundle(table)), CRP, patient_id="b")
    assert (record.birth_date, [f.value for f in record.of("crp")]) == ("1980-03-01", [50.0])


def test_two_patients_and_no_context_are_refused() -> None:
    """Nobody can tell whom the question is about."""
    table = "Patient | 1950-03-01 | female | id a\nPatient | 1980-03-01 | male | id b"
    with pytest.raises(UnreadableInput, match="found 2"):
        build_record(decode_bundle(bundle(table)), CRP)


def test_a_patient_that_is_not_there_is_refused() -> None:
    """The context names one that did not come along."""
    with pytest.raises(UnreadableInput, match="not in the input"):
        build_record(decode_bundle(bundle("")), CRP, patient_id="somebody")


def test_only_what_somebody_wants_becomes_facts() -> None:
    """A haemoglobin is no fact where only CRP is asked for."""
    table = "Observation | haemoglobin | 2026-11-20 | 6.4 mmol/L"
    assert build_record(decode_bundle(bundle(table)), CRP).facts == {}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Observation | CRP | | 40 mg/L", "Observation"),
        ("Procedure | KJFB30 |", "Procedure"),
        ("Encounter | IMP |", "Encounter"),
        ("Observation | CRP | yesterday | 40 mg/L", "Observation"),
    ],
)
def test_what_has_no_time_is_named(line: str, kind: str) -> None:
    """It is left out, and the record says so."""
    record = build_record(
        decode_bundle(bundle(line)), Wanted(frozenset({"crp", "colorectal_resection"}))
    )
    assert (kind, "no-time") in {(t.where, t.code) for t in record.troubles}


@pytest.mark.parametrize(
    ("patient", "deceased"),
    [
        ("1950-03-01 | male | died 2026-11-20", parse_time("2026-11-20")),
        ("1950-03-01 | male", None),
    ],
)
def test_a_record_knows_when_its_patient_died(patient: str, deceased: float | None) -> None:
    """By date; None for the living."""
    record = build_record(decode_bundle(bundle(f"Patient | {patient}")), CRP)
    assert record.deceased_at == deceased


def test_death_without_a_date_is_death_at_an_unknown_time() -> None:
    """`deceasedBoolean`: true."""
    patient = {"resourceType": "Patient", "id": "p", "deceasedBoolean": True}
    assert build_record(decode_bundle(bundle_of([patient])), CRP).deceased_at == float("-inf")


def test_the_newest_time_is_that_of_the_newest_clinical_resource() -> None:
    """Of starts, ends, answers and records."""
    table = """
        Encounter   | IMP  | 2026-11-01 08:00 .. 2026-11-05 12:00
        Observation | CRP  | 2026-11-04 08:00 | 40 mg/L | issued 2026-11-06 09:00
        Condition   | COPD | 2020-01-01 | active | recorded 2026-11-02
    """
    assert newest_time(decode_bundle(bundle(table))) == moment("2026-11-06 09:00")
    assert newest_time(decode_bundle(bundle(""))) is None


# ---- properties ----------------------------------------------------------------------------------

CHART = """
    Encounter           | EMER           | 2026-10-01 08:00 .. 2026-10-01 11:00
    Encounter           | EMER           | 2026-11-18 06:00 .. 2026-11-18 09:00
    Encounter           | IMP            | 2026-11-18 10:00 .. | EM | in-progress | for DI509
    Encounter           | IMP            | 2026-02-01 08:00 .. 2026-02-04 08:00 | EL
    Observation         | CRP            | 2026-11-18 12:00 | 210 mg/L
    Observation         | CRP            | 2026-11-20 08:00 | 40 mg/L | issued 2026-11-20 10:00
    Observation         | CRP            | 2026-11-20 08:00 | 44 mg/L | issued 2026-11-20 12:00
    Observation         | CRP            | 2026-11-20 20:00 | 4.0
    Observation         | 85354-9        | 2026-11-20 08:00 | part systolic 128 mm[Hg]
    Observation         | systolic       | 2026-11-20 08:00 | 128 mm[Hg]
    Observation         | potassium      | 2026-11-20 08:00 | 9.2 mmol/L
    Condition           | heart failure  | 2020-05-01 | active
    Condition           | DI509          | 2021-05-01 | resolved
    Condition           | DJ441          | 2026-03-01 | active | recorded 2026-03-02
    MedicationRequest   | furosemide     | 2026-11-19 | active | dose 40 mg
    MedicationRequest   | furosemide     | 2026-11-19 | active | dose 80 mg
    MedicationStatement | furosemide     | 2026-11-01 .. | active
    Procedure           | KJFB30         | 2026-11-19 08:00
    Procedure           | KJGB10         | 2026-11-19 08:00
"""
FEATURES = """
    [crp]
    recipe = "last"
    of = ["crp"]
    [crp_slope]
    recipe = "slope"
    of = ["crp"]
    [pressures]
    recipe = "count"
    of = ["sbp"]
    [potassium]
    recipe = "last"
    of = ["potassium"]
    [visits]
    recipe = "count"
    of = ["contact"]
    [stays]
    recipe = "days_total"
    of = ["stay"]
    [acute]
    recipe = "index"
    attribute = "acute"
    [days]
    recipe = "index"
    attribute = "days"
    [heart_failure]
    recipe = "days_since_first"
    of = ["heart_failure"]
    [exacerbations]
    recipe = "episodes"
    of = ["copd_exacerbation"]
    gap_days = 14
    [dose]
    recipe = "last"
    of = ["loop_diuretic"]
    [drugs]
    recipe = "count_distinct"
    of = ["medication"]
    [operations]
    recipe = "count"
    of = ["colorectal_resection"]
"""
COMPILED = feature_set(FEATURES)
DRAWN = resources("Patient | 1950-03-01 | female\n" + CHART)


def computed(drawn: list[dict[str, Any]]) -> FeatureRow:
    return COMPILED.compute(record_of(decode_bundle(bundle_of(drawn)), COMPILED), moment(AS_OF))


EXPECTED = computed(DRAWN)
SOME = settings(max_examples=30, deadline=None)


@SOME
@given(st.permutations(DRAWN))
def test_the_order_of_resources_does_not_matter(drawn: list[dict[str, Any]]) -> None:
    """Values, sources, alarms and the index stay are the same however the record was sent."""
    assert computed(drawn) == EXPECTED


@SOME
@given(st.lists(st.sampled_from(DRAWN[1:]), max_size=8))
def test_sending_something_twice_changes_nothing(again: list[dict[str, Any]]) -> None:
    """Pages overlap, and the same resource answers several queries."""
    assert computed([*DRAWN, *again]) == EXPECTED


@SOME
@given(
    st.sampled_from(["ImagingStudy", "CarePlan", "Invoice", "NoSuchType"]),
    st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4),
    st.integers(0, len(DRAWN)),
)
def test_unknown_types_change_nothing(kind: str, fields: dict[str, Any], place: int) -> None:
    """Whatever else a record holds."""
    other = {**fields, "resourceType": kind}
    assert computed([*DRAWN[:place], other, *DRAWN[place:]]) == EXPECTED


@SOME
@given(st.sampled_from(range(len(DRAWN))), st.text(min_size=1, max_size=5))
def test_unknown_fields_change_nothing(place: int, name: str) -> None:
    """Extensions and fields of later releases."""
    drawn = [json.loads(json.dumps(resource)) for resource in DRAWN]
    drawn[place][f"x-{name}"] = [{"valueString": "x"}]
    assert computed(drawn) == EXPECTED


@SOME
@given(st.integers(0, 400))
def test_nothing_later_than_the_question_is_used(days: int) -> None:
    """At any moment the answer equals that of a record cut off there (resources begun later)."""
    as_of = moment(AS_OF) - days * 86_400.0
    known = [r for r in DRAWN if _begun(r) <= as_of]
    whole = COMPILED.compute(record_of(decode_bundle(bundle_of(DRAWN)), COMPILED), as_of)
    cut = COMPILED.compute(record_of(decode_bundle(bundle_of(known)), COMPILED), as_of)
    assert whole.values == cut.values


def _begun(resource: dict[str, Any]) -> float:
    names = ("issued", "recordedDate", "effectiveDateTime", "onsetDateTime", "authoredOn")
    texts = [resource[name] for name in (*names, "performedDateTime") if name in resource]
    periods = [resource[n]["start"] for n in ("period", "effectivePeriod") if n in resource]
    found = [*texts, *periods]
    return parse_time(found[0]) if found else float("-inf")
