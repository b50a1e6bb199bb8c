"""Liveness, readiness, and the API documentation from local files."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio.to_thread
from fastapi import APIRouter, Request, Response

from cds_service import docs
from cds_service.db.backlog import Backlogged
from cds_service.db.partitions import warnings_of
from cds_service.db.patients import warnings_of_restrictions
from cds_service.errors import LogUnavailable, StatesUnknown
from cds_service.governance import OFFERED
from cds_service.service import Service
from cds_service.web import service_of

router = APIRouter(tags=["Operations"])


@router.get("/healthz", summary="Liveness")
async def liveness() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz", **docs.READINESS)
async def readiness(request: Request) -> Response:
    """Whether hooks can be answered: predictions can be made durable and a model is served; else
    why not.

    What keeps no hook from being answered is a warning; `degraded` where predictions go to the
    spool because the database is away.
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
    away = await _what_is_away(service)
    if away is None:
        today = datetime.now(UTC).date()
        engine, key = service.log.engine, service.privacy.pseudonym_key
        warnings += await anyio.to_thread.run_sync(warnings_of, engine, today)
        warnings += await anyio.to_thread.run_sync(warnings_of_restrictions, engine, key)
    elif away.fault:
        reasons.append(away.fault)
    else:
        warnings.append(_said(away))
    standing = "not-ready" if reasons else "ready" if away is None else "degraded"
    body = {"status": standing, "models": models, "states": states}
    told = {name: said for name, said in (("reasons", reasons), ("warnings", warnings)) if said}
    return docs.json_response({**body, **told}, 503 if reasons else 200)


async def _what_is_away(service: Service) -> Backlogged | None:
    """What waits in the spool, with what keeps more from being taken; None where the database
    answers and nothing waits. Asks the database only where nothing waits.
    """
    backlog = service.log.backlogged()
    if backlog is not None and (backlog.waiting or backlog.is_broken):
        return backlog
    with anyio.move_on_after(service.settings.commit_seconds):
        try:
            await anyio.to_thread.run_sync(service.log.ping, abandon_on_cancel=True)
        except LogUnavailable:
            pass
        else:
            return None
    return backlog or Backlogged(0, 0.0, "the prediction log does not answer")


def _said(away: Backlogged) -> str:
    if not away.waiting:
        return "the database does not answer; predictions go to the spool"
    since = f"since {away.age_s:.0f} s"
    return f"{away.waiting} writes wait in the spool for the database, the first {since}"
