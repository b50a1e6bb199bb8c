"""Versions of a model in their states, over HTTP: who answers, what is shown, what is logged."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service import shadow
from cds_service.app import create_app
from cds_service.db.governance import add_record, read_history
from cds_service.errors import PreconditionFailed
from cds_service.governance import Record, version_of
from cds_service.service import open_database
from cds_service.settings import Settings
from models.package import Package, write_checksums
from models.prediction import State
from models.registry import BUNDLED, Registry, load_registry, package_folders, reference
from tests.decided import decided, typed

NAME = "readmission-30d"
URL = f"/cds-services/{NAME}"
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Rows = Callable[[], list[sqlite3.Row]]
DANGEROUS = {
    "resourceType": "Bundle",
    "type": "searchset",
    "entry": [
        {
            "resource": {
                "resourceType": "Observation",
                "id": "spo2",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "59408-5"}]},
                "effectiveDateTime": "2023-10-20T08:00:00+02:00",
                "valueQuantity": {
                    "value": 31,
                    "unit": "%",
                    "system": "http://unitsofmeasure.org",
                    "code": "%",
                },
            }
        }
    ],
}
"""A saturation of 31 %: wrong, or the patient is dying."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's own folder with version 1.1.0 of the bundled model, and a broken 1.2.0."""
    folder = tmp_path_factory.mktemp("site")
    for version in ("1.1.0", "1.2.0"):
        copy = folder / NAME / version
        shutil.copytree(BUNDLED / NAME, copy)
        manifest = (copy / "manifest.toml").read_text(encoding="utf-8")
        assert 'version = "1.0.0"' in manifest
        changed = manifest.replace('version = "1.0.0"', f'version = "{version}"')
        (copy / "manifest.toml").write_text(changed, encoding="utf-8")
        write_checksums(copy)
    (folder / NAME / "1.2.0" / "reference.csv").write_text("changed", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def both(site: Path, package: Package) -> Registry:
    """The bundled version and the site's."""
    found = load_registry([package.folder, *package_folders(site)], allow_synthetic=True)
    assert set(found.packages) == {f"{NAME}@1.0.0", f"{NAME}@1.1.0"}
    assert found.refused == {f"{NAME}@1.2.0": "reference.csv is not what SHA256SUMS says"}
    return found


@contextmanager
def service(settings: Settings, registry: Registry) -> Iterator[TestClient]:
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


@contextmanager
def in_state(settings: Settings, registry: Registry, *states: State) -> Iterator[TestClient]:
    """A service whose bundled model went through some states."""
    decided(settings, registry.find(NAME, "1.0.0"), *states)
    with service(settings, registry) as running:
        yield running


def cards(client: TestClient, request: Mapping[str, Any], language: str = "da") -> list[Any]:
    answer = client.post(URL, json=request, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["cards"]
    return found


def offered(client: TestClient) -> set[str]:
    return {entry["id"] for entry in client.get("/cds-services").json()["services"]}


# ---- each state -----------------------------------------------------------------------------


def test_a_candidate_is_not_in_service(settings: Settings, registry: Registry) -> None:
    """404 that says the service exists; not offered; readiness knows the state."""
    open_database(settings).dispose()
    site = Settings(
        profile="production",
        database_url=settings.database,
        callers_file=_callers(settings.state_dir),
        pseudonym_key=base64.b64encode(b"p" * 32).decode(),
        seal_key=base64.b64encode(b"s" * 32).decode(),
        allow_synthetic_models=True,
    )
    with service(site, registry) as client:
        caller = {"Authorization": "Bearer token"}
        answer = client.post(URL, content=b"{}", headers=caller)
        assert answer.status_code == 404
        (issue,) = answer.json()["issue"]
        assert issue["diagnostics"] == f"the service {NAME} is not in service here"
        assert client.get("/cds-services", headers=caller).json() == {"services": []}
        readiness = client.get("/readyz").json()
        assert readiness["states"] == {f"{NAME}@1.0.0": "candidate"}
        assert readiness["reasons"] == ["no model is served"]
        unknown = client.post("/cds-services/nothing", content=b"{}", headers=caller)
        assert unknown.json()["issue"][0]["diagnostics"] == "no service is called nothing"


def _callers(folder: Path) -> Path:
    """A file of one caller, whose token is `token`."""
    path = folder / "callers.toml"
    digest = hashlib.sha256(b"token").hexdigest()
    caller = f'[[caller]]\nname = "c"\norganisation = "o"\ntoken_sha256 = "{digest}"\n'
    path.write_text(caller, encoding="utf-8")
    return path


def test_a_silent_version_is_computed_and_shows_nothing_but_alarms(
    settings: Settings, registry: Registry, changed: Changed, rows: Rows
) -> None:
    """Not its risk, nor that data are lacking; a dangerous measurement all the same."""
    with in_state(settings, registry, "silent") as client:
        assert offered(client) == {NAME}
        assert cards(client, changed({})) == []
        assert cards(client, changed({"prefetch/laboratory": None})) == []
        (alarm,) = cards(client, changed({"prefetch/vitals": DANGEROUS}))
    assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")
    logged = rows()
    assert {row["mode"] for row in logged} == {row["state"] for row in logged} == {"silent"}
    assert [row["returned"] for row in logged] == ["silent", "insufficient-data", "card"]
    assert json.loads(logged[0]["document"])["heads"][0]["risk"] > 0


@pytest.mark.parametrize(
    ("state", "danish", "english"),
    [
        ("paused", "Prognosen er sat på pause siden ", "the prognosis has been paused since "),
        ("retired", "Prognosen er taget ud af brug siden ", "the prognosis has been out of use si"),
    ],
)
def test_a_stopped_model_says_so_instead_of_a_number(
    settings: Settings,
    registry: Registry,
    changed: Changed,
    rows: Rows,
    state: State,
    danish: str,
    english: str,
) -> None:
    """In both languages, to whom it would be for; nothing is scored, alarms stand."""
    with in_state(settings, registry, state) as client:
        assert offered(client) == ({NAME} if state == "paused" else set())
        (said,) = cards(client, changed({}))
        assert danish in said["summary"]
        assert "At der ikke står et tal, siger intet om risikoen." in said["detail"]
        assert said["indicator"] == "info"
        assert said["source"]["topic"]["code"].startswith(f"readmission30d{state}")
        (told,) = cards(client, changed({}), "en")
        assert english in told["summary"]
        alarm, *_ = two = cards(client, changed({"prefetch/vitals": DANGEROUS}))
        assert len(two) == 2
        assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")
        assert cards(client, changed({"prefetch/encounters": None})) == []
        page = client.get(said["links"][0]["url"].removeprefix("http://127.0.0.1:8000")).text
    assert danish in page
    first, *_, last = rows()
    assert (first["status"], first["reason"], first["returned"]) == ("refused", state, "card")
    assert (last["status"], last["returned"]) == ("not-eligible", "not-eligible")
    assert json.loads(first["document"])["heads"] == []
    assert json.loads(first["features"])


def test_a_silent_installation_says_nothing_of_a_pause(
    settings: Settings, registry: Registry, changed: Changed
) -> None:
    """VARSEL_MODE=silent stands above the states: nobody there ever saw the model."""
    quiet = settings.model_copy(update={"mode": "silent"})
    with in_state(quiet, registry, "paused") as client:
        assert cards(client, changed({})) == []
        assert len(cards(client, changed({"prefetch/vitals": DANGEROUS}))) == 1


def test_the_same_call_after_a_pause_is_not_answered_from_before(
    settings: Settings, registry: Registry, changed: Changed, rows: Rows, package: Package
) -> None:
    """A stored risk card does not outlive the model; once it is live again, it is found again."""
    request = changed({})
    with service(settings, registry) as client:
        before = client.post(URL, json=request).content
        assert client.post(URL, json=request).content == before
    with in_state(settings, registry, "paused") as client:
        (paused,) = cards(client, request)
        assert "sat på pause" in paused["summary"]
    decided(settings, package, "live")
    with service(settings, registry) as client:
        assert client.post(URL, json=request).content == before
    assert [row["state"] for row in rows()] == ["live", "paused"]
    assert len({row["prediction_id"] for row in rows()}) == 2


@pytest.mark.parametrize("modes", [("live", "silent"), ("silent", "live")])
def test_the_same_call_in_the_other_mode_is_not_answered_from_before(
    settings: Settings,
    registry: Registry,
    changed: Changed,
    rows: Rows,
    modes: tuple[str, str],
) -> None:
    """A silent site shows no stored risk, a live one hides none; in each mode one row a call."""
    request, shown = changed({}), {"live": 1, "silent": 0}
    sent: dict[str, bytes] = {}
    for mode in (*modes, *modes):
        with service(settings.model_copy(update={"mode": mode}), registry) as client:
            assert len(cards(client, request)) == shown[mode]
            again = client.post(URL, json=request).content
        assert sent.setdefault(mode, again) == again
    assert [(row["mode"], row["state"]) for row in rows()] == [(mode, "live") for mode in modes]
    assert len({row["prediction_id"] for row in rows()}) == 2


def test_a_used_hook_instance_with_other_content_is_a_conflict_in_either_mode(
    settings: Settings, registry: Registry, changed: Changed, rows: Rows
) -> None:
    request = changed({})
    other = {**request, "fhirServer": "https://other.example/fhir"}
    for mode in ("live", "silent"):
        with service(settings.model_copy(update={"mode": mode}), registry) as client:
            assert client.post(URL, json=request).status_code == 200
            assert client.post(URL, json=other).status_code == 409
    assert len(rows()) == 2


# ---- what card and page state ---------------------------------------------------------------


def test_card_and_page_say_that_the_demo_is_one(
    client: TestClient, hook_request: dict[str, Any]
) -> None:
    (card,) = cards(client, hook_request)
    line = "Status: demonstration, ikke godkendt til klinisk brug."
    assert f"\n\n{line}\n\n" in card["detail"]
    path = card["links"][0]["url"].removeprefix("http://127.0.0.1:8000")
    assert f">{line}<" in client.get(path).text
    assert client.get(f"{path}.json").json()["standing"] == {
        "state": "live",
        "since": None,
        "regulatory_route": None,
        "ai_act_role": None,
        "clinical_owner": None,
    }


def test_card_and_page_state_what_the_site_put_on_record(
    settings: Settings, registry: Registry, changed: Changed, package: Package
) -> None:
    """Since when, by which route, who answers for it; the name as typed, harmless in Markdown."""
    engine = open_database(settings)
    history = read_history(engine)
    owner = "Overlæge <b>A.</b> [Berg](http://x) *"
    about = version_of(package)[:3]
    made = Record(*about, "p", "ce-marked", "deployer", owner, "w", datetime.now(UTC))
    add_record(engine, made, after=history, organisation="o")
    engine.dispose()
    with in_state(settings, registry, "silent", "live") as client:
        (danish,) = cards(client, changed({}))
        (english,) = cards(client, changed({}), "en")
        path = danish["links"][0]["url"].removeprefix("http://127.0.0.1:8000")
        page = client.get(path).text
    harmless = r"Overlæge \<b\>A.\</b\> \[Berg\]\(http://x\) \*."
    assert "CE-mærket medicinsk udstyr. Klinisk ansvarlig: " + harmless in danish["detail"]
    assert re.search(r"\n\nStatus: i drift siden \d+\. [a-z]+ \d{4}\. CE-", danish["detail"])
    assert re.search(r"\n\nStatus: in service since \d+ [A-Z][a-z]+ \d{4}\.", english["detail"])
    assert "CE-marked medical device. Clinically responsible: " + harmless in english["detail"]
    assert "Klinisk ansvarlig: Overlæge &lt;b&gt;A.&lt;/b&gt;" in page


def test_the_page_of_a_withdrawn_version_says_so(
    settings: Settings, registry: Registry, changed: Changed
) -> None:
    """On every prediction it ever made, in the language it was made in."""
    with service(settings, registry) as client:
        (card,) = cards(client, changed({}))
        path = card["links"][0]["url"].removeprefix("http://127.0.0.1:8000")
        assert "taget ud af brug" not in client.get(path).text
        done = typed(settings, "models", "withdraw", NAME, "--who", "W", "--why", "wrong")
        assert done.exit_code == 0, done.output
    with service(settings, registry) as client:
        assert "Denne version af modellen er taget ud af brug siden" in client.get(path).text


# ---- several versions -----------------------------------------------------------------------


def test_a_new_version_is_never_live_by_itself(
    settings: Settings, both: Registry, changed: Changed, rows: Rows
) -> None:
    """The bundled one goes on answering; the broken third keeps nobody from serving."""
    with service(settings, both) as client:
        assert len(cards(client, changed({}))) == 1
        readiness = client.get("/readyz").json()
    assert readiness["states"] == {f"{NAME}@1.0.0": "live", f"{NAME}@1.1.0": "candidate"}
    assert readiness["models"] == {NAME: "1.0.0"}
    assert [row["model_version"] for row in rows()] == ["1.0.0"]


def test_a_silent_version_is_computed_beside_the_live_one_and_not_shown(
    settings: Settings, both: Registry, changed: Changed, rows: Rows
) -> None:
    """The answer is what the live one alone gives; the other leaves a row of its own, once."""
    request = changed({})
    decided(settings, both.find(NAME, "1.1.0"), "silent")
    with service(settings, both) as client:
        answer = client.post(URL, json=request)
        assert client.post(URL, json=request).content == answer.content
        assert client.app.state.service.shadows.logged == 1  # type: ignore[attr-defined]
        (service_entry, _) = client.get("/cds-services").json()["services"]
    live, silent = sorted(rows(), key=lambda row: str(row["model_version"]))
    assert live["response"] == answer.text
    assert service_entry["version"] == "1.0.0"
    assert (live["mode"], live["state"], live["returned"]) == ("live", "live", "card")
    assert (silent["mode"], silent["state"], silent["returned"]) == ("silent", "silent", "shadow")
    assert silent["response"] == '{"cards":[]}'
    assert silent["prediction_id"] != live["prediction_id"]
    same = ("patient_pseudonym", "as_of", "hook_instance", "content_digest", "status", "caller")
    assert {name: live[name] for name in same} == {name: silent[name] for name in same}
    risks = [json.loads(row["document"])["heads"][0]["risk"] for row in (live, silent)]
    assert risks[0] == risks[1]


def test_a_silent_version_put_here_after_the_start_leaves_the_process_ready(
    settings: Settings, both: Registry, registry: Registry
) -> None:
    """A warning until the process is started again; a live one is a reason not to be ready."""
    newer = both.find(NAME, "1.1.0")
    decided(settings, newer, "silent")
    with service(settings, registry) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        told = f"{NAME}@1.1.0 is silent, but this process has not loaded it"
        assert answer.json()["warnings"] == [told]
    decided(settings, newer, "paused")
    with service(settings, registry) as client:
        assert client.get("/readyz").status_code == 503


def test_withdrawn_while_other_files_lie_here_it_stops_where_it_runs(
    settings: Settings, package: Package, changed: Changed
) -> None:
    """The running process has the files from before: it says so and its alarms stand."""
    before = dataclasses.replace(package, checksum="before")
    decided(settings, before, "silent", "live")
    with service(settings, Registry({reference(before): before}, {})) as client:
        assert len(cards(client, changed({}))) == 1
        done = typed(settings, "models", "withdraw", NAME, "--who", "W", "--why", "wrong")
        assert done.exit_code == 0, done.output
        alarm, said = cards(client, changed({"prefetch/vitals": DANGEROUS}))
        assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")
        assert "taget ud af brug siden" in said["summary"]


@pytest.mark.parametrize("error", [PreconditionFailed("lacking"), ZeroDivisionError("her value")])
def test_a_shadow_that_fails_costs_the_live_answer_nothing(
    settings: Settings,
    both: Registry,
    changed: Changed,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    """An event and a count; the live answer and its row are there."""

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(shadow, "shadow_row", fails)
    decided(settings, both.find(NAME, "1.1.0"), "silent")
    with service(settings, both) as client:
        assert len(cards(client, changed({}))) == 1
        assert client.app.state.service.shadows.failed == 1  # type: ignore[attr-defined]
        printed = capsys.readouterr().out
    (event,) = [line for line in printed.splitlines() if "shadow failed" in line]
    assert type(error).__name__ in event
    assert all(word in event for word in (NAME, "1.1.0", "so_far"))
    assert str(error) not in printed
    assert [row["model_version"] for row in rows()] == ["1.0.0"]


def test_a_replaced_version_goes_on_silent(
    settings: Settings, both: Registry, site: Path, changed: Changed, rows: Rows
) -> None:
    """One decision for both; a call is then answered by the new one."""
    here = settings.model_copy(update={"models_dir": site})
    request = changed({})
    with service(settings, both) as client:
        cards(client, request)
    refused = typed(here, "models", "state", f"{NAME}@1.1.0", "live", "--who", "W", "--why", "w")
    assert "--replaces 1.0.0" in str(refused.exception)
    replaced = ("--who", "W", "--why", "better", "--replaces", "1.0.0")
    done = typed(here, "models", "state", f"{NAME}@1.1.0", "live", *replaced)
    assert done.exit_code == 0, done.exception
    with service(settings, both) as client:
        assert len(cards(client, request)) == 1
        assert client.get("/readyz").json()["models"] == {NAME: "1.1.0"}
    stood = [(row["model_version"], row["state"]) for row in rows()]
    assert sorted(stood) == [("1.0.0", "live"), ("1.0.0", "silent"), ("1.1.0", "live")]


def test_changed_files_make_a_version_a_candidate_again(
    settings: Settings, package: Package, hook_request: dict[str, Any]
) -> None:
    """Said by readiness; nobody decided about these files."""
    other = Registry({reference(package): package}, {})
    decided(settings, package, "silent", "live")
    engine = open_database(settings)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE model_states SET package_checksum = 'before'")
    engine.dispose()
    with service(settings, other) as client:
        assert client.post(URL, json=hook_request).status_code == 404
        readiness = client.get("/readyz")
    assert readiness.status_code == 503
    assert "has other files than when it became live" in readiness.json()["reasons"][0]
