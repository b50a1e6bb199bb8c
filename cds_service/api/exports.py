"""What the governance API's routes share: who reads, in which role, why, audited before it leaves.

A list is a page of JSON, or everything that matches as a stream. A stream is read in batches, each
a question of its own along the index, so that no transaction stays open while somebody downloads.
Called by the routes under `/api`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from cds_service import docs
from cds_service.api.formats import JSON, PIECES, as_json
from cds_service.api.paging import limit_of, next_url, place_of, purpose_of
from cds_service.api.streaming import Streamed
from cds_service.auth.readers import Reader
from cds_service.auth.roles import Grant, grant
from cds_service.db.audit import AuditEntry
from cds_service.db.search import Place, Row
from cds_service.errors import BadRequest
from cds_service.limits import Turn
from cds_service.service import Service
from cds_service.web import service_of

BATCH_ROWS = 500
"""Rows read at a time for a stream."""

FetchRows = Callable[[Place | None, int], list[Row]]
"""The next so many rows after a place."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One call of a reader: in which service, who, with which right, in whose turn."""

    service: Service
    reader: Reader
    grant: Grant
    turn: Turn

    async def audit(self, entry: AuditEntry) -> None:
        """Have an entry on record before anything leaves. Raises NotDurable."""
        await asyncio.wrap_future(self.service.log.audit(entry))

    def entry(
        self, what: str, why: str, *, subject: str | None = None, **details: Any
    ) -> AuditEntry:
        """What is put on record of this call."""
        return AuditEntry(
            organisation=self.reader.organisation,
            who=self.reader.subject,
            role=self.grant.role,
            what=what,
            subject=subject,
            why=why,
            details={"issuer": self.reader.issuer, **details},
        )


@asynccontextmanager
async def reading(request: Request, route: str) -> AsyncIterator[Reading]:
    """The call of somebody who was let in and may read the route, in one of the readers' turns.

    Raises NotAuthenticated, NotPermitted, UnknownService, TooManyCalls, TooBusy.
    """
    service = service_of(request)
    reader = await service.readers.admit(request)
    async with service.reads.turn(f"{reader.organisation} {reader.subject}") as turn:
        yield Reading(service, reader, grant(reader.roles, route), turn)


class Listing(NamedTuple):
    """A list that is asked for: its name, the names of its rows' time and id, how rows are had,
    what the call filters by, and the pseudonym it asks for, if one.
    """

    name: str
    at: str
    row_id: str
    fetch: FetchRows
    filters: Mapping[str, str]
    subject: str | None = None


async def answer_list(request: Request, call: Reading, listing: Listing, *, form: str) -> Response:
    """A page of a list in JSON, or all of it in another form, on record before it leaves.

    Raises BadRequest, LogUnavailable, NotDurable.
    """
    if form == JSON:
        return await _page(request, call, listing)
    return await _stream(request, call, listing, form=form)


async def _page(request: Request, call: Reading, listing: Listing) -> Response:
    query = request.query_params
    limit, after, why = limit_of(query), place_of(query), purpose_of(query)
    rows = await anyio.to_thread.run_sync(listing.fetch, after, limit)
    details: dict[str, Any] = {"form": JSON, "filters": listing.filters, "rows": len(rows)}
    if rows:  # with these bounds it can be told later whose rows were on the page
        ends = (rows[0], rows[-1])
        details["between"] = [(row[listing.at], row[listing.row_id]) for row in ends]
    await call.audit(call.entry(f"read {listing.name}", why, subject=listing.subject, **details))
    url = f"{call.service.settings.url}{request.scope['path']}"
    further = len(rows) == limit
    names = {"at": listing.at, "row_id": listing.row_id}
    shown = [as_json(row, call.grant.columns) for row in rows]
    return docs.json_response(
        {listing.name: shown, "next": next_url(url, query, rows, **names) if further else None}
    )


async def _stream(request: Request, call: Reading, listing: Listing, *, form: str) -> Response:
    query = request.query_params
    for name in ("limit", "cursor"):
        if name in query:
            raise BadRequest("only pages of JSON have one; this form is all that matches", name)
    why = purpose_of(query)
    details: dict[str, Any] = {"form": form, "filters": listing.filters}
    await call.audit(call.entry(f"export {listing.name}", why, subject=listing.subject, **details))
    batches = Batched(listing)
    sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call.turn.lasts_until(sent)

    def ended(whole: bool) -> None:
        sent.set_result(None)
        counted: dict[str, Any] = {"form": form, "rows": batches.rows, "whole": whole}
        call.service.log.audit(call.entry(f"export {listing.name} ended", why, **counted))

    return Streamed(PIECES[form](batches, call.grant.columns), form, ended)


class Batched:
    """The rows of a list in batches, each read when the one before it was used; counts them."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.rows = 0

    def __iter__(self) -> Iterator[list[Row]]:
        after: Place | None = None
        while rows := self._listing.fetch(after, BATCH_ROWS):
            self.rows += len(rows)
            yield rows
            last = rows[-1]
            after = Place(last[self._listing.at], last[self._listing.row_id])


def until_now(to: datetime | None) -> datetime:
    """The end of what is asked for: not after now, so that a list ends while rows are added."""
    now = datetime.now(UTC)
    return now if to is None else min(to, now)
