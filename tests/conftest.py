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

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import settings as properties

from cds_service.app import create_app
from cds_service.settings import Settings
from models.package import Package
from models.registry import BUNDLED, Registry, admit

ROOT = Path(__file__).parent.parent

# How long an example takes says more of who else computes on the machine; speed is the bench's.
properties.register_profile("varsel", deadline=None)
properties.load_profile("varsel")


@cache
def bundled_package() -> Package:
    """The bundled readmission package, admitted once a process."""
    return admit(BUNDLED / "readmission-30d", allow_synthetic=True)


@pytest.fixture(scope="session")
def package() -> Package:
    """The bundled readmission package."""
    return bundled_package()


@pytest.fixture(scope="session")
def registry(package: Package) -> Registry:
    """A registry that serves the bundled package."""
    return Registry({package.id: package}, {})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Demo settings with a state folder of their own."""
    return Settings(profile="demo", state_dir=tmp_path)


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
            return connection.execute("SELECT * FROM predictions ORDER BY computed_at").fetchall()

    return read
