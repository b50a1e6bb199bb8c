"""What a patient is given to read: plain words of the package that predicted, else its names."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cds_service.identities.subject_access import Language, as_text
from models.manifest import Manifest, read_manifest
from models.registry import BUNDLED

ZONE = ZoneInfo("Europe/Copenhagen")
CHECKSUM = "c" * 64


def a_feature(name: str, value: float | None, **said: Any) -> dict[str, Any]:
    """A value as the log keeps it."""
    status = "missing" if value is None else "measured"
    return {"name": name, "value": value, "status": status, "time": None, "unit": None, **said}


EVERYTHING: dict[str, Any] = {
    "organisation": "1",
    "identity": [{"patient": "p"}],
    "decisions": [],
    "searches": [],
    "lists_and_exports": [],
    "predictions": [
        {
            "prediction_id": "7",
            "computed_at": "2026-11-22T14:07:00Z",
            "references": {},
            "unit": None,
            "caller": "sp",
            "hook": "encounter-discharge",
            "model_id": "readmission-30d",
            "model_version": "1.0.0",
            "package_checksum": CHECKSUM,
            "purpose": "treatment",
            "legal_ground": "g",
            "status": "scored",
            "returned": "card",
            "document": {
                "heads": [
                    {
                        "head": "readmission",
                        "outcome": "an outcome",
                        "horizon_days": 30,
                        "risk": 0.287,
                    }
                ]
            },
            "response": {"cards": [{"summary": "Risiko"}]},
            "features": [
                a_feature("ed_visits_6m", 3.0),
                a_feature("copd", 1.0),
                a_feature("length_of_stay", 4.5549, time=1_763_815_628.0),
                a_feature("crp_change", None),
            ],
            "feedback": [],
            "undelivered": [],
            "audit": [],
        }
    ],
}


@pytest.fixture(scope="module")
def manifests() -> dict[str, Manifest]:
    """The package that predicted."""
    return {CHECKSUM: read_manifest(BUNDLED / "readmission-30d")}


@pytest.mark.parametrize(
    ("language", "parts"),
    [
        pytest.param(
            "da",
            [
                "Akut genindlæggelse inden 30 dage: 28,7 %",
                "Akutte ambulante besøg seneste 6 mdr.: 3",
                "KOL: ja",
                "4,6 døgn (22.11.2025 kl. 13.47)",
                "CRP, ændring under indlæggelsen: mangler",
            ],
            id="da",
        ),
        pytest.param(
            "en", ["Acute readmission within 30 days: 28.7 %", "COPD: yes", "4.6 days"], id="en"
        ),
    ],
)
def test_what_it_rested_on_is_told_in_the_words_of_the_package(
    manifests: dict[str, Manifest], language: Language, parts: list[str]
) -> None:
    """Labels, yes and no, units and decimals as on a card; no name of a column."""
    text = as_text(EVERYTHING, ZONE, language, manifests=manifests)
    for part in parts:
        assert part in text, text
    for name in ("ed_visits_6m", "copd:", "an outcome"):
        assert name not in text


def test_of_a_package_that_is_gone_the_data_s_own_names_are_told() -> None:
    """Nothing is left out because its words are."""
    text = as_text(EVERYTHING, ZONE, "da", manifests={})
    for part in ("an outcome inden for 30 dage: 28,7 %", "ed_visits_6m: 3", "crp_change: mangler"):
        assert part in text, text
