"""FHIR's dates and times as seconds since 1970, and back.

A FHIR dateTime may be a year, a month, a day or an instant, with a zone or (against the standard,
but often seen) without one. Everything inside is a float of seconds, so that comparing is cheap.
A partial date counts from its first moment, in the site's zone; a time without a zone is read in
the site's zone too. Record systems write 0001-01-01 for "unknown" and 9999-12-31 for "no end":
the first is no time, the second is an open end.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TypeAlias
from zoneinfo import ZoneInfo

Seconds: TypeAlias = float
"""Seconds since 1970-01-01T00:00Z. `UNDATED` and `OPEN` stand for no start and no end."""

UNDATED: Seconds = -math.inf
OPEN: Seconds = math.inf
DAY_S = 86_400.0
HOUR_S = 3_600.0
_EPOCH = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - a day, in no zone
COPENHAGEN = ZoneInfo("Europe/Copenhagen")

FIRST_YEAR, NO_END_YEAR = 1800, 9999
"""Years before the first, and from the second on, are no times of a patient's life."""

_NO_END = str(NO_END_YEAR)
_DATE_CHARS = len("2026-11-21")
_PARTIAL = {4: "-01-01", 7: "-01"}  # length of what is there -> what completes it to a day


def parse_time(text: str, zone: tzinfo = COPENHAGEN) -> Seconds:
    """The first moment a FHIR date, dateTime or instant stands for.

    Raises ValueError for text that is none of these, or outside the years a patient can live in.
    """
    if len(text) < _DATE_CHARS:
        text += _PARTIAL.get(len(text), "")
    moment = datetime.fromisoformat(text)
    if not FIRST_YEAR <= moment.year < NO_END_YEAR:
        raise ValueError("not a year a patient can live in")
    offset = moment.utcoffset()
    if offset is None:
        return moment.replace(tzinfo=zone).timestamp()
    # what `timestamp` gives, at half its price: a record has thousands of times
    local_s = (moment.toordinal() - _EPOCH) * DAY_S + moment.hour * HOUR_S
    seconds = local_s + moment.minute * 60 + moment.second - offset.total_seconds()
    return (seconds * 1e6 + moment.microsecond) / 1e6 if moment.microsecond else seconds


def end_of(text: str, zone: tzinfo = COPENHAGEN) -> Seconds:
    """The last moment a FHIR date or dateTime stands for: the end of its year, month or day.

    `OPEN` for the year 9999, which means no end.
    """
    if text.startswith(_NO_END):
        return OPEN
    if "T" in text:
        return parse_time(text, zone)
    start = datetime.fromtimestamp(parse_time(text, zone), zone)
    if len(text) == len("2026"):
        start = start.replace(year=start.year + 1)
    elif len(text) == len("2026-11"):
        start = (start.replace(day=1) + timedelta(days=32)).replace(day=1)
    elif len(text) == len("2026-11-21"):
        start = start + timedelta(days=1)
    else:
        return start.timestamp()
    return start.timestamp() - 1.0


def to_datetime(moment: float, zone: tzinfo = COPENHAGEN) -> datetime:
    """The moment in a zone, for showing."""
    return datetime.fromtimestamp(moment, zone)


@lru_cache(maxsize=4096)
def to_iso(moment: float) -> str:
    """The moment as an ISO 8601 instant in UTC, to the second. Remembered: records repeat times."""
    return f"{datetime.fromtimestamp(moment // 1, UTC).isoformat()[:19]}Z"


def age_in_years(birth_date: str, at: float, zone: tzinfo = COPENHAGEN) -> float | None:
    """Whole years lived at a moment; None where the birth date is not a date.

    A birth date of a year or a month only counts from its first day.
    """
    try:
        born = datetime.fromtimestamp(parse_time(birth_date, zone), zone)
    except ValueError:
        return None
    now = datetime.fromtimestamp(at, zone)
    had_birthday = (now.month, now.day) >= (born.month, born.day)
    return float(now.year - born.year - (0 if had_birthday else 1))
