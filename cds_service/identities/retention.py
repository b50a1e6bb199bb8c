"""How long predictions are kept: months per organisation, counted back from today, and the run.

Nothing is taken away unless somebody says after how long: in VARSEL_RETENTION, or on the command
line. Called by `varsel privacy retention`; the SQL is in `db/retention.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cds_service.db.erasure import GRANTED
from cds_service.db.log import PredictionLog
from cds_service.db.retention import BeginExpiry, Due, Expire, Expired, ExpireRest, due
from cds_service.errors import SetupError
from cds_service.identities.erasure import Asking

MOST_MONTHS = 1200


def read_retention(text: str) -> dict[str, int]:
    """Months by organisation, from `organisation=months` separated by spaces.

    Raises SetupError naming the part that is not so.
    """
    found: dict[str, int] = {}
    for part in text.split():
        organisation, _, months = part.rpartition("=")
        if not organisation or not months.isascii() or not months.isdigit():
            raise SetupError(f"VARSEL_RETENTION: {part} is not organisation=months")
        if organisation in found:
            raise SetupError(f"VARSEL_RETENTION: {organisation} twice")
        found[organisation] = int(months)
        if not 1 <= found[organisation] <= MOST_MONTHS:
            raise SetupError(f"VARSEL_RETENTION: {part}: 1 to {MOST_MONTHS} months")
    return found


def months_before(moment: datetime, months: int) -> datetime:
    """The same day and time so many months before; the month's last day where it has none such."""
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    first = moment.replace(year=year, month=month + 1, day=1)
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return first.replace(day=min(moment.day, last.day))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run of retention took away: predictions, and rows beside them by table."""

    decision: str | None
    predictions: int
    beside: Mapping[str, int]


def what_is_due(log: PredictionLog, organisation: str, before: datetime) -> Due:
    """How much of an organisation is older than a moment. Raises LogUnavailable."""
    return due(log.engine, Expired(organisation, before))


def take_what_is_due(
    log: PredictionLog, asking: Asking, before: datetime, *, planned: Due
) -> Taken:
    """Take away what is older than a moment, oldest first. One decision stands for all of it; where
    no prediction is due, there is none. Raises NotDurable.
    """
    expired = Expired(asking.organisation, before)
    decision = None
    if planned.predictions:
        decision = asking.decision(GRANTED)
        audit = asking.entry(
            "retention", None, before=before, predictions=planned.predictions, decision=decision.id
        )
        begin = BeginExpiry(decision, asking.organisation, planned.predictions, audit)
        log.commit(begin).result()
    else:
        log.audit(asking.entry("retention", None, before=before, predictions=0)).result()
    taken = (
        _take_predictions(log, expired, decision.id, most=planned.predictions) if decision else 0
    )
    beside = log.commit(ExpireRest(expired)).result()
    return Taken(decision.id if decision else None, taken, beside)


def _take_predictions(log: PredictionLog, expired: Expired, decision_id: str, *, most: int) -> int:
    """How many were taken; not more than is on record, what came since is for the next run."""
    taken, since = 0, None
    while True:
        write = Expire(expired, decision_id, since, most - taken)
        some, since = log.commit(write).result()
        if since is None:
            return taken
        taken += some
