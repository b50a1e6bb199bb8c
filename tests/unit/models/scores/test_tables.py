"""Every cell of the published tables at both ends, and never a number from a part of a score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.charlson import GROUPS
from models.scores.about import ABOUT, BANDS, INPUTS
from models.scores.copd import Decaf, Pearl, decaf, pearl
from models.scores.heart_failure import AGE, RISK, SBP, Maggic, maggic
from models.scores.news2 import VitalSigns, news2
from models.scores.readmission import (
    Hospital,
    Lace,
    SimplifiedHospital,
    hospital,
    lace,
    lace_comorbidity,
    simplified_hospital,
)
from models.scores.score import ScoreResult, haemoglobin_g_dl, known, nearest, points_at
from models.scores.surgery import CrPossum, Sort, cr_possum, sort

WELL = VitalSigns(16, 97, False, 125, 72, True, 36.8)
HEALTHY = Maggic(60, 50, 160, 32, 80, 1, *[False] * 7)
ELECTIVE = CrPossum(50, "none_mild", 120, 70, 14, 5, "minor", "none", "none_AB", "elective")
DISCHARGED = Hospital(14, False, 140, False, False, 0, 1)
SHORT = Lace(0, False, 0, 0)


class Case(NamedTuple):
    """One score as a function of inputs that are all known."""

    score: Callable[[Any], ScoreResult]
    inputs: Any


SCORES = {
    "news2": Case(news2, WELL),
    "lace": Case(lace, SHORT),
    "hospital-2016": Case(lambda x: hospital(x, "2016"), DISCHARGED),
    "hospital-2013": Case(lambda x: hospital(x, "2013"), DISCHARGED),
    "hospital-simplified-5d": Case(
        lambda x: simplified_hospital(x, "5-days"),
        SimplifiedHospital(14, False, 140, False, 0, 1),
    ),
    "hospital-simplified-8d": Case(
        lambda x: simplified_hospital(x, "8-days"),
        SimplifiedHospital(14, False, 140, False, 0, 1),
    ),
    "cr-possum": Case(cr_possum, ELECTIVE),
    "sort": Case(sort, Sort(1, "elective", True, False, False, 50)),
    "maggic-1y": Case(lambda x: maggic(x, 1), HEALTHY),
    "maggic-3y": Case(lambda x: maggic(x, 3), HEALTHY),
    "decaf": Case(decaf, Decaf("1", 0.2, False, 7.4, False)),
    "pearl": Case(pearl, Pearl(0, "1", 60, False, False)),
}
OPTIONAL = {"scale_2", "spo2_on_air"}

# Score, input, then value -> points of that input; rows as printed, both ends of each.
EDGES: list[tuple[str, dict[str, Any], str, dict[float, int]]] = [
    ("news2", {}, "resp_rate", {4: 3, 8: 3, 9: 1, 11: 1, 12: 0, 20: 0, 21: 2, 24: 2, 25: 3}),
    ("news2", {}, "spo2", {50: 3, 91: 3, 92: 2, 93: 2, 94: 1, 95: 1, 96: 0, 100: 0}),
    (
        "news2",
        {"scale_2": True},
        "spo2",
        {83: 3, 84: 2, 85: 2, 86: 1, 87: 1, 88: 0, 92: 0, 93: 0, 97: 0, 100: 0},
    ),
    (
        "news2",
        {"scale_2": True, "on_oxygen": True},
        "spo2",
        {83: 3, 84: 2, 86: 1, 87: 1, 88: 0, 92: 0, 93: 1, 94: 1, 95: 2, 96: 2, 97: 3, 100: 3},
    ),
    ("news2", {}, "on_oxygen", {False: 0, True: 2}),
    ("news2", {}, "sbp", {90: 3, 91: 2, 100: 2, 101: 1, 110: 1, 111: 0, 219: 0, 220: 3}),
    (
        "news2",
        {},
        "pulse",
        {40: 3, 41: 1, 50: 1, 51: 0, 90: 0, 91: 1, 110: 1, 111: 2, 130: 2, 131: 3},
    ),
    ("news2", {}, "alert", {True: 0, False: 3}),
    (
        "news2",
        {},
        "temperature",
        {35.0: 3, 35.1: 1, 36.0: 1, 36.1: 0, 38.0: 0, 38.1: 1, 39.0: 1, 39.1: 2, 42.0: 2},
    ),
    (
        "lace",
        {},
        "stay_days",
        {0: 0, 0.9: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 4, 6.9: 4, 7: 5, 13: 5, 14: 7, 90: 7},
    ),
    ("lace", {}, "acute", {False: 0, True: 3}),
    ("lace", {}, "comorbidity", {0: 0, 1: 1, 2: 2, 3: 3, 4: 5, 20: 5}),
    ("lace", {}, "emergency_visits", {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 9: 4}),
    ("hospital-2016", {}, "haemoglobin", {11.99: 1, 12.0: 0}),
    ("hospital-2016", {}, "oncology", {False: 0, True: 2}),
    ("hospital-2016", {}, "sodium", {134.9: 1, 135: 0}),
    ("hospital-2016", {}, "procedure", {False: 0, True: 1}),
    ("hospital-2016", {}, "acute", {False: 0, True: 1}),
    ("hospital-2016", {}, "admissions_12m", {0: 0, 1: 0, 2: 2, 5: 2, 6: 5, 30: 5}),
    ("hospital-2013", {}, "admissions_12m", {0: 0, 1: 2, 5: 2, 6: 5}),
    ("hospital-2016", {}, "stay_days", {0: 0, 4: 0, 4.9: 0, 5: 2, 30: 2}),
    ("hospital-simplified-5d", {}, "stay_days", {4: 0, 5: 2}),
    ("hospital-simplified-8d", {}, "stay_days", {7: 0, 8: 2}),
    ("hospital-simplified-5d", {}, "cancer", {False: 0, True: 2}),
    ("maggic-1y", {"lvef": 25}, "age", {54: 0, 55: 1, 60: 2, 65: 4, 70: 6, 75: 8, 79: 8, 80: 10}),
    ("maggic-1y", {"lvef": 39}, "age", {54: 0, 55: 2, 60: 4, 65: 6, 70: 8, 75: 10, 80: 13}),
    ("maggic-1y", {"lvef": 40}, "age", {54: 0, 59: 3, 64: 5, 69: 7, 74: 9, 79: 12, 80: 15}),
    ("maggic-1y", {"lvef": 29}, "sbp", {109: 5, 110: 4, 120: 3, 130: 2, 140: 1, 149: 1, 150: 0}),
    ("maggic-1y", {"lvef": 30}, "sbp", {109: 3, 110: 2, 119: 2, 120: 1, 139: 1, 140: 0, 150: 0}),
    ("maggic-1y", {"lvef": 40}, "sbp", {109: 2, 110: 1, 129: 1, 130: 0, 150: 0}),
    (
        "maggic-1y",
        {},
        "lvef",
        {19: 7, 20: 6, 24: 6, 25: 5, 29: 5, 30: 3, 34: 3, 35: 2, 39: 2, 40: 0},
    ),
    ("maggic-1y", {}, "bmi", {14.9: 6, 15: 5, 19.9: 5, 20: 3, 24.9: 3, 25: 2, 29.9: 2, 30: 0}),
    (
        "maggic-1y",
        {},
        "creatinine",
        {89: 0, 90: 1, 109: 1, 110: 2, 130: 3, 150: 4, 170: 5, 209: 5, 210: 6, 249: 6, 250: 8},
    ),
    ("maggic-1y", {}, "nyha", {1: 0, 2: 2, 3: 6, 4: 8}),
    ("decaf", {}, "eosinophils", {0.049: 1, 0.05: 0}),
    ("decaf", {}, "ph", {7.29: 1, 7.30: 0}),
    ("pearl", {}, "admissions_12m", {0: 0, 1: 0, 2: 3, 9: 3}),
    ("pearl", {}, "age", {79: 0, 80: 1}),
]


@pytest.mark.parametrize(
    ("score", "given_that", "name", "cells"), EDGES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_cell_holds_from_its_lower_to_its_upper_end(
    score: str, given_that: dict[str, Any], name: str, cells: dict[float, int]
) -> None:
    case = SCORES[score]
    found = {
        value: case.score(case.inputs._replace(**{**given_that, name: value})).parts[name]
        for value in cells
    }
    assert found == cells


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("age", {60: 1, 61: 3, 70: 3, 71: 4, 80: 4, 81: 8}),
        ("cardiac_failure", {"none_mild": 1, "moderate": 2, "severe": 3}),
        ("sbp", {89: 3, 90: 2, 99: 2, 100: 1, 170: 1, 171: 2}),
        ("pulse", {39: 3, 40: 1, 100: 1, 101: 2, 120: 2, 121: 3}),
        ("haemoglobin", {9.9: 3, 10.0: 2, 12.9: 2, 13.0: 1, 16.0: 1, 16.1: 2, 18.0: 2, 18.1: 3}),
        ("urea", {10.0: 1, 10.1: 2, 15.0: 2, 15.1: 3}),
        ("severity", {"minor": 1, "intermediate": 3, "major": 4, "complex": 8}),
        ("soiling", {"none": 1, "local_pus": 2, "free": 3}),
        ("stage", {"none_AB": 1, "C": 2, "D": 3}),
        ("urgency", {"elective": 1, "urgent": 3, "emergency": 8}),
    ],
)
def test_cr_possum_cells(name: str, cells: dict[Any, int]) -> None:
    rest = 10 - 1  # the lowest score, 10, with one point for the input looked at
    found = {v: known(cr_possum(ELECTIVE._replace(**{name: v})).points) - rest for v in cells}
    assert found == cells


@pytest.mark.parametrize(
    ("changes", "logit"),
    [
        ({"asa": 2}, 0.0),
        ({"asa": 3}, 1.411),
        ({"asa": 4}, 2.388),
        ({"asa": 5}, 4.081),
        ({"urgency": "expedited"}, 1.236),
        ({"urgency": "urgent"}, 1.657),
        ({"urgency": "immediate"}, 2.452),
        ({"gi_thoracic_vascular": False}, -0.712),
        ({"xmajor_complex": True}, 0.381),
        ({"cancer": True}, 0.667),
        ({"age": 64}, 0.0),
        ({"age": 65}, 0.777),
        ({"age": 79}, 0.777),
        ({"age": 80}, 1.591),
    ],
    ids=str,
)
def test_each_part_of_sort_adds_its_coefficient(changes: dict[str, Any], logit: float) -> None:
    base = SCORES["sort"].inputs
    odds = [known(sort(x).risk) for x in (base, base._replace(**changes))]
    ratio = (odds[1] / (1 - odds[1])) / (odds[0] / (1 - odds[0]))
    assert ratio == pytest.approx(2.718281828459045**logit)


# ---- never a part of a score ----------------------------------------------------------------


@pytest.mark.parametrize("score", SCORES)
@given(data=st.data())
def test_what_lacks_an_input_has_no_number_and_names_it(score: str, data: st.DataObject) -> None:
    case = SCORES[score]
    names = [name for name in case.inputs._fields if name not in OPTIONAL]
    gone = data.draw(st.sets(st.sampled_from(names), min_size=1))
    found = case.score(case.inputs._replace(**dict.fromkeys(gone)))
    assert found == ScoreResult(missing=tuple(name for name in names if name in gone))
    assert set(found.missing) <= set(INPUTS)


@pytest.mark.parametrize("score", SCORES)
def test_a_complete_score_lacks_nothing_and_stays_within_its_range(score: str) -> None:
    case, about = SCORES[score], ABOUT[score]
    found = case.score(case.inputs)
    assert found.missing == ()
    assert found.band is None or found.band in BANDS
    if about.most is None:
        assert found.points is None
    else:
        assert 0 <= known(found.points) <= about.most


def test_every_score_reaches_its_highest_points() -> None:
    worst = {
        "news2": VitalSigns(30, 80, True, 80, 140, False, 34),
        "lace": Lace(30, True, 9, 9),
        "hospital-2016": Hospital(8, True, 120, True, True, 9, 20),
        "hospital-2013": Hospital(8, True, 120, True, True, 9, 20),
        "hospital-simplified-5d": SimplifiedHospital(8, True, 120, True, 9, 20),
        "hospital-simplified-8d": SimplifiedHospital(8, True, 120, True, 9, 20),
        "cr-possum": CrPossum(90, "severe", 80, 130, 8, 20, "complex", "free", "D", "emergency"),
        "maggic-1y": Maggic(15, 85, 90, 14, 300, 4, *[True] * 7),
        "maggic-3y": Maggic(15, 85, 90, 14, 300, 4, *[True] * 7),
        "decaf": Decaf("5b", 0.01, True, 7.1, True),
        "pearl": Pearl(5, "5b", 90, True, True),
    }
    found = {score: SCORES[score].score(inputs).points for score, inputs in worst.items()}
    assert found == {score: ABOUT[score].most for score in worst}
    assert (ABOUT["charlson"].most, ABOUT["charlson-quan2011"].most) == (29, 24)


# ---- shape of the tables --------------------------------------------------------------------

whole = st.integers(min_value=0, max_value=40)


@given(a=st.builds(Lace, whole, st.booleans(), whole, whole), more=whole)
def test_more_of_anything_never_lowers_lace(a: Lace, more: int) -> None:
    before = lace(a)
    for name in ("stay_days", "comorbidity", "emergency_visits"):
        after = lace(a._replace(**{name: getattr(a, name) + more}))
        assert known(after.points) >= known(before.points)
        assert known(after.risk) >= known(before.risk)


@given(
    st.builds(
        Maggic,
        st.floats(5, 85),
        st.floats(18, 105),
        st.floats(60, 230),
        st.floats(12, 60),
        st.floats(30, 900),
        st.integers(1, 4),
        *[st.booleans()] * 7,
    ),
    st.floats(0, 50),
)
def test_maggic_rises_with_age_and_creatinine_and_falls_with_pressure_and_bmi(
    patient: Maggic, more: float
) -> None:
    points = known(maggic(patient, 1).points)
    for name in ("age", "creatinine"):
        later = patient._replace(**{name: getattr(patient, name) + more})
        assert known(maggic(later, 1).points) >= points
    for name in ("sbp", "bmi"):
        later = patient._replace(**{name: getattr(patient, name) + more})
        assert known(maggic(later, 1).points) <= points


def test_the_risks_of_maggic_rise_with_the_points() -> None:
    for risks in RISK.values():
        assert len(risks) == 51
        assert list(risks) == sorted(set(risks))
    assert all(len(column) == 7 for column in AGE)
    assert all(len(column) == 6 for column in SBP)


@given(st.floats(4, 60), st.floats(50, 100), st.floats(50, 260), st.floats(25, 220))
def test_news2_is_the_sum_of_its_parts_and_its_band_follows(
    rate: float, spo2: float, systolic: float, pulse: float
) -> None:
    found = news2(WELL._replace(resp_rate=rate, spo2=spo2, sbp=systolic, pulse=pulse))
    total = sum(found.parts.values())
    assert found.points == total
    expected = "high" if total >= 7 else "medium" if total >= 5 else None
    red = 3 in found.parts.values()
    assert found.band == (expected or ("low-medium" if red else "low"))


@given(st.floats(20, 50))
def test_too_little_saturation_never_scores_less_than_more_of_it_on_scale_1(spo2: float) -> None:
    low, high = WELL._replace(spo2=50 + spo2 / 2), WELL._replace(spo2=51 + spo2 / 2)
    assert known(news2(low).points) >= known(news2(high).points)


def test_a_single_red_part_makes_a_low_total_low_to_medium() -> None:
    assert news2(WELL._replace(alert=False)).band == "low-medium"
    assert news2(WELL).band == "low"


@pytest.mark.parametrize(
    ("value", "decimals", "rounded"),
    [(91.4, 0, 91), (91.5, 0, 92), (35.04, 1, 35.0), (35.06, 1, 35.1), (36.99, 1, 37.0)],
)
def test_values_between_two_rows_are_rounded_to_the_printed_step(
    value: float, decimals: int, rounded: float
) -> None:
    assert nearest(value, decimals) == rounded


def test_points_are_read_from_the_row_the_value_falls_into() -> None:
    steps = ((float("-inf"), 3), (9.0, 1), (12.0, 0))
    assert [points_at(steps, value) for value in (-5, 8.9, 9, 11.9, 12, 99)] == [3, 3, 1, 1, 0, 0]


def test_twelve_grams_of_haemoglobin_are_not_below_twelve() -> None:
    """12 g/dL converted to mmol/L and back; 7.4 mmol/L is below, 7.5 is not."""
    assert haemoglobin_g_dl(12.0 / 1.61145) == 12.0
    assert haemoglobin_g_dl(7.4) < 12.0 < haemoglobin_g_dl(7.5)


@pytest.mark.parametrize(
    ("groups", "points"),
    [
        (set(), 0),
        ({"charlson_mi", "charlson_pvd"}, 2),
        ({"charlson_dm_uncomp", "charlson_dm_comp"}, 2),
        ({"charlson_cancer", "charlson_metastatic"}, 6),
        ({"charlson_liver_mild"}, 2),
        ({"charlson_liver_mild", "charlson_liver_severe"}, 4),
        ({"charlson_dementia", "charlson_rheum"}, 6),
        ({"charlson_chf", "charlson_cpd", "charlson_renal"}, 8),
        ({"charlson_hiv"}, 4),
        ({"charlson_pud", "charlson_plegia"}, 0),
    ],
)
def test_lace_weighs_comorbidity_by_its_own_table(groups: set[str], points: int) -> None:
    assert lace_comorbidity(groups) == points


@given(st.sets(st.sampled_from(sorted(GROUPS))), st.sampled_from(sorted(GROUPS)))
def test_one_disease_more_never_lowers_the_comorbidity_of_lace(groups: set[str], one: str) -> None:
    assert lace_comorbidity(groups | {one}) >= lace_comorbidity(groups)


def test_an_unknown_input_cannot_be_used() -> None:
    with pytest.raises(ValueError, match="unknown input"):
        known(None)
