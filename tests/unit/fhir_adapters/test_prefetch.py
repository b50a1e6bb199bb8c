"""Prefetch templates: what a query asks, and a whole record that answers it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fhir_adapters.decode import ExpectedQuery, decode_prefetch
from fhir_adapters.prefetch import (
    answer_queries,
    expected_query,
    fault_of,
    parse_bundle_entries,
)
from tests.spec.drawn import bundle

LABS = "Observation?patient={{context.patientId}}&category=laboratory&_sort=-date&_count=2"
LABORATORY = {"category": frozenset({"laboratory"})}
CHART = """
    Observation | CRP       | 2026-11-18 | 210 mg/L | id old
    Observation | CRP       | 2026-11-20 | 40 mg/L  | id new
    Observation | CRP       | 2026-11-19 | 90 mg/L  | id middle
    Observation | pulse     | 2026-11-20 | 88 /min  | id vital
    Condition   | COPD      | 2020-01-01 | active   | id copd
"""


def entries() -> list[dict[str, Any]]:
    found = parse_bundle_entries(bundle(CHART))
    for entry in found:
        if entry["resource"]["resourceType"] == "Observation":
            vital = entry["resource"]["id"] == "vital"
            code = "vital-signs" if vital else "laboratory"
            entry["resource"]["category"] = [{"coding": [{"code": code}]}]
    return found


def answered(template: str) -> Any:
    everything = entries()
    patient = everything[0]["resource"]
    return answer_queries(everything, {"key": template}, patient)["key"]


def ids(searchset: Any) -> list[str]:
    return [entry["resource"]["id"] for entry in searchset.get("entry", [])]


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("Observation?patient={{context.patientId}}&_sort=-date&_count=5", id="page"),
        pytest.param("Observation?subject=Patient/{{context.patientId}}&code=a,b", id="subject"),
        pytest.param("Encounter/{{ context.encounterId }}", id="read"),
        pytest.param("Patient?_id={{context.patientId}}", id="the patient, searched for"),
    ],
)
def test_a_template_of_the_recommended_subset_has_no_fault(template: str) -> None:
    """Reads by a token, and searches in the record of the context's patient."""
    assert fault_of(template, template.partition("?")[0].partition("/")[0]) is None


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        pytest.param("Condition?patient={{context.patientId}}", "asks for Condition", id="type"),
        pytest.param("https://e/Observation?patient=1", "asks for", id="address"),
        pytest.param("Observation?category=laboratory", "must name the patient", id="everybody"),
        pytest.param("Observation?patient=123", "must name the patient", id="one patient"),
        pytest.param("Observation/123", "by its token", id="one resource"),
        pytest.param("Observation/{{userPatientId}}", "by its token", id="another's token"),
        pytest.param("https:Observation?patient=1", "same server", id="a scheme"),
        pytest.param(
            "Observation?patient={{context.patientId}}&patient=Patient/42", "once", id="two"
        ),
        pytest.param(
            "Observation?patient={{context.patientId}}&subject=Group/9", "once", id="group"
        ),
        pytest.param("Observation?patient={{context.patientId}}&_include=*", "_include", id="more"),
        pytest.param("Observation?patient={{context.patientId}}&code:in=x", ":in", id="filter"),
        pytest.param("Observation?subject.name=x", "subject.name", id="chain"),
        pytest.param("Observation?patient={{context.draftOrders}}", "draftOrders", id="one hook's"),
        pytest.param(
            "Observation?patient={{context.patientId}}&date=ge{{today()}}", "today()", id="FHIRPath"
        ),
    ],
)  # fmt: skip
def test_a_template_not_every_record_system_answers_is_refused(template: str, fault: str) -> None:
    """And one that would bring somebody else's data."""
    assert fault in (fault_of(template, "Observation") or "")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            LABS,
            ExpectedQuery("Observation", 2, newest_first=True, filters=LABORATORY, is_search=True),
        ),
        ("Patient/{{context.patientId}}", ExpectedQuery("Patient", filters={})),
        (
            "Condition?patient={{context.patientId}}",
            ExpectedQuery("Condition", filters={}, is_search=True),
        ),
        (
            "Encounter?patient=p&_sort=date&_count=50",
            ExpectedQuery("Encounter", 50, filters={}, is_search=True),
        ),
    ],
)
def test_a_template_says_type_page_and_order(template: str, expected: ExpectedQuery) -> None:
    """Of which a full page can be told from a whole answer; and what it lets through."""
    assert expected_query(template) == expected


def test_a_search_is_answered_newest_first_and_cut_to_its_page() -> None:
    """Two of three results; the total says that there is one more."""
    found = answered(LABS)
    assert (found["type"], found["total"], ids(found)) == ("searchset", 3, ["new", "middle"])


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (LABS.replace("-date", "date"), ["old", "middle"]),
        (LABS.replace("&_count=2", ""), ["new", "middle", "old"]),
        (LABS.replace("laboratory", "vital-signs"), ["vital"]),
        (LABS.replace("laboratory", "laboratory,vital-signs"), ["new", "vital"]),
        (LABS.replace("laboratory", "survey"), []),
        ("Condition?patient=p&_sort=-recorded-date", ["copd"]),
        ("Procedure?patient=p", []),
    ],
)
def test_categories_orders_and_pages_are_kept_to(template: str, found: list[str]) -> None:
    """As a record system would."""
    assert ids(answered(template)) == found


def test_a_read_gives_the_resource_itself() -> None:
    """And null for one the record does not hold."""
    assert answered("Patient/{{context.patientId}}")["resourceType"] == "Patient"
    assert answered("Practitioner/{{context.userId}}") is None


def test_its_answers_are_read_as_those_of_a_record_system() -> None:
    """Two of three: a part, reaching back to the older of the two."""
    raw = {"key": msgspec.Raw(json.dumps(answered(LABS)).encode())}
    gathered = decode_prefetch(raw, {"key": expected_query(LABS)})
    assert len(gathered.of("Observation")) == 2
    assert gathered.answer("key").state == "partial"


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"entry": [7, null, "x"]}'])
def test_what_holds_no_entries_gives_none(raw: bytes) -> None:
    """For the demonstration only; no entry, no answer."""
    assert parse_bundle_entries(raw) == []
