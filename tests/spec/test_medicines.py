"""Chapter 5: what a patient takes."""

import pytest

from tests.spec.drawn import it

OPIOID = 'recipe = "any"\nof = ["opioid"]\nwindow = ["as_of - 120 d", "as_of"]'
DRUGS = 'recipe = "count_distinct"\nof = ["medication"]\nwindow = ["as_of - 120 d", "as_of"]'


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MedicationRequest | morphine | 2026-11-01 | active", 1.0),
        ("MedicationRequest | morphine | 2025-01-01 | active", 1.0),  # old, still running
        ("MedicationRequest | morphine | 2025-01-01 | stopped", 0.0),
        ("MedicationRequest | morphine | 2026-11-01 | stopped", 1.0),  # within the window
        ("MedicationRequest | morphine | 2025-01-01 | completed | until 2026-10-01", 1.0),
        ("MedicationRequest | morphine | 2026-11-01 | draft", 0.0),
        ("MedicationRequest | morphine | 2026-11-01 | cancelled", 0.0),
        ("MedicationRequest | morphine | 2026-11-01 | active | proposal", 0.0),
        ("MedicationRequest | morphine | 2026-11-01 | active | do not perform", 0.0),
        ("MedicationStatement | morphine | 2026-11-01 | active", 1.0),
        ("MedicationStatement | morphine | 2026-11-01 | not-taken", 0.0),
        ("MedicationStatement | morphine | 2026-06-01 .. 2026-06-10 | completed", 0.0),
        ("MedicationAdministration | morphine | 2026-11-20 08:00 | completed", 1.0),
        ("MedicationAdministration | morphine | 2026-11-20 08:00 | not-done", 0.0),
    ],
)
def test_what_is_taken_counts_and_what_is_not_does_not(line: str, answer: float) -> None:
    """By status, intent and the days it held, within 120 days."""
    assert it(line, OPIOID) == answer


def test_what_a_prescription_forbids_is_not_taken() -> None:
    """`doNotPerform` means: do not give."""
    table = "MedicationRequest | morphine | 2026-11-01 | active | do not perform"
    assert it(table, DRUGS) == 0.0


def test_a_drug_may_stand_in_another_resource() -> None:
    """Inside the prescription, or beside it: by id, by address, by the entry's urn:uuid."""
    inside = "MedicationRequest | #med | 2026-11-01 | active | contains morphine"
    beside = """
        Medication        | morphine      |            | id m1 | at urn:uuid:9c2f
        MedicationRequest | {reference}   | 2026-11-01 | active
    """
    assert it(inside, OPIOID) == 1.0
    for reference in ("Medication/m1", "https://ehr.example/fhir/Medication/m1", "urn:uuid:9c2f"):
        assert it(beside.format(reference=reference), OPIOID) == 1.0


def test_a_drug_that_is_nowhere_to_be_found_is_not_counted() -> None:
    """The reference leads nowhere: nobody knows what was prescribed."""
    assert it("MedicationRequest | Medication/gone | 2026-11-01 | active", OPIOID) == 0.0


@pytest.mark.parametrize(("said", "answer"), [("as needed", 1.0), ("", 0.0)])
def test_as_needed_can_be_asked_for(said: str, answer: float) -> None:
    """`where = ["as-needed"]` takes only what is taken when needed."""
    table = f"MedicationRequest | morphine | 2026-11-01 | active | {said}"
    assert it(table, OPIOID + '\nwhere = ["as-needed"]') == answer


def test_the_same_drug_from_two_sources_is_one() -> None:
    """Prescribed, listed and given: one drug; insulin is the second."""
    table = """
        MedicationRequest        | morphine | 2026-11-01 | active
        MedicationStatement      | morphine | 2026-11-02 | active
        MedicationAdministration | morphine | 2026-11-20 08:00
        MedicationRequest        | insulin  | 2026-11-01 | active
    """
    assert it(table, DRUGS) == 2.0


def test_new_drugs_are_those_begun_in_the_window() -> None:
    """`when = "start"`: morphine was begun during the stay, insulin long before."""
    table = """
        Encounter         | IMP      | 2026-11-18 12:00 .. | EM | in-progress
        MedicationRequest | morphine | 2026-11-19 | active
        MedicationRequest | insulin  | 2024-11-01 | active
    """
    new = DRUGS.replace("as_of - 120 d", "stay.start") + '\nwhen = "start"'
    assert it(table, new) == 1.0


def test_a_dose_is_a_number_and_its_change_another() -> None:
    """Furosemide was doubled from 40 to 80 mg."""
    table = """
        MedicationRequest | furosemide | 2026-08-01 | active | dose 40 mg
        MedicationRequest | furosemide | 2026-11-10 | active | dose 80 mg
    """
    assert it(table, 'recipe = "last"\nof = ["loop_diuretic"]') == 80.0
    assert it(table, 'recipe = "change"\nof = ["loop_diuretic"]') == 40.0


def test_drug_groups_are_found_by_the_beginning_of_the_code() -> None:
    """MC03CA01 is how SKS writes ATC C03CA01: a loop diuretic, and no opioid."""
    table = "MedicationRequest | MC03CA01 | 2026-11-01 | active"
    assert it(table, OPIOID.replace("opioid", "loop_diuretic")) == 1.0
    assert it(table, OPIOID) == 0.0
