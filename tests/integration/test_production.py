"""The production profile: what it refuses to start without, and whom it lets in."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from cds_service.app import create_app
from cds_service.db.log import open_engine
from cds_service.db.migrate import downgrade, upgrade
from cds_service.db.tables import audit_entries
from cds_service.errors import SetupError
from cds_service.service import open_callers, open_registry
from cds_service.settings import Settings, check_fit_to_serve
from models.registry import Registry
from tests.decided import bring_live

URL = "/cds-services/readmission-30d"
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
TOKENS = {"ward-a": "token-a", "clinic-b": "token-b"}


def bearer(caller: str) -> dict[str, str]:
    """The header of a caller."""
    return {"Authorization": f"Bearer {TOKENS[caller]}"}


@pytest.fixture(scope="module")
def in_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database in which the bundled model was brought to live by the real commands."""
    path = tmp_path_factory.mktemp("in-service") / "varsel.db"
    settings = Settings(database_url=f"sqlite:///{path}", allow_synthetic_models=True)
    engine = open_engine(settings.database)
    upgrade(engine)
    engine.dispose()
    bring_live(settings)
    return path


@pytest.fixture
def production(tmp_path: Path, in_service: Path) -> Settings:
    """Settings of an installation with two callers of two organisations, its model live."""
    lines = [
        f'[[caller]]\nname = "{name}"\norganisation = "org-{name}"\nunit = "unit-{name}"\n'
        f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        for name, token in TOKENS.items()
    ]
    (tmp_path / "callers.toml").write_text("".join(lines), encoding="utf-8")
    settings = Settings(
        profile="production",
        database_url=f"sqlite:///{tmp_path / 'varsel.db'}",
        callers_file=tmp_path / "callers.toml",
        pseudonym_key=base64.b64encode(b"p" * 32).decode(),
        seal_key=base64.b64encode(b"s" * 32).decode(),
        allow_synthetic_models=True,
    )
    shutil.copy(in_service, tmp_path / "varsel.db")
    return settings


@pytest.fixture
def client(production: Settings, registry: Registry) -> Iterator[TestClient]:
    """That installation, running."""
    with TestClient(create_app(production, registry), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture
def request_now(changed: Changed) -> dict[str, Any]:
    """The demo request without its replay."""
    return changed({"extension": ...})


# ---- starting -------------------------------------------------------------------------------


def test_it_refuses_to_start_and_names_everything_that_is_missing() -> None:
    """One line with all four settings."""
    with pytest.raises(SetupError) as refused:
        create_app(Settings(profile="production"), Registry({}, {}))
    for name in ("DATABASE_URL", "PSEUDONYM_KEY", "SEAL_KEY", "CALLERS_FILE"):
        assert f"VARSEL_{name} is not set" in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("pseudonym_key", "no base64!", "VARSEL_PSEUDONYM_KEY is not base64"),
        ("seal_key", base64.b64encode(b"short").decode(), "VARSEL_SEAL_KEY must be 32 bytes"),
    ],
)
def test_it_refuses_keys_that_are_none(
    production: Settings, setting: str, value: str, named: str
) -> None:
    """The setting is named, the key is not repeated."""
    values = production.model_dump() | {setting: value}
    with pytest.raises(SetupError, match=named) as refused:
        check_fit_to_serve(Settings(**values))
    assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('[[caller.fhir]]\nbase = "https://f.example"\nnetworks = ["NETWORK"]', "fhir.networks"),
        ('[caller.jwt]\nissuer = "i"\njku = "https://k"\nnetworks = ["NETWORK"]', "jwt.networks"),
    ],
)
@pytest.mark.parametrize(
    "network", ["0.0.0.0/0", "127.0.0.1/32", "::/0", "::1", "::ffff:127.0.0.1"]
)
def test_a_caller_that_reaches_loopback_stops_the_start(
    production: Settings, registry: Registry, more: str, field: str, network: str
) -> None:
    """Caller and field are named; one setting, for trials on one machine, allows it."""
    token = "" if "jwt" in more else f'token_sha256 = "{hashlib.sha256(b"t").hexdigest()}"\n'
    table = f'[[caller]]\nname = "ward"\norganisation = "o"\n{token}{more}\n'
    assert production.callers_file is not None
    production.callers_file.write_text(table.replace("NETWORK", network), encoding="utf-8")
    with pytest.raises(SetupError, match=rf"CALLERS_FILE: ward: {field}: {network} holds loopback"):
        create_app(production, registry)
    allowed = production.model_copy(update={"allow_loopback": True})
    assert len(open_callers(allowed).listed) == 1


def test_private_networks_are_no_loopback(production: Settings) -> None:
    """A hospital's own networks start as before."""
    assert production.callers_file is not None
    with production.callers_file.open("a", encoding="utf-8") as file:
        file.write('[[caller.fhir]]\nbase = "https://f.example"\n')
        file.write('networks = ["10.0.0.0/8", "126.0.0.0/8", "fd00::/8"]\n')
    assert len(open_callers(production).listed) == len(TOKENS)


def test_it_refuses_a_database_that_is_behind(production: Settings, registry: Registry) -> None:
    """The message says which command to run; nothing is migrated by itself."""
    engine = open_engine(production.database)
    with engine.begin() as connection:  # bringing the model live left an entry
        connection.execute(delete(audit_entries))
    downgrade(engine, "base")
    engine.dispose()
    app = create_app(production, registry)
    with pytest.raises(SetupError, match="run `varsel db upgrade`"), TestClient(app):
        pass


@pytest.mark.parametrize(
    "url",
    ["nonsense", "mysql://db/varsel", "sqlite:////nowhere/varsel.db", "nothing://db/varsel"],
)
def test_it_refuses_a_database_it_cannot_use(production: Settings, url: str) -> None:
    """Said in one line, without a trace of the driver."""
    app_settings = production.model_copy(update={"database_url": url})
    with (
        pytest.raises(SetupError, match="database"),
        TestClient(create_app(app_settings, Registry({}, {}))),
    ):
        pass


def test_it_refuses_synthetic_models_unless_they_are_allowed(production: Settings) -> None:
    """The bundled model is refused by name; readiness and discovery say that none is served."""
    strict = production.model_copy(update={"allow_synthetic_models": False})
    registry = open_registry(strict)
    assert registry.packages == {}
    assert "synthetic" in registry.refused["readmission-30d"]
    with TestClient(create_app(strict, registry)) as client:
        readiness = client.get("/readyz")
        assert readiness.status_code == 503
        assert "no model is served" in readiness.json()["reasons"]
        assert client.get("/cds-services", headers=bearer("ward-a")).json() == {"services": []}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])  # noqa: S104
def test_the_demo_profile_refuses_to_be_reached_from_outside(tmp_path: Path, host: str) -> None:
    """It lets everybody in, so it listens on loopback only."""
    with pytest.raises(SetupError, match="VARSEL_HOST"):
        check_fit_to_serve(Settings(profile="demo", state_dir=tmp_path, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_the_demo_profile_serves_on_loopback(tmp_path: Path, host: str) -> None:
    """Any of its addresses."""
    check_fit_to_serve(Settings(profile="demo", state_dir=tmp_path, host=host))


# ---- callers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic dG9rZW4tYQ==",
        "token-a",
        "Bearer tökén",
    ],
)
def test_nobody_unknown_is_let_in(
    client: TestClient, request_now: dict[str, Any], authorization: str | None
) -> None:
    """401 asking for a bearer token, always in the same words; the reason stays with us."""
    headers = [(b"authorization", authorization.encode("latin-1"))] if authorization else []
    asked = [
        client.get("/cds-services", headers=headers),
        client.post(URL, json=request_now, headers=headers),
        client.post("/cds-services/nothing", content=b"x", headers=headers),
    ]
    for answer in asked:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert [issue["diagnostics"] for issue in answer.json()["issue"]] == ["not authenticated"]


def test_a_caller_writes_under_its_own_organisation_and_unit(
    client: TestClient, request_now: dict[str, Any], tmp_path: Path
) -> None:
    """Two organisations may use one hookInstance for different calls; they never meet."""
    other = json.loads(json.dumps(request_now))
    other["context"]["userId"] = "Practitioner/another"
    answers = [
        client.post(URL, json=request_now, headers=bearer("ward-a")),
        client.post(URL, json=other, headers=bearer("clinic-b")),
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    with closing(sqlite3.connect(tmp_path / "varsel.db")) as connection:
        rows = connection.execute(
            "SELECT caller, organisation, unit, prediction_id, patient_pseudonym FROM predictions"
        ).fetchall()
    assert {row[:3] for row in rows} == {
        ("ward-a", "org-ward-a", "unit-ward-a"),
        ("clinic-b", "org-clinic-b", "unit-clinic-b"),
    }
    assert len({row[3] for row in rows}) == len({row[4] for row in rows}) == 2


def test_the_explanation_page_is_refused(client: TestClient) -> None:
    """403 until there are sessions, for ids that exist and for those that do not."""
    for suffix in ("", ".json"):
        answer = client.get(f"/explanations/6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10{suffix}")
        assert answer.status_code == 403


def test_a_card_links_to_no_page_that_would_refuse(client: TestClient, changed: Changed) -> None:
    """No link, rather than one that answers 403."""
    request = changed({"extension": ..., "prefetch/laboratory": None})
    for entry in request["prefetch"]["encounters"]["entry"][:1]:
        entry["resource"]["status"] = "in-progress"
        del entry["resource"]["period"]["end"]
    (card,) = client.post(URL, json=request, headers=bearer("ward-a")).json()["cards"]
    assert "links" not in card


def test_replay_is_refused(client: TestClient, changed: Changed) -> None:
    """400 names the extension."""
    answer = client.post(URL, json=changed({}), headers=bearer("ward-a"))
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == ["extension.dk.varsel.as-of"]
