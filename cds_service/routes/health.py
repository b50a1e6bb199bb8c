"""Liveness, readiness, and the API documentation from local files."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from cds_service import docs
from cds_service.errors import LogUnavailable, StatesUnknown
from cds_service.governance import OFFERED
from cds_service.web import service_of

router = APIRouter(tags=["Operations"])


@router.get("/healthz", summary="Liveness")
async def liveness() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz", **docs.READINESS)
async def readiness(request: Request) -> Response:
    """Whether hooks can be answered: the log can be read and a model is served; else why not.

    What keeps no hook from being answered is a warning.
    """
    service = service_of(request)
    reasons = [f"model {name} refused: {fault}" for name, fault in service.registry.refused.items()]
    models: dict[str, str] = {}
    states: dict[str, str] = {}
    warnings: list[str] = []
    try:
        roster = service.watch.roster()
    except StatesUnknown as unknown:
        reasons.append(str(unknown))
    else:
        states = {str(stand.version): stand.state for stand in roster.stands}
        offered = (d for d in roster.duties.values() if d.standing.state in OFFERED)
        models = {duty.package.id: duty.package.manifest.version for duty in offered}
        reasons += roster.faults
        warnings += roster.warnings
        if not models:
            reasons.append("no model is served")
    try:
        await anyio.to_thread.run_sync(service.log.ping)
    except LogUnavailable:
        reasons.append("the prediction log does not answer")
    body = {"status": "not-ready" if reasons else "ready", "models": models, "states": states}
    told = {name: said for name, said in (("reasons", reasons), ("warnings", warnings)) if said}
    return docs.json_response({**body, **told}, 503 if reasons else 200)
