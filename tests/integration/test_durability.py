"""The prediction log through the service: what a row holds, and that no card leaves without one."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service import __version__
from cds_service.app import create_app
from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.errors import SealBroken
from cds_service.identities.privacy import Privacy
from cds_service.settings import Settings
from models.package import Package
from models.registry import Registry
from tests.logged import rows_at, run_at
from tests.outages import full_disk

URL = "/cds-services/readmission-30d"
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]
Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Demo settings, on a database of each kind."""
    return Settings(profile="demo", state_dir=tmp_path, database_url=database_url)


@pytest.fixture
def rows(database_url: str) -> Rows:
    """Reads all rows of the prediction log of `client`, past the service."""
    return lambda: rows_at(database_url)


def test_a_row_holds_all_that_is_needed_to_answer_for_it(
    client: TestClient, changed: Changed, rows: Rows, package: Package
) -> None:
    """Who asked what of which model, about when, what came out, how long it took."""
    request = changed({})
    answer = client.post(URL, json=request)
    (row,) = rows()
    document = json.loads(row["document"])
    assert {name: row[name] for name in ("organisation", "unit", "caller", "service", "hook")} == {
        "organisation": "demo",
        "unit": None,
        "caller": "demo",
        "service": "readmission-30d",
        "hook": "encounter-discharge",
    }
    assert row["hook_instance"] == request["hookInstance"]
    assert row["prediction_id"] == document["prediction_id"] == str(uuid.UUID(row["prediction_id"]))
    assert (row["model_id"], row["model_version"]) == (package.id, package.manifest.version)
    assert row["package_checksum"] == package.checksum
    assert row["software_version"] == __version__
    assert (row["mode"], row["arm"], row["language"]) == ("live", None, "da")
    assert (row["status"], row["reason"], row["returned"]) == ("scored", None, "card")
    assert row["response"] == answer.text
    for name in ("as_of", "index_time", "computed_at"):
        moment = datetime.fromisoformat(document[name]).replace(tzinfo=None)
        assert row[name].replace(tzinfo=None) == moment
    timings = json.loads(row["timings"])
    assert set(timings) == {
        "request", "decode", "record", "features", "score", "cards", "total",
    }  # fmt: skip
    assert timings["total"] >= sum(v for k, v in timings.items() if k != "total") - 1


def test_a_row_holds_every_feature_with_its_provenance(
    client: TestClient, changed: Changed, rows: Rows, package: Package
) -> None:
    """Value or status and reason, time, code, original value and unit; sources sealed apart."""
    client.post(URL, json=changed({}))
    (row,) = rows()
    features = {f["name"]: f for f in json.loads(row["features"])}
    assert set(features) == {f.name for f in package.manifest.features}
    haemoglobin = features["haemoglobin"]
    assert haemoglobin["status"] == "measured"
    assert haemoglobin["value"] == haemoglobin["original"]
    assert haemoglobin["unit"] == "mmol/L"
    assert haemoglobin["code"]
    assert haemoglobin["time"]
    for feature in features.values():
        assert feature["sources"] == []
        assert feature["value"] is not None or feature["status"] not in {"measured", "stale"}
    (head,) = json.loads(row["document"])["heads"]
    assert 0 < head["risk"] < 1
    assert head["contributions"]


# ---- pseudonyms and seals -------------------------------------------------------------------


def test_a_patient_has_one_pseudonym_per_organisation_and_record_system(
    post: Post, rows: Rows, tmp_path: Path, demo_request: Mapping[str, Any]
) -> None:
    """The same for two calls, another for another FHIR base; a trailing slash is no other base."""
    post({})
    post({"hook": "patient-view", "fhirServer": "https://ehr.example/fhir/"})
    post({"fhirServer": "https://other.example/fhir"})
    first, same, other = rows()
    assert first["patient_pseudonym"] == same["patient_pseudonym"]
    assert first["encounter_pseudonym"] == same["encounter_pseudonym"]
    assert first["patient_pseudonym"] != other["patient_pseudonym"]
    assert first["encounter_pseudonym"] != first["patient_pseudonym"]
    privacy = Privacy(Settings(profile="demo", state_dir=tmp_path).keys)
    assert first["patient_pseudonym"] != privacy.pseudonym(
        "another organisation",
        demo_request["fhirServer"],
        "Patient",
        demo_request["context"]["patientId"],
    )


def test_the_references_are_sealed_to_their_prediction(
    client: TestClient, changed: Changed, rows: Rows
) -> None:
    """They open under their own prediction's id, and under no other."""
    requests = [changed({}), changed({})]
    for request in requests:
        client.post(URL, json=request)
    privacy = client.app.state.service.privacy  # type: ignore[attr-defined]
    by_instance = {row["hook_instance"]: row for row in rows()}
    one, two = (by_instance[request["hookInstance"]] for request in requests)
    opened = privacy.unseal(one)
    context = requests[0]["context"]
    assert opened["patient"] == context["patientId"]
    assert opened["encounter"] == context["encounterId"]
    assert opened["user"] == context["userId"]
    assert opened["fhir_base"] == requests[0]["fhirServer"]
    assert opened["sources"]["haemoglobin"][0].startswith("Observation/")
    with pytest.raises(SealBroken):
        privacy.unseal({**dict(one), "sealed": two["sealed"]})


def test_another_seal_key_is_our_fault_and_said_so(
    client: TestClient, changed: Changed, rows: Rows, settings: Settings, registry: Registry
) -> None:
    """The explanation answers 500 with a reason, not with somebody's references."""
    client.post(URL, json=changed({}))
    (row,) = rows()
    other = Settings(
        profile="demo",
        state_dir=settings.state_dir,
        database_url=settings.database_url,
        pseudonym_key=base64.b64encode(b"p" * 32).decode(),
        seal_key=base64.b64encode(b"s" * 32).decode(),
    )
    with TestClient(create_app(other, registry)) as later:
        answer = later.get(f"/explanations/{row['prediction_id']}.json")
    assert answer.status_code == 500
    assert "another key" in answer.json()["issue"][0]["diagnostics"]


# ---- durable or nothing ---------------------------------------------------------------------


def test_no_card_leaves_when_the_log_refuses(
    client: TestClient, changed: Changed, database_url: str, rows: Rows
) -> None:
    """Neither the database nor the spool takes it: 503 and no card; once the log is back, the same
    call is answered."""
    request = changed({})
    run_at(database_url, "ALTER TABLE predictions RENAME TO gone")
    try:
        with full_disk():
            answer = client.post(URL, json=request)
            assert answer.status_code == 503
            assert answer.json()["resourceType"] == "OperationOutcome"
            assert "cards" not in answer.text
            assert client.get("/readyz").status_code == 503
            assert client.get(f"/explanations/{uuid.uuid4()}.json").status_code == 503
    finally:
        run_at(database_url, "ALTER TABLE gone RENAME TO predictions")
    assert client.post(URL, json=request).json()["cards"]
    assert client.get("/readyz").status_code == 200
    assert len(rows()) == 1


def test_many_calls_at_once_all_leave_their_row(
    client: TestClient, changed: Changed, rows: Rows
) -> None:
    """Rows that share a commit are all there, each with its own answer."""
    requests = [changed({}) for _ in range(24)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda request: client.post(URL, json=request), requests))
    stored = {row["hook_instance"]: row["response"] for row in rows()}
    for request, answer in zip(requests, answers, strict=True):
        assert stored[request["hookInstance"]] == answer.text
    assert len(stored) == 24


def test_one_call_sent_many_times_at_once_is_one_prediction(
    client: TestClient, changed: Changed, rows: Rows
) -> None:
    """Whoever comes first, all get the same bytes."""
    request = changed({})
    together = threading.Barrier(8)

    def send(_: int) -> bytes:
        together.wait()
        return client.post(URL, json=request).content

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(8)))
    assert len(answers) == 1
    assert len(rows()) == 1


def test_the_database_is_in_wal_mode_and_flushes_every_commit(tmp_path: Path) -> None:
    """What was committed survives a power cut; readers do not wait for the writer."""
    engine = open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    upgrade(engine)
    with engine.connect() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert asked == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
    }
