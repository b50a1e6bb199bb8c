"""Prefetch templates: what a query asks, and answering it from a whole record.

Templates are FHIR searches in the subset CDS Hooks recommends (type, patient, token equality,
`_sort`, `_count`). `fault_of` says what keeps a package's from being one, `expected_query` reads
one; `answer_queries` plays the record system and
answers them from a Bundle, for the demo, the examples and the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from fhir_adapters.decode import ExpectedQuery
from fhir_adapters.selflinks import filters_of

TOKENS = frozenset(
    {
        "context.patientId", "context.userId", "context.encounterId", "userPractitionerId",
        "userPractitionerRoleId", "userPatientId", "userRelatedPersonId",
    }
)  # fmt: skip
"""The prefetch tokens of CDS Hooks 2.0.1 that a record system can fill whatever the hook."""
_TOKEN = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_PARAMETER = re.compile(r"[a-z][a-z-]*|_count|_sort|_id|_lastUpdated")
"""Search parameters without modifiers, chains and `_include`."""
_WHOSE = frozenset({"patient", "subject"})
_NAMES_PATIENT = {"Patient": frozenset({"_id"})}
_READ_BY = {
    "Patient": "context.patientId", "Encounter": "context.encounterId",
    "Practitioner": "userPractitionerId", "PractitionerRole": "userPractitionerRoleId",
}  # fmt: skip
"""The token each type is read by; no other resource is one of the context."""
_THE_PATIENT = frozenset({"{{context.patientId}}", "Patient/{{context.patientId}}"})
_SORTS: Mapping[str, tuple[str, ...]] = {
    "date": (
        "effectiveDateTime",
        "effectiveInstant",
        "effectivePeriod",
        "period",
        "performedDateTime",
        "performedPeriod",
    ),
    "recorded-date": ("recordedDate", "onsetDateTime"),
    "authoredon": ("authoredOn",),
    "effective": ("effectiveDateTime", "effectivePeriod", "dateAsserted"),
    "authored": ("authored",),
}


def fault_of(template: str, resource_type: str) -> str | None:
    """What keeps a template from being asked of every record system; None for nothing.

    CDS Hooks 2.0.1 names the searches a record system must be able to do: a read by id, or a search
    in one patient's record by type, with tokens and dates. Whatever would bring other resources
    along, reach through references, or leave open whose data are asked for is refused.
    """
    parts = urlsplit(template)
    kind, _, read_id = parts.path.partition("/")
    if kind != resource_type or parts.scheme or parts.netloc:
        return f"asks for {kind or 'nothing'}, where resource is {resource_type} of the same server"
    strange = [token for token in _TOKEN.findall(template) if token not in TOKENS]
    if strange:
        return f"{{{{{strange[0]}}}}} is no token of every hook"
    if not parts.query:
        token = _TOKEN.fullmatch(read_id)
        return None if token and token[1] == _READ_BY.get(kind) else "a read must be by its token"
    asked = parse_qsl(parts.query, keep_blank_values=True)
    refused = next((name for name, _ in asked if not _PARAMETER.fullmatch(name)), None)
    if refused is not None:
        return f"{refused} is no parameter that every record system has"
    whose = [value for name, value in asked if name in _NAMES_PATIENT.get(kind, _WHOSE)]
    if read_id or len(whose) != 1 or whose[0] not in _THE_PATIENT:
        return "a search must name the patient of the context, once"
    return None


def expected_query(template: str) -> ExpectedQuery:
    """The type, page size, order and filters a template asks for."""
    parts = urlsplit(template)
    asked = dict(parse_qsl(parts.query))
    count = asked.get("_count")
    return ExpectedQuery(
        resource_type=parts.path.split("/")[0],
        page_size=int(count) if count else None,
        newest_first=asked.get("_sort", "").startswith("-"),
        filters=filters_of(template),
        is_search=bool(parts.query),
    )


def answer_queries(
    entries: Iterable[Mapping[str, Any]], templates: Mapping[str, str], patient: Mapping[str, Any]
) -> dict[str, Any]:
    """What a record system would send for the templates, given a Bundle's entries.

    A read gives the resource, a search a searchset Bundle with `total`, sorted and cut to `_count`
    as asked. `category` and `status` are matched as tokens without a system.
    """
    by_type: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        resource = entry.get("resource")
        if isinstance(resource, Mapping):
            by_type.setdefault(str(resource.get("resourceType")), []).append(entry)
    return {key: _answer(template, by_type, patient) for key, template in templates.items()}


def _answer(
    template: str, by_type: Mapping[str, list[Mapping[str, Any]]], patient: Mapping[str, Any]
) -> Any:
    parts = urlsplit(template)
    kind, _, read_id = parts.path.partition("/")
    if read_id:
        return patient if kind == "Patient" else None
    asked = dict(parse_qsl(parts.query))
    found = [e for e in by_type.get(kind, []) if _matches(e["resource"], asked)]
    sort = asked.get("_sort", "")
    if sort:
        names = _SORTS.get(sort.lstrip("-"), ())
        found.sort(key=lambda e: _sort_key(e["resource"], names), reverse=sort.startswith("-"))
    page = found[: int(asked["_count"])] if "_count" in asked else found
    entries = [
        {"fullUrl": e["fullUrl"], "resource": e["resource"], "search": {"mode": "match"}}
        if "fullUrl" in e
        else {"resource": e["resource"], "search": {"mode": "match"}}
        for e in page
    ]
    bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
    return {**bundle, "entry": entries} if entries else bundle


def _matches(resource: Mapping[str, Any], asked: Mapping[str, str]) -> bool:
    wanted = {name: asked[name].split(",") for name in ("category", "status") if name in asked}
    return all(_tokens(resource.get(name)) & set(values) for name, values in wanted.items())


def _tokens(element: Any) -> set[str]:
    """All codes in a code, Coding, CodeableConcept or a list of them."""
    if isinstance(element, str):
        return {element}
    if isinstance(element, list):
        return set().union(*(_tokens(part) for part in element)) if element else set()
    if isinstance(element, Mapping):
        return _tokens(element.get("coding")) | _tokens(element.get("code"))
    return set()


def _sort_key(resource: Mapping[str, Any], names: Iterable[str]) -> str:
    for name in names:
        value = resource.get(name)
        if isinstance(value, Mapping):
            value = value.get("start")
        if isinstance(value, str):
            return value
    return ""


def parse_bundle_entries(raw: bytes) -> list[dict[str, Any]]:
    """A Bundle's entries as plain JSON, for `answer_queries`; msgspec.DecodeError on bad JSON."""
    bundle = msgspec.json.decode(raw)
    entries = bundle.get("entry", []) if isinstance(bundle, dict) else []
    return [entry for entry in entries if isinstance(entry, dict)]
