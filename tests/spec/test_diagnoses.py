"""Chapter 4: which diagnoses count, and when they held."""

import pytest

from tests.spec.drawn import it

COPD = 'recipe = "any"\nof = ["copd"]\nwindow = ["as_of - 5 y", "as_of"]'


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("COPD | 2024-03-01 | active | confirmed", 1.0),
        ("COPD | 2024-03-01", 1.0),  # Danish hospitals often send neither
        ("COPD | 2024-03-01 | active | unconfirmed", 0.0),  # a referral's suspicion
        ("COPD | 2024-03-01 | active | provisional", 0.0),
        ("COPD | 2024-03-01 | active | refuted", 0.0),  # "not COPD"
        ("COPD | 2024-03-01 | entered-in-error", 0.0),
    ],
)
def test_only_what_is_held_to_be_true_counts(line: str, answer: float) -> None:
    """Suspicion, denial and slips of entry are no diagnoses."""
    assert it(f"Condition | {line}", COPD) == answer


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("2015-03-01 | active", 1.0),  # old, but still there
        ("2015-03-01 | resolved | until 2018-01-01", 0.0),  # over before the window
        ("2015-03-01 | resolved | until 2022-01-01", 1.0),  # over within it
        ("2015-03-01 | resolved", 0.0),  # over, nobody knows when: when last heard of
        ("2015-03-01 | resolved | recorded 2023-05-01", 1.0),
        ("2015-03-01 | category 723506003", 0.0),  # MedCom's way to say resolved
        (" | active", 1.0),  # undated, and still there
        (" | active | recorded 2024-01-01", 1.0),
    ],
)
def test_a_diagnosis_counts_while_it_holds(line: str, answer: float) -> None:
    """It holds from onset to abatement, and a window of five years asks whether they meet."""
    assert it(f"Condition | COPD | {line}", COPD) == answer


@pytest.mark.parametrize("code", ["DJ44", "DJ449", "DJ44.1", "DJ448A", "DJ441+TUL1", "13645005"])
def test_one_disease_however_it_is_coded(code: str) -> None:
    """SKS with and without dot, with Danish letters and add-on codes, and SNOMED CT."""
    assert it(f"Condition | {code} | 2024-03-01 | active", COPD) == 1.0


def test_a_neighbouring_code_is_another_disease() -> None:
    """DJ45 is asthma; ZJ44 is no diagnosis."""
    assert it("Condition | DJ459 | 2024-03-01 | active", COPD) == 0.0
    assert it("Condition | ZJ44 | 2024-03-01 | active", COPD) == 0.0


def test_any_of_several_codings_may_be_the_one_we_know() -> None:
    """A local code first, ICD-10 second."""
    assert it("Condition | LOCAL7 + DJ449 | 2024-03-01 | active", COPD) == 1.0


def test_an_event_counts_by_when_it_began() -> None:
    """`when = "start"`: an exacerbation of last year is not one of this, though still listed."""
    table = """
        Condition | DJ441 | 2025-03-01 | active
        Condition | DJ441 | 2026-03-01 | active
    """
    events = 'recipe = "count"\nof = ["copd_exacerbation"]\nwindow = ["as_of - 365 d", "as_of"]'
    assert it(table, events) == 2.0
    assert it(table, events + '\nwhen = "start"') == 1.0


def test_how_long_a_disease_has_been_known() -> None:
    """Heart failure was first recorded two years ago; an undated one cannot tell."""
    known = 'recipe = "days_since_first"\nof = ["heart_failure"]'
    table = """
        Condition | heart failure | 2024-11-21 | active
        Condition | heart failure | 2026-01-01 | active
    """
    assert it(table, known) == 730.5  # from the first moment of that day
    assert it("Condition | heart failure | | active", known) == "missing"


def test_days_since_an_undated_diagnosis_are_not_known() -> None:
    """An undated diagnosis did not happen infinitely long ago."""
    since = 'recipe = "days_since"\nof = ["copd"]\nnever = 9999'
    assert it("Condition | COPD | | active", since) == "missing"


def test_diagnoses_of_somebody_else_do_not_count() -> None:
    """A resource of another patient in the same Bundle is left out."""
    assert it("Condition | COPD | 2024-03-01 | active | of Patient/other", COPD) == 0.0
