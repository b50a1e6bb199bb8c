"""Every error a caller can get, with its HTTP status and the issue code of its OperationOutcome.

    RequestRefused            the caller's fault
    ├── BadRequest      400   a field is missing or wrong; `field` names it
    ├── NotAuthenticated 401  no caller of ours; bare, the reason stays in our log
    ├── NotAllowedHere  403   this installation does not do that
    ├── NotPermitted    403   none of the reader's roles may read that list
    ├── Restricted      403   nobody may read of that patient while a decision holds
    ├── UnknownService  404   no service in service, no prediction of that id
    ├── Erased          410   what it said of a patient was erased
    ├── NotAcceptable   406   none of the media types asked for is made here
    ├── AlreadyUsed     409   the hookInstance came before with another context
    ├── PreconditionFailed 412 required FHIR data were not sent; `field` names the key
    ├── TooSlow         408   the body did not arrive in time, or too slowly
    ├── TooLarge        413   more bytes or more resources than allowed
    ├── WrongMediaType  415   not JSON
    └── TooManyCalls    429   more calls a minute than one caller may make
    OurFault                  ours
    ├── SealBroken      500   a sealed text was changed, or sealed with another key
    ├── LogUnavailable  503   the prediction log cannot be read
    ├── StatesUnknown   503   which models are in service was not seen for too long
    ├── NotDurable      503   neither database nor spool took the prediction: no card is shown
    ├── TooBusy         503   as many calls as this process answers at once are being answered
    └── TooLate         503   the answer was not ready within the caller's deadline

`retry_after_s`, where there is one: the same call may be answered if it comes again after so many
seconds; it becomes Retry-After. docs/errors.md is this table for those who call (a test keeps the
two equal). `SetupError` stops a command or a start: a setting is missing or wrong (exit code 2).
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """The caller must change something. `field` is a FHIRPath-like path into the request.

    `for_log`: what our log says besides, and the answer does not.
    """

    status = 400
    issue_code = "invalid"
    for_log: Mapping[str, str] = {}
    retry_after_s: int | None = None

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BadRequest(RequestRefused):
    """A field is missing or wrong."""


class NotAuthenticated(RequestRefused):
    """Nobody we know."""

    status = 401
    issue_code = "login"

    def __init__(self, reason: str, **known: str) -> None:
        """The answer is the same for all: `reason` and what is known are for our log."""
        super().__init__("not authenticated")
        self.for_log = {"reason": reason, **known}


class NotAllowedHere(RequestRefused):
    """This installation does not offer that."""

    status = 403
    issue_code = "forbidden"


class NotPermitted(RequestRefused):
    """None of the reader's roles may read that; that it exists is no secret."""

    status = 403
    issue_code = "forbidden"


class Restricted(RequestRefused):
    """Nobody may read of that patient while a decision (GDPR art. 18) holds."""

    status = 403
    issue_code = "suppressed"


class NotAcceptable(RequestRefused):
    """None of the media types asked for is made here."""

    status = 406
    issue_code = "not-supported"


class UnknownService(RequestRefused):
    """There is nothing of that id."""

    status = 404
    issue_code = "not-found"


class Erased(RequestRefused):
    """What a prediction said was erased by decision; that it was made is still on record."""

    status = 410
    issue_code = "deleted"


class AlreadyUsed(RequestRefused):
    """The hookInstance was used before, with another context or too often with other data."""

    status = 409
    issue_code = "conflict"


class PreconditionFailed(RequestRefused):
    """Required data were not sent and cannot be fetched."""

    status = 412
    issue_code = "required"


class TooSlow(RequestRefused):
    """The body did not arrive in time."""

    status = 408
    issue_code = "timeout"
    retry_after_s = 1


class TooLarge(RequestRefused):
    """More than this service reads."""

    status = 413
    issue_code = "too-long"


class WrongMediaType(RequestRefused):
    """Not JSON."""

    status = 415
    issue_code = "not-supported"


class TooManyCalls(RequestRefused):
    """More calls than one caller may make. Never raised for what another caller did."""

    status = 429
    issue_code = "throttled"
    retry_after_s = 1


class OurFault(Exception):
    """The service cannot do its work."""

    status = 500
    issue_code = "exception"
    retry_after_s: int | None = None


class SealBroken(OurFault):
    """A sealed text was changed, or sealed with another key than VARSEL_SEAL_KEY."""


class LogUnavailable(OurFault):
    """The prediction log cannot be read."""

    status = 503
    issue_code = "transient"
    retry_after_s = 5


class StatesUnknown(OurFault):
    """Which models are in service was not seen for too long: one may have been withdrawn."""

    status = 503
    issue_code = "transient"
    retry_after_s = 5


class NotDurable(OurFault):
    """The prediction could not be committed; showing a card would break the log."""

    status = 503
    issue_code = "transient"
    retry_after_s = 5


class TooBusy(OurFault):
    """No call more can be answered at once."""

    status = 503
    issue_code = "throttled"
    retry_after_s = 1


class TooLate(OurFault):
    """The answer was not ready in time. What was computed is logged, and found by a second try."""

    status = 503
    issue_code = "timeout"
    retry_after_s = 1
