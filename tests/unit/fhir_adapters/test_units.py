"""Values arrive in the Danish unit, or are refused; nothing is guessed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fhir_adapters.units as units_module
from fhir_adapters.codes import LOINC, NPU, code_table
from fhir_adapters.units import Converted, fold_unit, to_concept_unit


def converted(
    value: float, unit: str | None, concept: str, own_unit: str | None = None
) -> Converted:
    return to_concept_unit(value, unit, code_table().concept(concept), own_unit)


def refused(value: float, unit: str | None, concept: str, own_unit: str | None = None) -> bool:
    answer = converted(value, unit, concept, own_unit)
    assert (answer.value is None) == (answer.status == "refused-unit") == bool(answer.reason)
    return answer.value is None


# Known pairs. Factors as laboratory guides print them (0.6206, 88.42, 0.1665, 17.1, ...), mass,
# length and temperature by definition.
@pytest.mark.parametrize(
    ("concept", "value", "unit", "danish"),
    [
        ("haemoglobin", 13.0, "g/dL", 13.0 * 0.6206),
        ("haemoglobin", 120.0, "g/L", 7.45),  # WHO's limit of anaemia in women
        ("creatinine", 1.0, "mg/dL", 88.42),
        ("creatinine", 0.09, "mmol/L", 90.0),
        ("urea", 30.0, "mg/dL", 30.0 * 0.1665),
        ("glucose", 100.0, "mg/dL", 5.55),
        ("bilirubin", 1.2, "mg/dL", 1.2 * 17.1),
        ("albumin", 3.8, "g/dL", 38.0),
        ("albumin", 600.0, "umol/L", 39.9),
        ("crp", 1.2, "mg/dL", 12.0),
        ("crp", 100.0, "nmol/L", 10.5),
        ("lactate", 18.0, "mg/dL", 2.0),
        ("sodium", 138.0, "mEq/L", 138.0),
        ("potassium", 4.1, "meq/L", 4.1),
        ("leukocytes", 7.2, "10*3/uL", 7.2),
        ("leukocytes", 7200.0, "/uL", 7.2),
        ("platelets", 250.0, "10^9/L", 250.0),
        ("nt_probnp", 125.0, "pg/mL", 125.0),
        ("nt_probnp", 100.0, "pmol/L", 845.7),
        ("weight", 180.0, "[lb_av]", 81.6466),
        ("weight", 2800.0, "[oz_av]", 79.3787),
        ("weight", 74000.0, "g", 74.0),
        ("height", 1.78, "m", 178.0),
        ("height", 70.0, "[in_i]", 177.8),
        ("temperature", 98.6, "[degF]", 37.0),
        ("temperature", 104.0, "°F", 40.0),
        ("temperature", 310.15, "K", 37.0),
        ("sbp", 16.0, "kPa", 120.01),
        ("egfr", 54.0, "mL/min", 54.0),  # as Synthea and others send the normalised clearance
        ("alcohol", 2.0, "{drinks}/d", 14.0),
        ("lvef", 0.35, "1", 35.0),
        ("supplemental_oxygen", 2000.0, "mL/min", 2.0),
    ],
)
def test_known_conversions(concept: str, value: float, unit: str, danish: float) -> None:
    assert converted(value, unit, concept).value == pytest.approx(danish, rel=1e-3)


# NGSP.org's conversion table, IFCC mmol/mol (whole numbers) against NGSP %.
@pytest.mark.parametrize(
    ("percent", "mmol_mol"), [(5, 31), (6, 42), (6.5, 48), (7, 53), (8, 64), (10, 86)]
)
def test_hba1c_in_percent_becomes_mmol_per_mol(percent: float, mmol_mol: int) -> None:
    value = converted(percent, "%", "hba1c").value
    assert value is not None
    assert round(value) == mmol_mol
    assert converted(48.0, "mmol/mol", "hba1c").value == 48.0


def test_urea_nitrogen_is_told_from_urea_by_its_code() -> None:
    """14 mg/dL of BUN (LOINC 3094-0) is 5 mmol/L; 30 mg/dL of urea is 5 mmol/L as well."""
    bun = code_table().concepts_of(LOINC, "3094-0")[0].own_unit
    urea = code_table().concepts_of(NPU, "NPU01459")[0].own_unit
    assert converted(14.0, "mg/dL", "urea", bun).value == pytest.approx(14 * 0.357, rel=1e-3)
    assert converted(30.0, "mg/dL", "urea", urea).value == pytest.approx(30 * 0.1665, rel=1e-3)
    assert converted(5.0, "mmol/L", "urea", bun).value == 5.0


@pytest.mark.parametrize(
    ("concept", "spelled"),
    [
        ("sbp", ["mm[Hg]", "mmHg", "mm Hg", "MMHG"]),
        ("pulse", ["/min", "1/min", "×1/min", "× 1/min", "bpm", "{beats}/min", "beats/min",
                   "slag/min", "slag/minut", "min-1"]),
        ("temperature", ["Cel", "°C", "C", "grader celcius", "℃"]),
        ("leukocytes", ["10*9/L", "10^9/L", "×10^9/l", "x10^9/L", "10⁹/L", "10e9/L", "10*9/l",
                        "10*3/uL", "10^3/µL", "10*6/mL"]),
        ("sodium", ["mmol/L", "mmol/l", "mEq/L", "meq/L", "mmol/L{serum}"]),
        ("creatinine", ["umol/L", "µmol/L", "\u03bcmol/L", "mikromol/L", "micromol/L", "µmol/l"]),
        ("nt_probnp", ["ng/L", "nanog/L", "pg/mL"]),
        ("inr", ["1", "{INR}", "INR", "", None, "Ingen"]),
        ("tobs", ["{score}", "1", "score", "points", None]),
        ("spo2", ["%", "procent", "percent"]),
        ("egfr", ["mL/min/{1.73_m2}", "mL/min/1.73m2", "mL/min/1,73 m²", "ml/min/1.73 m2"]),
        ("bmi", ["kg/m2", "kg/m^2", "kg/m²"]),
        ("weight", ["kg"]),
        ("crp", ["mg/L", "mcg/mL", "mikrog/mL"]),
    ],
)  # fmt: skip
def test_every_spelling_seen_means_the_same(concept: str, spelled: list[str | None]) -> None:
    assert [converted(60.0, unit, concept).value for unit in spelled] == [60.0] * len(spelled)


# The rule of Danish senders (FUT sends percent under a fraction's code, dk-core fractions).
@pytest.mark.parametrize(
    ("value", "unit", "percent"),
    [
        (97.0, "%", 97.0),
        (0.97, "1", 97.0),
        (0.97, "{fraction}", 97.0),
        (0.97, None, 97.0),
        (0.97, "", 97.0),
        (97.0, None, 97.0),
        (0.97, "%", 0.97),  # said to be percent: implausible, and shown to a human as it stands
        (97.0, "1", None),  # unit and number contradict each other
        (1.6, "1", None),
        (1.2, None, None),
        (30.0, None, 30.0),  # no fraction; implausible, and shown to a human
    ],
)
@pytest.mark.parametrize("own_unit", ["1", "%"])
def test_saturation_is_understood_as_percent_and_as_fraction(
    value: float, unit: str | None, percent: float | None, own_unit: str
) -> None:
    assert converted(value, unit, "spo2", own_unit).value == percent


@pytest.mark.parametrize(
    ("concept", "value"),
    [
        ("sodium", 138.0),
        ("potassium", 4.1),
        ("creatinine", 90.0),  # as mg/dL it would be 7956 umol/L
        ("albumin", 38.0),
        ("leukocytes", 7.2),
        ("platelets", 250.0),
        ("hba1c", 48.0),
        ("glucose", 6.1),
        ("temperature", 37.0),
        ("height", 178.0),
        ("pulse", 72.0),
        ("sbp", 120.0),
        ("egfr", 60.0),
    ],
)
def test_a_missing_unit_is_supplied_where_only_one_can_be_meant(concept: str, value: float) -> None:
    assert converted(value, None, concept) == Converted(value)


@pytest.mark.parametrize(
    ("concept", "value", "why"),
    [
        ("haemoglobin", 8.0, "mmol/L, or g/dL of an anaemic patient"),
        ("haemoglobin", 13.0, "mmol/L or g/dL"),
        ("haemoglobin", 130.0, "g/L, but that is a guess"),
        ("creatinine", 18.0, "umol/L or mg/dL"),
        ("creatinine", 1.0, "mg/dL, but that is a guess"),
        ("urea", 5.0, "mmol/L or mg/dL"),
        ("crp", 12.0, "mg/L or mg/dL"),
        ("bilirubin", 12.0, "umol/L or mg/dL"),
        ("nt_probnp", 500.0, "ng/L or pmol/L"),
        ("temperature", 98.6, "Fahrenheit, but that is a guess"),
        ("height", 1.78, "metres, but that is a guess"),
        ("weight", 80.0, "kilograms or pounds"),
        ("leukocytes", 7200.0, "per microlitre, but that is a guess"),
        ("hba1c", 6.5, "percent, but that is a guess"),
        ("alcohol", 10.0, "a week or a day"),
    ],
)
def test_a_missing_unit_that_could_be_several_is_refused(
    concept: str, value: float, why: str
) -> None:
    assert refused(value, None, concept), why


def test_the_unit_a_code_implies_does_not_stand_in_for_a_missing_one() -> None:
    """No rule makes a sender keep to it: NPU saturation is a fraction and sent as percent."""
    assert refused(8.0, None, "haemoglobin", "mmol/L")


@pytest.mark.parametrize(
    ("concept", "unit"),
    [
        ("haemoglobin", "%"),
        ("haemoglobin", "mmol"),
        ("sodium", "mg/dL"),
        ("creatinine", "meq/L"),
        ("weight", "cm"),
        ("height", "kg"),
        ("pulse", "mm[Hg]"),
        ("sbp", "/min"),
        ("spo2", "mm[Hg]"),
        ("spo2", "mmol/mol"),
        ("hba1c", "1"),
        ("inr", "%"),
        ("inr", "s"),
        ("tobs", "%"),
        ("temperature", "1"),
        ("leukocytes", "%"),
        ("egfr", "mL"),
        ("bp_panel", "mm[Hg]"),
        ("copd", "1"),
    ],
)
def test_a_unit_of_another_kind_is_refused(concept: str, unit: str) -> None:
    assert refused(50.0, unit, concept)


@pytest.mark.parametrize(
    "unit",
    ["furlong", "mmol//L", "mmol/", "/", ".", "10*/L", "10*999/L", "mmol/L?", "(mmol)/L", "0/L",
     "mmol/L/L", "kg" * 21, "Ω", "-", "mol9/L"],
)  # fmt: skip
def test_a_unit_nobody_knows_is_refused(unit: str) -> None:
    assert refused(5.0, unit, "sodium")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    assert refused(value, "mmol/L", "sodium")


def test_implausible_values_pass_for_the_caller_to_judge() -> None:
    """A saturation of 48 % or a potassium of 9.2 may be true, and a human is to see it."""
    assert converted(48.0, "%", "spo2").value == 48.0
    assert converted(9.2, "mmol/L", "potassium").value == 9.2
    assert converted(300.0, None, "pulse").value == 300.0


CONCEPTS = sorted(
    name for name in code_table().names() if code_table().concept(name).unit is not None
)
AMOUNT = ["haemoglobin", "creatinine", "urea", "glucose", "bilirubin", "lactate"]
FINITE = st.floats(min_value=-1e6, max_value=1e6)


@given(st.sampled_from(CONCEPTS), FINITE)
def test_a_value_in_the_concepts_own_unit_stays_as_it_is(name: str, value: float) -> None:
    concept = code_table().concept(name)
    assert to_concept_unit(value, concept.unit, concept, None).value == value


@given(st.sampled_from(AMOUNT), st.floats(min_value=0.01, max_value=1e4))
def test_mass_units_agree_among_each_other(name: str, value: float) -> None:
    """x g/dL, 10 x g/L and 1000 x mg/dL are one measurement."""
    values = [
        converted(value, "g/dL", name).value,
        converted(value * 10, "g/L", name).value,
        converted(value * 1000, "mg/dL", name).value,
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-9)


@given(st.sampled_from(CONCEPTS), st.floats(min_value=0.001, max_value=1000))
def test_conversion_keeps_the_order_of_values(name: str, value: float) -> None:
    concept = code_table().concept(name)
    for unit in concept.other_units:
        less, more = (to_concept_unit(v, unit, concept, None).value for v in (value, value * 1.001))
        assert (less is None or more is None) or less < more


@given(st.floats(min_value=30, max_value=43))
def test_fahrenheit_and_back(celsius: float) -> None:
    assert converted(celsius * 1.8 + 32, "[degF]", "temperature").value == pytest.approx(celsius)


@given(st.sampled_from(CONCEPTS), FINITE, st.text(max_size=45))
def test_no_unit_text_can_break_the_conversion(name: str, value: float, unit: str) -> None:
    answer = converted(value, unit, name)
    assert answer.status == ("refused-unit" if answer.value is None else "ok")


@given(st.text(alphabet="10*^/.{}[]eE+-mgLuld%µ×²", max_size=40))
def test_a_strange_unit_is_never_taken_for_a_temperature(unit: str) -> None:
    assert refused(5.0, unit, "temperature") or fold_unit(unit) in ("", "Cel", "[degF]", "K")


def test_spellings_that_do_not_exist_do_not_fill_the_memory() -> None:
    for number in range(10_000):
        converted(1.0, f"x{number}", "sodium")
    assert len(units_module._rules) <= units_module.MEMO_LIMIT
