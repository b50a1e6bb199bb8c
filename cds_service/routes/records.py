"""Reading what was done: the audit trail, and where each version of a model stands."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from cds_service import docs, docs_api
from cds_service.api.exports import Listing, answer_list, reading, until_now
from cds_service.api.formats import CSV, JSON, chosen
from cds_service.api.paging import check_known, moment_of, said_filters
from cds_service.auth.roles import AUDIT_ROUTE, MODELS_ROUTE
from cds_service.db.search import Place, Row, Wanted, audit_page
from cds_service.governance import Stand

router = APIRouter(tags=["Governance"])
FILTERS = ("who", "what", "subject")


@router.get(AUDIT_ROUTE, **docs_api.AUDIT)
async def list_audit(request: Request) -> Response:
    """Who read, exported or changed what of the reader's organisation, oldest first."""
    async with reading(request, AUDIT_ROUTE) as call:
        query = request.query_params
        check_known(query, {*FILTERS, "from", "to", "purpose", "limit", "cursor"})
        wanted = Wanted(
            call.reader.organisation,
            from_=moment_of(query, "from"),
            to=until_now(moment_of(query, "to")),
            equal={name: query[name] for name in FILTERS if name in query},
        )

        def fetch(after: Place | None, limit: int) -> list[Row]:
            return audit_page(call.service.log.engine, wanted, after=after, limit=limit)

        filters = said_filters(query, besides=("subject",))
        listing = Listing(
            "audit", at="at", row_id="id", fetch=fetch, filters=filters,
            subject=query.get("subject"),
        )  # fmt: skip
        form = chosen(request.headers.get("accept"), (JSON, CSV))
        return await answer_list(request, call, listing, form=form)


@router.get(MODELS_ROUTE, **docs_api.MODELS)
async def list_models(request: Request) -> Response:
    """Where each version of a model stands here. It says nothing of patients."""
    async with reading(request, MODELS_ROUTE) as call:
        check_known(request.query_params, ())
        chosen(request.headers.get("accept"), (JSON,))
        roster = call.service.watch.roster()
        stands = [_shown(stand, call.grant.columns) for stand in roster.stands]
        return docs.json_response(
            {"models": stands, "faults": roster.faults, "warnings": roster.warnings}
        )


def _shown(stand: Stand, columns: tuple[str, ...]) -> dict[str, object]:
    """A version's stand by the names of the table of roles."""
    values = {
        "model_id": stand.version.model_id,
        "version": stand.version.version,
        "package_checksum": stand.version.checksum,
        "bundled": stand.version.bundled,
        "state": stand.state,
        "since": stand.since,
        "fault": stand.fault,
    }
    return {name: values[name] for name in columns}
