"""Chapter 8: units are understood or refused, not guessed; what cannot be true raises an alarm."""

import pytest

from tests.spec.drawn import it, row, value

HB = 'recipe = "last"\nof = ["haemoglobin"]'
SPO2 = 'recipe = "last"\nof = ["spo2"]'
POTASSIUM = 'recipe = "last"\nof = ["potassium"]'


@pytest.mark.parametrize(
    ("line", "feature", "answer"),
    [
        ("haemoglobin | 2026-11-20 08:00 | 6.4 mmol/L", HB, 6.4),
        ("haemoglobin | 2026-11-20 08:00 | 6.4 mmol/l", HB, 6.4),
        ('haemoglobin | 2026-11-20 08:00 | 6.4 "mmol/L"', HB, 6.4),  # unit as text only
        ("haemoglobin (LOINC) | 2026-11-20 08:00 | 10.0 g/dL", HB, 6.206),
        ("saturation | 2026-11-20 08:00 | 94 %", SPO2, 94.0),
        ("saturation | 2026-11-20 08:00 | 0.94 1", SPO2, 94.0),
        ("saturation | 2026-11-20 08:00 | 0.94", SPO2, 94.0),
        ("weight | 2026-11-20 08:00 | 176.37 [lb_av]", HB.replace("haemoglobin", "weight"), 80.0),
        (
            "temperature | 2026-11-20 08:00 | 100.4 [degF]",
            HB.replace("haemoglobin", "temperature"),
            38.0,
        ),
        ('pulse | 2026-11-20 08:00 | 72 "slag/min"', HB.replace("haemoglobin", "pulse"), 72.0),
    ],
)
def test_units_in_use_are_converted(line: str, feature: str, answer: float) -> None:
    """Danish and American units, as codes or as text."""
    assert it(f"Observation | {line}", feature) == pytest.approx(answer, abs=0.005)


@pytest.mark.parametrize("shown", ["8.0", "8.0 /min", '8.0 "enheder"'])
def test_a_unit_that_is_lacking_or_wrong_is_refused(shown: str) -> None:
    """A haemoglobin of 8.0 may be mmol/L or g/dL: nobody knows, so nobody guesses."""
    found = value(f"Observation | haemoglobin | 2026-11-20 08:00 | {shown}", HB)
    assert (found.value, found.status, found.original) == (None, "refused-unit", 8.0)


def test_a_refused_value_gives_way_to_an_earlier_good_one() -> None:
    """The newest that can be used is used."""
    table = """
        Observation | haemoglobin | 2026-11-19 08:00 | 6.4 mmol/L
        Observation | haemoglobin | 2026-11-20 08:00 | 8.0
    """
    assert it(table, HB) == 6.4


def test_an_implausible_value_leaves_the_model_and_raises_an_alarm() -> None:
    """A potassium of 9.2 may be true: check the measurement or the patient now."""
    table = "Observation | potassium | 2026-11-20 08:00 | 9.2 mmol/L"
    found = row(table, POTASSIUM)
    shown = found.values["it"]
    assert (shown.value, shown.status, shown.original) == (None, "implausible", 9.2)
    assert [(f.concept, f.value, f.unit) for f in found.implausible] == [
        ("potassium", 9.2, "mmol/L")
    ]


def test_the_alarm_stands_beside_an_earlier_good_value() -> None:
    """The model uses the 4.1 of yesterday; the 9.2 of today still raises the alarm."""
    table = """
        Observation | potassium | 2026-11-19 08:00 | 4.1 mmol/L
        Observation | potassium | 2026-11-20 08:00 | 9.2 mmol/L
    """
    found = row(table, POTASSIUM)
    assert found.values["it"].value == 4.1
    assert [fact.value for fact in found.implausible] == [9.2]


def test_an_implausible_value_that_was_measured_again_raises_nothing() -> None:
    """A newer plausible value answers the alarm."""
    table = """
        Observation | potassium | 2026-11-19 08:00 | 9.2 mmol/L
        Observation | potassium | 2026-11-20 08:00 | 4.1 mmol/L
    """
    found = row(table, POTASSIUM)
    assert found.values["it"].value == 4.1
    assert found.implausible == ()


def test_an_implausible_saturation_is_shown_as_it_stands() -> None:
    """48 % may be a cold finger or a dying patient."""
    found = row("Observation | saturation | 2026-11-20 08:00 | 48 %", SPO2)
    assert [fact.value for fact in found.implausible] == [48.0]


@pytest.mark.parametrize(("number", "status"), [("50", 50.0), ("49.9", "implausible")])
def test_the_limits_themselves_are_plausible(number: str, status: float | str) -> None:
    """Saturation 50 to 100 %."""
    assert it(f"Observation | saturation | 2026-11-20 08:00 | {number} %", SPO2) == status


def test_an_implausible_value_counts_in_no_statistic() -> None:
    """Neither in the lowest nor in the mean."""
    table = """
        Observation | potassium | 2026-11-18 08:00 | 4.0 mmol/L
        Observation | potassium | 2026-11-19 08:00 | 0.4 mmol/L
        Observation | potassium | 2026-11-20 08:00 | 5.0 mmol/L
    """
    assert it(table, POTASSIUM.replace("last", "min")) == 4.0
    assert it(table, POTASSIUM.replace("last", "mean")) == 4.5


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("code 449868002", 1.0),  # smokes daily
        ("code 8517006", 0.0),  # ex-smoker
        ("code 266919005", 0.0),  # never smoked
        ("true", 1.0),
        ("code 373067005", 0.0),  # no
        ("code 999999", "missing"),  # an answer nobody knows
    ],
)
def test_a_coded_answer_is_worth_what_the_table_says(said: str, answer: float | str) -> None:
    """Having stopped is not smoking."""
    table = f"Observation | smoking | 2026-11-20 08:00 | {said}"
    assert it(table, 'recipe = "last"\nof = ["smoking"]') == answer
