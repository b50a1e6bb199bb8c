"""The published scores the bundled packages name: on their worked patients, worked out by hand."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest

from fhir_adapters.clock import parse_time
from fhir_adapters.decode import Gathered, decode_bundle, decode_prefetch
from fhir_adapters.facts import build_record
from fhir_adapters.prefetch import answer_queries
from models.examples import read_example
from models.package import Specification, read_specification
from models.predict import reference_scores
from models.registry import BUNDLED
from models.scores.comparators import COMPARED, comparators

Resource = dict[str, Any]
PACKAGES = ("copd-deterioration", "crc-surgery", "hf-deterioration", "readmission-30d")


@cache
def specification(model: str) -> Specification:
    return read_specification(BUNDLED / model)


def shown(spec: Specification, gathered: Gathered, as_of: str) -> dict[str, Any]:
    """Points, risk to three decimals, and what is lacking, of each score on the card."""
    record = build_record(gathered, spec.wanted)
    found = reference_scores(spec, spec.features.at(record, parse_time(as_of)), language="en")
    return {
        s.score: s.missing or (s.points, None if s.risk is None else round(s.risk, 3))
        for s in found
    }


def on_example(model: str, name: str) -> dict[str, Any]:
    example = read_example(BUNDLED / model / "examples" / name)
    return shown(specification(model), decode_bundle(bytes(example.bundle)), example.as_of)


def test_a_planned_stay_of_five_nights_with_kidney_disease() -> None:
    """LACE: 5 nights 4, renal disease 5. HOSPITAL: procedure 1, stay 2. Charlson: renal 2."""
    assert on_example("readmission-30d", "01.json") == {
        "lace": (9, 0.103),
        "hospital-2016": (3, 0.058),
        "charlson": (2, None),
    }


def test_an_acute_stay_of_four_nights_with_many_diseases() -> None:
    """LACE: nights 4, acute 3, comorbidity 5, five emergency visits 4. Charlson: metastases 6,
    diabetes with complications and renal 2 each, heart failure, lung disease and dementia 1 each.
    With cancer nobody knows from the record whether an oncology service discharges.
    """
    assert on_example("readmission-30d", "04.json") == {
        "lace": (16, 0.304),
        "hospital-2016": ["whether discharged from an oncology service"],
        "charlson": (13, None),
    }


def test_sort_asks_the_form_for_two_answers() -> None:
    found = on_example("crc-surgery", "01.json")
    assert found["sort"] == [
        "urgency of the operation",
        "whether the operation is extra-major or complex",
    ]
    assert found["charlson"] == (2, None)


def _form(patient: str, **answers: str) -> Resource:
    return {
        "resourceType": "QuestionnaireResponse",
        "id": "form",
        "status": "completed",
        "subject": {"reference": f"Patient/{patient}"},
        "authored": "2025-09-20T10:00:00+02:00",
        "item": [{"linkId": k, "answer": [{"valueString": v}]} for k, v in answers.items()],
    }


def by_prefetch(model: str, name: str, *more: Resource) -> dict[str, Any]:
    """What a hook would show: the example's patient with the queries of the package answered."""
    spec = specification(model)
    example = read_example(BUNDLED / model / "examples" / name)
    resources = [e["resource"] for e in json.loads(bytes(example.bundle))["entry"]]
    patient = next(r for r in resources if r["resourceType"] == "Patient")
    patient.pop("deceasedDateTime", None)
    made = [{**r, "subject": {"reference": f"Patient/{patient['id']}"}} for r in more]
    templates = {key: query.template for key, query in spec.manifest.prefetch.items()}
    entries = [{"resource": r} for r in (*resources, *made)]
    answers = answer_queries(entries, templates, patient)
    raw = {key: msgspec.Raw(json.dumps(answer).encode()) for key, answer in answers.items()}
    return shown(spec, decode_prefetch(raw, spec.expected), example.as_of)


def test_with_the_answers_sort_is_computed_from_the_hook() -> None:
    """ASA 1, elective, gastrointestinal 0.712, extra-major 0.381, cancer 0.667, 71 years 0.777.

    With -7.366 that is -4.829 in log-odds: 0.8 %.
    """
    form = _form("p", surgery_urgency="Elektiv", surgery_xmajor="Ja")
    assert by_prefetch("crc-surgery", "01.json", form)["sort"] == (None, 0.008)


def test_maggic_is_computed_from_the_hook() -> None:
    """All of its drugs and diagnoses are among what the package's queries supply."""
    assert by_prefetch("hf-deterioration", "03.json") == on_example("hf-deterioration", "03.json")
    assert by_prefetch("hf-deterioration", "03.json")["maggic-1y"] == (26, 0.175)


def test_at_home_with_copd_no_score_is_shown() -> None:
    """NEWS2 needs what is not measured at home; DECAF and PEARL are for admitted patients."""
    assert on_example("copd-deterioration", "04.json") == {}


@pytest.mark.parametrize("model", PACKAGES)
def test_every_head_says_what_it_is_compared_with(model: str) -> None:
    """Each head of a bundled package stands in the table; a score named is compared somewhere."""
    manifest = specification(model).manifest
    assert {head.id for head in manifest.heads} == {h for m, h in COMPARED if m == model}
    compared = {
        name
        for head in manifest.heads
        for name in comparators(model, head.id, manifest.reference_scores)
    }
    assert compared == set(manifest.reference_scores)


def test_a_package_from_elsewhere_is_compared_with_all_it_names_by_rank() -> None:
    assert comparators("our-own", "death", ["lace", "sort"]) == {"lace": None, "sort": None}
