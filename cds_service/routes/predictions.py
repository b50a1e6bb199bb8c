"""Reading predictions: lists of them, as pages or streams, and one with all that is on record.

Under pseudonym: nothing here opens the vault. docs/api.md says what each role reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from starlette.datastructures import QueryParams

from cds_service import docs, docs_api
from cds_service.api.exports import Listing, Reading, answer_list, reading, until_now
from cds_service.api.formats import JSON, PAYLOAD_OF, RESOURCES, as_json, chosen
from cds_service.api.paging import check_known, moment_of, purpose_of, said_filters
from cds_service.auth.roles import PREDICTION_ROUTE, PREDICTIONS_ROUTE, Grant, not_there
from cds_service.db.search import (
    COLUMN_OF,
    Place,
    Row,
    Wanted,
    find_prediction,
    predictions_page,
)
from cds_service.errors import NotPermitted

router = APIRouter(tags=["Governance"])


@router.get(PREDICTIONS_ROUTE, **docs_api.PREDICTIONS)
async def list_predictions(request: Request) -> Response:
    """Predictions of the reader's organisation by time of computation, oldest first.

    JSON comes in pages; every other form is all that matches.
    """
    async with reading(request, PREDICTIONS_ROUTE) as call:
        query = request.query_params
        check_known(query, {*COLUMN_OF, "from", "to", "purpose", "limit", "cursor"})
        form = chosen(request.headers.get("accept"), tuple(PAYLOAD_OF))
        if form in RESOURCES:
            _require(call.grant, "prediction", field="Accept")
        listing = _listing(call, query, PAYLOAD_OF[form])
        return await answer_list(request, call, listing, form=form)


def _listing(call: Reading, query: QueryParams, payload: Sequence[str]) -> Listing:
    """The predictions a query asks for, with what is needed of their payload, where the role reads
    it. Raises BadRequest, NotPermitted.
    """
    equal = {column: query[name] for name, column in COLUMN_OF.items() if name in query}
    if "pseudonym" in query:
        _require(call.grant, "patient_pseudonym", field="pseudonym")
    wanted = Wanted(
        call.reader.organisation,
        from_=moment_of(query, "from"),
        to=until_now(moment_of(query, "to")),
        equal=equal,
    )

    def fetch(after: Place | None, limit: int) -> list[Row]:
        shown = payload if "prediction" in call.grant.columns else ()
        engine = call.service.log.engine
        return predictions_page(engine, wanted, after=after, limit=limit, payload=shown)

    return Listing(
        "predictions",
        at="computed_at",
        row_id="prediction_id",
        fetch=fetch,
        filters=said_filters(query, besides=("pseudonym",)),
        subject=query.get("pseudonym"),
    )


def _require(grant: Grant, column: str, *, field: str) -> None:
    """Raise NotPermitted where the role does not see what a call asks by or for."""
    if column not in grant.columns:
        raise NotPermitted(f"the role {grant.role} does not read that", field=field)


@router.get(PREDICTION_ROUTE, **docs_api.PREDICTION)
async def one_prediction(request: Request, prediction_id: UUID) -> Response:
    """All that is on record of one prediction, under pseudonym, as far as the role reads it.

    404 where it is not there, of another organisation, or not for the reader.
    """
    async with reading(request, PREDICTION_ROUTE) as call:
        query = request.query_params
        check_known(query, {"purpose"})
        why = purpose_of(query)
        chosen(request.headers.get("accept"), (JSON,))
        row = await anyio.to_thread.run_sync(
            find_prediction, call.service.log.engine, call.reader.organisation, str(prediction_id)
        )
        if row is None:
            raise not_there()
        await call.audit(call.entry("read prediction", why, subject=str(prediction_id)))
        return docs.json_response(as_json(row, call.grant.columns))
