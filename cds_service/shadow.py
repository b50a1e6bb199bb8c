"""The silent version of a model, computed beside the one in front and logged as its own row.

After the answer has left, or was due and came too late, or found nobody: the two are compared on
the same calls. One at a time, in a thread: it never delays the answer it stands beside, changes it
or fails it. An error is an event and a count; where too many wait, a call is left out of
the comparison, and that is an event too. Called by the hook route.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec
import structlog

from cds_service.assess import Asked, Assessment, Question, assess, log_row, require_answers
from cds_service.db.log import PredictionLog
from cds_service.errors import OurFault, RequestRefused
from cds_service.governance import Duty
from cds_service.identities.privacy import Privacy
from cds_service.protocol import HookCall, read_prefetch, require_patient
from fhir_adapters.decode import NOTHING_FETCHED, Fetched
from fhir_adapters.errors import FhirError

events: structlog.stdlib.BoundLogger = structlog.get_logger("varsel.shadow")
MOST_WAITING = 32
"""Calls that may wait for their shadow: each holds its request in memory."""


class Beside(NamedTuple):
    """What is kept of an answered call: the silent version, what was asked, and by whom; and what
    the FHIR server answered to queries of the version in front, by template.
    """

    duty: Duty
    call: HookCall
    question: Question
    asked: Asked
    fetched: Mapping[str, Fetched] = NOTHING_FETCHED


class Shadows:
    """The shadows of one process, with how many were logged, failed and left out."""

    def __init__(self, log: PredictionLog, privacy: Privacy) -> None:
        self._log = log
        self._privacy = privacy
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        self.logged = self.failed = self.left_out = 0

    async def compute(self, beside: Beside) -> None:
        """Compute and log the shadow of an answered call."""
        if self._waiting >= MOST_WAITING:
            self.left_out += 1
            _report("shadow left out", beside, number=self.left_out)
            return
        self._waiting += 1
        try:
            await self._compute(beside)
        finally:
            self._waiting -= 1

    async def _compute(self, beside: Beside) -> None:
        kept, foreseen = False, None
        try:
            async with self._turn:  # within, so that a stop while it waits is told of as well
                row = await anyio.to_thread.run_sync(shadow_row, beside, self._privacy)
                await asyncio.wrap_future(self._log.store(row))
            kept = True
        except (FhirError, RequestRefused, OurFault) as error:
            foreseen = error
        finally:
            self.logged += kept
            self.failed += not kept
            if not kept:  # what nobody foresaw is told here, and goes on to the one handler
                kind = type(foreseen or sys.exception()).__name__
                _report("shadow failed", beside, number=self.failed, kind=kind)


def shadow_row(beside: Beside, privacy: Privacy) -> dict[str, Any]:
    """The row of a silent version's answer to a call; nothing of it is shown.

    Raises what the hook route would raise, where the version needs what was not sent.
    """
    duty, call, asked = beside.duty, beside.call, beside.asked
    package = duty.package
    gathered = read_prefetch(call, package, beside.fetched)
    require_answers(package, gathered)
    require_patient(package, gathered, call.patient_id)
    question = dataclasses.replace(
        beside.question,
        prediction_id=prediction_id(privacy, asked, duty, mode="silent"),
        standing=duty.standing,
        hit_rates=duty.hit_rates,
        mode="silent",
        page_url=None,
    )
    assessment = assess(package, gathered, question)
    report_failure(assessment)
    unseen = msgspec.structs.replace(assessment.prediction, cards=[], returned="shadow")
    return log_row(dataclasses.replace(assessment, prediction=unseen), asked, privacy)


def report_failure(assessment: Assessment) -> None:
    """One line in the service's log where a model failed while scoring: which, and where.

    The type of the error and its place, not what it said: that may hold values of the record.
    """
    if assessment.failure:
        p = assessment.prediction
        events.log(
            logging.ERROR,
            "model failed",
            prediction_id=p.prediction_id,
            service=p.service,
            version=p.model.version,
            **assessment.failure._asdict(),
        )


def prediction_id(privacy: Privacy, asked: Asked, duty: Duty, *, mode: str) -> str:
    """The id of what a version says to a call in the state it stands in, live or silent.

    The same call on other data is another prediction, so that each has its own page and its own
    cards; the same on the same data has the same id.
    """
    return privacy.prediction_id(
        asked.organisation,
        duty.package.id,
        asked.hook,
        asked.hook_instance,
        asked.content_digest,
        duty.package.checksum,
        duty.standing.state,
        mode,
    )


def _report(event: str, beside: Beside, *, number: int, **said: str) -> None:
    """One line in the service's log: which version lacks its row, beside which prediction, and how
    many so far; nothing of the patient.
    """
    model = beside.duty.package.manifest
    events.log(
        logging.ERROR,
        event,
        service=model.id,
        version=model.version,
        beside=beside.question.prediction_id,
        so_far=number,
        **said,
    )
