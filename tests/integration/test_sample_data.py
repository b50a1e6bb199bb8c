"""The records in tests/data, which the README uses, through the command's path."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from cds_service.cli.scoring import score_one
from cds_service.settings import Settings
from fhir_adapters.codes import code_table
from fhir_adapters.decode import decode_bundle
from fhir_adapters.facts import Wanted, build_record
from models.package import Package

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize(
    ("name", "returned"), [("Roberto_Graham", "below-threshold"), ("Luigi_Wiegand", "not-eligible")]
)
def test_a_synthea_record_is_answered(package: Package, name: str, returned: str) -> None:
    """One patient with a stay is scored below the card threshold, one without is not eligible."""
    (path,) = (DATA / "synthea").glob(f"{name}_*.json.gz")
    raw = gzip.decompress(path.read_bytes())
    settings = Settings(profile="demo")
    answer = score_one(package, raw, as_of="latest", language="da", settings=settings)
    assert answer.prediction.returned == returned
    assert answer.prediction.cards == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "Bundle-MaxTOKS.json",
            {"sbp": 156.0, "dbp": 78.0, "temperature": 37.0, "pulse": 68.0, "resp_rate": 13.0,
             "consciousness": 1.0},
        ),
        (
            "Bundle-ElsesTOBS.json",
            {"sbp": 147.0, "dbp": 95.0, "temperature": 38.7, "pulse": 92.0, "resp_rate": 19.0,
             "consciousness": 1.0, "tobs": 3.0},
        ),
    ],
)  # fmt: skip
def test_a_danish_early_warning_bundle_is_read(name: str, values: dict[str, float]) -> None:
    """Every vital sign of the Danish TOKS and TOBS examples is found, under its Danish codes."""
    wanted = Wanted(frozenset(code_table().names()))
    record = build_record(decode_bundle((DATA / "dk-core" / name).read_bytes()), wanted)
    assert {f.concept: f.value for facts in record.facts.values() for f in facts} == values
