"""Real FHIR records, all of them, through the command's path and through HTTP.

The records lie beside the checkout (`shared_data` skips where they do not); a few that the README
uses are copied into tests/data. What every kind of record comes to is stated in docs/real-data.md.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
import tarfile
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.cli.scoring import score_one
from cds_service.errors import RequestRefused
from cds_service.settings import Settings
from fhir_adapters.clock import to_iso
from fhir_adapters.codes import code_table
from fhir_adapters.decode import decode_bundle, decode_lines
from fhir_adapters.errors import FhirError, WrongFhirVersion
from fhir_adapters.facts import Wanted, build_record
from fhir_adapters.prefetch import answer_queries, parse_bundle_entries
from fhir_adapters.stays import is_admission, link_stays
from models.package import Package
from models.prediction import Prediction

SETTINGS = Settings(profile="demo")
EXPLAINED = {"card", "below-threshold", "insufficient-data", "not-eligible"}
LATE = 4_000_000_000.0


def bundles(shared_data: Path) -> Iterator[tuple[str, bytes]]:
    """Every Synthea Bundle, by name."""
    for folder in ("synthea-2019", "synthea-vitals"):
        for path in sorted((shared_data / folder).glob("*.json.gz")):
            yield path.name, gzip.decompress(path.read_bytes())


def check_answered(prediction: Prediction) -> None:
    """A card, a logged below-threshold result, a named insufficiency or a named ineligibility."""
    assert prediction.returned in EXPLAINED
    if prediction.status == "scored":
        (head,) = prediction.heads
        assert 0.0 < head.risk < 1.0
    else:
        assert prediction.reason
    assert bool(prediction.cards) == (prediction.returned == "card")


def newest_stay_end(package: Package, raw: bytes) -> float | None:
    """The end of the newest inpatient stay of at least 12 hours."""
    rule = package.manifest.stay
    record = build_record(decode_bundle(raw), package.wanted)
    stays = [s for s in link_stays(record.contacts, rule, LATE) if is_admission(s, rule, LATE)]
    ended = [stay.end for stay in stays if stay.end < LATE]
    return ended[-1] if ended else None


def test_every_record_is_answered_at_its_newest_resource(
    shared_data: Path, package: Package
) -> None:
    """All 98 Bundles with `--as-of latest`: none an error."""
    found: Counter[str] = Counter()
    for _, raw in bundles(shared_data):
        answer = score_one(package, raw, as_of="latest", language="da", settings=SETTINGS)
        check_answered(answer.prediction)
        found[answer.prediction.status] += 1
    assert found.total() == 98
    assert found["scored"] >= 20


def test_every_record_with_a_stay_is_answered_at_the_end_of_its_newest_one(
    shared_data: Path, package: Package
) -> None:
    """Again, with `as_of` at the end of each patient's newest inpatient stay."""
    found: Counter[str] = Counter()
    for _, raw in bundles(shared_data):
        end = newest_stay_end(package, raw)
        if end is None:
            continue
        answer = score_one(package, raw, as_of=to_iso(end), language="da", settings=SETTINGS)
        check_answered(answer.prediction)
        assert answer.prediction.reason not in ("no-index-stay", "stay-too-short")
        found[answer.prediction.status] += 1
    assert found.total() >= 45
    assert found["scored"] >= 20


def hook_request_of(package: Package, raw: bytes) -> dict[str, Any]:
    """A hook request as a record system holding this Bundle would send it."""
    entries = parse_bundle_entries(raw)
    patient = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "Patient")
    templates = {key: query.template for key, query in package.manifest.prefetch.items()}
    return {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "context": {"userId": "Practitioner/1", "patientId": patient["id"]},
        "extension": {"dk.varsel.as-of": "latest"},
        "prefetch": answer_queries(entries, templates, patient),
    }


def test_every_record_is_answered_and_logged_over_http(
    shared_data: Path, package: Package, client: TestClient, tmp_path: Path
) -> None:
    """All 98 Bundles as hook requests: 200, and one committed row each."""
    for name, raw in bundles(shared_data):
        request = hook_request_of(package, raw)
        answer = client.post("/cds-services/readmission-30d", json=request)
        assert answer.status_code == 200, f"{name}: {answer.text}"
    with sqlite3.connect(tmp_path / "varsel.db") as log:
        logged = log.execute("SELECT status, returned, reason FROM predictions").fetchall()
    assert len(logged) == 98
    assert all(returned in EXPLAINED for _, returned, _ in logged)
    assert all(reason for status, _, reason in logged if status != "scored")


# ---- Danish examples ------------------------------------------------------------------------

DANISH = {
    "BloodPressure.Poul.643992": {"sbp": 118.0, "dbp": 87.0},
    "HeartRate.Poul.1974654": {"pulse": 93.0},
    "Weight.Poul.230221": {"weight": 74.0},
    "ElseConsciousness": {"consciousness": 1.0},
    "ElseBloodPressure": {"sbp": 147.0, "dbp": 95.0},
    "ElseBodyTemperature": {"temperature": 38.7},
    "ElseHeartRate": {"pulse": 92.0},
    "ElseRespirationRate": {"resp_rate": 19.0},
    "ElsesTOBSscore": {"tobs": 3.0},
    "ElseINR": {"inr": 1.0},
    "ElseKalium": {"potassium": 3.0},
    "ElseNatrium": {"sodium": 150.0},
    "MaxSaturation": {"spo2": 99.0},
    "MaxBloodPressure": {"sbp": 156.0, "dbp": 78.0},
    "MaxBodyTemperature": {"temperature": 37.0},
    "MaxHeartRate": {"pulse": 68.0},
    "MaxRespirationRate": {"resp_rate": 13.0},
    "MaxConsciousness": {"consciousness": 1.0},
    "ObservationOxySatBasicObservationOrg": {"spo2": 97.0},
    "ObservationOxySatObservation": {"spo2": 97.0},
    "ObservationRespiratoryBasicObservation": {"resp_rate": 50.0},
    "JohnDiabetes": {"diabetes": 1.0},
    "ElseGraviditet": {"pregnancy": 1.0},
}
NOTHING = {
    "BatteryLevel.0944", "CoincidentTimeStamp.0222", "BloodPressureStatus.Poul.133527",
    "MaxGlasgowComaScale", "MaxVitalSignsPanel", "ElsePainVRS", "ElseUrinStix",
    "ConditionPressureUlcer", "JohnFracture", "JohnMelanoma", "JohnPacemaker",
}  # fmt: skip
"""Mapped to no concept; JohnMelanoma is a suspicion (unconfirmed), so it is no diagnosis."""


def danish_resources(shared_data: Path) -> Iterator[dict[str, Any]]:
    """Every Observation and Condition of the Danish core examples, also those in Bundles."""
    for path in sorted((shared_data / "dk-core").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        inside = [e["resource"] for e in content.get("entry", [])]
        for resource in inside or [content]:
            if resource["resourceType"] in ("Observation", "Condition"):
                yield resource


def test_the_danish_examples_mean_what_they_say(shared_data: Path) -> None:
    """Each Danish example gives the concepts and values stated above, and nothing else."""
    wanted = Wanted(frozenset(code_table().names()))
    seen = set()
    for resource in danish_resources(shared_data):
        patient_id = resource["subject"]["reference"].split("/")[-1]
        patient = {"resourceType": "Patient", "id": patient_id}
        lines = [json.dumps(r).encode() for r in (patient, resource)]
        record = build_record(decode_lines(lines), wanted)
        values = {f.concept: f.value for facts in record.facts.values() for f in facts}
        assert values == DANISH.get(resource["id"], {}), resource["id"]
        seen.add(resource["id"])
    assert seen == set(DANISH) | NOTHING


# ---- odd files ------------------------------------------------------------------------------


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Every JSON file of an archive."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".json") else None
            if file is not None:
                yield member.name, file.read()


def test_records_of_other_fhir_releases_are_refused_by_field(
    shared_data: Path, package: Package
) -> None:
    """All eight DSTU2 and STU3 files: refused, with the field whose form gave them away."""
    refused = []
    for name, raw in members(shared_data / "odd" / "wrong-fhir-version.tar.gz"):
        with pytest.raises(WrongFhirVersion) as refusal:
            score_one(package, raw, as_of="latest", language="da", settings=SETTINGS)
        refused.append(name)
        assert refusal.value.field
        assert "this service speaks" in str(refusal.value)
    assert len(refused) == 8


@pytest.mark.parametrize("archive", ["odd/microsoft-fhir-server.tar.gz", "r4-examples.tar.gz"])
def test_odd_files_are_answered_or_refused_with_a_reason(
    shared_data: Path, package: Package, archive: str
) -> None:
    """No file of the collection makes the service fail: an answer, or a refusal that says why."""
    answered = 0
    reasons: list[str] = []
    for _, raw in members(shared_data / archive):
        try:
            answer = score_one(package, raw, as_of="now", language="da", settings=SETTINGS)
        except (FhirError, RequestRefused) as refusal:
            reasons.append(str(refusal))
        else:
            answered += 1
            check_answered(answer.prediction)
    assert answered
    assert reasons
    assert all(reasons)
