"""The feedback route: what users did with cards, kept beside the predictions the cards were of.

Durable before the answer, as predictions are. An item whose card is not known, or not of the
caller's organisation, is kept as unmatched, with who sent it; the answer does not tell them apart.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
import structlog
from fastapi import APIRouter, Path, Request, Response

from cds_service import docs
from cds_service.auth.callers import Caller
from cds_service.db.feedback import AddFeedback, predictions_of
from cds_service.errors import UnknownService
from cds_service.feedback import LARGEST_BODY, Reported, decode_feedback, feedback_rows
from cds_service.limits import read_body
from cds_service.service import Service
from cds_service.web import service_of

router = APIRouter(tags=["CDS Hooks"])
events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.feedback")


@router.post("/cds-services/{id}/feedback", **docs.FEEDBACK)
async def keep_feedback(
    request: Request,
    service_id: Annotated[str, Path(alias="id", max_length=64, pattern=r"^[A-Za-z0-9._-]+$")],
) -> Response:
    """Keep what became of cards. It is durable before the answer, which says nothing else."""
    service = service_of(request)
    admitted = await service.door.admit(request)
    _require_known(service, service_id)
    async with service.turns.turn(admitted.caller.name):
        body = await read_body(request, service.settings, most_bytes=LARGEST_BODY)
        claim = service.door.claim_of(admitted, body)
        async with service.door.claiming(claim):
            reported = decode_feedback(body)
        rows = await _matched_rows(service, admitted.caller, service_id, reported)
        kept = service.log.commit(AddFeedback(rows, claim))
        await asyncio.wrap_future(kept)
    events.log(
        logging.INFO,
        "feedback",
        service=service_id,
        caller=admitted.caller.name,
        items=len(rows),
        unmatched=sum(row["prediction_id"] is None for row in rows),
    )
    return docs.json_response({})


async def _matched_rows(
    service: Service, caller: Caller, service_id: str, reported: list[Reported]
) -> list[dict[str, Any]]:
    """The rows of a batch, each with the prediction its card was of, where there is one."""
    find = partial(
        predictions_of,
        service.log.engine,
        {item.card for item in reported},
        organisation=caller.organisation,
        service=service_id,
    )
    return feedback_rows(
        reported,
        await anyio.to_thread.run_sync(find),
        caller=caller,
        service=service_id,
        privacy=service.privacy,
        now=datetime.now(UTC),
    )


def _require_known(service: Service, service_id: str) -> None:
    """A version of the model is here, in whichever state: its cards may outlive its service."""
    stands = service.watch.roster().stands
    if all(stand.version.model_id != service_id for stand in stands):
        raise UnknownService(f"no service is called {service_id}", field="id")
