"""A prediction as a FHIR RiskAssessment: what others read of it, and what they must not."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.riskassessment import RiskAssessment
from hypothesis import given
from hypothesis import strategies as st

from cds_service.api.risk_assessments import risk_assessment
from cds_service.assess import Asked, log_row, read_pseudonymous
from cds_service.cli.scoring import score_one
from cds_service.identities.privacy import Privacy
from cds_service.settings import Settings
from fhir_adapters.errors import OutboundRefused
from fhir_adapters.outbound.bundle import collection, ndjson_line
from fhir_adapters.outbound.risk_assessment import checked
from models.examples import read_example
from models.package import Package, load_package
from models.prediction import (
    Argument,
    ClassProbability,
    FeatureArgument,
    Prediction,
    RankingPrediction,
)
from models.registry import BUNDLED

MODELS = sorted(path.parent.name for path in BUNDLED.glob("*/manifest.toml"))
SETTINGS = Settings(profile="demo", pseudonym_key="cA" * 21 + "c=", seal_key="cA" * 21 + "c=")
BASE = "https://ehr.example/fhir"
Row = dict[str, Any]


@cache
def package_of(model: str) -> Package:
    """A bundled package, loaded once."""
    return load_package(BUNDLED / model)


@cache
def logged(model: str, language: str = "da") -> tuple[Prediction, Row, dict[str, Any]]:
    """A prediction as read from the log, its row, and what the vault holds of it."""
    package = package_of(model)
    patient = read_example(package.folder / "examples" / "04.json")
    answer = score_one(
        package, bytes(patient.bundle), as_of=patient.as_of, language=language, settings=SETTINGS
    )
    asked = Asked(
        organisation="org", caller="ehr", hook="patient-view", hook_instance="h",
        content_digest="c", context_digest="d", fhir_base=f"{BASE}/", patient_id="pat-17",
        encounter_id="enc-17", user_id="Practitioner/9",
    )  # fmt: skip
    row = log_row(answer, asked, Privacy(SETTINGS.keys))
    return read_pseudonymous(row), row, json.loads(row["references"])


def resource(model: str = "readmission-30d", language: str = "da", **given: Any) -> dict[str, Any]:
    """The RiskAssessment of a worked example; the vault stays shut unless it is given."""
    prediction, row, _ = logged(model, language)
    made = risk_assessment(prediction, row, **given)
    assert made is not None
    return made


# ---- what it says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "language"), [*((model, "da") for model in MODELS), ("crc-surgery", "en")]
)
def test_every_model_gives_a_resource_the_r4_models_take(model: str, language: str) -> None:
    """With and without the vault."""
    _, _, references = logged(model, language)
    for opened in (None, references):
        read = RiskAssessment.model_validate(resource(model, language, references=opened))
        assert read.status == "final"


@pytest.mark.parametrize("model", MODELS)
def test_there_is_a_prediction_for_every_outcome_in_per_cent(model: str) -> None:
    """R4 counts from 0 to 100. The period begins with what was asked about."""
    prediction, _, _ = logged(model)
    made = resource(model)["prediction"]
    assert [p["probabilityDecimal"] for p in made] == pytest.approx(
        [100 * head.risk for head in prediction.heads], abs=1e-4
    )
    assert all(0 <= p["probabilityDecimal"] <= 100 for p in made)
    assert all(p["whenPeriod"]["start"] == prediction.index_time for p in made)


def test_the_resource_a_colleague_reads() -> None:
    """Outcome, probability, band, period, and why: the categories a card names, adding up."""
    made = resource(language="en")
    assert made["prediction"] == [
        {
            "outcome": {
                "coding": [
                    {
                        "system": "https://varsel.dk/fhir/CodeSystem/outcome",
                        "code": "readmission-30d.readmission",
                    }
                ],
                "text": logged("readmission-30d")[0].heads[0].outcome,
            },
            "probabilityDecimal": made["prediction"][0]["probabilityDecimal"],
            "qualitativeRisk": {
                "coding": [
                    {
                        "system": "https://varsel.dk/fhir/CodeSystem/band",
                        "code": "readmission-30d.readmission.high",
                    }
                ],
                "text": "high",
            },
            "whenPeriod": made["prediction"][0]["whenPeriod"],
            "rationale": made["prediction"][0]["rationale"],
        }
    ]
    rationale = made["prediction"][0]["rationale"]
    assert rationale.startswith("Raised it (points): ")
    assert "Comparison group" in rationale
    assert "not causes" in rationale


def test_who_did_it_is_a_machine_and_which() -> None:
    """HL7's label, the model with its version, and the checksum of its files."""
    prediction, row, _ = logged("readmission-30d")
    made = resource()
    (label,) = made["meta"]["security"]
    assert (label["code"], label["display"]) == ("AIAST", "Artificial Intelligence asserted")
    assert label["system"] == "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
    assert made["performer"] == {"reference": "#model"}
    (device,) = made["contained"]
    assert device["id"] == "model"
    assert device["identifier"][0]["value"] == prediction.model.checksum
    assert [v["value"] for v in device["version"]] == ["1.0.0", row["software_version"]]
    (coding,) = made["method"]["coding"]
    assert coding == {
        "system": "https://varsel.dk/fhir/CodeSystem/model", "code": "readmission-30d",
        "version": "1.0.0",
    }  # fmt: skip


def test_it_advises_nothing_and_multiplies_nothing() -> None:
    """No mitigation, no relative risk: neither was computed."""
    made = resource()
    assert "mitigation" not in made
    assert all("relativeRisk" not in p for p in made["prediction"])


def test_a_synthetic_or_silent_model_says_so() -> None:
    """In a note, which is read, and a tag, which is searched for."""
    prediction, row, _ = logged("readmission-30d")
    silent = msgspec.structs.replace(prediction, mode="silent")
    made = risk_assessment(silent, row)
    assert made is not None
    assert [note["text"] for note in made["note"]] == [
        "Trænet på SYNTETISKE data: ikke til klinisk brug.",
        "Modellen kørte tavst: prognosen blev ikke vist.",
    ]
    assert made["meta"]["tag"][0]["code"] == "silent"


def test_a_withdrawn_prediction_is_entered_in_error() -> None:
    """Who holds a copy learns that it no longer stands."""
    assert resource(withdrawn=True)["status"] == "entered-in-error"


@pytest.mark.parametrize("status", ["insufficient-data", "not-eligible", "refused"])
def test_without_a_risk_there_is_no_risk_assessment(status: Any) -> None:
    """None is not a risk of nothing."""
    prediction, row, _ = logged("readmission-30d")
    assert risk_assessment(msgspec.structs.replace(prediction, status=status), row) is None


def test_a_ranking_gives_every_class_with_its_probability() -> None:
    """The most likely first, and what speaks for and against it in words: there are no points."""
    prediction, row, _ = logged("readmission-30d", "en")
    feature = FeatureArgument(
        name="crp", label="CRP", value=8.0, unit="mg/L", status="measured", speaks="for"
    )
    ranking = RankingPrediction(
        ranking="cause", outcome="why", horizon_days=None, status="scored",
        classes=[ClassProbability("a", "Pneumonia", 0.7), ClassProbability("b", "Asthma", 0.3)],
        speaks_for=[Argument(category="labs", label="Blood tests", features=[feature])],
        speaks_against=[],
    )  # fmt: skip
    ranked = msgspec.structs.replace(prediction, heads=[], rankings=[ranking])
    made = risk_assessment(ranked, row)
    assert made is not None
    first, second = made["prediction"]
    assert (first["probabilityDecimal"], second["probabilityDecimal"]) == (70.0, 30.0)
    assert first["outcome"]["coding"][0]["code"] == "readmission-30d.cause.a"
    assert first["rationale"].startswith("Speaks for “Pneumonia”: Blood tests.")
    assert "rationale" not in second
    assert "whenPeriod" not in first
    assert "qualitativeRisk" not in first


# ---- whom it names --------------------------------------------------------------------------


def test_without_the_vault_nobody_is_named() -> None:
    """Pseudonyms under a system of ours; no source, no address, no id of anybody's."""
    _, row, references = logged("readmission-30d")
    made = resource()
    assert made["subject"] == {
        "type": "Patient",
        "identifier": {
            "system": "https://varsel.dk/fhir/sid/pseudonym", "value": row["patient_pseudonym"],
        },
    }  # fmt: skip
    assert "basis" not in made
    text = json.dumps(made)
    sources = {one for named in references["sources"].values() for one in named}
    assert sources
    assert [name for name in ("pat-17", "enc-17", "ehr.example", *sources) if name in text] == []


def test_with_the_vault_patient_encounter_and_sources_are_references() -> None:
    """Each once, on the server they are from; a source without an id of its own is left out."""
    _, _, references = logged("readmission-30d")
    odd = references["sources"] | {"odd": ["#med", "Observation/", "urn:uuid:1", "Condition/c-1"]}
    made = resource(references=references | {"sources": odd})
    assert made["subject"] == {"type": "Patient", "reference": f"{BASE}/Patient/pat-17"}
    assert made["encounter"] == {"type": "Encounter", "reference": f"{BASE}/Encounter/enc-17"}
    basis = [one["reference"] for one in made["basis"]]
    assert f"{BASE}/Condition/c-1" in basis
    assert len(basis) == len(set(basis)) > 3
    assert all(one.startswith(f"{BASE}/") and not one.endswith("/") for one in basis)


def test_where_no_server_is_known_references_are_relative() -> None:
    """A Bundle scored from a file has no address."""
    _, _, references = logged("readmission-30d")
    made = resource(references=references | {"fhir_base": ""})
    assert made["subject"]["reference"] == "Patient/pat-17"


# ---- how it travels -------------------------------------------------------------------------


def test_a_bundle_is_written_piece_by_piece() -> None:
    """A reader gets one valid Bundle; the writer held one resource at a time."""
    taken = []

    def resources() -> Any:
        for model in MODELS:
            taken.append(model)
            yield resource(model)

    pieces = collection(resources())
    assert next(pieces).startswith(b"{")
    assert taken == []
    whole = b'{"resourceType":"Bundle","type":"collection"' + b"".join(pieces)
    read = Bundle.model_validate_json(whole)
    assert len(read.entry) == len(MODELS)
    assert read.entry[0].fullUrl == f"urn:uuid:{read.entry[0].resource.id}"


def test_a_bundle_of_nothing_has_no_entry() -> None:
    """FHIR has no empty lists."""
    assert json.loads(b"".join(collection([]))) == {
        "resourceType": "Bundle", "type": "collection",
    }  # fmt: skip


def test_a_bundle_that_broke_off_is_no_bundle() -> None:
    """Nobody takes a part for the whole."""
    pieces: list[bytes] = []

    def resources() -> Any:
        yield resource()
        raise ConnectionError

    with pytest.raises(ConnectionError):
        pieces.extend(collection(resources()))
    with pytest.raises(json.JSONDecodeError):
        json.loads(b"".join(pieces))


@given(st.text())
def test_a_line_is_one_line(text: str) -> None:
    """Whatever a text holds."""
    line = ndjson_line({"resourceType": "RiskAssessment", "note": [{"text": text}]})
    assert line.count(b"\n") == 1
    assert json.loads(line)["note"][0]["text"] == text


def test_a_resource_that_is_not_fhir_never_leaves_and_its_values_are_not_told() -> None:
    """The error names the element; what it held may be of a patient."""
    wrong = resource() | {"subject": "Nancy Ann", "surprise": "Nancy Ann"}
    with pytest.raises(OutboundRefused, match="subject") as refused:
        checked(wrong)
    assert "surprise" in str(refused.value)
    assert "Nancy" not in str(refused.value)


def test_the_models_of_fhir_are_not_imported_until_a_resource_is_made() -> None:
    """The process that answers hooks does without them."""
    probe = (
        "import sys, cds_service.api.risk_assessments, fhir_adapters.outbound.bundle;"
        "print([m for m in sys.modules if m.startswith('fhir.')])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", probe], cwd=root, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
