"""Every error a caller can get, with its HTTP status and the issue code of its OperationOutcome.

    RequestRefused            the caller's fault
    ├── BadRequest      400   a field is missing or wrong; `field` names it
    ├── NotAuthenticated 401  no caller of ours; bare, the reason stays in our log
    ├── NotAllowedHere  403   this installation does not do that
    ├── UnknownService  404   no service in service, no prediction of that id
    ├── AlreadyUsed     409   the hookInstance came before with other content
    ├── PreconditionFailed 412 required FHIR data were not sent; `field` names the key
    ├── TooLarge        413   more bytes than allowed
    └── WrongMediaType  415   not JSON
    OurFault                  ours
    ├── SealBroken      500   a sealed text was changed, or sealed with another key
    ├── LogUnavailable  503   the prediction log cannot be read
    ├── StatesUnknown   503   which models are in service was not seen for too long
    └── NotDurable      503   the prediction could not be stored, so no card may be shown

`SetupError` stops a command or a start: a setting is missing or wrong (exit code 2).
"""

from __future__ import annotations

from typing import NamedTuple

MOST_PLACES = 8


class Failure(NamedTuple):
    """What is kept of an error nobody foresaw: its type and where it was, innermost last.

    Not what it said: that may hold what the patient's record held.
    """

    kind: str
    places: list[str]


def failure_of(error: BaseException) -> Failure:
    """The type of an error and the functions and lines it came through."""
    places = []
    trace = error.__traceback__
    while trace:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return Failure(type(error).__name__, places[-MOST_PLACES:])


class SetupError(Exception):
    """The installation is not fit to start; the message names every setting at fault."""


class RequestRefused(Exception):
    """The caller must change something. `field` is a FHIRPath-like path into the request."""

    status = 400
    issue_code = "invalid"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BadRequest(RequestRefused):
    """A field is missing or wrong."""


class NotAuthenticated(RequestRefused):
    """Nobody we know."""

    status = 401
    issue_code = "login"


class NotAllowedHere(RequestRefused):
    """This installation does not offer that."""

    status = 403
    issue_code = "forbidden"


class UnknownService(RequestRefused):
    """There is nothing of that id."""

    status = 404
    issue_code = "not-found"


class AlreadyUsed(RequestRefused):
    """The hookInstance was used before, with other content."""

    status = 409
    issue_code = "conflict"


class PreconditionFailed(RequestRefused):
    """Required data were not sent and cannot be fetched."""

    status = 412
    issue_code = "required"


class TooLarge(RequestRefused):
    """More than this service reads."""

    status = 413
    issue_code = "too-long"


class WrongMediaType(RequestRefused):
    """Not JSON."""

    status = 415
    issue_code = "not-supported"


class OurFault(Exception):
    """The service cannot do its work."""

    status = 500
    issue_code = "exception"


class SealBroken(OurFault):
    """A sealed text was changed, or sealed with another key than VARSEL_SEAL_KEY."""


class LogUnavailable(OurFault):
    """The prediction log cannot be read."""

    status = 503
    issue_code = "transient"


class StatesUnknown(OurFault):
    """Which models are in service was not seen for too long: one may have been withdrawn."""

    status = 503
    issue_code = "transient"


class NotDurable(OurFault):
    """The prediction could not be committed; showing a card would break the log."""

    status = 503
    issue_code = "transient"
