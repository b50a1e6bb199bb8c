"""Bytes become typed resources; what cannot be read is named and costs nothing but itself."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.clock import parse_time
from fhir_adapters.codes import code_table
from fhir_adapters.decode import (
    ExpectedQuery,
    Fetched,
    Gathered,
    QueryAnswer,
    decode_bundle,
    decode_lines,
    decode_prefetch,
)
from fhir_adapters.errors import UnreadableInput, WrongFhirVersion
from fhir_adapters.facts import build_record
from fhir_adapters.reading.wanted import Wanted

Json = dict[str, Any]
PATIENT: Json = {"resourceType": "Patient", "id": "p", "birthDate": "1950-03-01"}
CRP: Json = {
    "resourceType": "Observation",
    "id": "crp",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]},
    "subject": {"reference": "Patient/p"},
    "effectiveDateTime": "2026-11-20T08:00:00+01:00",
    "valueQuantity": {"value": 40, "unit": "mg/L"},
}
LABS = {"labs": ExpectedQuery("Observation", page_size=2, newest_first=True)}
EVERYTHING = Wanted(code_table().names() | {"medication", "procedure", "episode_of_care"})


def bundle(*resources: Json) -> bytes:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()


def searchset(*resources: Json, **more: Any) -> Json:
    entries = [{"resource": resource, "search": {"mode": "match"}} for resource in resources]
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries, **more}


def prefetched(value: Any, key: str = "labs") -> Gathered:
    raw = msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())
    return decode_prefetch({key: raw}, LABS)


def answer_to(value: Any) -> QueryAnswer:
    return prefetched(value).answer("labs")


# ---- Bundles -------------------------------------------------------------------------------------


def test_a_bundle_is_a_whole_record() -> None:
    """Whatever is asked of it, it has answered completely."""
    gathered = decode_bundle(bundle(PATIENT, CRP))
    assert [o.id for o in gathered.of("Observation")] == ["crp"]
    assert gathered.answer("anything").state == "complete"


def test_a_single_resource_is_a_record_of_one() -> None:
    """A file with nothing but a Patient is read as such."""
    assert decode_bundle(json.dumps(PATIENT).encode()).of("Patient")[0].birth_date == "1950-03-01"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "Expected `object`"),
        (b'"Bundle"', "Expected `object`"),
        (b"{}", "got no resourceType"),
        (b'{"resourceType": "ValueSet"}', "got ValueSet"),
        (b'{"resourceType": 7}', "Expected `str | null`"),
        (b'{"resourceType": "Bundle", "entry": {}}', "Expected `array | null`"),
    ],
)
def test_what_is_no_bundle_is_refused(raw: bytes, said: str) -> None:
    """The message says what stood there instead."""
    with pytest.raises(UnreadableInput) as refused:
        decode_bundle(raw)
    assert said in str(refused.value)


def test_what_is_nested_too_deeply_is_refused() -> None:
    """A hundred thousand brackets do not take the process with them, wherever they stand."""
    deep = b"[" * 100_000 + b"]" * 100_000
    with pytest.raises(UnreadableInput):
        decode_bundle(deep)
    with pytest.raises(UnreadableInput):
        decode_bundle(b'{"resourceType": "Bundle", "entry": [{"resource": ' + deep + b"}]}")
    with pytest.raises(UnreadableInput):
        decode_bundle(b'{"extension": ' + deep + b', "resourceType": "Bundle"}')


def test_one_broken_resource_is_named_by_its_path_and_the_others_are_read() -> None:
    """A number where a status should stand; the message holds the path and no value."""
    broken = {**CRP, "id": "bad", "valueQuantity": {"value": "forty-secret"}}
    gathered = decode_bundle(bundle(PATIENT, broken, CRP))
    assert [o.id for o in gathered.of("Observation")] == ["crp"]
    (trouble,) = gathered.troubles
    assert (trouble.code, trouble.where) == (
        "unreadable",
        "Bundle.entry[1].resource.valueQuantity.value",
    )
    assert "forty-secret" not in trouble.text


@pytest.mark.parametrize("resource", [None, 7, "text", [], {}, {"id": "x"}, {"resourceType": None}])
def test_an_entry_that_is_no_resource_costs_nothing_but_itself(resource: Any) -> None:
    """Null, numbers, text, lists and objects without a type."""
    gathered = decode_bundle(bundle(PATIENT, resource, CRP))
    assert [o.id for o in gathered.of("Observation")] == ["crp"]
    assert all(trouble.where.startswith("Bundle.entry[1]") for trouble in gathered.troubles)


def test_fields_and_types_nobody_reads_may_hold_anything() -> None:
    """Unknown types are skipped unread, unknown fields of known types too."""
    odd = {"resourceType": "Basic", "code": 7, "deep": [[[{"a": [None]}]]]}
    rich = {**CRP, "bodySite": 12, "extension": "nonsense", "_status": {"id": "x"}}
    gathered = decode_bundle(bundle(PATIENT, odd, rich))
    assert gathered.troubles == []
    assert len(gathered.of("Observation")) == 1


def test_an_entry_without_an_id_takes_it_from_its_address() -> None:
    """`urn:uuid:` addresses serve as ids, so that references to them hold."""
    raw = {
        "resourceType": "Bundle",
        "entry": [
            {"fullUrl": "urn:uuid:1f", "resource": {"resourceType": "Patient", "gender": "male"}}
        ],
    }
    gathered = decode_bundle(json.dumps(raw).encode())
    assert gathered.of("Patient")[0].id == "1f"
    assert gathered.ids_by_full_url == {"urn:uuid:1f": "Patient/1f"}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_can_do_more_than_be_refused(raw: bytes) -> None:
    """Whatever is sent: a record, or UnreadableInput."""
    with suppress(UnreadableInput):
        decode_bundle(raw)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["Observation", "Condition", "Encounter", "Procedure", "MedicationRequest"]),
    st.dictionaries(
        st.sampled_from(["status", "code", "subject", "period", "class", "id", "valueQuantity"]),
        JSON_VALUES,
    ),
)
def test_no_resource_can_do_more_than_be_named(kind: str, fields: Json) -> None:
    """Any JSON in the fields we read: the patient is still read, and nothing else is raised."""
    try:
        gathered = decode_bundle(bundle(PATIENT, {**fields, "resourceType": kind}))
    except WrongFhirVersion:
        return
    record = build_record(gathered, EVERYTHING)
    assert record.birth_date == "1950-03-01"


# ---- a hook's prefetch ---------------------------------------------------------------------------


def test_a_resource_under_its_key_is_a_complete_answer() -> None:
    """A read gives the resource itself."""
    gathered = decode_prefetch(
        {"patient": msgspec.Raw(json.dumps(PATIENT).encode())},
        {"patient": ExpectedQuery("Patient")},
    )
    assert gathered.of("Patient")[0].id == "p"
    assert gathered.answer("patient").state == "complete"


def test_null_is_a_complete_answer_of_nothing() -> None:
    """Asked, and nothing there."""
    assert answer_to(None) == QueryAnswer("complete", float("-inf"), 0)


def test_an_empty_searchset_is_a_complete_answer_of_nothing() -> None:
    """With and without `entry`."""
    assert answer_to(searchset()).state == "complete"
    assert answer_to({"resourceType": "Bundle", "type": "searchset"}).state == "complete"


OUTCOME: Json = {
    "resourceType": "OperationOutcome",
    "issue": [
        {
            "severity": "warning",
            "code": "processing",
            "details": {"coding": [{"system": "urn:oid:1.2.840.114350.1.13.0", "code": "4101"}]},
        }
    ],
}
FAILURE: Json = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "timeout"}],
}


def test_epics_empty_searchset_is_a_complete_answer_of_nothing() -> None:
    """Epic puts a warning, 4101, where the results would stand."""
    epic = {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 0,
        "entry": [{"resource": OUTCOME, "search": {"mode": "outcome"}}],
    }
    gathered = prefetched(epic)
    assert gathered.answer("labs") == QueryAnswer("complete", float("-inf"), 0)
    assert gathered.troubles == []
    assert answer_to(OUTCOME).state == "complete"


def test_an_operation_outcome_is_a_failed_query() -> None:
    """The sender could not ask; nothing is known, and it is said."""
    gathered = prefetched(FAILURE)
    assert gathered.answer("labs").state == "failed"
    assert [(t.where, t.code) for t in gathered.troubles] == [("prefetch.labs", "failed-query")]


def test_results_with_a_warning_beside_them_are_a_part() -> None:
    """An OperationOutcome among the results: something was left out."""
    mixed = searchset(CRP)
    mixed["entry"].append({"resource": FAILURE, "search": {"mode": "outcome"}})
    gathered = prefetched(mixed)
    assert gathered.answer("labs").state == "partial"
    assert len(gathered.of("Observation")) == 1


ERROR_AND_4101: Json = {**OUTCOME, "issue": [*FAILURE["issue"], *OUTCOME["issue"]]}
NOT_HITS: dict[str, tuple[list[Json], str]] = {
    "an error that is not marked": ([{"resource": FAILURE}], "OperationOutcome"),
    "an error marked as a hit": (
        [{"resource": FAILURE, "search": {"mode": "match"}}],
        "OperationOutcome",
    ),
    "an error beside 4101": (
        [{"resource": ERROR_AND_4101, "search": {"mode": "outcome"}}],
        "OperationOutcome",
    ),
    "a status and no resource": ([{"response": {"status": "403"}}], "not what was asked"),
    "a resource nobody reads": (
        [{"resource": {"resourceType": "AllergyIntolerance"}}],
        "not what was asked",
    ),
    "a resource of another type": (
        [{"resource": {"resourceType": "Condition", "id": "c"}}, {"resource": CRP}],
        "not what was asked",
    ),
}


@pytest.mark.parametrize("kind", sorted(NOT_HITS))
def test_a_bundle_of_something_else_does_not_answer_the_query(kind: str) -> None:
    """Nothing follows from it, least of all that there is nothing."""
    entries, reason = NOT_HITS[kind]
    answer = answer_to({"resourceType": "Bundle", "type": "searchset", "entry": entries})
    assert (answer.state, answer.covers_from) == ("partial", float("inf"))
    assert reason in str(answer.reason)


def test_an_error_is_never_no_results() -> None:
    """Epic's 4101 beside an error: the query failed."""
    assert answer_to(ERROR_AND_4101).state == "failed"


def test_no_results_need_not_be_marked() -> None:
    """4101 in an entry without a mode is no hit either."""
    empty = {"resourceType": "Bundle", "total": 0, "entry": [{"resource": OUTCOME}]}
    assert answer_to(empty) == QueryAnswer("complete", float("-inf"), 0)


def test_one_resource_is_no_answer_to_a_search() -> None:
    """There may be more; it is data, and to a read it is the answer."""
    expected = {"labs": ExpectedQuery("Observation", is_search=True)}
    gathered = decode_prefetch({"labs": msgspec.Raw(json.dumps(CRP).encode())}, expected)
    answer = gathered.answer("labs")
    assert (answer.state, answer.covers_from) == ("partial", float("inf"))
    assert answer.reason == "one resource, not the answer to a search"
    assert len(gathered.of("Observation")) == 1


@pytest.mark.parametrize(
    ("link", "state"),
    [
        ("Observation?patient=p", "complete"),
        ("https://ehr.example/fhir/Observation?patient=Patient%2Fp&_count=2", "complete"),
        ("Observation?patient=q", "absent"),
        ("Condition?patient=p", "absent"),
        ("Observation?patient=p&_count=1", "partial"),
        ("Observation?patient=p&_count=50", "complete"),
    ],
)
def test_the_search_a_bundle_says_it_answers_counts(link: str, state: str) -> None:
    """Its type, whose data it asks for, and the smaller of two pages; the data stay data."""
    raw = json.dumps(searchset(CRP, link=[{"relation": "self", "url": link}])).encode()
    gathered = decode_prefetch({"labs": msgspec.Raw(raw)}, LABS, patient_id="p")
    assert gathered.answer("labs").state == state
    assert len(gathered.of("Observation")) == 1


@pytest.mark.parametrize("given", [None, FAILURE, b"{", {"resourceType": "Bundle", "entry": [{}]}])
def test_what_was_sent_is_read_where_the_server_gives_nothing(given: Any) -> None:
    """The answer stays that of the server; a value that was sent is not lost with it."""
    value = given if given is None or isinstance(given, bytes) else json.dumps(given).encode()
    sent = searchset(CRP, link=[{"relation": "self", "url": "Observation?patient=q"}])
    gathered = decode_prefetch(
        {"labs": msgspec.Raw(json.dumps(sent).encode())},
        LABS,
        {"labs": Fetched(value, reason="it answered 500")},
        patient_id="p",
    )
    assert [found.id for found in gathered.of("Observation")] == ["crp"]
    assert gathered.answer("labs").state in ("failed", "partial")
    if given is None:
        assert gathered.answer("labs").reason == "it answered 500"


def test_what_the_server_gives_takes_the_place_of_what_was_sent() -> None:
    """Nothing is read twice."""
    raw = json.dumps(searchset(CRP)).encode()
    gathered = decode_prefetch({"labs": msgspec.Raw(raw)}, LABS, {"labs": Fetched(raw)})
    assert len(gathered.of("Observation")) == 1


def test_what_came_along_does_not_fill_the_page() -> None:
    """An included Medication is no hit: one hit of a page of two is all there is."""
    with_include = searchset(CRP)
    with_include["entry"].append(
        {"resource": {"resourceType": "Medication", "id": "m"}, "search": {"mode": "include"}}
    )
    assert answer_to(with_include).state == "complete"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({}, "complete"),
        ({"total": 1}, "complete"),
        ({"total": 7}, "partial"),
        ({"link": [{"relation": "next", "url": "https://ehr.example/page2"}]}, "partial"),
        ({"link": [{"relation": "self", "url": "https://ehr.example/page1"}]}, "complete"),
    ],
)
def test_a_total_or_a_next_page_says_there_is_more(said: Json, state: str) -> None:
    """One result of a page of two."""
    assert answer_to(searchset(CRP, **said)).state == state


def test_a_full_page_covers_back_to_its_oldest_result() -> None:
    """Two of a page of two, newest first."""
    older = {**CRP, "id": "older", "effectiveDateTime": "2026-11-10"}
    answer = answer_to(searchset(CRP, older))
    assert (answer.state, answer.covers_from) == ("partial", parse_time("2026-11-10"))
    assert answer_to(searchset(older, CRP)).covers_from == float("inf")
    undated = {k: v for k, v in older.items() if k != "effectiveDateTime"}
    assert answer_to(searchset(CRP, undated)).covers_from == float("inf")


def test_the_wrong_type_under_a_key_proves_nothing() -> None:
    """A Patient where Observations were asked for: the query counts as failed."""
    answer = answer_to(PATIENT)
    assert (answer.state, answer.reason) == ("failed", "expected Observation, got Patient")


@pytest.mark.parametrize("value", [7, "text", [], {}, {"resourceType": "Bundle", "entry": 7}])
def test_what_cannot_be_read_is_a_failed_query(value: Any) -> None:
    """The key is named."""
    gathered = prefetched(value)
    assert gathered.answer("labs").state == "failed"
    assert gathered.troubles[0].where.startswith("prefetch.labs")


def test_a_key_nobody_expects_gives_data_but_proves_no_query() -> None:
    """Its results are read; the expected query still counts as not asked."""
    gathered = prefetched(searchset(CRP), key="extra")
    assert len(gathered.of("Observation")) == 1
    assert gathered.answer("labs") == QueryAnswer("absent", reason="not asked")


# ---- Bulk Data lines -----------------------------------------------------------------------------


def test_lines_are_read_one_by_one() -> None:
    """The second line is cut off: it is named by its number, the others are read."""
    lines = [json.dumps(PATIENT).encode(), b'{"resourceType": "Obs', json.dumps(CRP).encode()]
    gathered = decode_lines(lines)
    assert len(gathered.of("Observation")) == 1
    assert [trouble.where for trouble in gathered.troubles] == ["line[2]"]


# ---- other releases ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        ({"resourceType": "MedicationOrder"}, "resourceType"),
        ({"resourceType": "Encounter", "class": "inpatient"}, "class"),
        ({"resourceType": "Encounter", "patient": {"reference": "Patient/p"}}, "patient"),
        ({"resourceType": "Condition", "clinicalStatus": "active"}, "clinicalStatus"),
        ({"resourceType": "Observation", "category": {"coding": []}}, "category"),
        ({"resourceType": "Observation", "context": {"reference": "Encounter/e"}}, "context"),
    ],
)
def test_the_forms_of_older_releases_are_refused_by_name(resource: Json, field: str) -> None:
    """DSTU2 and STU3 look alike to a reader of R4, and mean other things."""
    with pytest.raises(WrongFhirVersion) as refused:
        decode_bundle(bundle(PATIENT, resource))
    assert refused.value.field == f"Bundle.entry[1].resource.{field}"


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield member.name, file.read()


OLDER = {
    "DSTU-2/CUSTOM/hca-pat-64.json": "clinicalStatus",
    "DSTU-2/CUSTOM/hca-pat-67.json": "clinicalStatus",
    "DSTU-2/CUSTOM/hca-pat-77.json": "clinicalStatus",
    "DSTU-2/SYNTHEA/Abshire_Hermine_48.json": "class",
    "STU-3/CUSTOM/HaplotypesCYP2C19_2.json": "category",
    "STU-3/CUSTOM/HaplotypesCYP2C19_3.json": "category",
    "STU-3/CUSTOM/HaplotypesTPMT_4.json": "category",
    "STU-3/SYNTHEA/Abshire_Hermine_48.json": "context",
}


def test_every_bundle_of_an_older_release_is_refused_by_the_field_that_shows_it(
    shared_data: Path,
) -> None:
    """Eight real files; each message names a field, and says that R4 is spoken here."""
    found: dict[str, str] = {}
    for name, raw in members(shared_data / "odd" / "wrong-fhir-version.tar.gz"):
        if name.endswith(".json"):
            with pytest.raises(WrongFhirVersion, match="this service speaks R4") as refused:
                decode_bundle(raw)
            found[name] = (refused.value.field or "").rsplit(".", 1)[-1]
    assert found == OLDER


@pytest.mark.parametrize("archive", ["odd/microsoft-fhir-server.tar.gz", "r4-examples.tar.gz"])
def test_no_published_file_can_break_the_reading(shared_data: Path, archive: str) -> None:
    """Test files of a FHIR server, some invalid on purpose, and the examples of R4: each alone,
    and each beside a patient, is a record or refused by name."""
    patient = json.dumps(PATIENT).encode()
    for _, raw in members(shared_data / archive):
        with suppress(UnreadableInput):
            decode_bundle(raw)
        gathered = decode_lines([patient, raw])
        build_record(gathered, EVERYTHING, patient_id="p")


def test_the_examples_of_r4_are_understood(shared_data: Path) -> None:
    """Of all 705 published examples, not one resource of a type we read is unreadable."""
    read = 0
    troubles: list[str] = []
    for name, raw in members(shared_data / "r4-examples.tar.gz"):
        if name.endswith(".json"):
            gathered = decode_lines([raw])
            read += sum(map(len, gathered.resources.values()))
            troubles += [f"{name}: {t.where} {t.text}" for t in gathered.troubles]
    assert read > 200
    assert troubles == []
