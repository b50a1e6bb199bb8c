"""Reference scores of drawn patients: the right number, what is lacking, and to whom none applies.

The patients are tables (tests/spec/drawn.py); the question is asked on Saturday 21 November 2026 at
noon. A form's answers carry the name of their concept as link id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.charlson import GROUPS
from fhir_adapters.decode import decode_bundle, decode_prefetch
from fhir_adapters.facts import AnswerRule, Wanted, build_record
from fhir_adapters.prefetch import expected_query
from fhir_adapters.record import PatientRecord
from models.scores.about import ABOUT, INPUTS
from models.scores.from_record import ReferenceScores
from models.scores.score import ReferenceScore
from tests.spec.drawn import AS_OF, RULE, bundle, it, moment, resources

FORMS = (
    "news2_scale_2",
    "emrcd",
    "consolidation",
    "oncology_service",
    "surgery_urgency",
    "surgery_xmajor",
    "operative_severity",
    "peritoneal_soiling",
    "dukes_stage",
    "cardiac_failure_grade",
    "planned_urgency",
)
SCORES = ReferenceScores({}, stay_rule=RULE, index_within_hours=24)
Scores = dict[str, ReferenceScore]


def record_of(table: str) -> PatientRecord:
    """The whole record a table draws."""
    answers = tuple(AnswerRule(name, frozenset({name}), {}) for name in FORMS)
    wanted = Wanted(SCORES.concepts, RULE, answers)
    return build_record(decode_bundle(bundle(table)), wanted)


def scores(table: str, as_of: str = AS_OF) -> Scores:
    """The scores that apply, by id."""
    return applying(SCORES, record_of(table), as_of)


def applying(compiled: ReferenceScores, record: PatientRecord, as_of: str = AS_OF) -> Scores:
    """The scores of a record that apply at a moment, by id."""
    return {s.score: s for s in compiled.every(record, moment(as_of)) if s.applies}


# ---- NEWS2 ----------------------------------------------------------------------------------

ROUND = """
Patient     | 1950-03-01 | female
Observation | 9279-1     | 2026-11-21 08:00 | 22 /min
Observation | saturation | 2026-11-21 08:02 | 90 %
Observation | 371825009  | 2026-11-21 08:02 | code 373067005
Observation | systolic   | 2026-11-21 08:04 | 118 mm[Hg]
Observation | pulse      | 2026-11-21 08:04 | 98 /min
Observation | 6942003    | 2026-11-21 08:05 | code 248234008
Observation | temperature | 2026-11-21 08:06 | 37.4 Cel
"""


def without(table: str, word: str) -> str:
    """A table without the lines that hold a word."""
    return "".join(f"{line}\n" for line in table.splitlines() if word not in line)


def test_news2_is_computed_from_one_complete_set() -> None:
    found = scores(ROUND)["news2"]
    assert (found.points, found.band, found.most, found.missing) == (6, "medium", 20, [])
    assert found.time == moment("2026-11-21 08:06")
    assert found.version == "RCP 2017"


def test_news2_uses_scale_2_only_where_a_clinician_has_said_so() -> None:
    """COPD with respiratory failure does not do it; the clinician's flag does."""
    ill = ROUND + "Condition | COPD | 2020-01-01\nCondition | DJ961 | 2026-01-01"
    assert scores(ill)["news2"].points == 6
    flagged = ROUND + "QuestionnaireResponse | news2_scale_2 | 2026-11-20 10:00 | 1"
    assert scores(flagged)["news2"].points == 3
    lifted = flagged + "\nQuestionnaireResponse | news2_scale_2 | 2026-11-21 07:00 | 0"
    assert scores(lifted)["news2"].points == 6


def test_oxygen_is_known_by_its_flow_too_and_air_is_never_assumed() -> None:
    unsaid = without(ROUND, "371825009")
    assert scores(unsaid)["news2"].missing == ["on_oxygen"]
    on_2_litres = unsaid + "Observation | 3151-8 | 2026-11-21 08:02 | 2 L/min"
    assert scores(on_2_litres)["news2"].points == 8
    on_air = unsaid + "Observation | 3151-8 | 2026-11-21 08:02 | 0 L/min"
    assert scores(on_air)["news2"].points == 6


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ("9279-1", "resp_rate"),
        ("saturation", "spo2"),
        ("371825009", "on_oxygen"),
        ("systolic", "sbp"),
        ("pulse", "pulse"),
        ("6942003", "alert"),
        ("temperature", "temperature"),
    ],
)
def test_a_partial_news2_never_gives_a_number(about: str, name: str) -> None:
    found = scores(without(ROUND, about))["news2"]
    assert (found.points, found.risk, found.band) == (None, None, None)
    assert found.missing == [name]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from([line for line in ROUND.splitlines() if "Obs" in line]), min_size=1))
def test_news2_lacks_exactly_what_was_not_measured(gone: set[str]) -> None:
    table = "\n".join(line for line in ROUND.splitlines() if line not in gone)
    found = scores(table).get("news2")
    if len(gone) == 7:
        assert found is None
    else:
        assert found is not None
        assert (found.points, len(found.missing)) == (None, len(gone))


def test_parts_measured_hours_apart_are_not_one_set() -> None:
    apart = without(ROUND, "temperature") + "Observation | NPU08676 | 2026-11-21 05:00 | 37.4 Cel"
    assert scores(apart)["news2"].missing == ["temperature"]


def test_the_newest_complete_set_counts_even_if_a_lone_pulse_came_later() -> None:
    later = ROUND + "Observation | pulse | 2026-11-21 11:00 | 135 /min"
    assert scores(later)["news2"].points == 6
    assert scores(later)["news2"].time == moment("2026-11-21 08:06")


def test_a_later_saturation_that_cannot_be_right_is_not_answered_by_an_older_set() -> None:
    doubtful = ROUND + "Observation | saturation | 2026-11-21 11:00 | 48 %"
    found = scores(doubtful)["news2"]
    assert (found.points, found.missing) == (None, ["spo2"])


def test_a_later_saturation_that_is_only_a_bound_is_not_answered_by_an_older_set() -> None:
    """90 in the set, later "below 70": no score of the set stands for the patient now."""
    bound = ROUND + "Observation | saturation | 2026-11-21 11:00 | <70 %"
    found = scores(bound)["news2"]
    assert (found.points, found.missing) == (None, ["spo2"])


def test_news2_needs_vital_signs_of_the_last_24_hours() -> None:
    assert "news2" not in scores(ROUND, as_of="2026-11-22 09:00")
    assert "news2" not in scores(ROUND, as_of="2026-11-21 07:00")


def test_news2_is_not_for_children_or_in_pregnancy() -> None:
    child = ROUND.replace("1950-03-01", "2012-03-01")
    assert "news2" not in scores(child)
    assert "news2" not in scores(ROUND + "Condition | DZ349 | 2026-06-01")
    years_ago = ROUND + "Condition | DZ349 | 2015-06-01"
    assert "news2" in scores(years_ago)


def test_any_consciousness_but_alert_scores_three() -> None:
    for code in ("450847001", "300202002", "130987000", "422768004"):
        assert scores(ROUND.replace("248234008", code))["news2"].points == 9


# ---- LACE and HOSPITAL ----------------------------------------------------------------------

STAY = """
Patient     | 1950-03-01 | male
Encounter   | IMP  | 2026-11-16 10:00.. | EM | in-progress
Encounter   | EMER | 2026-11-16 06:00..2026-11-16 10:00
Encounter   | EMER | 2026-08-01 10:00..2026-08-01 14:00
Encounter   | EMER | 2026-07-10 20:00..2026-07-10 23:00
Encounter   | IMP  | 2026-07-10 23:30..2026-07-14 12:00 | EM
Encounter   | IMP  | 2026-01-10 10:00..2026-01-14 12:00 | EL
Encounter   | EMER | 2026-04-01 10:00..2026-04-01 14:00
Condition   | DI252 | 2024-01-01
Condition   | heart failure | 2023-01-01
Condition   | DE119 | 2022-01-01
Condition   | DE112 | 2024-01-01
Observation | haemoglobin | 2026-11-17 08:00 | 8.2 mmol/L
Observation | haemoglobin | 2026-11-20 08:00 | 7.4 mmol/L
Observation | sodium      | 2026-11-20 08:00 | 134 mmol/L
Procedure   | KJFB30      | 2026-11-17 12:00
"""


def test_lace_counts_days_acuity_its_own_comorbidity_and_emergency_visits() -> None:
    """Five nights 4, acute 3, infarction 1 + failure 2 + diabetes 2 = 5, two visits 2."""
    found = scores(STAY)["lace"]
    assert found.points == 4 + 3 + 5 + 2
    assert found.band == "high"
    assert found.risk == pytest.approx(0.230, abs=0.001)
    assert found.outcome is not None


def test_hospital_in_both_variants_and_simplified() -> None:
    """7.4 mmol/L is 11.9 g/dL 1, sodium 1, procedure 1, acute 1, two admissions 2, five days 2."""
    found = scores(STAY)
    assert found["hospital-2016"].points == 1 + 0 + 1 + 1 + 1 + 2 + 2
    assert found["hospital-2016"].risk == 0.228
    assert found["hospital-2013"].points == 8
    assert found["hospital-simplified-5d"].points == 7
    assert found["hospital-simplified-8d"].points == 5


def test_one_earlier_admission_tells_the_variants_of_hospital_apart() -> None:
    once = without(STAY, "2026-01-10")
    assert scores(once)["hospital-2016"].points == 6
    assert scores(once)["hospital-2013"].points == 8


def test_no_cancer_is_no_oncology_service_but_cancer_leaves_it_open() -> None:
    cancer = STAY + "Condition | DC349 | 2025-01-01"
    found = scores(cancer)
    assert found["hospital-2016"].missing == ["oncology"]
    assert found["hospital-simplified-5d"].points == 9
    said = cancer + "\nQuestionnaireResponse | oncology_service | 2026-11-17 10:00 | 1"
    assert scores(said)["hospital-2016"].points == 10


def test_a_discharge_within_a_day_still_counts_and_an_older_one_does_not() -> None:
    home = STAY.replace("10:00.. | EM | in-progress", "10:00..2026-11-21 09:00 | EM")
    assert scores(home)["lace"].points == 14
    assert "lace" not in scores(home, as_of="2026-11-22 12:00")


def test_what_was_not_stated_is_lacking() -> None:
    bare = without(without(STAY, "haemoglobin"), "EMER | 2026-11-16")
    found = scores(bare.replace(" | EM | in-progress", " | in-progress"))
    assert found["lace"].missing == ["acute"]
    assert found["hospital-2016"].missing == ["haemoglobin", "acute"]
    assert found["lace"].points is None


def test_lace_and_hospital_are_for_admitted_adults() -> None:
    stay_scores = {"lace", "hospital-2016", "hospital-2013", "hospital-simplified-5d"}
    at_home = without(STAY, "2026-11-16")
    assert not stay_scores & set(scores(at_home))
    assert not stay_scores & set(scores(STAY.replace("1950-03-01", "2010-03-01")))
    just_come = STAY.replace("2026-11-16 10:00..", "2026-11-21 10:00..")
    assert "lace" not in scores(without(just_come, "2026-11-16"))


# ---- Charlson -------------------------------------------------------------------------------


def test_charlson_is_for_everybody_and_zero_is_a_finding() -> None:
    found = scores(STAY)
    assert (found["charlson"].points, found["charlson"].most) == (1 + 1 + 2, 29)
    assert (found["charlson-quan2011"].points, found["charlson-quan2011"].most) == (0 + 2 + 1, 24)
    assert scores("Patient | 1950-03-01 | male")["charlson"].points == 0


CHARLSON_CODES = ("DI252", "DI509", "DE112", "DN183", "DC349", "DC787", "DF009", "DJ449", "DK703")
DIAGNOSES = st.tuples(
    st.sampled_from(CHARLSON_CODES),
    st.sampled_from(["2010-01-01", "2021-11-20", "2021-11-22", "2026-11-21", "2026-11-22"]),
    st.sampled_from(["", " | until 2020-06-01", " | until 2022-06-01", " | recorded 2026-11-22"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(DIAGNOSES, max_size=6))
def test_the_groups_told_apart_are_those_the_feature_language_finds(
    drawn: list[tuple[str, str, str]],
) -> None:
    """One feature counts the groups and another gives their index; the score agrees with both."""
    lines = [f"Condition | {code} | {since}{words}" for code, since, words in drawn]
    table = "\n".join(["Patient | 1950-03-01 | male", *lines])
    five_years = f'of = {sorted(GROUPS)}\nwindow = ["as_of - 5 y", "as_of"]'
    index = it(table, f'recipe = "charlson"\nvariant = "original"\n{five_years}')
    assert scores(table)["charlson"].points == index


# ---- surgery --------------------------------------------------------------------------------

SURGERY = """
Patient     | 1954-03-01 | female
Condition   | DC187 | 2026-11-01
Observation | 302132005 | 2026-11-18 10:00 | code 413497009
Observation | systolic | 2026-11-18 10:00 | 140 mm[Hg]
Observation | pulse | 2026-11-18 10:00 | 88 /min
Observation | haemoglobin | 2026-11-17 10:00 | 7.45 mmol/L
Observation | NPU01459 | 2026-11-17 10:00 | 8 mmol/L
QuestionnaireResponse | planned_urgency | 2026-11-19 10:00 | 0
QuestionnaireResponse | surgery_urgency | 2026-11-19 10:00 | 0
QuestionnaireResponse | surgery_xmajor | 2026-11-19 10:00 | 1
QuestionnaireResponse | operative_severity | 2026-11-19 10:00 | 3
QuestionnaireResponse | peritoneal_soiling | 2026-11-19 10:00 | 0
QuestionnaireResponse | dukes_stage | 2026-11-19 10:00 | 1
QuestionnaireResponse | cardiac_failure_grade | 2026-11-19 10:00 | 0
"""


def test_cr_possum_and_sort_before_a_colorectal_operation() -> None:
    found = scores(SURGERY)
    assert found["cr-possum"].points == 10 + 8
    assert found["cr-possum"].risk == pytest.approx(0.03479, abs=5e-6)
    assert found["sort"].points is None
    assert found["sort"].risk == pytest.approx(0.03174, abs=5e-6)


def test_surgery_without_the_form_says_what_it_lacks() -> None:
    found = scores(without(SURGERY, "QuestionnaireResponse") + "Procedure | KJFB30 | 2026-11-20")
    expected = ["cardiac_failure", "severity", "soiling", "stage", "urgency"]
    assert found["cr-possum"].missing == expected
    assert found["sort"].missing == ["urgency", "xmajor_complex"]
    assert found["sort"].risk is None


def test_an_answer_that_is_not_on_its_scale_is_unknown() -> None:
    odd = SURGERY.replace(
        "surgery_urgency | 2026-11-19 10:00 | 0", "surgery_urgency | 2026-11-19 10:00 | 1.5"
    )
    assert scores(odd)["sort"].missing == ["urgency"]


def test_cancer_alone_is_no_surgery() -> None:
    assert not {"cr-possum", "sort"} & set(scores(without(SURGERY, "QuestionnaireResponse")))


# ---- heart failure --------------------------------------------------------------------------

FAILING = """
Patient     | 1954-03-01 | male
Condition   | heart failure | 2024-01-01
Condition   | COPD | 2020-01-01
Condition   | diabetes | 2020-01-01
Observation | 10230-1 | 2025-05-01 | 35 %
Observation | systolic | 2026-11-01 10:00 | 118 mm[Hg]
Observation | weight | 2026-11-01 10:00 | 73.5 kg
Observation | height | 2025-11-01 10:00 | 175 cm
Observation | creatinine | 2026-11-01 10:00 | 115 umol/L
Observation | 88020-3 | 2026-11-01 10:00 | code 420913000
Observation | smoking | 2026-06-01 10:00 | code 266919005
MedicationRequest | C07AB02 | 2026-10-01
MedicationRequest | C09AA05 | 2026-10-01
"""


def test_maggic_with_both_horizons_and_bmi_from_weight_and_height() -> None:
    found = scores(FAILING)
    assert found["maggic-1y"].points == 2 + 8 + 2 + 3 + 2 + 6 + 1 + 0 + 3 + 2 + 2
    assert (found["maggic-1y"].risk, found["maggic-3y"].risk) == (0.269, 0.556)


def test_no_prescription_in_a_whole_record_is_no_treatment() -> None:
    untreated = scores(without(FAILING, "MedicationRequest"))["maggic-1y"]
    assert untreated.points == 31 + 3 + 1


def test_maggic_names_what_it_lacks_and_is_for_heart_failure_only() -> None:
    lacking = scores(without(without(FAILING, "10230-1"), "height"))["maggic-1y"]
    assert lacking.missing == ["lvef", "bmi"]
    assert "maggic-1y" not in scores(without(FAILING, "heart failure"))


# ---- COPD -----------------------------------------------------------------------------------

EXACERBATION = """
Patient     | 1944-03-01 | female
Encounter   | IMP | 2026-11-20 20:00.. | EM | in-progress | for DJ441
Encounter   | IMP | 2026-05-01 20:00..2026-05-04 12:00 | EM
Encounter   | IMP | 2026-02-01 20:00..2026-02-04 12:00 | EM
Condition   | DI489 | 2020-01-01
Condition   | DI279 | 2020-01-01
Observation | NPU01933 | 2026-11-20 21:00 | 0.04 10*9/L
Observation | NPU01933 | 2026-11-21 09:00 | 0.20 10*9/L
Observation | 2744-1 | 2026-11-20 20:30 | 7.28 [pH]
QuestionnaireResponse | emrcd | 2026-11-20 22:00 | 5
QuestionnaireResponse | consolidation | 2026-11-20 22:00 | 1
"""


def test_decaf_and_pearl_of_a_patient_admitted_with_an_exacerbation() -> None:
    """DECAF by the values at admission: 5a 1, eosinophils 1, consolidation 1, pH 1, AF 1."""
    found = scores(EXACERBATION)
    assert (found["decaf"].points, found["decaf"].band) == (5, "high")
    assert found["pearl"].points == 3 + 2 + 1 + 1 + 0
    assert found["pearl"].band == "high"


def test_a_diagnosis_of_the_stay_does_as_well_as_its_reason() -> None:
    told = EXACERBATION.replace(" | for DJ441", "")
    assert "decaf" not in scores(told)
    assert "decaf" in scores(told + "Condition | DJ441 | 2026-11-20")
    assert "decaf" not in scores(told + "Condition | DJ441 | 2025-11-20")


def test_decaf_and_pearl_are_for_admitted_patients_only() -> None:
    at_home = without(EXACERBATION, "IMP | 2026-11-20") + "Condition | DJ441 | 2026-11-20"
    assert not {"decaf", "pearl"} & set(scores(at_home))


def test_mrc_grades_one_to_four_stand_for_emrcd_and_five_does_not() -> None:
    bare = without(EXACERBATION, "emrcd")
    assert scores(bare)["pearl"].missing == ["emrcd"]
    four = bare + "Observation | MCS88021 | 2026-10-20 10:00 | 4"
    assert scores(four)["pearl"].points == 3 + 1 + 1 + 1
    five = bare + "Observation | MCS88021 | 2026-10-20 10:00 | 5"
    assert scores(five)["pearl"].missing == ["emrcd"]


def test_without_a_blood_gas_the_saturation_on_air_answers_for_the_ph() -> None:
    no_gas = without(EXACERBATION, "2744-1")
    assert scores(no_gas)["decaf"].missing == ["ph"]
    saturated = no_gas + "Observation | saturation | 2026-11-20 20:10 | 94 %\n"
    assert scores(saturated)["decaf"].missing == ["ph"]
    on_air = saturated + "Observation | 371825009 | 2026-11-20 20:10 | code 373067005\n"
    assert scores(on_air)["decaf"].points == 4
    later_oxygen = on_air + "Observation | 3151-8 | 2026-11-20 22:10 | 2 L/min"
    assert scores(later_oxygen)["decaf"].missing == ["ph"]


# ---- all of them ----------------------------------------------------------------------------


def test_every_score_is_given_in_one_order_and_one_that_does_not_apply_has_no_number() -> None:
    every = SCORES.every(record_of(STAY), moment(AS_OF))
    assert [score.score for score in every] == list(ABOUT)
    silent = [score for score in every if not score.applies]
    assert {s.score for s in silent} == {"news2", "decaf", "pearl"}
    assert all((s.points, s.risk, s.band, s.missing) == (None, None, None, []) for s in silent)
    assert msgspec.json.decode(msgspec.json.encode(every), type=list[ReferenceScore]) == every


@pytest.mark.parametrize("table", [ROUND, STAY, SURGERY, FAILING, EXACERBATION])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_score_has_a_number_or_names_what_it_lacks_whatever_is_taken_away(
    table: str, data: st.DataObject
) -> None:
    lines = [line for line in table.splitlines() if line and "Patient" not in line]
    kept = data.draw(st.lists(st.sampled_from(lines), unique=True))
    for score in scores("Patient | 1950-03-01 | female\n" + "\n".join(kept)).values():
        computed = score.points is not None or score.risk is not None
        assert computed is not bool(score.missing)
        assert set(score.missing) <= set(INPUTS)
        assert score.risk is None or 0.0 < score.risk < 1.0


def test_nothing_known_later_is_used() -> None:
    """A laboratory answer counts from when it was issued."""
    late = FAILING.replace(
        "creatinine | 2026-11-01 10:00 | 115 umol/L",
        "creatinine | 2026-11-21 10:00 | 115 umol/L | issued 2026-11-21 13:00",
    )
    assert scores(late)["maggic-1y"].missing == ["creatinine"]
    assert scores(late, as_of="2026-11-21 14:00")["maggic-1y"].points == 31


def asked(answers: Mapping[str, str | None], supplies: Mapping[str, list[str]]) -> Scores:
    """The scores where a package's queries were answered so; the rest was not asked for."""
    supplied_by = {name: key for key, names in supplies.items() for name in names}
    compiled = ReferenceScores(supplied_by, stay_rule=RULE, index_within_hours=24)
    kinds = {"encounters": "Encounter", "conditions": "Condition", "vitals": "Observation"}
    patient = {"resourceType": "Patient", "id": "p", "birthDate": "1950-03-01"}
    prefetch: dict[str, Any] = {"patient": patient}
    for key, table in answers.items():
        entry = [{"resource": resource} for resource in resources(table or "")]
        prefetch[key] = {"resourceType": "Bundle", "type": "searchset", "entry": entry}
    expected = {key: expected_query(f"{kinds[key]}?patient=p&_count=200") for key in answers}
    raw = {key: msgspec.Raw(json.dumps(value).encode()) for key, value in prefetch.items()}
    record = build_record(decode_prefetch(raw, expected), Wanted(compiled.concepts, RULE))
    return applying(compiled, record)


def test_what_no_query_supplies_is_unknown_and_never_taken_for_none() -> None:
    stays = "Encounter | IMP | 2026-11-16 10:00.. | EM | in-progress"
    encounters = {"encounters": ["stay", "contact"]}
    found = asked({"encounters": stays}, encounters)
    assert found["lace"].missing == ["comorbidity"]
    assert found["charlson"].missing == ["comorbidity"]
    assert {"oncology", "procedure"} <= set(found["hospital-2016"].missing)
    groups = sorted(name for name in SCORES.concepts if name.startswith("charlson_"))
    both = {**encounters, "conditions": groups}
    assert asked({"encounters": stays, "conditions": None}, both)["lace"].points == 4 + 3


@pytest.mark.parametrize("name", list(ABOUT))
def test_a_score_compiled_alone_says_what_it_says_among_all(name: str) -> None:
    """A package names the scores it shows; only their inputs are computed."""
    alone = ReferenceScores({}, stay_rule=RULE, index_within_hours=24, names=[name])
    everyone = ReferenceScores({}, stay_rule=RULE, index_within_hours=24)
    table = """
        Encounter   | IMP | 2026-11-18 12:00 .. | EM | in-progress | for COPD
        Condition   | heart failure | 2020-01-01
        Observation | pulse | 2026-11-21 08:00 | 80 /min
    """
    wanted = Wanted(everyone.concepts, stay_rule=RULE)
    record = build_record(decode_bundle(bundle(table)), wanted)
    (found,) = alone.every(record, moment(AS_OF))
    assert found in everyone.every(record, moment(AS_OF))
    assert alone.concepts <= everyone.concepts
