"""Fixtures shared by all tests: the bundled package, a service on a real database, shared data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.settings import Settings
from models.package import Package
from models.registry import BUNDLED, Registry, admit

ROOT = Path(__file__).parent.parent


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


@pytest.fixture
def hook_request() -> dict[str, Any]:
    """The bundled demo request: a patient with a high risk, replayed at the newest resource."""
    text = files("cds_service").joinpath("demo/hook-request.json").read_text(encoding="utf-8")
    request: dict[str, Any] = json.loads(text)
    return request


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real FHIR data beside the checkout; skips where it is not there."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return folder
