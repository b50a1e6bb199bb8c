"""Chapter 9: features made from other features."""

import pytest

from fhir_adapters import charlson
from tests.spec.drawn import it, value

SODIUM = '[sodium]\nrecipe = "last"\nof = ["sodium"]\n'


def sodium(number: float) -> str:
    return f"Observation | sodium | 2026-11-20 08:00 | {number} mmol/L"


@pytest.mark.parametrize(
    ("feature", "low", "right", "high"),
    [
        ('recipe = "shortfall"\nlimit = 135', 7.0, 0.0, 0.0),
        ('recipe = "excess"\nlimit = 145', 0.0, 0.0, 5.0),
        ('recipe = "outside"\nlow = 135\nhigh = 145', 7.0, 0.0, 5.0),
        ('recipe = "outside"\nhigh = 145', 0.0, 0.0, 5.0),
        ('recipe = "below"\nlimit = 135', 1.0, 0.0, 0.0),
        ('recipe = "at_least"\nlimit = 135', 0.0, 1.0, 1.0),
    ],
)
def test_limits(feature: str, low: float, right: float, high: float) -> None:
    """Sodium 128, 135 and 150: how far beyond a limit, or whether."""
    of = f'{SODIUM}[it]\nfrom = ["sodium"]\n{feature}'
    assert [it(sodium(number), of) for number in (128, 135, 150)] == [low, right, high]


PRESSURES = """
    [systolic]
    recipe = "last"
    of = ["sbp"]
    [diastolic]
    recipe = "last"
    of = ["dbp"]
"""


@pytest.mark.parametrize(
    ("recipe", "answer"), [("difference", 48.0), ("ratio", 1.6), ("product", 10240.0)]
)
def test_arithmetic(recipe: str, answer: float) -> None:
    """128 over 80."""
    table = """
        Observation | systolic  | 2026-11-20 08:00 | 128 mm[Hg]
        Observation | diastolic | 2026-11-20 08:00 | 80 mm[Hg]
    """
    feature = f'{PRESSURES}[it]\nrecipe = "{recipe}"\nfrom = ["systolic", "diastolic"]'
    assert it(table, feature) == answer


def test_a_value_is_scaled_into_the_unit_a_model_was_trained_in() -> None:
    """168 umol/L of creatinine are 1.9 mg/dL (113.12 g/mol); 37 degrees Celsius are 98.6 F."""
    table = """
        Observation | creatinine  | 2026-11-20 08:00 | 168 umol/L
        Observation | temperature | 2026-11-20 08:00 | 37 Cel
    """
    creatinine = """
        [creatinine]
        recipe = "last"
        of = ["creatinine"]
        [it]
        recipe = "scaled"
        from = ["creatinine"]
        factor = 0.011312
    """
    temperature = """
        [temperature]
        recipe = "last"
        of = ["temperature"]
        [it]
        recipe = "scaled"
        from = ["temperature"]
        factor = 1.8
        offset = 32
    """
    assert it(table, creatinine) == pytest.approx(1.900416)
    assert it(table, temperature) == pytest.approx(98.6)


def test_one_missing_part_makes_the_whole_missing_and_says_why() -> None:
    """No diastolic: no pulse pressure, for the same reason."""
    feature = f'{PRESSURES}[it]\nrecipe = "difference"\nfrom = ["systolic", "diastolic"]'
    found = value("Observation | systolic | 2026-11-20 08:00 | 128 mm[Hg]", feature)
    assert (found.value, found.status, found.reason) == (None, "missing", "diastolic")


def test_what_is_made_from_the_implausible_is_implausible() -> None:
    """A systolic of 300 leaves the pulse pressure out too."""
    table = """
        Observation | systolic  | 2026-11-20 08:00 | 300 mm[Hg]
        Observation | diastolic | 2026-11-20 08:00 | 80 mm[Hg]
    """
    feature = f'{PRESSURES}[it]\nrecipe = "difference"\nfrom = ["systolic", "diastolic"]'
    assert it(table, feature) == "implausible"


def test_what_is_made_from_the_stale_is_stale() -> None:
    """Yesterday's sodium makes yesterday's deficit."""
    old = (
        SODIUM + 'stale_after = "12 h"\n[it]\nfrom = ["sodium"]\nrecipe = "shortfall"\nlimit = 135'
    )
    found = value(sodium(128), old)
    assert (found.value, found.status) == (7.0, "stale")


EGFR = """
    [creatinine]
    recipe = "last"
    of = ["creatinine"]
    [age]
    recipe = "patient"
    attribute = "age"
    [male]
    recipe = "patient"
    attribute = "male"
    [it]
    recipe = "formula"
    formula = "ckd_epi_2021"
    from = ["creatinine", "age", "male"]
"""


@pytest.mark.parametrize(
    ("born", "gender", "mg_dl", "egfr", "rounding"),
    [
        # kidney.org eGFR calculator, as quoted in public code
        ("1971-01-01", "male", 1.2, 71, 0.5),
        # JMLuther/tabletools, calculate_egfr_ckdepi (CKD-EPI 2021)
        ("1956-01-01", "male", 0.8, 95.2, 0.06),
        ("1956-01-01", "female", 0.8, 79.2, 0.06),
        ("1976-01-01", "female", 1.0, 68.6, 0.06),
    ],
)
def test_egfr_is_that_of_published_calculators(
    born: str, gender: str, mg_dl: float, egfr: float, rounding: float
) -> None:
    """CKD-EPI 2021 without race, from creatinine in either unit."""
    table = f"""
        Patient     | {born}     | {gender}
        Observation | creatinine | 2026-11-20 08:00 | {mg_dl * 88.42:.4f} umol/L
    """
    american = table.replace(f"{mg_dl * 88.42:.4f} umol/L", f"{mg_dl} mg/dL")
    for drawn in (table, american):
        assert it(drawn, EGFR) == pytest.approx(egfr, abs=rounding)


def test_body_mass_index() -> None:
    """80 kg at 178 cm: 25.2 (WHO: weight in kilograms by the square of height in metres)."""
    table = """
        Observation | weight | 2026-11-20 08:00 | 80 kg
        Observation | height | 2020-11-20 08:00 | 178 cm
    """
    bmi = """
        [weight]
        recipe = "last"
        of = ["weight"]
        [height]
        recipe = "last"
        of = ["height"]
        [it]
        recipe = "formula"
        formula = "body_mass_index"
        from = ["weight", "height"]
    """
    assert it(table, bmi) == pytest.approx(80 / 1.78**2)


GROUPS = sorted(charlson.GROUPS)
CHARLSON = f'recipe = "charlson"\nof = {GROUPS}\nwindow = ["as_of - 5 y", "as_of"]\n'


@pytest.mark.parametrize(
    ("codes", "original", "quan"),
    [
        # worked by hand from the weights of Charlson 1987 and Quan 2011
        ("DI252 DJ449", 2, 1),
        ("DI509 DE112 DN183", 5, 4),
        ("DE119 DE112", 2, 1),  # complications supersede
        ("DC187 DC787", 6, 6),  # metastases supersede
        ("DZ038 DI489", 0, 0),
    ],
)
def test_the_charlson_index_of_diagnoses(codes: str, original: int, quan: int) -> None:
    """Each disease once, the severe form in place of the mild."""
    table = "\n".join(f"Condition | {code} | 2025-01-01 | active" for code in codes.split())
    assert it(table, CHARLSON + 'variant = "original"') == original
    assert it(table, CHARLSON + 'variant = "quan2011"') == quan


def test_the_disease_the_prognosis_is_about_is_no_comorbidity_of_itself() -> None:
    """Colon cancer with metastases and COPD: only the COPD; breast cancer still counts."""
    drop = 'variant = "quan2011"\ndrop = ["colon_cancer", "rectal_cancer", "metastatic_cancer"]'
    own = """
        Condition | DC187 | 2026-10-01 | active
        Condition | DC787 | 2026-10-01 | active
        Condition | COPD  | 2020-01-01 | active
    """
    assert it(own, CHARLSON + 'variant = "quan2011"') == 7.0
    assert it(own, CHARLSON + drop) == 1.0
    assert it(own + "Condition | DC509 | 2024-01-01 | active", CHARLSON + drop) == 3.0
    snomed = "Condition | 363406005 | 2026-10-01 | active"
    assert it(snomed, CHARLSON + drop) == 0.0
