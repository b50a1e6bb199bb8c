"""What a Bundle answers by its own word, over the links that record systems write."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fhir_adapters.resources import Link
from fhir_adapters.selflinks import filters_of, said_by, search_of, under_our_keys

TEMPLATES = {
    "patient": "Patient/{{context.patientId}}",
    "labs": "Observation?patient={{context.patientId}}&category=laboratory,exam&_count=50",
    "stays": "Encounter?patient={{context.patientId}}&_sort=-date",
}


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def bundle(*urls: str) -> msgspec.Raw:
    """A Bundle with self links."""
    return raw({"resourceType": "Bundle", "link": [{"relation": "self", "url": u} for u in urls]})


def keys(sent: dict[str, msgspec.Raw]) -> list[str]:
    """Under which keys it ends."""
    return sorted(under_our_keys(sent, TEMPLATES, patient_id="p", base="https://ehr.example/fhir"))


LABS = "Observation?category=exam,laboratory&patient=p&_count=50"


@pytest.mark.parametrize(
    "url", [LABS, f"https://ehr.example/fhir/{LABS}", f"https://EHR.example:443/fhir/{LABS}"]
)
def test_a_search_is_the_same_in_whatever_order(url: str) -> None:
    """Of parameters and of alternatives; host and port as addresses are compared."""
    assert keys({"x": bundle(url)}) == ["labs"]


def test_a_strange_answer_never_takes_the_place_of_one_of_ours() -> None:
    """What stands under the service's key stays; so does the second of two proofs."""
    assert keys({"labs": raw(None), "x": bundle(LABS)}) == ["labs", "x"]
    assert keys({"x": bundle(LABS), "y": bundle(LABS)}) == ["labs", "y"]


@pytest.mark.parametrize(
    "value",
    [
        bundle(),
        bundle(LABS, LABS.replace("50", "10")),
        bundle(LABS.replace("50", "49")),
        bundle(LABS.replace("&_count=50", "")),
        bundle(LABS + "&_count=60"),
        bundle(LABS.replace("patient=p", "patient=q")),
        bundle("https://[broken/" + LABS),
        raw({"resourceType": "Patient", "id": "q"}),
        raw({"resourceType": "Observation", "id": "p"}),
        raw(None),
        raw([]),
        raw("x"),
        raw({"resourceType": "Bundle", "link": {"relation": "self"}}),
        msgspec.Raw(b"{"),
        msgspec.Raw(b'{"resourceType": "\xff"}'),
    ],
    ids=lambda value: bytes(value)[:70].decode("latin-1"),
)
def test_what_does_not_prove_it_stays_where_it_was(value: msgspec.Raw) -> None:
    """And is no error here."""
    assert keys({"x": value}) == ["x"]


def test_the_resource_of_the_id_answers_the_read() -> None:
    """Whatever its key."""
    assert keys({"-pt": raw({"resourceType": "Patient", "id": "p"})}) == ["patient"]


def test_a_read_is_no_search() -> None:
    """A URL without a query asks for no list."""
    assert search_of("https://ehr.example/fhir/Patient/p", "") is None


@pytest.mark.parametrize(
    ("url", "less"),
    [
        ("Observation?patient=p", False),
        ("Observation?patient=p&category=exam,laboratory,survey", False),
        ("Observation?patient=p&category=http://x|laboratory,exam", False),
        ("Observation?patient=p&category=laboratory", True),
        ("Observation?patient=p&category=exam,laboratory&date=ge2026", True),
        ("Observation?patient=p&category=exam,laboratory&status:not=final", True),
        ("Observation?_getpages=7&_getpagesoffset=0&sessionID=x&patient=p", False),
    ],
)
def test_a_narrower_search_is_seen_and_a_servers_own_words_are_not(url: str, less: bool) -> None:
    """Only parameters that leave results out count."""
    filters = filters_of(TEMPLATES["labs"])
    assert said_by([Link(relation="self", url=url)]).lets_through_less(filters) is less
    assert said_by([Link(relation="next", url=url)]).lets_through_less(filters) is False
    assert said_by(None).lets_through_less(filters) is False


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("Observation?patient=p", True),
        ("Observation?patient=Patient/p", True),
        ("Observation?patient=Patient%2Fp", True),
        ("Observation?patient=https%3A%2F%2Fehr.example%2Ffhir%2FPatient%2Fp", True),
        ("Observation?patient=http://ehr.example/fhir/Patient/p/_history/2", True),
        ("Observation?subject:Patient=p", True),
        ("Observation?patient=q,p", True),
        ("Observation?patient.identifier=x", True),
        ("Patient/p/Observation?code=x", True),
        ("https://ehr.example/fhir?_getpages=7", True),
        ("Observation?patient=q", False),
        ("Observation?patient=P", False),
        ("Observation?subject=Group/p", False),
        ("Observation?patient=p&subject=Patient/q", False),
        ("https://ehr.example/fhir/Patient/q/Observation", False),
    ],
)
def test_whose_data_were_searched_is_seen_in_every_spelling(asked: str, own: bool) -> None:
    """An id, a reference, an address; what names nobody is nobody else's."""
    assert said_by([Link(relation="self", url=asked)]).includes_patient("p") is own


@pytest.mark.parametrize(
    ("url", "kind", "page"),
    [
        ("https://ehr.example/fhir/R4/Encounter?_count=3", "Encounter", 3),
        ("https://ehr.example/fhir/Encounter/_search?_count=30&_count=3", "Encounter", 3),
        ("Encounter", "Encounter", None),
        ("https://ehr.example/Fhir?_getpages=1&_count=all", None, None),
        ("https://ehr.example/FHIR/R4?_count=-1", None, None),
        ("https://ehr.example/page1", None, None),
    ],
)
def test_the_type_and_the_page_are_what_the_link_says(
    url: str, kind: str | None, page: int | None
) -> None:
    """Where it says none, nothing follows."""
    said = said_by([Link(relation="self", url=url)])
    assert (said.resource_type, said.page_size) == (kind, page)
