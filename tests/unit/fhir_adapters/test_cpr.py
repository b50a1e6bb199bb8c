"""The CPR number of a patient resource: found by its system, in every form it is written in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_adapters.decode import decode_bundle
from fhir_adapters.reading.cpr import SYSTEMS, cpr_number, cpr_of

DK_CORE = "urn:oid:1.2.208.176.1.2"


def sent(*identifiers: Any, patient: str = "1") -> str | None:
    """The number found of patient 1, where a patient of some identifiers was sent."""
    resource = {"resourceType": "Patient", "id": patient, "identifier": list(identifiers)}
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": resource}]}
    return cpr_of(decode_bundle(json.dumps(bundle).encode()), "1")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("0311361234", "0311361234"),
        ("031136-1234", "0311361234"),
        (" 031136-1234\n", "0311361234"),
        ("0101651XX1", "0101651XX1"),  # a replacement number (eCPR), with letters
        ("010165-1xx1", "0101651XX1"),
        ("9999999999", "9999999999"),  # neither date nor check digit is asked of it
    ],
)
def test_a_number_is_the_same_in_every_form_it_is_written_in(written: str, number: str) -> None:
    """With hyphen or without, letters large or small."""
    assert cpr_number(written) == number
    assert sent({"system": DK_CORE, "value": written}) == number


@pytest.mark.parametrize("text", ["", "031136", "031136 1234", "03113612345", "٠٣١١٣٦١٢٣٤", "Ilse"])
def test_what_is_no_number_is_none(text: str) -> None:
    """Too short, too long, other digits than ours, a name."""
    assert cpr_number(text) is None
    assert sent({"system": DK_CORE, "value": text}) is None


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_a_number_is_known_by_its_system(system: str) -> None:
    """Both systems of dk-core's NamingSystem; the first that holds a number counts."""
    assert sent({"system": system, "value": "0311361234"}) == "0311361234"
    assert sent({"system": "urn:local", "value": "0311361234"}) is None
    several = [{"system": system}, {"value": "x"}, {"system": system, "value": "0311361234"}]
    assert sent(*several) == "0311361234"


def test_somebody_elses_number_is_not_the_patients() -> None:
    """Nor is that of a patient who was not asked about."""
    assert sent({"system": DK_CORE, "value": "0311361234"}, patient="2") is None


def test_identifiers_that_are_none_cost_nothing_but_the_number() -> None:
    """The call is answered all the same."""
    assert sent(7) is None
    assert sent() is None
