"""From bytes to typed resources: Bundles, a hook's prefetch, Bulk Data lines.

Every entry and every prefetch value is decoded on its own, so that one broken resource is reported
as a `Trouble` and costs nothing but itself. Types no feature reads are skipped unread. What was
asked, and how completely it was answered, is kept as a `QueryAnswer` beside the resources, because
"none" and "not asked" are different findings.

Turning resources into clinical facts is `facts.py`; fetching what is missing is the FHIR client's.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.at_once import KINDS, read_at_once
from fhir_adapters.clock import OPEN, UNDATED, Seconds, parse_time
from fhir_adapters.errors import TooManyResources, UnreadableInput, WrongFhirVersion
from fhir_adapters.references import last_segments
from fhir_adapters.releases import OLDER_SHAPES, OLDER_TYPES, Shape
from fhir_adapters.selflinks import NOTHING_SAID, Filters, Said, said_by

AnswerState = Literal["complete", "partial", "absent", "failed"]
NO_MATCH = frozenset({"outcome", "include"})
"""Bundle.entry.search.mode of entries that are not hits of the query themselves."""
NEWEST_FIRST = "history"
"""The type of Bundle whose entries FHIR orders from the newest version to the oldest."""
LONGEST_TYPE_NAME = 64
EPIC_NO_RESULTS = "4101"
"""Epic's warning in an otherwise empty searchset: "Resource request returns no results"."""

_TYPE_FIRST = re.compile(rb'\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]+)"')
_SHAPE = msgspec.json.Decoder(Shape)
_DECODERS = {name: msgspec.json.Decoder(kind) for name, kind in r.READ.items()}
_KIND = msgspec.json.Decoder(r.Kind)
_BUNDLE = msgspec.json.Decoder(r.Bundle)
_OUTCOME = msgspec.json.Decoder(r.OperationOutcome)
_SHAPES_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that could not be read: where it stood, what kind, and the field, never a value."""

    where: str
    code: Literal["unreadable", "wrong-patient", "skipped", "failed-query", "no-time"]
    text: str


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """How completely a query was answered.

    `covers_from`: the moment from which on nothing is missing; -inf for a complete answer, +inf
    where nothing can be promised. A full page sorted newest first covers back to its oldest entry.
    """

    state: AnswerState
    covers_from: float = OPEN
    entries: int = 0
    reason: str | None = None


COMPLETE = QueryAnswer("complete", UNDATED)
NOT_ASKED = QueryAnswer("absent", reason="not asked")
NARROWER = "a narrower search was answered"
ANOTHER = "another search was answered"
"""Why a query was not asked under whose key something stands: by its self link, something else."""
ONE_PAGE = "one page of more"
WITH_OUTCOME = "the answer carries an OperationOutcome"
NOT_ASKED_FOR = "an entry is not what was asked for"
ONE_RESOURCE = "one resource, not the answer to a search"
"""Why an answer is partial that asking the FHIR server may complete."""


@dataclass(frozen=True, slots=True)
class ExpectedQuery:
    """What a package asks under one prefetch key: the resource type, the page size, if any, and
    what the search lets through; None where that is not known. A read is no search.
    """

    resource_type: str
    page_size: int | None = None
    newest_first: bool = False
    filters: Filters | None = None
    is_search: bool = False


class Fetched(NamedTuple):
    """What the FHIR server itself answered to a query: one value, as a prefetch would hold it.

    `value`: None where it did not answer; `to_the_end`: no page of it is left, however full the
    last one is; `reason`: why it is missing or not the whole, in words without ids or URLs.
    """

    value: bytes | None
    to_the_end: bool = False
    reason: str | None = None


NOTHING_FETCHED: Mapping[str, Fetched] = MappingProxyType({})


@dataclass(slots=True)
class Gathered:
    """All typed resources of one request, with what was asked and what could not be read."""

    resources: dict[str, list[Any]] = field(default_factory=dict)
    ids_by_full_url: dict[str, str] = field(default_factory=dict)
    answers: dict[str, QueryAnswer] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    whole_record: bool = False
    looked_at: dict[str, int] = field(default_factory=dict)
    most: float = math.inf
    """How many resources may be read; `counted` are, those of no use among them."""
    counted: int = 0
    patient_id: str | None = None
    """Whose data were asked for; None where that is not known."""
    mixed: bool = False
    """Whether some was sent and some fetched, so that one resource may come in two versions."""

    def of(self, resource_type: str) -> list[Any]:
        """The resources of a type, in the order they came."""
        return self.resources.get(resource_type, [])

    def answer(self, key: str) -> QueryAnswer:
        """How the query under a prefetch key was answered; a whole record answers every query."""
        return self.answers.get(key, COMPLETE if self.whole_record else NOT_ASKED)


def decode_bundle(raw: bytes) -> Gathered:
    """The resources of one Bundle taken as the whole record of one patient.

    Raises UnreadableInput where the bytes are no Bundle, WrongFhirVersion for DSTU2 and STU3.
    """
    gathered = Gathered(whole_record=True)
    raw = raw.removeprefix(codecs.BOM_UTF8)
    kind = kind_of(raw)
    if kind == "Bundle":
        _add_bundle(gathered, raw, "Bundle", wanted=None)
    elif kind in r.READ:
        _add_resource(gathered, raw, where=kind)
    else:
        raise UnreadableInput(
            f"expected a Bundle, got {kind or 'no resourceType'}", field="resourceType"
        )
    return gathered


def decode_prefetch(
    prefetch: Mapping[str, msgspec.Raw],
    expected: Mapping[str, ExpectedQuery],
    fetched: Mapping[str, Fetched] = NOTHING_FETCHED,
    *,
    most: float = math.inf,
    patient_id: str | None = None,
) -> Gathered:
    """The resources of a hook's prefetch, and per expected key how completely it was answered.

    A key may hold a resource, a Bundle, null (asked, nothing there) or an OperationOutcome (asked,
    failed). Keys nobody expects are read too: what they hold is data, but proves no query. What was
    `fetched` under a key takes the place of what the prefetch held there; where the FHIR server
    gave nothing, what was sent is data beside its failure. `patient_id`: whose data were asked for;
    None where nobody knows. Raises TooManyResources where there are more keys and resources than
    `most`.
    """
    gathered = Gathered(most=most, patient_id=patient_id, mixed=bool(prefetch and fetched))
    _count(gathered, len(prefetch))
    for key, value in prefetch.items():
        if key not in fetched:
            _add_value(gathered, key, memoryview(value), expected.get(key), where=f"prefetch.{key}")

    def is_fetched(one: tuple[str, Fetched]) -> bool:
        return one[0] not in prefetch or not _gave_nothing(*one, expected.get(one[0]))

    # first, what was sent in place of what was not fetched: it is older than all that was
    for key, answer in sorted(fetched.items(), key=is_fetched):
        _add_fetched(gathered, key, answer, expected.get(key))
        said = gathered.answers[key]
        if key in prefetch and _is_nothing(said):
            sent = memoryview(prefetch[key])
            _add_value(gathered, key, sent, expected.get(key), where=f"prefetch.{key}")
            gathered.answers[key] = said
    return gathered


def _gave_nothing(key: str, fetched: Fetched, expected: ExpectedQuery | None) -> bool:
    """Whether the FHIR server gave no resource and did not say that there is none."""
    tried = Gathered()
    _add_fetched(tried, key, fetched, expected)
    return _is_nothing(tried.answers[key])


def _is_nothing(said: QueryAnswer) -> bool:
    return said.state != "complete" and not said.entries


def decode_lines(lines: Iterable[bytes], where: str = "line") -> Gathered:
    """The resources of one patient from Bulk Data lines, taken as the whole record."""
    gathered = Gathered(whole_record=True)
    for number, line in enumerate(lines, start=1):
        _add_resource(gathered, line, where=f"{where}[{number}]")
    return gathered


def kind_of(raw: bytes | memoryview) -> str | None:
    """The resourceType of a JSON object; None where it has none.

    Raises UnreadableInput for what is not JSON, or nested too deeply.
    """
    found = _TYPE_FIRST.match(raw)
    if found:
        return found.group(1).decode()
    kind: r.Kind = read(_KIND, raw, "")
    name = kind.resource_type
    if name and not (name.isascii() and name.isalpha() and len(name) <= LONGEST_TYPE_NAME):
        raise UnreadableInput("no name of a resource type", field="resourceType")
    return name


def read(decoder: msgspec.json.Decoder[Any], raw: bytes | memoryview, where: str) -> Any:
    """What a decoder makes of the bytes; UnreadableInput names the field where it fails."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        path = _path_in(str(error))
        raise UnreadableInput(str(error), field=_join(where, path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableInput(f"not valid JSON: {error}", field=where) from None
    except RecursionError:
        raise UnreadableInput("nested too deeply", field=where) from None


def _path_in(message: str) -> str:
    found = re.search(r"`\$(.*)`$", message)
    return found.group(1) if found else ""


def _join(where: str, path: str) -> str:
    return (where + path).lstrip(".").replace("[...]", "[*]")


def _add_fetched(
    gathered: Gathered, key: str, fetched: Fetched, expected: ExpectedQuery | None
) -> None:
    if fetched.value is None:
        gathered.answers[key] = QueryAnswer("failed", reason=fetched.reason)
        return
    if expected and fetched.to_the_end:
        expected = replace(expected, page_size=None)
    _add_value(gathered, key, memoryview(fetched.value), expected, where=f"fetched.{key}")
    answer = gathered.answers[key]
    if fetched.reason and answer.state == "partial":
        said = f"{answer.reason}; {fetched.reason}"
        gathered.answers[key] = replace(answer, reason=said)


def _add_value(
    gathered: Gathered, key: str, raw: memoryview, expected: ExpectedQuery | None, *, where: str
) -> None:
    if bytes(raw[:4]) == b"null":
        gathered.answers[key] = QueryAnswer("complete", UNDATED, 0)
        return
    try:
        kind = kind_of(raw)
        if kind == "OperationOutcome":
            answer = _failed(gathered, where, raw)
        elif kind == "Bundle":
            wanted = expected.resource_type if expected else None
            bundle, found = _add_bundle(gathered, raw, where, wanted=wanted)
            answer = _answer_of(bundle, expected, found, patient_id=gathered.patient_id)
        else:
            answer = _single(gathered, raw, where, kind, expected)
    except (WrongFhirVersion, TooManyResources):
        raise
    except UnreadableInput as error:
        gathered.troubles.append(Trouble(error.field or where, "unreadable", str(error)))
        answer = QueryAnswer("failed", reason="unreadable")
    gathered.answers[key] = answer


def _single(
    gathered: Gathered,
    raw: memoryview,
    where: str,
    kind: str | None,
    expected: ExpectedQuery | None,
) -> QueryAnswer:
    if kind is None:
        raise UnreadableInput("no resourceType", field=f"{where}.resourceType")
    before = len(gathered.troubles)
    _add_resource(gathered, raw, where)
    if expected and kind != expected.resource_type:
        reason = f"expected {expected.resource_type}, got {kind}"
        gathered.troubles.append(Trouble(where, "skipped", reason))
        return QueryAnswer("failed", reason=reason)
    if len(gathered.troubles) > before:
        return QueryAnswer("failed", reason="unreadable")
    if expected and expected.is_search:
        return QueryAnswer("partial", OPEN, 1, ONE_RESOURCE)
    return QueryAnswer("complete", UNDATED, 1)


def _failed(gathered: Gathered, where: str, raw: memoryview) -> QueryAnswer:
    outcome: r.OperationOutcome = read(_OUTCOME, raw, where)
    if _says_no_results(outcome):
        return QueryAnswer("complete", UNDATED, 0)
    gathered.troubles.append(Trouble(where, "failed-query", "the sender's query failed"))
    return QueryAnswer("failed", reason="the sender's query failed")


def _says_no_results(outcome: r.OperationOutcome) -> bool:
    if any(issue.severity in ("error", "fatal") for issue in outcome.issue or ()):
        return False
    codes = [
        coding.code
        for issue in outcome.issue or ()
        for coding in (issue.details and issue.details.coding) or ()
    ]
    return EPIC_NO_RESULTS in codes


class _Found(NamedTuple):
    """What the entries of a Bundle hold, as the answer to a query.

    `hits`: those of the query itself that could be read, in their order; `number`: how many there
    are, read or not; `fault`: what is wrong with the entries, if anything.
    """

    hits: list[Any]
    number: int
    fault: str | None


def _answer_of(
    bundle: r.Bundle, expected: ExpectedQuery | None, found: _Found, *, patient_id: str | None
) -> QueryAnswer:
    """How completely a Bundle answers its query."""
    hits, count, fault = found
    said = said_by(bundle.link) if expected else NOTHING_SAID
    other = _another_search(said, expected, patient_id) if expected else None
    if other:
        return QueryAnswer("absent", OPEN, count, other)
    if fault:
        return QueryAnswer("partial", OPEN, count, fault)
    more = any(link.relation == "next" for link in bundle.link or ())
    short = bundle.total is not None and bundle.total > count
    pages = [said.page_size, expected.page_size if expected else None]
    full = any(page is not None and count >= page for page in pages)
    if not (more or short or full):
        return QueryAnswer("complete", UNDATED, count)
    newest_first = bool(expected and expected.newest_first)
    covers_from = _covered_from(hits) if newest_first else OPEN
    return QueryAnswer("partial", covers_from, count, ONE_PAGE)


def _another_search(said: Said, expected: ExpectedQuery, patient_id: str | None) -> str | None:
    """Why a Bundle answers something else than what was asked, by its self link; None where not."""
    if said.resource_type not in (None, expected.resource_type):
        return ANOTHER
    if patient_id is not None and not said.includes_patient(patient_id):
        return ANOTHER
    if expected.filters is not None and said.lets_through_less(expected.filters):
        return NARROWER
    return None


def _count_hits(entries: Sequence[r.Entry], wanted: str | None) -> tuple[int, str | None]:
    """How many entries are hits of a query for a type, and what is wrong with the entries, if
    anything.

    What an entry is, is judged by its type, read or not. An OperationOutcome is none of the hits,
    whether or not it is marked as an outcome.
    """
    count, fault = 0, None
    for entry in entries:
        mode = entry.search.mode if entry.search else None
        kind = _kind_in(entry)
        if mode == "outcome" or kind == "OperationOutcome":
            if not _is_no_results_entry(entry):
                fault = WITH_OUTCOME
        elif mode not in NO_MATCH and wanted in (None, kind):
            count += 1
        elif mode not in NO_MATCH:
            fault = fault or NOT_ASKED_FOR
    return count, fault


def _kind_in(entry: r.Entry) -> str | None:
    """The type of an entry's resource; None where it has none, or cannot be read."""
    raw = memoryview(entry.resource)
    try:
        return kind_of(raw) if raw else None
    except UnreadableInput:
        return None


def _is_no_results_entry(entry: r.Entry) -> bool:
    if not memoryview(entry.resource):
        return False
    outcome: r.OperationOutcome = read(_OUTCOME, memoryview(entry.resource), "entry.resource")
    return _says_no_results(outcome)


def _covered_from(resources: list[Any]) -> float:
    """The oldest one's time, if the page really came newest first; otherwise nothing is sure."""
    times = [_time_of(resource) for resource in resources]
    known = [time for time in times if time is not None]
    if len(known) != len(times) or not known:
        return OPEN
    in_order = all(newer >= older for newer, older in pairwise(known))
    return known[-1] if in_order else OPEN


_SORTED_BY: dict[str, tuple[str, ...]] = {
    "Observation": ("effective_date_time", "effective_instant", "effective_period"),
    "Encounter": ("period",),
    "Condition": ("recorded_date",),
    "Procedure": ("performed_date_time", "performed_period"),
    "MedicationRequest": ("authored_on",),
    "MedicationStatement": ("effective_date_time", "effective_period"),
    "MedicationAdministration": ("effective_date_time", "effective_period"),
    "QuestionnaireResponse": ("authored",),
}
"""The elements that FHIR's search parameters `date`, `recorded-date`, `authoredon`, `effective` and
`authored` sort by."""


def _time_of(resource: Any) -> Seconds | None:
    for name in _SORTED_BY.get(type(resource).__name__, ()):
        said = getattr(resource, name)
        text = said.start if isinstance(said, r.Period) else said
        if text:
            try:
                return parse_time(text)
            except ValueError:
                return None
    return None


def _add_bundle(
    gathered: Gathered, raw: bytes | memoryview, where: str, *, wanted: str | None
) -> tuple[r.Bundle, _Found]:
    """A Bundle and what it holds, all that could be read kept in `gathered`; `wanted`: the type
    that was asked for, None where that is not known."""
    whole = read_at_once(raw)
    if whole is not None and whole.type != NEWEST_FIRST:
        return whole, _add_whole(gathered, whole.entry or (), wanted)
    bundle: r.Bundle = read(_BUNDLE, raw, where)
    before = len(gathered.troubles)
    hits = _add_entries(gathered, bundle, where)
    count, fault = _count_hits(bundle.entry or (), wanted)
    if fault != WITH_OUTCOME and len(gathered.troubles) > before:
        fault = "an entry could not be read"
    return bundle, _Found(hits, count, fault)


def _add_whole(gathered: Gathered, entries: Sequence[Any], wanted: str | None) -> _Found:
    """The hits among entries that are resources already, as `_add_entries` and `_count_hits`."""
    _count(gathered, len(entries))
    hits, number, others = [], 0, 0
    for entry in entries:
        resource = entry.resource
        kind = KINDS[type(resource)]
        is_read = kind in r.READ
        if is_read:
            _keep(gathered, kind, resource, entry.full_url)
        if entry.search is not None and entry.search.mode in NO_MATCH:
            continue
        if wanted is None or kind == wanted:
            number += 1
        else:
            others += 1
        if is_read:
            hits.append(resource)
    for kind in OLDER_SHAPES:
        gathered.looked_at[kind] = max(gathered.looked_at.get(kind, 0), len(gathered.of(kind)))
    return _Found(hits, number, NOT_ASKED_FOR if others else None)


def _add_entries(gathered: Gathered, bundle: r.Bundle, where: str) -> list[Any]:
    """The hits of a Bundle that could be read, in their order, all kept in `gathered`; the oldest
    first, so that the last version of a resource is the newest."""
    entries = list(enumerate(bundle.entry or ()))
    _count(gathered, len(entries))
    hits = []
    for number, entry in reversed(entries) if bundle.type == NEWEST_FIRST else entries:
        mode = entry.search.mode if entry.search else None
        raw = memoryview(entry.resource)
        if raw and mode != "outcome":
            resource = _add_resource(gathered, raw, where, number=number, full_url=entry.full_url)
            if resource is not None and mode not in NO_MATCH:
                hits.append(resource)
    return hits


def _count(gathered: Gathered, resources: int) -> None:
    """Count resources before they are kept, and before they are read where it is one by one. A
    Bundle that is read in one go costs its reading, which the size of a body bounds."""
    gathered.counted += resources
    if gathered.counted > gathered.most:
        raise TooManyResources(f"the request holds more than {gathered.most:.0f} resources")


def _add_resource(
    gathered: Gathered,
    raw: bytes | memoryview,
    where: str,
    *,
    number: int | None = None,
    full_url: str | None = None,
) -> Any:
    """The resource, kept in `gathered`; None where it could not be read, or need not be."""
    try:
        kind = _known_kind(raw)
        decoder = _DECODERS.get(kind)
        if decoder is None:
            return None
        _refuse_older_release(gathered, kind, raw)
        resource = read(decoder, raw, "")
    except UnreadableInput as error:
        place = where if number is None else f"{where}.entry[{number}].resource"
        path = f"{place}.{error.field}" if error.field else place
        if isinstance(error, WrongFhirVersion):
            raise WrongFhirVersion(str(error), field=path) from None
        gathered.troubles.append(Trouble(path, "unreadable", str(error).split(" - at ")[0]))
        return None
    _keep(gathered, kind, resource, full_url)
    return resource


def _keep(gathered: Gathered, kind: str, resource: Any, full_url: str | None) -> None:
    kept = gathered.resources.get(kind)
    if kept is None:
        gathered.resources[kind] = [resource]
    else:
        kept.append(resource)
    if full_url:
        if not resource.id:
            resource.id = last_segments(full_url, 1)
        gathered.ids_by_full_url[full_url] = f"{kind}/{resource.id}"


def _known_kind(raw: bytes | memoryview) -> str:
    """The type of a resource; refused where it has none, or one that R4 does not have."""
    kind = kind_of(raw)
    if kind is None:
        raise UnreadableInput("no resourceType", field="resourceType")
    if kind in OLDER_TYPES:
        raise WrongFhirVersion(
            f"{kind} is FHIR {OLDER_TYPES[kind]}; this service speaks FHIR R4",
            field="resourceType",
        )
    return kind


def _refuse_older_release(gathered: Gathered, kind: str, raw: bytes | memoryview) -> None:
    """Raise WrongFhirVersion where one of the first resources of a type has an older form."""
    looked = gathered.looked_at.get(kind, 0)
    if kind not in OLDER_SHAPES or looked >= _SHAPES_LOOKED_AT:
        return
    gathered.looked_at[kind] = looked + 1
    shape = read(_SHAPE, raw, "")
    for name, older in OLDER_SHAPES[kind]:
        if isinstance(getattr(shape, name), older):
            field_name = {"class_": "class", "clinical_status": "clinicalStatus"}.get(name, name)
            raise WrongFhirVersion(
                f"{kind}.{field_name} has the form of FHIR DSTU2 or STU3; this service speaks R4",
                field=field_name,
            )
