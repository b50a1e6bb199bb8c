"""Reading a query: its filters, its times, its purpose, and the cursor that leads to the next page.

A cursor is a place in the order of rows, nothing secret and no key: whoever makes one up reads from
there on what they may read anyway. Strict, because a filter that is misspelt and passed over would
give out more than was asked for. Used by the routes under `/api`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from starlette.datastructures import QueryParams

from cds_service.db.search import Place
from cds_service.errors import BadRequest

MOST_ROWS, USUAL_ROWS = 1000, 100
"""Of a page in JSON."""
LONGEST_FILTER = 256
_NO_CPR = r"(?!(?:.*[^0-9A-Za-z])?[0-9]{6}[^0-9A-Za-z]?[0-9]{4}(?:[^0-9A-Za-z]|$))"
"""Nothing that is written like a CPR number stands between other words, or alone."""
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


class Form(NamedTuple):
    """What a filter may say: a regular expression, as ECMA-262 reads it too, and in words."""

    pattern: str
    says: str


_WORD = Form(
    rf"^{_NO_CPR}[0-9A-Za-z._+-]{{1,64}}$",
    "up to 64 letters a to z, digits and . _ + -, no CPR number",
)
_WORDS = Form(
    rf"^{_NO_CPR}[0-9A-Za-zÀ-ÖØ-öø-ÿ ._,:;+()/&@|='#~-]{{1,128}}$",
    "up to 128 letters, digits and common signs, no CPR number",
)
FILTERS: Mapping[str, Form] = {
    "service": _WORD,
    "version": _WORD,
    "status": _WORD,
    "returned": _WORD,
    "mode": _WORD,
    "unit": _WORDS,
    "pseudonym": Form("^[0-9a-f]{32}$", "32 hexadecimal digits"),
    "who": _WORDS,
    "what": Form("^[a-z-]{1,32}(?: [a-z-]{1,32}){0,3}$", "one to four words in small letters"),
    "subject": Form(
        rf"^(?:{_UUID}|[0-9a-f]{{32}}|[0-9a-f]{{64}}|"
        rf"(?=.{{3,64}}$){_NO_CPR}[0-9A-Za-z][0-9A-Za-z_-]*@[0-9A-Za-z.+-]+)$",
        "the id of a prediction, a pseudonym, model@version, or a SHA-256",
    ),
}
"""The form of each filter. What a call asks for stands in the audit trail, out of which nothing can
be taken: so none is free text, and none a CPR number that was typed into the wrong field."""
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_RowId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f-]{36}\Z")]
_CURSOR = msgspec.json.Decoder(tuple[Moment, _RowId])

PURPOSES: Mapping[str, str] = {
    "HCOMPL": "compliance: supervision and audit",
    "HLEGAL": "a legal matter",
    "HOPERAT": "running the service",
    "HOUTCOMS": "measuring outcomes",
    "HQUALIMP": "quality improvement",
    "HRESCH": "research",
    "HSYSADMIN": "administering the system",
    "PATRQT": "the patient asked",
    "PATSFTY": "patient safety",
    "PERFMSR": "measuring performance",
}
"""The purposes data may be read for here: codes of HL7's PurposeOfUse (v3-ActReason)."""


def check_known(query: QueryParams, known: Collection[str]) -> None:
    """Raise BadRequest where a parameter is not known, stands there twice or too long, or says what
    no filter of its name can.
    """
    for name, value in query.multi_items():
        if name not in known:
            raise BadRequest("there is no such parameter", field=name[:64])
        if len(query.getlist(name)) > 1:
            raise BadRequest("given twice", field=name)
        if not value or len(value) > LONGEST_FILTER or not value.isprintable():
            raise BadRequest(f"must be 1 to {LONGEST_FILTER} printable characters", field=name)
        form = FILTERS.get(name)
        if form is not None and not re.fullmatch(form.pattern, value):
            raise BadRequest(f"must be {form.says}", field=name)


def purpose_of(query: QueryParams) -> str:
    """What the data are read for. Raises BadRequest where that is not said."""
    purpose = query.get("purpose", "")
    if purpose not in PURPOSES:
        raise BadRequest(f"must be one of {', '.join(PURPOSES)}", field="purpose")
    return purpose


def said_filters(query: QueryParams, *, besides: Collection[str]) -> dict[str, str]:
    """What a call asks for, as the audit trail keeps it; `besides`: what it keeps elsewhere."""
    passed = {"purpose", "limit", "cursor", *besides}
    return {name: value for name, value in query.items() if name not in passed}


def moment_of(query: QueryParams, name: str) -> datetime | None:
    """A time, in UTC; None where there is none. Raises BadRequest where it names no zone."""
    said = query.get(name)
    if said is None:
        return None
    try:
        return msgspec.convert(said, Moment).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        wanted = "must be a time with a zone, such as 2026-11-22T10:00:00Z"
        raise BadRequest(wanted, field=name) from None


def limit_of(query: QueryParams) -> int:
    """How many rows a page holds. Raises BadRequest."""
    said = query.get("limit", str(USUAL_ROWS))
    if not re.fullmatch(r"[0-9]{1,4}", said) or not 1 <= int(said) <= MOST_ROWS:
        raise BadRequest(f"must be 1 to {MOST_ROWS}", field="limit")
    return int(said)


def cursor_at(row: Mapping[str, Any], at: str, row_id: str) -> str:
    """The cursor of the page after a row, given the names of its time and id."""
    place = msgspec.json.encode((row[at], row[row_id]))
    return base64.urlsafe_b64encode(place).rstrip(b"=").decode()


def place_of(query: QueryParams) -> Place | None:
    """Where a page begins; None for the first one. Raises BadRequest for what is no cursor."""
    said = query.get("cursor")
    if said is None:
        return None
    try:
        raw = base64.b64decode(said + "=" * (-len(said) % 4), b"-_", validate=True)
        moment, row_id = _CURSOR.decode(raw)
        return Place(moment.astimezone(UTC), row_id)
    except (binascii.Error, msgspec.DecodeError, ValueError, OverflowError):
        raise BadRequest("not a cursor of ours", field="cursor") from None


def next_url(
    url: str, query: QueryParams, rows: Sequence[Mapping[str, Any]], *, at: str, row_id: str
) -> str:
    """The address of the page after some rows, which ask for the same."""
    kept = {name: value for name, value in query.items() if name != "cursor"}
    return f"{url}?{urlencode(kept | {'cursor': cursor_at(rows[-1], at, row_id)})}"
