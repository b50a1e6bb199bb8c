"""Which query a Bundle answers, by its own word: the self link, which repeats the search.

A prefetch key is only a name; a record system may give it freely. What a Bundle is the answer to
is proved by the caller's key mapping, or by a self link that repeats the search: same type, same
parameters in whatever order, and no smaller page. The type of what it holds proves nothing, one
read apart: the resource of the id asked for is the answer to the question for it. Just so a self
link can show that the answer under one of our keys is to a narrower search, to one for somebody
else, or to one with smaller pages. Pure; called by `cds_service/protocol.py` for keys that are not
the service's, by `decode.py` for those that are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.references import is_on_server, last_segments

HOW_IT_LOOKS = frozenset({"_format", "_pretty", "_total"})
"""Parameters that change how an answer is written and not what it holds."""
NARROWING = frozenset(
    {
        "_id", "_lastUpdated", "authored", "authoredon", "category", "class", "clinical-status",
        "code", "date", "effective", "encounter", "intent", "location", "onset-date", "performer",
        "period", "recorded-date", "status", "type", "verification-status",
    }
)  # fmt: skip
"""Search parameters that leave results out. Servers add others of their own to a self link."""
_LONGEST_LINK = 4096

_WHOSE = frozenset({"patient", "subject", "patient:Patient", "subject:Patient"})
_TYPE = re.compile(r"(?!Fhir$)(?:[A-Z][a-z]+)+")

Filters = Mapping[str, frozenset[str]]
"""By parameter, what a search lets through: codes without their system."""
NO_FILTERS: Filters = MappingProxyType({})


class Search(NamedTuple):
    """A FHIR search: its type, what it asks for by parameter, and the page size, if it names one.

    Alternatives (`a,b`) in any order are the same; `patient=Patient/1` is `patient=1`.
    """

    resource_type: str
    asked: frozenset[tuple[str, frozenset[str]]]
    page_size: int | None


class _Answer(r.Element):
    """As much of any answer as says what it answers."""

    resource_type: str | None = None
    id: str | None = None
    link: list[r.Link] | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def under_our_keys(
    prefetch: dict[str, msgspec.Raw],
    templates: Mapping[str, str],
    *,
    patient_id: str,
    base: str,
) -> dict[str, msgspec.Raw]:
    """The prefetch, each answer that proves one of the queries put under that query's key.

    Answers under keys of ours stay where they are, and so does what proves nothing. `base`: the
    FHIR server of the call; "" where it names none.
    """
    strange = prefetch.keys() - templates.keys()
    open_queries = {
        key: template.replace("{{context.patientId}}", patient_id)
        for key, template in templates.items()
        if key not in prefetch
    }
    if not strange or not open_queries:
        return prefetch
    moved = {}
    for key in sorted(strange):
        proven = _query_answered(prefetch[key], open_queries, base)
        if proven is not None:
            moved[key] = proven
            del open_queries[proven]
    return {moved.get(key, key): value for key, value in prefetch.items()}


def _query_answered(raw: msgspec.Raw, queries: Mapping[str, str], base: str) -> str | None:
    """The key of the query an answer answers by its own word; None where it says nothing of it."""
    try:
        answer: _Answer = _ANSWER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # whatever it is, it proves nothing; decoding the prefetch will name it
    if answer.resource_type != "Bundle":
        read = f"{answer.resource_type}/{answer.id}"
        return next((key for key, query in queries.items() if query == read), None)
    links = [link.url for link in answer.link or () if link.relation == "self" and link.url]
    said = search_of(links[0], base) if len(links) == 1 else None
    if said is None:
        return None
    return next(
        (key for key, query in queries.items() if _repeats(said, search_of(query, ""))), None
    )


def search_of(url: str, base: str) -> Search | None:
    """The search a URL makes, relative or on the server `base`; None where it is no such search."""
    path, _, query = url[:_LONGEST_LINK].partition("?")
    resource_type = path.rpartition("/")[2]
    if not query or not is_on_server(path.removesuffix(resource_type), base):
        return None
    asked = parse_qsl(query, keep_blank_values=True)
    counts = [value for name, value in asked if name == "_count"]
    if any(not count.isdecimal() for count in counts) or len(counts) > 1:
        return None
    return Search(
        resource_type,
        frozenset(
            (name, frozenset(value.split(",")) if name != "patient" else frozenset({_id(value)}))
            for name, value in asked
            if name not in HOW_IT_LOOKS and name != "_count"
        ),
        int(counts[0]) if counts else None,
    )


def _id(value: str) -> str:
    return value.removeprefix("Patient/")


def _repeats(said: Search, query: Search | None) -> bool:
    """Whether a search asks what the query asks, for a page at least as long."""
    if query is None or said[:2] != query[:2]:
        return False
    return query.page_size is None or (said.page_size or 0) >= query.page_size


def filters_of(url: str) -> Filters:
    """What a search lets through, by each of its parameters that leave results out."""
    return {
        name.partition(":")[0]: frozenset(one.rpartition("|")[2] for one in value.split(","))
        for name, value in parse_qsl(url[:_LONGEST_LINK].partition("?")[2])
        if name.partition(":")[0] in NARROWING
    }


class Said(NamedTuple):
    """What a Bundle's self link says that it answers; None, or nothing, where it does not say.

    `patients`: of each parameter that names the patient, the alternatives, as `Type/id` or `id`.
    """

    resource_type: str | None = None
    patients: tuple[frozenset[str], ...] = ()
    filters: Filters = NO_FILTERS
    page_size: int | None = None

    def includes_patient(self, patient_id: str) -> bool:
        """Whether the search is not one for somebody else alone."""
        own = {patient_id, f"Patient/{patient_id}"}
        return all(not own.isdisjoint(named) for named in self.patients)

    def lets_through_less(self, filters: Filters) -> bool:
        """Whether the search is narrower than one with these filters."""
        return any(
            name not in filters or not values >= filters[name]
            for name, values in self.filters.items()
        )


NOTHING_SAID = Said()


def said_by(links: Sequence[r.Link] | None) -> Said:
    """What the self link among a Bundle's links says.

    A type is taken for one only where it is written as one: paging servers write `fhir?_getpages=`.
    """
    url = next((link.url for link in links or () if link.relation == "self" and link.url), None)
    if url is None:
        return NOTHING_SAID
    path, _, query = url[:_LONGEST_LINK].partition("?")
    segments = path.removesuffix("/_search").rstrip("/").split("/")
    named = [
        frozenset(last_segments(one, 2) for one in value.split(","))
        for name, value in parse_qsl(query)
        if name in _WHOSE
    ]
    if len(segments) > 2 and segments[-3] == "Patient":  # a search in the patient's compartment
        named.append(frozenset({segments[-2]}))
    counts = [int(v) for name, v in parse_qsl(query) if name == "_count" and v.isdecimal()]
    return Said(
        resource_type=segments[-1] if _TYPE.fullmatch(segments[-1]) else None,
        patients=tuple(named),
        filters=filters_of(url),
        page_size=min(counts, default=None),
    )
