"""Answers in time: within the caller's deadline, or 503 while the work ends and is logged.

Work that has begun is never broken off: a prediction half made is no prediction, and a second try
finds the stored one. What did not reach its caller is kept in the log: `late` where the deadline
had passed, `disconnected` where the caller had gone. That an answer was sent says nothing of
whether anybody saw it, and nothing here says so. Called by the hook route.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, cast

import structlog
from fastapi import Request, Response
from starlette.types import Message

from cds_service.db.log import PredictionLog
from cds_service.db.undelivered import undelivered_row
from cds_service.errors import OurFault, RequestRefused, TooLate, failure_of

How = Literal["late", "disconnected"]
events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.delivery")
ENDS_WITHIN_S = 20.0
"""How long a process that is told to stop waits for work whose caller was answered 503."""


class Answered(NamedTuple):
    """A response that is ready to be sent, and the prediction it is of."""

    response: Response
    prediction_id: str


class Delivery:
    """The answers of one process, with the work that outlived its call."""

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self._outlived: set[asyncio.Task[None]] = set()

    async def within(
        self, deadline_s: float, work: asyncio.Task[Answered], request: Request
    ) -> Response:
        """The response of the work; TooLate where it is not there after `deadline_s` seconds.

        Raises what the work raises.
        """
        clock = asyncio.get_running_loop().time
        due = clock() + deadline_s
        try:
            await asyncio.wait({work}, timeout=max(0.0, deadline_s))
        except asyncio.CancelledError:  # the server ends
            self._keep(work)
            raise
        if not work.done() or (work.exception() is None and clock() > due):
            self._keep(work)
            raise TooLate("the answer was not ready within this caller's deadline")
        answered = work.result()
        if _has_gone(request):
            self._note(answered.prediction_id, "disconnected")
        return answered.response

    async def close(self) -> None:
        """Wait for the work that outlived its call, so that its rows are written."""
        if self._outlived:
            await asyncio.wait(self._outlived, timeout=ENDS_WITHIN_S)

    def _keep(self, work: asyncio.Task[Answered]) -> None:
        """See to the end of work that nobody waits for any more."""
        task = asyncio.create_task(self._see_to_the_end(work))
        self._outlived.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Tell of an error in our own words: what nobody asks for, asyncio prints with its text."""
        self._outlived.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _report_failure(error)

    async def _see_to_the_end(self, work: asyncio.Task[Answered]) -> None:
        await asyncio.wait({work})
        error = work.exception()
        if error is not None:
            _report_failure(error)
            return
        answered = work.result()
        self._note(answered.prediction_id, "late")
        if answered.response.background is not None:
            await answered.response.background()

    def _note(self, prediction_id: str, how: How) -> None:
        events.log(logging.WARNING, "undelivered", prediction_id=prediction_id, how=how)
        self._log.commit(undelivered_row(prediction_id, how)).add_done_callback(_report_unwritten)


def _has_gone(request: Request) -> bool:
    """Whether the caller has hung up: what the server can say of it at once.

    One step of the question is taken and the rest let go; the framework's own `is_disconnected`
    asks the same through a cancelled scope, at ten times the cost.
    """
    asked = cast("Coroutine[Any, Any, Message]", request.receive())
    try:
        asked.send(None)
    except StopIteration as told:
        return bool(told.value["type"] == "http.disconnect")
    asked.close()
    return False


def _report_failure(error: BaseException) -> None:
    """One line on work that failed after its deadline: what it would have been answered, or where
    it was; not what it said, where nobody foresaw it.
    """
    if isinstance(error, RequestRefused | OurFault):
        events.log(logging.WARNING, "late", kind=type(error).__name__, status=error.status)
    else:
        events.log(logging.ERROR, "unforeseen", **failure_of(error)._asdict())


def _report_unwritten(written: Future[Any]) -> None:
    error = written.exception()
    if error is not None:
        events.log(logging.ERROR, "undelivered not logged", kind=type(error).__name__)
