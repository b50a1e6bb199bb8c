"""Fixtures shared by all tests: the bundled package, a service on a real database, shared data."""

from __future__ import annotations

import copy
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer.main
import typer.testing
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import settings as properties

from cds_service.app import create_app
from cds_service.settings import Settings
from models import registry as registries
from models.package import Package
from models.registry import BUNDLED, Registry, admit
from tests.databases import cleaned, emptied, migrated_file
from tests.logged import WHOLE_ROWS
from tests.postgres import Postgres, postgres

ROOT = Path(__file__).parent.parent

# How long an example takes says more of who else computes on the machine; speed is the bench's.
properties.register_profile("varsel", deadline=None)
properties.load_profile("varsel")


@cache
def bundled_package() -> Package:
    """The bundled readmission package, admitted once a process."""
    return admit(BUNDLED / "readmission-30d", allow_synthetic=True)


@pytest.fixture(scope="session", autouse=True)
def _bundled_packages_are_admitted_once() -> Iterator[None]:
    """What a command or service admits of the bundled packages, it admits once a process: they do
    not change while tests run, and admitting all of them takes two seconds. Any other folder is
    admitted each time.
    """
    once = cache(admit)

    def admitted(folder: Path, *, allow_synthetic: bool) -> Package:
        is_bundled = folder.parent == BUNDLED
        return (once if is_bundled else admit)(folder, allow_synthetic=allow_synthetic)

    with patch.object(registries, "admit", admitted):
        yield


@pytest.fixture(scope="session")
def package() -> Package:
    """The bundled readmission package."""
    return bundled_package()


@pytest.fixture(scope="session")
def registry(package: Package) -> Registry:
    """A registry that serves the bundled package."""
    return Registry({package.id: package}, {})


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str) -> Settings:
    """Demo settings with a state folder of their own, its database made already: migrating one for
    every test takes more than most of them do."""
    settings = Settings(profile="demo", state_dir=tmp_path)
    assert settings.database == sqlite_url
    return settings


@pytest.fixture(scope="session", autouse=True)
def _command_line_is_built_once() -> Iterator[None]:
    """The runner would build all commands anew for each that is run."""
    with patch.object(typer.testing, "_get_command", cache(typer.main.get_command)):
        yield


# ---- databases ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Postgres]:
    """A PostgreSQL server, one a pytest worker; it may be killed and frozen, and stands up again
    for the next test that asks for a database."""
    with postgres() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: Postgres) -> str:
    """A PostgreSQL database with this software's tables, without rows."""
    return cleaned(postgresql_server)


@pytest.fixture
def sqlite_url(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite database with this software's tables, without rows, where demo keeps its own."""
    return migrated_file(tmp_path / "varsel.db", tmp_path_factory.getbasetemp())


@pytest.fixture(params=["postgresql", "sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind, with this software's tables, without rows."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["postgresql", "sqlite"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind without tables; SQLite's is not there yet, nor is its folder."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'log.db'}"
    return emptied(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def client(settings: Settings, registry: Registry) -> Iterator[TestClient]:
    """The service over a real SQLite database in a folder of its own."""
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture(scope="session")
def demo_request() -> dict[str, Any]:
    """The bundled demo request, not to be changed."""
    text = files("cds_service").joinpath("demo/hook-request.json").read_text(encoding="utf-8")
    request: dict[str, Any] = json.loads(text)
    return request


@pytest.fixture
def hook_request(demo_request: dict[str, Any]) -> dict[str, Any]:
    """The bundled demo request: a patient with a high risk, replayed at the newest resource."""
    return copy.deepcopy(demo_request)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real FHIR data beside the checkout; skips where it is not there."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder


Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]


@pytest.fixture
def changed(hook_request: dict[str, Any]) -> Changed:
    """The demo request under a new hookInstance, with values put at `/` paths; `...` removes."""

    def make(changes: Change) -> dict[str, Any]:
        request = copy.deepcopy(hook_request)
        request["hookInstance"] = str(uuid.uuid4())
        for path, value in changes.items():
            *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
            place: Any = request
            for part in way:
                place = place[part]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        return request

    return make


@pytest.fixture
def post(client: TestClient, changed: Changed) -> Post:
    """Posts the demo request with some changes, as a new call."""

    def send(changes: Change) -> Response:
        return client.post("/cds-services/readmission-30d", json=changed(changes))

    return send


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[sqlite3.Row]]:
    """Reads all rows of the prediction log of `client`, past the service."""

    def read() -> list[sqlite3.Row]:
        with closing(sqlite3.connect(tmp_path / "varsel.db")) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(f"{WHOLE_ROWS} ORDER BY computed_at, p.rowid").fetchall()

    return read
