"""`varsel replay`, as an auditor types it, over predictions a real service has logged."""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.assess import Asked, log_row
from cds_service.cli.scoring import score_one
from cds_service.errors import Erased, SetupError, UnknownService
from cds_service.evidence.replay import replay
from cds_service.identities.privacy import Privacy
from cds_service.service import open_log
from cds_service.settings import Settings
from models.errors import PackageRefused
from models.examples import read_example
from models.package import load_package, sums_checksum, write_checksums
from models.registry import BUNDLED
from tests.decided import typed

Post = Callable[[Mapping[str, Any]], Any]


@pytest.fixture
def answered(client: TestClient, post: Post, tmp_path: Path) -> str:
    """The id of a prediction a hook call has just been answered with."""
    assert client
    assert post({}).json()["cards"]
    prediction_id: str = one(tmp_path, "SELECT prediction_id FROM predictions")
    return prediction_id


def one(folder: Path, statement: str, *values: Any) -> Any:
    """The single value of a statement's single row, past the service; None where it gives none."""
    with closing(sqlite3.connect(folder / "varsel.db")) as connection, connection:
        found = connection.execute(statement, values).fetchone()
    return found[0] if found else None


def told(settings: Settings, prediction_id: str, *options: str, code: int = 0) -> Any:
    """The JSON document `varsel replay` printed."""
    done = typed(settings, "replay", prediction_id, "--json", *options)
    assert done.exit_code == code, done.exception
    return json.loads(done.stdout)


def test_what_a_hook_was_answered_with_is_computed_again(settings: Settings, answered: str) -> None:
    """Log row and package are enough: features, risks, points, alarms and cards are the same."""
    said = told(settings, answered)
    assert (said["prediction_id"], said["equal"], said["differences"]) == (answered, True, [])
    assert said["libraries"]["logged"] == said["libraries"]["now"] != ""
    assert said["taken_from_log"] == ["standing", "reference_scores", "cards.links"]
    printed = typed(settings, "replay", answered)
    assert printed.exit_code == 0
    assert "EQUAL: what is computed now is what was logged, to the last bit" in printed.stdout


def test_that_it_was_computed_again_is_on_record(
    settings: Settings, answered: str, tmp_path: Path
) -> None:
    """Who, of what, why, and what came of it."""
    told(settings, answered, "--who", "I. Revisor", "--why", "case 17")
    columns = "who || '|' || what || '|' || subject || '|' || why || '|' || details"
    who, what, subject, why, details = one(
        tmp_path, f"SELECT {columns} FROM audit_entries WHERE what = 'replay'"
    ).split("|")
    assert (who, what, subject, why) == ("I. Revisor", "replay", answered, "case 17")
    assert json.loads(details) == {"equal": True, "differences": 0}


def test_a_value_changed_in_the_database_is_found_and_named(
    settings: Settings, answered: str, tmp_path: Path
) -> None:
    """Exit code 1; both values stand beside each other."""
    features = json.loads(one(tmp_path, "SELECT features FROM prediction_payloads"))
    changed = next(f for f in features if f["name"] == "age")
    before, changed["value"] = changed["value"], 20.0
    one(tmp_path, "UPDATE prediction_payloads SET features = ?", json.dumps(features))
    said = told(settings, answered, code=1)
    assert said["equal"] is False
    (found,) = (d for d in said["differences"] if d["field"].endswith("features[age].value"))
    assert (found["logged"], found["computed"]) == (before, 20.0)
    assert "heads[readmission].risk" in {d["field"] for d in said["differences"]}
    printed = typed(settings, "replay", answered)
    assert printed.exit_code == 1
    assert "NOT EQUAL" in printed.stdout
    assert f"features[age].value: logged {before}, computed 20.0" in printed.stdout


def test_the_whole_record_is_printed_and_names_nobody(
    settings: Settings, answered: str, tmp_path: Path, hook_request: dict[str, Any]
) -> None:
    """One JSON document of everything that is kept, but who it is about; reading it is on record,
    and in it. No package is needed for it."""
    one(tmp_path, "UPDATE predictions SET package_checksum = ?", "0" * 64)
    done = typed(settings, "replay", answered, "--show")
    assert done.exit_code == 0, done.exception
    record = json.loads(done.stdout)
    assert record["prediction_id"] == answered
    assert record["document"]["heads"]
    assert record["features"]
    assert record["response"]["cards"]
    assert record["identity_sealed"] is True
    assert [entry["what"] for entry in record["audit"]] == ["read"]
    assert (record["feedback"], record["undelivered"]) == ([], [])
    patient = hook_request["context"]["patientId"]
    assert patient not in done.stdout
    assert not {"sealed", "wrapped", "salt"} & set(record)
    assert one(tmp_path, "SELECT subject FROM audit_entries WHERE what = 'read'") == answered


def test_a_package_that_is_not_here_is_named_by_its_checksum(
    settings: Settings, answered: str, tmp_path: Path
) -> None:
    """Another version of the same model will not do."""
    one(tmp_path, "UPDATE predictions SET package_checksum = ?", "0" * 64)
    done = typed(settings, "replay", answered)
    assert isinstance(done.exception, SetupError)
    assert "0" * 64 in str(done.exception)
    assert "readmission-30d@1.0.0" in str(done.exception)


def test_a_package_of_the_site_is_found_and_one_whose_files_changed_is_refused(
    settings: Settings, answered: str, tmp_path: Path
) -> None:
    """By the checksum that was logged; the list of checksums alone is not believed."""
    folder = tmp_path / "site" / "readmission-30d" / "0.9.0"
    shutil.copytree(BUNDLED / "readmission-30d", folder)
    manifest = folder / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('version = "1.0.0"', 'version = "0.9.0"'), encoding="utf-8")
    write_checksums(folder)
    site = settings.model_copy(update={"models_dir": tmp_path / "site"})
    one(tmp_path, "UPDATE predictions SET package_checksum = ?", sums_checksum(folder))
    said = told(site, answered, code=1)
    assert {d["field"] for d in said["differences"]} >= {"model.version", "model.checksum"}
    (folder / "MODEL_CARD.md").write_text("another card", encoding="utf-8")
    done = typed(site, "replay", answered)
    assert isinstance(done.exception, PackageRefused)
    assert "MODEL_CARD.md" in str(done.exception)


def test_an_unknown_prediction_is_said_to_be_unknown(settings: Settings, answered: str) -> None:
    """Bad input, not a failure of ours."""
    assert answered
    done = typed(settings, "replay", str(uuid.uuid4()))
    assert isinstance(done.exception, UnknownService)


def test_an_erased_prediction_can_be_shown_and_not_computed(
    settings: Settings, answered: str, tmp_path: Path
) -> None:
    """That it was made is still on record; what it said is gone."""
    one(tmp_path, "DELETE FROM prediction_payloads")
    one(tmp_path, "DELETE FROM vault_entries")
    done = typed(settings, "replay", answered)
    assert isinstance(done.exception, Erased)
    record = json.loads(typed(settings, "replay", answered, "--show").stdout)
    assert (record["document"], record["features"], record["identity_sealed"]) == (
        None,
        None,
        False,
    )
    assert record["status"] == "scored"


def test_a_call_without_measurements_is_computed_again(
    settings: Settings, client: TestClient, changed: Callable[..., Any], tmp_path: Path
) -> None:
    """A call in English whose measurements are gone."""
    request = changed({})
    for key, answer in request["prefetch"].items():
        if answer and answer.get("resourceType") == "Bundle" and "observ" in key.lower():
            answer["entry"] = []
    sent = client.post(
        "/cds-services/readmission-30d", json=request, headers={"Accept-Language": "en"}
    )
    assert sent.status_code == 200
    said = told(settings, one(tmp_path, "SELECT prediction_id FROM predictions"))
    assert said["equal"] is True


def test_a_prediction_of_the_command_line_is_computed_again(
    settings: Settings, tmp_path: Path
) -> None:
    """With `--log` it is in the log like any other."""
    demo = files("cds_service").joinpath("demo/hook-request.json")
    done = typed(
        settings, "score", demo, "--model", "readmission-30d", "--as-of", "latest", "--log"
    )
    assert done.exit_code == 0, done.exception
    assert told(settings, one(tmp_path, "SELECT prediction_id FROM predictions"))["equal"] is True


def test_every_bundled_model_is_computed_again_from_either_database(
    database_url: str, settings: Settings
) -> None:
    """SQLite and PostgreSQL give every number and every moment back as they got them."""
    site = settings.model_copy(update={"database_url": database_url})
    for folder in sorted(path.parent for path in BUNDLED.glob("*/manifest.toml")):
        package = load_package(folder)
        patient = read_example(folder / "examples" / "04.json")
        answer = score_one(
            package, bytes(patient.bundle), as_of=patient.as_of, language="da", settings=site
        )
        asked = Asked(
            organisation="org", caller="ehr", hook="patient-view", hook_instance=str(uuid.uuid4()),
            content_digest="", context_digest="", fhir_base="", patient_id="p", encounter_id=None,
            user_id=None,
        )  # fmt: skip
        with open_log(site) as log:
            log.store(log_row(answer, asked, Privacy(site.keys))).result()
            found = log.read(answer.prediction.prediction_id)
            assert found is not None
            assert replay({**found}, package, site.zone).differences == []
