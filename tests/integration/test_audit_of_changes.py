"""Every change of a model's state or of a setting, and every reading, is on record."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.cli.studies import _logged
from cds_service.db.log import open_engine
from cds_service.evidence.settings_record import changes, said_settings
from cds_service.settings import Settings
from models.registry import Registry
from tests.decided import DECIDED, ON_RECORD, typed

NAME = "readmission-30d"


def trail(settings: Settings, what: str = "") -> list[dict[str, Any]]:
    """The audit trail of an installation, oldest first; of one thing alone where it is named."""
    engine = open_engine(settings.database)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM audit_entries ORDER BY at").mappings()
        found = [{**row, "details": json.loads(row["details"])} for row in rows]
    engine.dispose()
    return [row for row in found if what in ("", row["what"])]


# ---- models ---------------------------------------------------------------------------------


@pytest.fixture
def production(sqlite_url: str) -> Settings:
    """An installation in which nothing was decided yet."""
    return Settings(profile="production", database_url=sqlite_url, allow_synthetic_models=True)


def test_what_is_decided_of_a_model_is_in_the_audit_trail(production: Settings) -> None:
    """Record, states and withdrawal: who, what of which version, and why."""
    for command in (("record", NAME, *ON_RECORD), ("state", NAME, "silent", *DECIDED),
                    ("withdraw", NAME, *DECIDED)):  # fmt: skip
        assert typed(production, "models", *command).exit_code == 0
    said = [
        (e["what"], e["who"], e["subject"], e["details"].get("state")) for e in trail(production)
    ]
    version = f"{NAME}@1.0.0"
    assert said == [
        ("model record", "B. Holm", version, None),
        ("model state", "B. Holm", version, "silent"),
        ("model state", "B. Holm", version, "retired"),
    ]
    assert {e["why"] for e in trail(production, "model state")} == {"trial approved"}
    assert typed(production, "log", "verify").exit_code == 0


def test_a_decision_that_was_refused_is_on_no_record(production: Settings) -> None:
    """Nothing changed, so nothing is said to have."""
    assert typed(production, "models", "state", NAME, "live", *DECIDED).exit_code != 0
    assert trail(production) == []


# ---- settings -------------------------------------------------------------------------------


def serve(settings: Settings, registry: Registry) -> None:
    """Start the service and stop it."""
    with TestClient(create_app(settings, registry)):
        pass


def test_a_setting_that_changed_is_on_record_from_the_next_start(
    settings: Settings, registry: Registry
) -> None:
    """With what it was and is; a start that changes nothing leaves no entry."""
    serve(settings, registry)
    serve(settings, registry)
    (first,) = trail(settings, "settings")
    assert first["details"]["changed"] == {}
    assert first["details"]["settings"]["callers"] == []
    serve(settings.model_copy(update={"mode": "silent"}), registry)
    _, second = trail(settings, "settings")
    assert second["details"]["changed"] == {"mode": {"from": "live", "to": "silent"}}


def test_no_secret_is_on_record(registry: Registry, tmp_path: Path) -> None:
    """Of keys their ids, of the database where it is, of files their digest."""
    key = base64.b64encode(b"k" * 32).decode()
    callers = tmp_path / "callers.toml"
    callers.write_text(
        f'[[caller]]\nname = "ward-a"\norganisation = "o"\ntoken_sha256 = "{"a" * 64}"\n'
    )
    secret = Settings(
        profile="demo",
        state_dir=tmp_path,
        database_url=f"sqlite:///{tmp_path / 'varsel.db'}",
        pseudonym_key=f"new:{key} old:{key}",
        seal_key=key,
        callers_file=callers,
    )
    serve(secret, registry)
    (entry,) = trail(secret, "settings")
    said = entry["details"]["settings"]
    assert (said["pseudonym_key"], said["seal_key"]) == (["new", "old"], ["0"])
    assert said["callers"] == ["ward-a"]
    assert len(said["callers_file_sha256"]) == 64
    assert key not in json.dumps(entry["details"])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hush@db:5433/varsel", "db:5433"),
        ("postgresql://u:hush@/varsel?host=db1:5432&host=db2", "db1:5432,db2"),
        ("postgresql://u:hush@db1:5432,db2:5433/varsel?password=hush", "db1:5432,db2:5433"),
        ("postgresql://db1:5432,db2:5433/varsel?password=hu@sh", "db1:5432,db2:5433"),
        ("postgresql://u:1234,ab/cd@db1/varsel", "db1"),
        ("postgresql://u:p,a/ss@db1/varsel", "db1"),
        ("postgresql://u:1234,ab?cd@db1/varsel", "db1"),
        ("postgresql://u:1234,a/b?c@db1/varsel", "db1"),
    ],
)
def test_of_a_database_is_on_record_where_it_is(url: str, said: str) -> None:
    """All of its hosts, so that a new one is seen; neither who opens it nor how."""
    settings = Settings(profile="demo", database_url=url)
    assert said_settings(settings, [])["database_url"] == f"postgresql://{said}/varsel"


def test_settings_that_came_and_went_are_changes_too() -> None:
    """Another version of the software may have others."""
    assert changes({"a": 1, "gone": 2}, {"a": 1, "new": 3}) == {
        "gone": {"from": 2, "to": None},
        "new": {"from": None, "to": 3},
    }


# ---- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["", ".json"])
def test_who_opens_an_explanation_is_on_record(
    client: TestClient,
    settings: Settings,
    post: Callable[..., Any],
    rows: Callable[[], Any],
    form: str,
) -> None:
    """The page and its data alike; a page that is not there was not read."""
    post({})
    (row,) = rows()
    assert client.get(f"/explanations/{row['prediction_id']}{form}").status_code == 200
    assert client.get("/explanations/00000000-0000-4000-8000-000000000000").status_code == 404
    (entry,) = trail(settings, "read prediction")
    assert (entry["who"], entry["subject"]) == ("demo", row["prediction_id"])


def test_who_reads_predictions_for_drift_is_on_record(
    client: TestClient,
    settings: Settings,
    post: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With how many, of each organisation; also where there were none."""
    monkeypatch.setenv("VARSEL_PROFILE", "demo")
    monkeypatch.setenv("VARSEL_STATE_DIR", str(settings.state_dir))
    assert client.get("/healthz").status_code == 200
    post({})
    for since in ("2000-01-01", "2999-01-01"):
        _logged(NAME, since, who="A. Berg", why="monthly")
    entries = trail(settings, "read predictions")
    assert [entry["details"]["rows"] for entry in entries] == [1, 0]
    assert {(entry["who"], entry["why"]) for entry in entries} == {("A. Berg", "monthly")}
