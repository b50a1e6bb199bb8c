"""The application: its routes, its life, and the one place where errors become answers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from cds_service import __version__, docs
from cds_service.auth.door import Door
from cds_service.auth.reader_door import ReaderDoor
from cds_service.db.partitions import warnings_of
from cds_service.db.patients import warnings_of_restrictions
from cds_service.delivery import Delivery
from cds_service.errors import NotAuthenticated, OurFault, RequestRefused, TooSlow, failure_of
from cds_service.evidence.settings_record import note_settings
from cds_service.headers import SecureHeaders, cross_origin
from cds_service.identities.privacy import Privacy
from cds_service.limits import Turns
from cds_service.outcome import operation_outcome
from cds_service.routes import explanations, feedback, health, hooks, predictions, records
from cds_service.service import Service, open_callers, open_readers, open_registry, open_serving_log
from cds_service.settings import Settings, check_fit_to_serve
from cds_service.shadow import Shadows
from cds_service.watch import Watch
from fhir_adapters.client.fetch import FhirClient
from models.registry import Registry
from models.versions import libraries

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel")
_STATIC = Path(__file__).with_name("static")
READS_AT_ONCE = 8
"""Calls of `/api` one process answers at once, exports among them."""
_HTTP_CODES = {404: "not-found", 405: "not-supported", 413: "too-long", 415: "not-supported"}


def create_app(settings: Settings, registry: Registry | None = None) -> FastAPI:
    """The application of some settings. Raises SetupError where they are not fit to serve.

    `registry`: packages already loaded; else they are loaded and admitted here.
    """
    check_fit_to_serve(settings)
    packages = registry or open_registry(settings)
    callers = open_callers(settings)
    issuers = open_readers(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with (
            open_serving_log(settings) as log,
            Watch(
                log.engine,
                packages,
                demo=settings.is_demo,
                stale_after_s=settings.states_seconds,
            ) as watch,
        ):
            for said in warnings_of(log.engine, datetime.now(UTC).date()):
                events.log(logging.WARNING, "partitions", message=said)
            privacy = Privacy(settings.keys)
            for said in warnings_of_restrictions(log.engine, privacy.pseudonym_key):
                events.log(logging.WARNING, "restrictions", message=said)
            libraries()  # looked up now, not by the first call
            note_settings(log, settings, [caller.name for caller in callers.listed])
            door = Door(callers, url=settings.url, log=log, privacy=privacy)
            delivery = Delivery(log)
            fhir = FhirClient()
            readers = ReaderDoor(issuers)
            app.state.service = Service(
                settings,
                packages,
                log,
                privacy,
                door,
                watch,
                Shadows(log, privacy),
                Turns(settings),
                delivery,
                fhir,
                readers,
                Turns(settings, at_once=READS_AT_ONCE),
            )
            yield
            await delivery.close()
            await door.close()
            await readers.close()
            await fhir.aclose()

    return bare_app(lifespan, settings.allowed_origins)


def bare_app(
    lifespan: Lifespan[FastAPI] | None = None, allowed_origins: tuple[str, ...] = ()
) -> FastAPI:
    """The application's routes and documentation; it answers hooks within its `lifespan` only."""
    app = FastAPI(
        title="Varsel",
        version=__version__,
        summary="Explained, logged clinical risk prognoses over CDS Hooks",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    for routes in (hooks, feedback, explanations, predictions, records, health):
        app.include_router(routes.router)
    _add_documentation(app)
    _add_error_handlers(app)
    if allowed_origins:
        app.add_middleware(cross_origin, allowed_origins)
    app.add_middleware(SecureHeaders)
    return app


def _add_documentation(app: FastAPI) -> None:
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(docs.openapi_document(app))
        return made

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    async def swagger() -> Response:
        return docs.documentation_page()


# ---- errors ---------------------------------------------------------------------------------


def _add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(OurFault, _our_fault)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(LastResort)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)  # noqa: S101 - what the handler is registered for
    events.log(logging.INFO, "refused", status=error.status, field=error.field, **error.for_log)
    body = operation_outcome(error.issue_code, str(error), error.field)
    response = docs.json_response(body, error.status)
    if isinstance(error, NotAuthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooSlow):
        response.headers["Connection"] = "close"  # the rest of the body is not waited for
    return _with_retry(response, error.retry_after_s)


async def _our_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, OurFault)  # noqa: S101 - what the handler is registered for
    events.log(logging.ERROR, "our fault", kind=type(error).__name__, message=str(error))
    response = docs.json_response(operation_outcome(error.issue_code, str(error)), error.status)
    return _with_retry(response, error.retry_after_s)


def _with_retry(response: Response, after_s: int | None) -> Response:
    """The response, saying after how many seconds the same call may be answered, if it may."""
    if after_s is not None:
        response.headers["Retry-After"] = str(after_s)
    return response


async def _wrong_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    return docs.json_response(operation_outcome("invalid", first["msg"], field or None), 400)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    code = _HTTP_CODES.get(error.status_code, "processing")
    response = docs.json_response(operation_outcome(code, str(error.detail)), error.status_code)
    response.headers.update(error.headers or {})
    return response


class LastResort:
    """The one handler of what nobody foresaw: 500, with a number to find it by in the log.

    Nothing is raised further, because the server would print the error's text, and that may hold
    what the patient's record held.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; 500 where it fails before its answer began."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            answer = _unforeseen(error)
            if not begun:
                await answer(scope, receive, send)


def _unforeseen(error: Exception) -> Response:
    """The answer to an error nobody foresaw; the log gets where it was, not what it said."""
    number = str(uuid.uuid4())
    failure = failure_of(error)
    events.log(logging.ERROR, "unforeseen", number=number, **failure._asdict())
    body = operation_outcome("exception", f"internal error {number}", severity="fatal")
    return docs.json_response(body, 500)
