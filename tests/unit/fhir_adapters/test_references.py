"""The four ways to write a reference mean the same resource."""

from __future__ import annotations

import pytest

from fhir_adapters.references import last_segments, reference_key, refers_to_patient

URLS = {"urn:uuid:9c2f": "Patient/p", "https://ehr.example/fhir/Patient/7": "Patient/p"}


@pytest.mark.parametrize(
    ("reference", "key"),
    [
        ("Patient/p", "Patient/p"),
        ("Patient/p/_history/2", "Patient/p"),
        ("https://ehr.example/fhir/Patient/p", "Patient/p"),
        ("https://ehr.example/fhir/Patient/p/_history/2", "Patient/p"),
        ("https://ehr.example/fhir/Patient/p/", "Patient/p"),
        ("urn:uuid:9c2f", "Patient/p"),
        ("https://ehr.example/fhir/Patient/7", "Patient/p"),  # the Bundle says who that is
        ("urn:uuid:other", "urn:uuid:other"),
        ("#med", "#med"),
        ("", None),
        (None, None),
    ],
)
def test_a_reference_has_one_form(reference: str | None, key: str | None) -> None:
    """`Type/id`; fragments and unknown urns stay as they are."""
    assert reference_key(reference, URLS) == key


@pytest.mark.parametrize(
    ("reference", "own"),
    [
        ("Patient/p", True),
        ("urn:uuid:9c2f", True),
        ("urn:uuid:p", True),
        (None, True),  # no subject: nobody else's
        ("Patient/q", False),
        ("Group/p", False),
        ("urn:uuid:other", False),
        ("p", False),
        ("#p", False),
    ],
)
def test_whether_a_reference_means_the_patient(reference: str | None, own: bool) -> None:
    """By type and id together."""
    assert refers_to_patient(reference, "p", URLS) is own


@pytest.mark.parametrize(
    ("reference", "last"),
    [
        ("urn:uuid:9c2f", "9c2f"),
        ("urn:oid:1.2.3", "1.2.3"),
        ("https://ehr.example/fhir/Patient/7", "7"),
        ("Patient/7/_history/1", "7"),
    ],
)
def test_the_last_segment_of_an_address_is_its_id(reference: str, last: str) -> None:
    """Of a URL or a urn."""
    assert last_segments(reference, 1) == last
