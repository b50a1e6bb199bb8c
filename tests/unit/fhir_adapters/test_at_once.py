"""A Bundle is read in one go or entry by entry, and nobody can tell which."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from fhir_adapters import decode
from fhir_adapters import resources as r
from fhir_adapters.at_once import read_at_once
from fhir_adapters.decode import Gathered, decode_bundle, decode_prefetch
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.prefetch import expected_query
from tests.fuzz.mutations import Mutant, changed, encode, mutants
from tests.fuzz.seeds import all_seeds

DATA = Path(__file__).parents[2] / "data"
QUERIES = {
    key: expected_query(template)
    for key, template in {
        "patient": "Patient/{{context.patientId}}",
        "encounters": "Encounter?patient={{context.patientId}}&_sort=-date&_count=200",
        "conditions": "Condition?patient={{context.patientId}}&_sort=-recorded-date&_count=5",
        "laboratory": "Observation?patient={{context.patientId}}&category=laboratory",
        "vitals": "Observation?patient={{context.patientId}}&category=vital-signs&_count=20",
        "home": "Observation?patient={{context.patientId}}",
        "medications": "MedicationRequest?patient={{context.patientId}}",
    }.items()
}


def said(gathered: Gathered) -> dict[str, Any]:
    """All that was gathered, as values that can be compared."""
    return {
        "resources": {
            kind: [
                {name: _value(getattr(one, name)) for name in r.READ[kind].__struct_fields__}
                for one in found
            ]
            for kind, found in gathered.resources.items()
        },
        "full urls": gathered.ids_by_full_url,
        "answers": gathered.answers,
        "troubles": gathered.troubles,
        "counted": gathered.counted,
    }


def _value(value: Any) -> Any:
    return bytes(value) if isinstance(value, msgspec.Raw) else value


def outcome(read: Callable[[], Gathered]) -> Any:
    """What was gathered, or why nothing was."""
    try:
        return said(read())
    except UnreadableInput as error:
        return type(error), str(error), error.field


def same_both_ways(read: Callable[[], Gathered]) -> Any:
    """The outcome, if entry by entry gives it too."""
    at_once = outcome(read)
    with patch.object(decode, "read_at_once", lambda _: None):
        assert outcome(read) == at_once
    return at_once


def whole_record(raw: bytes) -> Any:
    """A Bundle as a whole record."""
    return same_both_ways(lambda: decode_bundle(raw))


def answer(bundle: Mapping[str, Any], key: str = "laboratory") -> Any:
    """A Bundle under a prefetch key; None where it had to be read entry by entry."""
    raw = msgspec.Raw(json.dumps(bundle).encode())
    found = same_both_ways(lambda: decode_prefetch({key: raw}, QUERIES, patient_id="1"))
    return found if read_at_once(memoryview(raw)) is not None else None


def bundle(*resources: Any, **said: Any) -> dict[str, Any]:
    """A searchset of some resources."""
    return {"resourceType": "Bundle", "entry": [{"resource": one} for one in resources], **said}


A_RESULT: Mapping[str, Any] = {
    "resourceType": "Observation",
    "id": "o",
    "status": "final",
    "category": [{"coding": [{"code": "laboratory"}]}],
    "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}]},
}


@pytest.mark.parametrize("name", sorted(p.name for p in (DATA / "synthea").glob("*.json.gz")))
def test_a_bundled_record_is_read_at_once_and_the_same(name: str) -> None:
    """Were it not read at once, this whole file would test nothing."""
    raw = gzip.decompress((DATA / "synthea" / name).read_bytes())
    assert read_at_once(raw) is not None
    assert len(whole_record(raw)["resources"]["Observation"]) > 10


def test_every_public_record_is_read_at_once_and_the_same(shared_data: Path) -> None:
    """All of the records beside the checkout."""
    records = sorted((shared_data / "synthea-2019").glob("*.json.gz"))
    assert records
    for path in records:
        raw = gzip.decompress(path.read_bytes())
        assert read_at_once(raw) is not None, path.name
        whole_record(raw)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(mutant=mutants(all_seeds()))
def test_a_mutated_request_is_the_same(mutant: Mutant) -> None:
    """Whatever is wrong with it is named alike."""
    body = encode(changed_prefetch(mutant), mutant)
    try:
        prefetch = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    same_both_ways(lambda: decode_prefetch(prefetch, QUERIES, patient_id="demo"))


def changed_prefetch(mutant: Mutant) -> Any:
    """The prefetch of a mutated request."""
    request = changed(mutant)
    return request.get("prefetch") if isinstance(request, dict) else request


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(
            [{"resource": dict(A_RESULT)}, {"fullUrl": "urn:uuid:1"}], id="without a resource"
        ),
        pytest.param(
            [{"resource": {"resourceType": "Claim", "id": "1"}}], id="a type that is skipped"
        ),
        pytest.param(
            [{"fullUrl": "http://e/fhir/Observation/7", "resource": {**A_RESULT, "id": None}}],
            id="an id from the fullUrl",
        ),
        pytest.param(
            [
                {"resource": dict(A_RESULT)},
                {"resource": {"resourceType": "Patient"}, "search": {"mode": "include"}},
            ],
            id="something included",
        ),
        pytest.param(
            [{"resource": {"id": "1", "resourceType": "Observation"}}], id="the type not first"
        ),
        pytest.param([], id="nothing"),
    ],
)
def test_sound_entries_are_read_at_once(entries: list[Any]) -> None:
    """Each in a form a record system sends."""
    assert answer({"resourceType": "Bundle", "total": len(entries), "entry": entries}) is not None


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([dict(A_RESULT), {**A_RESULT, "code": "x"}], id="a broken field"),
        pytest.param([dict(A_RESULT), None], id="null"),
        pytest.param([dict(A_RESULT), {"id": "no type"}], id="no type"),
        pytest.param([{"resourceType": "Nonsense"}], id="a type R4 does not have"),
        pytest.param([{"resourceType": "MedicationOrder"}], id="a type of DSTU2"),
        pytest.param([{**A_RESULT, "category": {"coding": []}}], id="a category of STU3's form"),
        pytest.param([*[dict(A_RESULT)] * 4, {**A_RESULT, "context": {}}], id="a late context"),
        pytest.param([{"resourceType": "OperationOutcome", "issue": []}], id="an OperationOutcome"),
        pytest.param([{"resourceType": "Encounter", "patient": {}}], id="an Encounter of DSTU2"),
        pytest.param([{"resourceType": "Encounter", "class": "AMB"}], id="a class of DSTU2"),
        pytest.param([{"resourceType": "Condition", "patient": {}}], id="a Condition of DSTU2"),
        pytest.param([{"resourceType": "Procedure", "context": {}}], id="a Procedure of STU3"),
        pytest.param([{"resourceType": "MedicationRequest", "context": {}}], id="a drug of STU3"),
    ],
)
def test_what_is_not_sound_is_read_entry_by_entry(entries: list[Any]) -> None:
    """So that it is named, and the rest kept."""
    assert answer(bundle(*entries)) is None


def test_too_many_resources_are_refused_either_way() -> None:
    """The limit counts entries, however they are read."""
    raw = msgspec.Raw(json.dumps(bundle(*[dict(A_RESULT)] * 5)).encode())
    refusal = same_both_ways(lambda: decode_prefetch({"laboratory": raw}, QUERIES, most=5))
    assert "more than 5 resources" in refusal[1]
