"""The real requests that are mutated: of every bundled service, and of record systems' shapes.

The demo request, the recorded requests, a worked example of every package, and a public Synthea
record, each asked the queries of a package. Called by `test_mutated_requests.py` and `run`.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from fhir_adapters.prefetch import answer_queries
from models.manifest import read_manifest
from models.registry import BUNDLED
from tests.fuzz.mutations import Seed, seed_of

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "contract" / "requests"
SCORED = (
    "epic-discharge", "epic-open-chart", "medplum-patient-view", "sandbox-patient-view",
)  # fmt: skip
SERVICES = ("copd-deterioration", "crc-surgery", "hf-deterioration", "readmission-30d")
AS_OF = "dk.varsel.as-of"


@cache
def all_seeds() -> tuple[Seed, ...]:
    """Every seed, in a fixed order."""
    demo = _read(ROOT / "cds_service" / "demo" / "hook-request.json")
    recorded = [_at(_read(RECORDED / f"{name}.json"), "latest") for name in SCORED]
    return (
        seed_of("demo", "readmission-30d", demo),
        *(seed_of(n, "readmission-30d", r) for n, r in zip(SCORED, recorded, strict=True)),
        *(seed_of(f"example of {s}", s, _example(s)) for s in SERVICES),
        seed_of("Synthea", "readmission-30d", _synthea("readmission-30d")),
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _at(request: dict[str, Any], as_of: str) -> dict[str, Any]:
    return {**request, "extension": {**request.get("extension", {}), AS_OF: as_of}}


def _example(service: str) -> dict[str, Any]:
    example = _read(BUNDLED / service / "examples" / "01.json")
    return _asked(service, example["bundle"], example["as_of"])


def _synthea(service: str) -> dict[str, Any]:
    (path,) = (ROOT / "tests" / "data" / "synthea").glob("Luigi_*.json.gz")
    with gzip.open(path) as file:
        return _asked(service, json.load(file), "latest")


def _asked(service: str, bundle: dict[str, Any], as_of: str) -> dict[str, Any]:
    """The hook request a record system would send of a whole record."""
    templates = {k: q.template for k, q in read_manifest(BUNDLED / service).prefetch.items()}
    entries = bundle["entry"]
    patient = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "Patient")
    request = {
        "hook": "patient-view",
        "hookInstance": "00000000-0000-4000-8000-000000000000",
        "context": {"userId": "Practitioner/demo", "patientId": patient["id"]},
        "prefetch": answer_queries(entries, templates, patient),
    }
    return _at(request, as_of)
