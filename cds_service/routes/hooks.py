"""The CDS Hooks routes: bytes in, cards out, in one straight line.

Caller, limits, request, package, features, score, row committed, answer. The pure part runs inline;
the commit is awaited, and no card leaves without it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from datetime import tzinfo
from functools import partial
from typing import Annotated, NamedTuple

import anyio.to_thread
import msgspec
import structlog
from fastapi import APIRouter, Path, Request, Response
from starlette.background import BackgroundTask

from cds_service import docs
from cds_service.assess import (
    Asked,
    Assessment,
    Question,
    assess,
    log_row,
    require_answers,
    without_what_is_known,
)
from cds_service.auth.callers import Caller
from cds_service.auth.door import Admitted
from cds_service.cards import heads_to_show
from cds_service.db.claims import Claim
from cds_service.db.store import Stored
from cds_service.delivery import Answered
from cds_service.epic import trigger_of, with_advice
from cds_service.errors import BadRequest, LogUnavailable, PreconditionFailed, UnknownService
from cds_service.gather import Gathering, gather
from cds_service.governance import OFFERED, Duty
from cds_service.limits import read_body
from cds_service.protocol import (
    EXTENSION_AS_OF,
    NO_NAMES,
    HookCall,
    decode_call,
    discovery,
    refused_input,
    require_patient,
)
from cds_service.ranked_cards import rankings_to_show
from cds_service.service import Service
from cds_service.shadow import Beside, prediction_id, report_failure
from cds_service.web import language_of, service_of
from fhir_adapters.clock import parse_time
from fhir_adapters.decode import Gathered
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import newest_time
from fhir_adapters.reading.cpr import cpr_of
from models.package import Package
from models.prediction import Prediction

router = APIRouter(tags=["CDS Hooks"])
events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.hooks")


@router.get("/cds-services", **docs.DISCOVERY)
async def discover(request: Request) -> Response:
    """The services offered, one entry per service and hook, with their prefetch templates."""
    service = service_of(request)
    caller = await service.door.admit_to_read(request)
    duties = service.watch.roster().duties.values()
    packages = [duty.package for duty in duties if duty.standing.state in OFFERED]
    language = language_of(request, caller.policy.language or service.settings.language)
    return docs.json_response(discovery(packages, language))


@router.post("/cds-services/{id}", **docs.HOOK)
async def call_hook(
    request: Request,
    service_id: Annotated[str, Path(alias="id", max_length=64, pattern=r"^[A-Za-z0-9._-]+$")],
) -> Response:
    """Answer a hook with cards. The prediction is committed before the answer is sent."""
    started = time.perf_counter()
    service = service_of(request)
    admitted = await service.door.admit(request)
    duty = _duty(service, service_id)
    async with service.turns.turn(admitted.caller.name) as turn:
        waited_s = time.perf_counter() - started
        body = await read_body(request, service.settings)
        # the deadline counts from here, and the wait for a turn; how long a body takes is its own
        counted_from = time.perf_counter() - waited_s
        work = asyncio.create_task(
            _respond(
                service, admitted, duty, request, body=body, since=Since(started, counted_from)
            )
        )
        turn.lasts_until(work)
        deadline_s = admitted.caller.policy.deadline_ms / 1000 - waited_s
        return await service.delivery.within(deadline_s, work, request)


class Since(NamedTuple):
    """When a call came, and from when its deadline counts, by `time.perf_counter`."""

    started: float
    counted_from: float


async def _respond(
    service: Service,
    admitted: Admitted,
    duty: Duty,
    request: Request,
    *,
    body: bytes,
    since: Since,
) -> Answered:
    """The response, once its prediction is committed. It runs to its end, whoever still waits."""
    answered = await _assessed(service, admitted, duty, request, body=body, since=since)
    stored = await asyncio.wrap_future(service.log.store(answered.row, answered.claim))
    _report(answered, admitted.caller, stored, since.started)
    after = None
    if answered.beside is not None and not stored.replayed:
        after = BackgroundTask(service.shadows.compute, answered.beside)
    response = Response(stored.response, media_type="application/json", background=after)
    return Answered(response, stored.prediction_id)


class _Answered(NamedTuple):
    """The prediction, its row, the claim of the token that asked for it, what a silent version
    beside it needs of the call, and what the user was doing, where Epic says it.
    """

    prediction: Prediction
    row: dict[str, object]
    claim: Claim | None
    beside: Beside | None
    trigger: str | None


async def _assessed(
    service: Service,
    admitted: Admitted,
    duty: Duty,
    request: Request,
    *,
    body: bytes,
    since: Since,
) -> _Answered:
    """The prediction and its row. What was read to make them is let go before the commit, unless
    a silent version has yet to read it.
    """
    package = duty.package
    claim = service.door.claim_of(admitted, body)
    async with service.door.claiming(claim):
        names = admitted.caller.prefetch_keys.get(package.id, NO_NAMES)
        call = decode_call(body, package.manifest.hooks, names=names)
        data = await gather(
            call,
            package,
            admitted.caller,
            client=service.fhir,
            size=service.settings.max_body_bytes,
            most=service.settings.max_resources,
            started=since.counted_from,
        )
        answer = _answer(
            service, admitted.caller, duty, call, request, data=data, started=since.started
        )
    trigger = trigger_of(call.extension)
    report_failure(answer.assessment)
    row = log_row(answer.assessment, answer.asked, service.privacy)
    beside = None
    if duty.shadow is not None and call.hook in duty.shadow.package.manifest.hooks:
        beside = Beside(duty.shadow, call, answer.question, answer.asked, data.fetched)
    if package.manifest.index.once and _brings_a_card(package, answer.assessment.prediction):
        shown = await _shown_before(service, package, row)
        if shown is not None:
            assessment = without_what_is_known(package, answer.assessment, shown, answer.question)
            row = log_row(assessment, answer.asked, service.privacy)
            return _Answered(assessment.prediction, row, claim, beside, trigger)
    return _Answered(answer.assessment.prediction, row, claim, beside, trigger)


async def _shown_before(service: Service, package: Package, row: dict[str, object]) -> str | None:
    """The document of the newest card of a risk or ranking shown before a row; None for none.

    None too, and an event, where the database does not say: to show a card twice is safer than to
    show none.
    """

    def showed(document: str) -> bool:
        return _brings_a_card(package, msgspec.json.decode(document, type=Prediction))

    backlog = service.log.backlogged()
    if backlog is None or not backlog.waiting:
        look = partial(service.log.last_shown, row, showed)
        with anyio.move_on_after(service.settings.commit_seconds / 2):
            try:
                return await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
            except LogUnavailable:
                pass
    said = {"prediction_id": row["prediction_id"], "service": package.id}
    events.log(logging.WARNING, "shown again", **said)
    return None


def _brings_a_card(package: Package, p: Prediction) -> bool:
    """Whether a risk or ranking is shown, or is known because it was; alarms alone do not count."""
    found = heads_to_show(package.manifest, p) or rankings_to_show(package.manifest, p)
    return p.mode == "live" and bool(found)


class _Answer(NamedTuple):
    """An assessment with what was asked, in our words and in the caller's."""

    assessment: Assessment
    question: Question
    asked: Asked


def _duty(service: Service, service_id: str) -> Duty:
    """Who answers for a service now."""
    roster = service.watch.roster()
    duty = roster.duties.get(service_id)
    if duty is not None:
        return duty
    if any(stand.version.model_id == service_id for stand in roster.stands):
        raise UnknownService(f"the service {service_id} is not in service here", field="id")
    raise UnknownService(f"no service is called {service_id}", field="id")


def _answer(
    service: Service,
    caller: Caller,
    duty: Duty,
    call: HookCall,
    request: Request,
    *,
    data: Gathering,
    started: float,
) -> _Answer:
    """The assessment of a call.

    `timings`, in milliseconds: reading and checking the request, decoding FHIR, fetching what
    was lacking where anything was, then the stages of `assess`, and all of it since `started`.
    """
    settings, package, standing = service.settings, duty.package, duty.standing
    mode = "silent" if standing.state == "silent" else settings.mode
    asked = _asked(service, caller, call, cpr=cpr_of(data.gathered, call.patient_id))
    this_id = prediction_id(service.privacy, asked, duty, mode=mode)
    now = time.time()
    gathered = data.gathered
    try:
        require_answers(package, gathered)
        require_patient(package, gathered, call.patient_id)
        question = Question(
            prediction_id=this_id,
            patient_id=call.patient_id,
            as_of=_as_of(call, gathered, service, now),
            now=now,
            language=language_of(request, caller.policy.language or settings.language),
            standing=standing,
            hit_rates=duty.hit_rates,
            mode=mode,
            zone=settings.zone,
            page_url=f"{settings.url}/explanations/{this_id}" if settings.is_demo else None,
            fhir_base=call.fhir_server,
            insufficient=caller.policy.insufficient,
        )
        decoded = time.perf_counter()
        assessment = assess(package, gathered, question)
    except UnreadableInput as error:
        raise refused_input(error) from None
    except PreconditionFailed as lacking:
        raise with_advice(lacking, call) from None
    assessment.timings = {
        "request": _milliseconds(started, data.began),
        "decode": _milliseconds(data.began + data.fetch_s, decoded),
        **({"fetch": _milliseconds(0, data.fetch_s)} if data.fetched else {}),
        **assessment.timings,
        "total": _milliseconds(started, time.perf_counter()),
    }
    return _Answer(assessment, question, asked)


def _asked(service: Service, caller: Caller, call: HookCall, *, cpr: str | None) -> Asked:
    """Who asks about whom, and the digests by which the same call is known when it comes again."""
    organisation = caller.organisation.encode()
    return Asked(
        organisation=caller.organisation,
        caller=caller.name,
        hook=call.hook,
        hook_instance=call.hook_instance,
        content_digest=service.privacy.digest(*call.content),
        context_digest=service.privacy.digest(organisation, *call.context_content),
        fhir_base=call.fhir_server,
        patient_id=call.patient_id,
        encounter_id=call.encounter_id,
        user_id=call.user_id,
        unit=caller.unit,
        cpr=cpr,
        purpose=caller.policy.purpose,
        legal_ground=caller.policy.legal_ground,
    )


def _milliseconds(start: float, end: float) -> float:
    return round(1000 * (end - start), 3)


def _as_of(call: HookCall, gathered: Gathered, service: Service, now: float) -> float:
    """Now; or, where replay is allowed, the moment the request's extension asks for."""
    wanted = call.extension.get(EXTENSION_AS_OF)
    if wanted is None:
        return now
    field = f"extension.{EXTENSION_AS_OF}"
    if not service.settings.is_demo:
        raise BadRequest("replay is not allowed here", field=field)
    if not isinstance(wanted, str):
        raise BadRequest("must be a dateTime or 'latest'", field=field)
    return moment_of(wanted, gathered, service.settings.zone, field)


def moment_of(wanted: str, gathered: Gathered, zone: tzinfo, field: str) -> float:
    """The moment a text means: `latest` for the newest clinical resource, or a FHIR dateTime."""
    if wanted == "latest":
        newest = newest_time(gathered, zone)
        if newest is None or not math.isfinite(newest):
            raise BadRequest("nothing in the input carries a time", field=field)
        return newest
    try:
        return parse_time(wanted, zone)
    except ValueError:
        raise BadRequest("must be a dateTime or 'latest'", field=field) from None


def _report(answered: _Answered, caller: Caller, stored: Stored, started: float) -> None:
    """One line in the service's log: ids, counts and times, nothing of the patient.

    Of a call that came before it says what was sent: what stood in the log, not what is said now.
    """
    p = answered.prediction
    sent = msgspec.json.decode(stored.response)["cards"] if stored.replayed else p.cards
    events.log(
        logging.INFO,
        "answered",
        prediction_id=stored.prediction_id,
        service=p.service,
        caller=caller.name,
        trigger=answered.trigger,
        status=stored.status,
        returned=stored.returned,
        cards=len(sent),
        troubles=len(p.troubles),
        replayed=stored.replayed,
        attempt=stored.attempt,
        ms=round(1000 * (time.perf_counter() - started), 1),
    )
