"""Chapter 7: the same measurement sent twice is one measurement."""

import pytest

from tests.spec.drawn import it, value

COUNT_HB = 'recipe = "count"\nof = ["haemoglobin"]'
COUNT_SYSTOLIC = 'recipe = "count"\nof = ["sbp"]'


def test_one_sample_under_two_codes() -> None:
    """NPU in mmol/L and LOINC in g/dL, taken at the same moment."""
    table = """
        Observation | haemoglobin         | 2026-11-20 08:00 | 6.4 mmol/L
        Observation | haemoglobin (LOINC) | 2026-11-20 08:00 | 10.3 g/dL
    """
    assert it(table, COUNT_HB) == 1.0


def test_one_resource_with_two_codings() -> None:
    """Both codes in one Observation."""
    table = "Observation | haemoglobin + 718-7 | 2026-11-20 08:00 | 6.4 mmol/L"
    assert it(table, COUNT_HB) == 1.0


def test_a_blood_pressure_in_a_panel_and_alone() -> None:
    """The panel's systolic part and a systolic of its own, of the same moment."""
    table = """
        Observation | blood pressure | 2026-11-20 08:00 | part systolic 128 mm[Hg]
        Observation | systolic       | 2026-11-20 08:00 | 128 mm[Hg]
    """
    assert it(table, COUNT_SYSTOLIC) == 1.0
    assert it(table, 'recipe = "last"\nof = ["sbp"]') == 128.0


def test_a_panel_gives_both_its_parts() -> None:
    """Systolic and diastolic from one Observation."""
    table = """
        Observation | 85354-9 | 2026-11-20 | part systolic 128 mm[Hg] | part diastolic 74 mm[Hg]
    """
    assert it(table, 'recipe = "last"\nof = ["sbp"]') == 128.0
    assert it(table, 'recipe = "last"\nof = ["dbp"]') == 74.0


def test_a_derived_measurement_gives_way_to_its_original() -> None:
    """Sent as a fraction and, derived from it, as a percentage: the original is kept."""
    table = """
        Observation | saturation | 2026-11-20 08:00 | 0.94 1 | id original
        Observation | saturation | 2026-11-20 08:00 | 93 %   | derived from Observation/original
    """
    found = value(table, 'recipe = "last"\nof = ["spo2"]')
    assert (found.value, found.sources) == (94.0, ("Observation/original",))


def test_a_corrected_answer_takes_the_place_of_the_first() -> None:
    """The same sample answered twice: the later answer stands."""
    table = """
        Observation | CRP | 2026-11-20 08:00 | 400 mg/L | issued 2026-11-20 10:00
        Observation | CRP | 2026-11-20 08:00 | 40 mg/L  | issued 2026-11-20 12:00 | corrected
    """
    assert it(table, 'recipe = "last"\nof = ["crp"]') == 40.0


def test_two_measurements_of_a_day_are_two() -> None:
    """Different moments are different measurements."""
    table = """
        Observation | haemoglobin | 2026-11-20 08:00 | 6.4 mmol/L
        Observation | haemoglobin | 2026-11-20 14:00 | 6.4 mmol/L
    """
    assert it(table, COUNT_HB) == 2.0


@pytest.mark.parametrize("status", ["registered", "cancelled", "entered-in-error", "unknown"])
def test_what_is_no_result_does_not_count(status: str) -> None:
    """Only final, amended, corrected and preliminary results are used."""
    table = f"Observation | CRP | 2026-11-20 08:00 | 40 mg/L | {status}"
    assert it(table, 'recipe = "count"\nof = ["crp"]') == 0.0


def test_a_withdrawn_report_takes_its_results_with_it() -> None:
    """The report was entered in error, its results were not marked."""
    table = """
        Observation      | CRP               | 2026-11-20 08:00 | 40 mg/L | id result
        DiagnosticReport | Observation/result | 2026-11-20 10:00 | entered-in-error
    """
    assert it(table, 'recipe = "count"\nof = ["crp"]') == 0.0


def test_an_observation_without_a_value_is_no_measurement() -> None:
    """MedCom's test message has a final result without a number."""
    assert it("Observation | CRP | 2026-11-20 08:00 | final", 'recipe = "last"\nof = ["crp"]') == (
        "missing"
    )


def test_two_operations_of_a_day_are_two() -> None:
    """Different codes at the same time are different operations."""
    table = """
        Procedure | KJFB30 | 2026-11-20 08:00
        Procedure | KJGB10 | 2026-11-20 08:00
    """
    assert it(table, 'recipe = "count"\nof = ["colorectal_resection"]') == 2.0


@pytest.mark.parametrize("status", ["preparation", "not-done", "entered-in-error"])
def test_an_operation_that_did_not_take_place_does_not_count(status: str) -> None:
    """Planned, given up, or entered in error."""
    table = f"Procedure | KJFB30 | 2026-11-20 08:00 | {status}"
    assert it(table, 'recipe = "count"\nof = ["colorectal_resection"]') == 0.0
