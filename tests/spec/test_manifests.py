"""Chapter 11: the language is enough. Every predictor of four models, written and computed.

The manifests in tests/data/manifests say every row of their specification; a drawn patient gives
each row its value. What no row can say yet stands in docs/feature-language.md, last chapter.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import msgspec
import pytest

from fhir_adapters.decode import decode_bundle
from fhir_adapters.facts import build_record
from fhir_adapters.features.compute import FeatureRow, FeatureSet
from fhir_adapters.features.language import FeatureSpec
from fhir_adapters.prefetch import expected_query
from fhir_adapters.reading.wanted import AnswerRule, Wanted
from models.manifest import AnswerSpec, Category, Index, Query
from tests.spec.drawn import AS_OF, RULE, bundle, moment, plain

FOLDER = Path(__file__).parent.parent / "data" / "manifests"
NAMES = ["copd-deterioration", "hf-deterioration", "crc-surgery", "readmission-left-out"]


class Draft(msgspec.Struct, forbid_unknown_fields=True):
    """The part of a manifest that speaks of features."""

    schema_version: int
    id: str
    index: Index
    prefetch: dict[str, Query]
    categories: list[Category]
    features: list[FeatureSpec]
    answers: dict[str, AnswerSpec] = {}


@cache
def draft(name: str) -> Draft:
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Draft)


def compiled(said: Draft) -> FeatureSet:
    supplied_by = {of: key for key, query in said.prefetch.items() for of in query.supplies}
    within = said.index.ended_within_hours if said.index.kind == "stay" else None
    return FeatureSet(said.features, supplied_by, stay_rule=RULE, index_within_hours=within)


def computed(name: str, table: str) -> FeatureRow:
    said = draft(name)
    features = compiled(said)
    rules = tuple(AnswerRule(c, frozenset(a.link_ids), a.values) for c, a in said.answers.items())
    wanted = Wanted(features.concepts, features.stay_rule, rules)
    return features.compute(build_record(decode_bundle(bundle(table)), wanted), moment(AS_OF))


HOME_SETS = """
    Observation | saturation | 2026-09-07 08:00 | 93 %
    Observation | saturation | 2026-09-21 08:00 | 94 %
    Observation | saturation | 2026-10-05 08:00 | 93 %
    Observation | saturation | 2026-10-26 08:00 | 92 %
    Observation | saturation | 2026-11-09 08:00 | 91 %
    Observation | saturation | 2026-11-20 08:00 | 88 %
    Observation | pulse      | 2026-09-07 08:00 | 78 /min
    Observation | pulse      | 2026-09-21 08:00 | 80 /min
    Observation | pulse      | 2026-10-05 08:00 | 79 /min
    Observation | pulse      | 2026-10-26 08:00 | 81 /min
    Observation | pulse      | 2026-11-09 08:00 | 84 /min
    Observation | pulse      | 2026-11-20 08:00 | 96 /min
    Observation | systolic   | 2026-09-07 08:00 | 124 mm[Hg]
    Observation | systolic   | 2026-09-21 08:00 | 126 mm[Hg]
    Observation | systolic   | 2026-10-05 08:00 | 122 mm[Hg]
    Observation | systolic   | 2026-10-26 08:00 | 124 mm[Hg]
    Observation | systolic   | 2026-11-20 08:00 | 104 mm[Hg]
    Observation | diastolic  | 2026-11-20 08:00 | 62 mm[Hg]
    Observation | weight     | 2026-09-07 08:00 | 80.0 kg
    Observation | weight     | 2026-09-21 08:00 | 80.2 kg
    Observation | weight     | 2026-10-05 08:00 | 79.8 kg
    Observation | weight     | 2026-11-09 08:00 | 80.4 kg
    Observation | weight     | 2026-11-15 08:00 | 80.6 kg
    Observation | weight     | 2026-11-20 08:00 | 83.0 kg
    Observation | height     | 2020-01-01       | 178 cm
    Observation | creatinine | 2026-11-10 08:00 | 120 umol/L
    Observation | 9279-1     | 2026-11-20 08:00 | 22 /min
    Observation | MCS88159   | 2026-06-01 08:00 | true
    Observation | smoking    | 2026-06-01 08:00 | code 449868002
    EpisodeOfCare         | tele             | 2026-08-01 12:00 .. | active
    QuestionnaireResponse | symptom_overall  | 2026-11-13 08:00 | Slet ikke
    QuestionnaireResponse | symptom_overall  | 2026-11-20 08:00 | En del
    QuestionnaireResponse | symptom_dyspnoea | 2026-11-13 08:00 | Lidt
    QuestionnaireResponse | symptom_dyspnoea | 2026-11-20 08:00 | Meget
    QuestionnaireResponse | symptom_cough    | 2026-11-20 08:00 | Lidt
    QuestionnaireResponse | symptom_fatigue  | 2026-11-20 08:00 | En del
    Encounter             | EMER | 2026-08-03 08:00 .. 2026-08-03 11:00
    Encounter             | IMP  | 2026-03-01 08:00 .. 2026-03-05 12:00 | EM | for heart failure
    Condition             | DI489 | 2019-01-01 | active
    Condition             | DE119 | 2015-01-01 | active
"""
COPD = """
    Observation           | MCS88137              | 2026-11-01 08:00 | 24
    Observation           | MCS88023              | 2026-05-01 08:00 | 41 %
    QuestionnaireResponse | symptom_sputum_amount | 2026-11-20 08:00 | Lidt
    QuestionnaireResponse | symptom_sputum_colour | 2026-11-20 08:00 | Slet ikke
    QuestionnaireResponse | rescue_inhaler_use    | 2026-11-13 08:00 | 2
    QuestionnaireResponse | rescue_inhaler_use    | 2026-11-20 08:00 | 6
    Condition             | DJ441        | 2026-03-02 | active
    Condition             | DJ441        | 2026-07-01 | active
    MedicationRequest     | prednisolone | 2026-07-04 | completed
    MedicationRequest     | R03AL09      | 2026-01-01 | active
"""
HEART_FAILURE = """
    Observation           | 33762-6    | 2026-11-01 08:00 | 2400 pg/mL
    QuestionnaireResponse | symptom_ankle_swelling | 2026-11-20 08:00 | En del
    QuestionnaireResponse | symptom_orthopnoea     | 2026-11-20 08:00 | Lidt
    QuestionnaireResponse | kccq                   | 2026-11-20 08:00 | 46
    Condition             | DI509      | 2024-11-21 | active
    MedicationRequest     | furosemide | 2026-10-01 | active | dose 80 mg
    MedicationRequest     | C07AB02    | 2025-10-01 | active
"""
SURGERY = """
    Observation | 302132005  | 2026-11-10 08:00 | code 413497009
    Observation | systolic   | 2026-11-10 08:00 | 106 mm[Hg]
    Observation | saturation | 2026-11-10 08:00 | 95 %
    Observation | weight     | 2026-06-10 08:00 | 80 kg
    Observation | weight     | 2026-11-10 08:00 | 74 kg
    Observation | height     | 2020-01-01       | 178 cm
    Observation | haemoglobin| 2026-11-10 08:00 | 6.2 mmol/L
    Observation | sodium     | 2026-11-10 08:00 | 132 mmol/L
    Observation | creatinine | 2026-11-10 08:00 | 90 umol/L
    Observation | MCS88036   | 2026-11-10 08:00 | 20 {drinks}/wk
    Observation | MCS88024   | 2026-11-10 08:00 | 30 a
    Condition   | DC209      | 2026-10-10 | active
    Condition   | COPD       | 2018-10-10 | active
    Condition   | AZCD16     | 2026-10-20 | active
    Condition   | AZCD41     | 2026-10-20 | active
    Condition   | DK566      | 2026-11-18 | active
    Procedure   | BWHA1      | 2026-09-01
    Procedure   | KJAH01     | 2012-09-01
    Encounter   | IMP        | 2026-03-01 08:00 .. 2026-03-05 12:00 | EM
    QuestionnaireResponse | exercise_capacity_mets | 2026-11-10 | 3.5
    QuestionnaireResponse | anal_verge_distance    | 2026-11-10 | 7
    QuestionnaireResponse | planned_urgency        | 2026-11-10 | Nej
    QuestionnaireResponse | planned_stoma          | 2026-11-10 | Ja
    MedicationRequest     | prednisolone           | 2026-10-01 | active
    MedicationRequest     | insulin                | 2026-10-01 | active
"""
DISCHARGE = """
    Encounter   | IMP   | 2026-11-17 10:00 .. 2026-11-21 11:00 | EM | for heart failure
    Observation | CRP   | 2026-11-17 12:00 | 60 mg/L
    Observation | CRP   | 2026-11-20 08:00 | 75 mg/L
    Condition   | DF112 | 2020-01-01 | active
    QuestionnaireResponse | home_care_hours     | 2026-11-20 08:00 | 6.5
    QuestionnaireResponse | rehabilitation_plan | 2026-11-20 08:00 | Ja
    QuestionnaireResponse | interpreter_needed  | 2026-11-20 08:00 | Nej
"""


@pytest.mark.parametrize("name", NAMES)
def test_every_row_compiles_and_has_a_category(name: str) -> None:
    """All words are understood, and every category holds a predictor."""
    said = draft(name)
    assert said.id == name
    assert compiled(said)
    used = {feature.category for feature in said.features} - {None}
    assert used == {category.id for category in said.categories}


@pytest.mark.parametrize("name", NAMES)
def test_every_concept_comes_from_one_query_of_its_resource(name: str) -> None:
    """Templates ask for the type they say, and nothing is supplied twice or in vain."""
    said = draft(name)
    supplied = [concept for query in said.prefetch.values() for concept in query.supplies]
    assert len(supplied) == len(set(supplied))
    assert compiled(said).concepts <= set(supplied)
    for query in said.prefetch.values():
        assert expected_query(query.template).resource_type == query.resource


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_record_gives_no_number_but_for_none_and_never(name: str) -> None:
    """Counts are zero, what never happened never happened; nothing else has a value."""
    row = computed(name, "Patient | |")
    concluding = {"any", "count", "count_distinct", "episodes", "days_total", "days_since"}
    concluding |= {"days_since_first", "missed", "charlson", "at_least"}
    numbers = {n for n, v in row.values.items() if v.value is not None}
    recipes = {spec.name: spec.recipe for spec in draft(name).features}
    assert {recipes[name] for name in numbers} <= concluding


@pytest.mark.parametrize(
    ("name", "table", "answers"),
    [
        (
            "copd-deterioration",
            HOME_SETS + COPD,
            {
                "spo2": 88.0,
                "spo2_delta": -3.372454,
                "spo2_min_14d": 88.0,
                "spo2_baseline": 93.0,
                "home_oxygen": 1.0,
                "spo2_below_92_on_oxygen": 4.0,
                "respiratory_rate": 22.0,
                "pulse": 96.0,
                "af": 1.0,
                "low_systolic": 6.0,
                "pulse_pressure": 42.0,
                "low_systolic_with_symptoms": 6.0,
                "weight_loss_3m": 0.0,
                "bmi": 26.19619,
                "bmi_below_20": 0.0,
                "overall_state": 2.0,
                "dyspnoea": 3.0,
                "dyspnoea_change": 2.0,
                "sputum_amount": 1.0,
                "sputum_colour": 0.0,
                "cough": 1.0,
                "cat": 24.0,
                "fev1": 41.0,
                "exacerbations_12m": 2.0,
                "prednisolone_courses_12m": 1.0,
                "days_since_exacerbation": 140.541667,
                "ed_visits_6m": 1.0,
                "diabetes": 1.0,
                "charlson": 1.0,
                "smoker": 1.0,
                "age": 76.0,
                "triple_inhaler": 1.0,
                "beta_blocker": 0.0,
                "rescue_inhaler_change": 4.0,
                "missed_sets_28d": 1.0,
                "days_since_set": 1.166667,
                "season": 0.567,
                "enrolled_days": 112.041667,
                "sets_10w": 5.0,
            },
        ),
        (
            "hf-deterioration",
            HOME_SETS + HEART_FAILURE,
            {
                "pulse_above_60": 36.0,
                "weight_gain_7d": 2.4,
                "weight_gain_30d": 2.6,
                "weight_above_dry": 3.0,
                "ankle_swelling": 2.0,
                "orthopnoea": 1.0,
                "kccq": 46.0,
                "nt_probnp": 2400.0,
                "heart_failure_18m": 1.0,
                "hf_admissions_12m": 1.0,
                "loop_dose": 80.0,
                "beta_blocker": 1.0,
                "charlson": 2.0,
                "egfr": 40.472,
            },
        ),
        (
            "crc-surgery",
            SURGERY,
            {
                "age": 76.0,
                "who_performance": "missing",
                "asa": 3.0,
                "low_systolic": 4.0,
                "copd": 1.0,
                "mets_below_4": 1.0,
                "charlson_without_tumour": 1.0,
                "haemoglobin": 6.2,
                "weight_loss_6m": 7.5,
                "bmi_low": 0.0,
                "sodium_deficit": 3.0,
                "rectal_cancer": 1.0,
                "ct4": 1.0,
                "cm1": 1.0,
                "obstruction": 1.0,
                "neoadjuvant": 1.0,
                "anal_verge": 7.0,
                "emergency": 0.0,
                "stoma": 1.0,
                "multivisceral": "missing",
                "alcohol_above_14": 6.0,
                "pack_years": 30.0,
                "steroid": 1.0,
                "ten_drugs": 0.0,
                "admissions_12m": 1.0,
                "abdominal_surgery": 1.0,
            },
        ),
        (
            "readmission-left-out",
            DISCHARGE,
            {
                "weekday": 5.0,
                "for_heart_failure": 1.0,
                "for_copd": 0.0,
                "substance_disorder": 1.0,
                "news2": "missing",
                "crp_not_falling": 1.0,
                "home_care_hours": 6.5,
                "rehabilitation_plan": 1.0,
                "interpreter": 0.0,
            },
        ),
    ],
)
def test_a_drawn_patient_gives_every_row_its_value(
    name: str, table: str, answers: dict[str, float | str]
) -> None:
    """Worked by hand from the tables above."""
    row = computed(name, table)
    found = {feature: plain(row.values[feature]) for feature in answers}
    assert found == {
        feature: pytest.approx(answer, abs=0.001) if isinstance(answer, float) else answer
        for feature, answer in answers.items()
    }
