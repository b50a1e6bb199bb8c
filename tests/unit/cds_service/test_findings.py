"""Findings as a nurse reads them: what is known, what is missing and under which name, and why."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from cds_service.findings import (
    Setting,
    missing_names,
    said_facts,
    say_findings,
    say_missing,
    specs_of,
    why_missing,
)
from fhir_adapters.clock import COPENHAGEN
from models.manifest import Manifest, read_manifest
from models.prediction import (
    Contribution,
    FeatureContribution,
    FeatureFinding,
    Missing,
    ModelRef,
    Prediction,
)
from models.registry import BUNDLED

DANISH = Setting("da", COPENHAGEN, None)
ENGLISH = Setting("en", COPENHAGEN, None)
NOT_MEASURED = "missing"
MANIFESTS = list(BUNDLED.glob("*/manifest.toml"))


@cache
def manifest(model: str) -> Manifest:
    return read_manifest(BUNDLED / model)


def missing(model: str, *names: str, reason: str = NOT_MEASURED) -> list[Missing]:
    specs = specs_of(manifest(model))
    return [Missing(name, specs[name].label.da, reason) for name in names]


def names(model: str, found: list[Missing], language: str = "da") -> list[str]:
    return missing_names(specs_of(manifest(model)), found, language)


# ---- what is missing --------------------------------------------------------------------------


def test_what_nobody_measured_is_named_once() -> None:
    """Its trend, its lowest value and its deviation from the usual need no mention."""
    found = missing("copd-deterioration", "spo2_delta", "spo2", "spo2_slope", "spo2_min_14d")
    assert names("copd-deterioration", found) == ["iltmætning"]
    assert names("copd-deterioration", found, "en") == ["oxygen saturation"]


def test_what_is_measured_but_has_no_trend_yet_is_named_by_the_trend() -> None:
    """The saturation is there; only too few earlier ones to compare it with."""
    found = missing("copd-deterioration", "spo2_delta", reason="not-obtained")
    assert names("copd-deterioration", found) == ["iltmætning, afvigelse fra det sædvanlige"]


@pytest.mark.parametrize(
    "reason", ["missing (systolic)", "not-obtained (vitals: not asked)", "missing"]
)
def test_a_feature_made_from_a_measurement_is_named_by_the_measurement(reason: str) -> None:
    """Not "systolic blood pressure below 110": that would read as a finding."""
    found = missing("readmission-30d", "low_systolic", reason=reason)
    assert names("readmission-30d", found) == ["systolisk blodtryk"]


def test_of_a_feature_made_from_several_the_one_that_is_missing_is_named() -> None:
    """A BMI without a height; where nobody can tell which it was, the BMI."""
    height = missing("crc-surgery", "bmi", reason="missing (height)")
    assert names("crc-surgery", height) == ["højde"]
    either = missing("crc-surgery", "bmi", reason="not-obtained (home: not asked)")
    assert names("crc-surgery", either) == ["BMI"]


@pytest.mark.parametrize("model", sorted(folder.parent.name for folder in MANIFESTS))
@pytest.mark.parametrize("language", ["da", "en"])
def test_whatever_is_missing_has_a_name(model: str, language: str) -> None:
    """Stays, contacts and medicines nobody sent as well as measurements; each by itself and all."""
    inputs = [feature.name for feature in manifest(model).inputs]
    for one in inputs:
        (name,) = names(model, missing(model, one), language)
        assert name
    assert len(names(model, missing(model, *inputs), language)) > len(inputs) / 3


def test_what_was_not_sent_of_contacts_is_named_by_the_count() -> None:
    """They are no measurements: each count goes by its own name."""
    found = missing(
        "copd-deterioration", "ed_visits_6m", "ckd", reason="not-obtained (encounters: not asked)"
    )
    assert names("copd-deterioration", found) == [
        "akutte ambulante besøg seneste 6 mdr.",
        "kronisk nyresygdom",
    ]


def test_names_keep_their_capitals() -> None:
    """A scale with a name of its own, an abbreviation."""
    found = missing("crc-surgery", "cfs", "hba1c", "crp")
    assert names("crc-surgery", found) == ["skrøbelighed (CFS)", "HbA1c", "CRP"]
    assert names("crc-surgery", found, "en") == ["Clinical Frailty Scale", "HbA1c", "CRP"]


def prediction(model: str, *found: Missing) -> Prediction:
    return Prediction(
        prediction_id="6f1d2b0a-3c44-8c8e-9a51-5a0f6a3f7d10",
        service=model,
        model=ModelRef(model, "1.0.0", "0" * 64),
        synthetic=True,
        mode="live",
        returned="",
        as_of="2026-11-21T08:00:00Z",
        computed_at="2026-11-21T08:00:00Z",
        index_time=None,
        status="scored",
        reason=None,
        language="da",
        missing=list(found),
    )


def said(model: str, *features: str) -> str:
    return say_missing(manifest(model), prediction(model, *missing(model, *features)), DANISH)


def test_the_line_of_what_is_missing() -> None:
    """Empty where nothing is; one full stop, also after "mdr."; semicolons beside commas."""
    assert said("crc-surgery") == ""
    assert said("crc-surgery", "crp", "albumin") == "**Mangler:** CRP, albumin."
    assert said("crc-surgery", "weight_loss_6m") == "**Mangler:** vægtændring i 6 mdr."
    assert said("hf-deterioration", "loop_dose", "nt_probnp") == (
        "**Mangler:** loop-diuretikum, dosis; NT-proBNP."
    )


def test_more_than_six_are_counted() -> None:
    named = ("crp", "albumin", "haemoglobin", "creatinine", "hba1c", "platelets", "cfs", "spo2")
    assert said("crc-surgery", *named).endswith("trombocytter og 2 til.")


def test_a_quarter_missing_weakens_the_estimate_and_the_card_says_so() -> None:
    inputs = [feature.name for feature in manifest("copd-deterioration").inputs]
    quarter = -(-len(inputs) // 4)
    assert "svagere" in said("copd-deterioration", *inputs[:quarter])
    assert "svagere" not in said("copd-deterioration", *inputs[: quarter - 1])


# ---- what is known ----------------------------------------------------------------------------


def finding(name: str, value: float | None, **fields: object) -> FeatureContribution:
    return msgspec.convert(
        {
            "name": name,
            "label": name,
            "value": value,
            "unit": "",
            "status": "missing" if value is None else "measured",
            "points": 0.1,
            **fields,
        },
        FeatureContribution,
    )


def facts(model: str, *features: FeatureContribution, setting: Setting = DANISH) -> list[str]:
    made = Contribution(
        category="c", label="C", points=1.0, positive=1.0, negative=0.0, features=list(features)
    )
    return said_facts(made, specs_of(manifest(model)), setting)


def test_a_category_of_what_nobody_measured_names_the_measurements_once() -> None:
    """A missing blood pressure can weigh; never a row of "missing"."""
    absent = [
        finding("systolic_delta", None),
        finding("pulse_pressure", None, reason="systolic"),
        finding("diastolic", None),
    ]
    assert facts("hf-deterioration", *absent) == [
        "mangler: systolisk blodtryk, diastolisk blodtryk"
    ]


def test_what_is_known_comes_before_what_is_missing() -> None:
    found = [finding("hba1c", None), finding("crp", 8.0, time="2026-11-20T08:00:00Z")]
    assert facts("crc-surgery", *found) == ["CRP 8 mg/L (20.11.2026)", "mangler: HbA1c"]
    assert facts("crc-surgery", *found, setting=ENGLISH) == [
        "CRP 8 mg/L (2026-11-20)",
        "missing: HbA1c",
    ]


def test_three_known_facts_leave_no_room_for_what_is_missing() -> None:
    known = [finding(name, 1.0) for name in ("af", "ckd", "diabetes")]
    assert len(facts("copd-deterioration", finding("cat", None), *known)) == 3
    assert "mangler" not in " ".join(facts("copd-deterioration", *known))


@pytest.mark.parametrize(
    ("value", "usual", "danish", "english"),
    [
        (95.0, 97.0, "iltmætning 95 % (plejer 97 %)", "oxygen saturation 95 % (usually 97 %)"),
        (
            94.5,
            96.5,
            "iltmætning 94,5 % (plejer 96,5 %)",
            "oxygen saturation 94.5 % (usually 96.5 %)",
        ),
    ],
)
def test_a_deviation_is_said_as_the_value_and_the_usual_one(
    value: float, usual: float, danish: str, english: str
) -> None:
    """Not as a multiple of own standard deviations; with as many decimals as were measured."""
    at = "2026-11-20T08:00:00Z"
    found: list[FeatureFinding] = [
        finding("spo2_delta", -1.3, baseline=usual, series=[(at, value)], time=at)
    ]
    specs = specs_of(manifest("copd-deterioration"))
    assert say_findings(found, specs, DANISH) == [danish]
    assert say_findings(found, specs, ENGLISH) == [english]


# ---- why --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "danish", "english"),
    [
        ("missing", "mangler", "missing"),
        ("implausible", "usandsynlig", "implausible"),
        ("missing (systolic)", "mangler: systolisk blodtryk", "missing: systolic blood pressure"),
        (
            "missing (outside the measuring range: < 70 %)",
            "mangler: uden for måleområdet: < 70 %",
            "missing: outside the measuring range: < 70 %",
        ),
        (
            "not-obtained (home: not asked)",
            "ikke indhentet: home: ikke spurgt",
            "not obtained: home: not asked",
        ),
        (
            "not-obtained (home: the sender's query failed)",
            "ikke indhentet: home: afsenderens forespørgsel fejlede",
            "not obtained: home: the sender's query failed",
        ),
        (
            "not-obtained (not stated for 2)",
            "ikke indhentet: ikke oplyst, antal 2",
            "not obtained: not stated for 2",
        ),
        (
            "not-obtained (home: expected Observation, got Patient)",
            "ikke indhentet: home: expected Observation, got Patient",
            "not obtained: home: expected Observation, got Patient",
        ),
    ],
)
def test_why_a_value_is_missing_is_said_in_the_language_of_the_page(
    reason: str, danish: str, english: str
) -> None:
    """A reason nobody translated stays as it is."""
    specs, one = specs_of(manifest("copd-deterioration")), Missing("spo2", "Iltmætning", reason)
    assert why_missing(one, specs, "da") == danish
    assert why_missing(one, specs, "en") == english
