"""Chapter 13: findings close in time are one set, and a question can be asked of the newest."""

import pytest

from fhir_adapters.sets import SetRule
from tests.spec.drawn import moment, row

HOME = SetRule(("spo2", "pulse"), gap_hours=12)
PULSE = 'recipe = "last"\nof = ["pulse"]'


def set_time(table: str, as_of: str) -> float | None:
    return row(table, PULSE, as_of=as_of, set_rule=HOME).set_time


def test_measurements_at_most_twelve_hours_apart_are_one_set() -> None:
    """Saturation at 8, pulse at 19: the set is whole at 19."""
    table = """
        Observation | saturation | 2026-11-20 08:00 | 93 %
        Observation | pulse      | 2026-11-20 19:00 | 80 /min
    """
    assert set_time(table, "2026-11-21 12:00") == moment("2026-11-20 19:00")


@pytest.mark.parametrize(
    ("as_of", "found"),
    [
        ("2026-11-20 08:00", "2026-11-20 08:00"),  # just measured
        ("2026-11-28 08:00", "2026-11-20 08:00"),  # eight days later
        ("2026-11-28 08:01", None),  # and a minute
        ("2026-11-20 07:59", "2026-11-13 08:00"),  # the set before
        ("2026-11-13 07:59", None),  # before any
    ],
)
def test_the_question_is_asked_of_the_newest_set_not_too_old(as_of: str, found: str | None) -> None:
    """Sets of the 13th and the 20th, good for eight days."""
    table = """
        Observation | saturation | 2026-11-13 08:00 | 93 %
        Observation | saturation | 2026-11-20 08:00 | 92 %
    """
    assert set_time(table, as_of) == (moment(found) if found else None)


def test_what_was_known_later_completes_the_set_later() -> None:
    """Measured at 8, sent at 14."""
    table = "Observation | saturation | 2026-11-20 08:00 | 93 % | issued 2026-11-20 14:00"
    assert set_time(table, "2026-11-20 13:00") is None
    assert set_time(table, "2026-11-20 14:00") == moment("2026-11-20 14:00")


def test_a_measurement_that_cannot_be_right_is_a_measurement_all_the_same() -> None:
    """A saturation of 12: somebody measured, and the safety rules must look."""
    table = "Observation | saturation | 2026-11-20 08:00 | 12 %"
    assert set_time(table, "2026-11-21 12:00") == moment("2026-11-20 08:00")
