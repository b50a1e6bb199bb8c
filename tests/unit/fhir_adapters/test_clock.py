"""FHIR's dates and times, whole or partial, with a zone or without."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.clock import (
    COPENHAGEN,
    OPEN,
    age_in_years,
    end_of,
    parse_time,
    to_datetime,
    to_iso,
)


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2026", "2025-12-31T23:00:00Z"),
        ("2026-07", "2026-06-30T22:00:00Z"),
        ("2026-11-21", "2026-11-20T23:00:00Z"),
        ("2026-11-21T08:00:00", "2026-11-21T07:00:00Z"),
        ("2026-07-21T08:00:00", "2026-07-21T06:00:00Z"),
        ("2026-11-21T08:00:00+01:00", "2026-11-21T07:00:00Z"),
        ("2026-11-21T08:00:00.123456-05:00", "2026-11-21T13:00:00Z"),
        ("2026-11-21T08:00:00Z", "2026-11-21T08:00:00Z"),
    ],
)
def test_the_first_moment_of_what_is_written(written: str, utc: str) -> None:
    """Without a zone it is Danish time, in summer two hours ahead of UTC, in winter one."""
    assert to_iso(parse_time(written)) == utc


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2026", "2026-12-31T22:59:59Z"),
        ("2026-02", "2026-02-28T22:59:59Z"),
        ("2026-12", "2026-12-31T22:59:59Z"),
        ("2028-02-29", "2028-02-29T22:59:59Z"),
        ("2026-11-21T08:00:00Z", "2026-11-21T08:00:00Z"),
    ],
)
def test_the_last_moment_of_what_is_written(written: str, utc: str) -> None:
    """A year, a month or a day lasts to its end."""
    assert to_iso(end_of(written)) == utc


@pytest.mark.parametrize(
    "written", ["", "yesterday", "2026-13", "2026-02-30", "21.11.2026", "2026-11-21T25:00", "20261"]
)
def test_what_is_no_time_is_refused(written: str) -> None:
    """ValueError, for the caller to name the resource."""
    with pytest.raises(ValueError, match=r"iso|month|day|hour|Invalid"):
        parse_time(written)


@pytest.mark.parametrize("written", ["0001-01-01", "1799-12-31", "9999-12-31", "9999"])
def test_the_years_that_mean_unknown_are_no_times(written: str) -> None:
    """Record systems write the first year for "unknown" and the last for "no end"."""
    with pytest.raises(ValueError, match="year"):
        parse_time(written)


def test_the_last_year_is_an_open_end() -> None:
    """A period to 9999 has not ended."""
    assert end_of("9999-12-31") == OPEN


@pytest.mark.parametrize(
    ("born", "at", "years"),
    [
        ("1950-03-01", "2026-02-28", 75),
        ("1950-03-01", "2026-03-01", 76),
        ("1952-02-29", "2026-02-28", 73),
        ("1952-02-29", "2026-03-01", 74),
        ("1950", "2026-01-01", 76),
        ("1950-03", "2026-03-01", 76),
    ],
)
def test_age_in_whole_years(born: str, at: str, years: int) -> None:
    """Counted on the birthday; those born on a leap day have theirs on 1 March."""
    assert age_in_years(born, parse_time(at)) == years


def test_a_birth_date_that_is_no_date_gives_no_age() -> None:
    """Missing, not zero."""
    assert age_in_years("unknown", parse_time("2026-01-01")) is None


@settings(deadline=None)
@given(st.integers(-2_208_988_800, 4_102_444_800))
def test_a_moment_is_the_same_in_every_zone(seconds: int) -> None:
    """Any second from 1900 to 2100, written in UTC or in Danish time, is read back the same."""
    assert parse_time(to_iso(seconds)) == float(seconds)
    assert parse_time(to_datetime(seconds, COPENHAGEN).isoformat()) == float(seconds)


@settings(deadline=None)
@given(st.dates())
def test_a_day_ends_after_it_begins(day: object) -> None:
    """And at most 25 hours later, in autumn."""
    text = str(day)
    if not "1800" <= text[:4] < "9999":
        return
    assert 23 * 3600 - 1 <= end_of(text) - parse_time(text) <= 25 * 3600
