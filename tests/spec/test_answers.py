"""Chapter 10: what patients answer in questionnaires, and the courses of care they are in."""

import pytest

from tests.spec.drawn import it

WORTH: dict[str, dict[str, float]] = {
    "symptom_dyspnoea": {"Slet ikke": 0, "Lidt": 1, "En del": 2, "Meget": 3}
}
LAST = 'recipe = "last"\nof = ["symptom_dyspnoea"]\nwindow = ["as_of - 14 d", "as_of"]'


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Slet ikke", 0.0),
        ("Meget", 3.0),
        ("2", 2.0),  # answered with a number
        ("Ved ikke", "missing"),  # an answer the package gives no worth
        ("Meget | in-progress", "missing"),
        ("Meget | entered-in-error", "missing"),
    ],
)
def test_an_answer_is_worth_what_the_package_says(said: str, answer: float | str) -> None:
    """More breathless? The package gives each answer its number."""
    table = f"QuestionnaireResponse | symptom_dyspnoea | 2026-11-20 08:00 | {said}"
    assert it(table, LAST, answers=WORTH) == answer


def test_worse_than_last_time() -> None:
    """From a little to much: two steps worse."""
    table = """
        QuestionnaireResponse | symptom_dyspnoea | 2026-11-13 08:00 | Lidt
        QuestionnaireResponse | symptom_dyspnoea | 2026-11-20 08:00 | Meget
    """
    assert it(table, LAST.replace("last", "change"), answers=WORTH) == 2.0


def test_a_question_nobody_asked_has_no_answer() -> None:
    """Another question's answer is not this one's."""
    table = "QuestionnaireResponse | symptom_cough | 2026-11-20 08:00 | Meget"
    assert it(table, LAST, answers=WORTH) == "missing"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("2026-06-01 .. | active", 1.0),
        ("2026-06-01 .. 2026-08-01 | finished", 0.0),  # over before the window
        ("2026-06-01 .. 2026-11-01 | finished", 1.0),
        ("2026-06-01 .. | cancelled", 0.0),
        ("2026-12-01 .. | active", 0.0),  # not begun yet
    ],
)
def test_whether_a_patient_is_in_a_course_of_care(line: str, answer: float) -> None:
    """Enrolled in telemedicine within the last eight weeks."""
    enrolled = 'recipe = "any"\nof = ["episode_of_care"]\nwindow = ["as_of - 8 w", "as_of"]'
    assert it(f"EpisodeOfCare | KOL | {line}", enrolled) == answer


def test_how_long_a_patient_has_been_enrolled() -> None:
    """Three weeks give a baseline to compare with."""
    table = "EpisodeOfCare | KOL | 2026-10-31 12:00 .. | active"
    assert it(table, 'recipe = "days_since_first"\nof = ["episode_of_care"]') == 21.0
