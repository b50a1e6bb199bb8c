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
from typing import Annotated, NamedTuple

import anyio.to_thread
import msgspec
import structlog
from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

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
from cds_service.callers import Caller
from cds_service.cards import heads_to_show
from cds_service.db.log import Stored
from cds_service.errors import BadRequest, TooLarge, UnknownService, WrongMediaType
from cds_service.governance import OFFERED, Duty
from cds_service.protocol import (
    EXTENSION_AS_OF,
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
from fhir_adapters.decode import Gathered, decode_prefetch
from fhir_adapters.errors import UnreadableInput
from fhir_adapters.facts import newest_time
from models.package import Package
from models.prediction import Prediction

router = APIRouter(tags=["CDS Hooks"])
events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.hooks")
JSON_TYPES = ("application/json", "application/fhir+json")

InService = Annotated[Service, Depends(service_of)]


@router.get("/cds-services", **docs.DISCOVERY)
async def discover(request: Request, service: InService) -> Response:
    """The services offered, one entry per service and hook, with their prefetch templates."""
    service.callers.recognise(request.headers.get("authorization"))
    duties = service.watch.roster().duties.values()
    packages = [duty.package for duty in duties if duty.standing.state in OFFERED]
    language = language_of(request, service.settings.language)
    return docs.json_response(discovery(packages, language))


@router.post("/cds-services/{id}", **docs.HOOK)
async def call_hook(
    request: Request,
    service: InService,
    service_id: Annotated[str, Path(alias="id", max_length=64, pattern=r"^[A-Za-z0-9._-]+$")],
) -> Response:
    """Answer a hook with cards. The prediction is committed before the answer is sent."""
    started = time.perf_counter()
    caller = service.callers.recognise(request.headers.get("authorization"))
    duty = _duty(service, service_id)
    answered = await _assessed(service, caller, duty, request, started=started)
    stored = await asyncio.wrap_future(service.log.store(answered.row))
    _report(answered.prediction, caller, stored, started)
    after = None
    if answered.beside is not None and not stored.replayed:
        after = BackgroundTask(service.shadows.compute, answered.beside)
    return Response(stored.response, media_type="application/json", background=after)


class _Answered(NamedTuple):
    """The prediction, its row, and what a silent version beside it needs of the call."""

    prediction: Prediction
    row: dict[str, object]
    beside: Beside | None


async def _assessed(
    service: Service, caller: Caller, duty: Duty, request: Request, *, started: float
) -> _Answered:
    """The prediction and its row. What was read to make them is let go before the commit, unless
    a silent version has yet to read it.
    """
    package = duty.package
    body = await _read_body(request, service.settings.max_body_bytes)
    call = decode_call(body, package.manifest.hooks)
    answer = _answer(service, caller, duty, call, request, started=started)
    report_failure(answer.assessment)
    row = log_row(answer.assessment, answer.asked, service.privacy)
    beside = None
    if duty.shadow is not None and call.hook in duty.shadow.package.manifest.hooks:
        beside = Beside(duty.shadow, call, answer.question, answer.asked)
    if package.manifest.index.once and _brings_a_card(package, answer.assessment.prediction):
        shown = await anyio.to_thread.run_sync(_shown_before, service, package, row)
        if shown is not None:
            assessment = without_what_is_known(package, answer.assessment, shown, answer.question)
            row = log_row(assessment, answer.asked, service.privacy)
            return _Answered(assessment.prediction, row, beside)
    return _Answered(answer.assessment.prediction, row, beside)


def _shown_before(service: Service, package: Package, row: dict[str, object]) -> str | None:
    """The document of the newest card of a risk or ranking shown before a row; None for none."""

    def showed(document: str) -> bool:
        return _brings_a_card(package, msgspec.json.decode(document, type=Prediction))

    return service.log.last_shown(row, showed)


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


async def _read_body(request: Request, limit: int) -> bytes:
    """The body, refused as soon as it is known to be too large or not JSON."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise WrongMediaType("the body must be application/json", field="Content-Type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongMediaType("the body must not be compressed", field="Content-Encoding")
    length = request.headers.get("content-length", "0")
    too_large = TooLarge(f"the body is larger than {limit} bytes", field="$")
    if length.isdecimal() and int(length) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise BadRequest("the body ended early", field="$") from None
    return b"".join(chunks)


def _answer(
    service: Service,
    caller: Caller,
    duty: Duty,
    call: HookCall,
    request: Request,
    *,
    started: float,
) -> _Answer:
    """The assessment of a call.

    `timings`, in milliseconds: reading and checking the request, decoding FHIR, then the
    stages of `assess`, and all of it since `started`.
    """
    settings, package, standing = service.settings, duty.package, duty.standing
    mode = "silent" if standing.state == "silent" else settings.mode
    this_id = prediction_id(service.privacy, caller.organisation, call, duty, mode=mode)
    now = time.time()
    decoding = time.perf_counter()
    try:
        gathered = decode_prefetch(call.prefetch, package.expected)
        require_answers(package, gathered)
        require_patient(package, gathered, call.patient_id)
        question = Question(
            prediction_id=this_id,
            patient_id=call.patient_id,
            as_of=_as_of(call, gathered, service, now),
            now=now,
            language=language_of(request, settings.language),
            standing=standing,
            hit_rates=duty.hit_rates,
            mode=mode,
            zone=settings.zone,
            page_url=f"{settings.url}/explanations/{this_id}" if settings.is_demo else None,
        )
        decoded = time.perf_counter()
        assessment = assess(package, gathered, question)
    except UnreadableInput as error:
        raise refused_input(error) from None
    assessment.timings = {
        "request": _milliseconds(started, decoding),
        "decode": _milliseconds(decoding, decoded),
        **assessment.timings,
        "total": _milliseconds(started, time.perf_counter()),
    }
    asked = Asked(
        organisation=caller.organisation,
        caller=caller.name,
        hook=call.hook,
        hook_instance=call.hook_instance,
        content_digest=service.privacy.digest(*call.content),
        fhir_base=call.fhir_server,
        patient_id=call.patient_id,
        encounter_id=call.encounter_id,
        user_id=call.user_id,
        unit=caller.unit,
    )
    return _Answer(assessment, question, asked)


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


def _report(p: Prediction, caller: Caller, stored: Stored, started: float) -> None:
    """One line in the service's log: ids, counts and times, nothing of the patient.

    Of a call that came before it says what was sent: what stood in the log, not what `p` says now.
    """
    sent = msgspec.json.decode(stored.response)["cards"] if stored.replayed else p.cards
    events.log(
        logging.INFO,
        "answered",
        prediction_id=p.prediction_id,
        service=p.service,
        caller=caller.name,
        status=stored.status,
        returned=stored.returned,
        cards=len(sent),
        troubles=len(p.troubles),
        replayed=stored.replayed,
        ms=round(1000 * (time.perf_counter() - started), 1),
    )
