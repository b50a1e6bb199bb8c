"""Requests made by schemathesis from the OpenAPI document: every answer is one that is documented.

The service runs in the production profile over a real database, so that callers are checked too.
Bounded and deterministic, because it is part of every test run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.python import asgi

from cds_service.app import create_app
from cds_service.db.log import open_engine
from cds_service.db.migrate import upgrade
from cds_service.settings import Settings
from models.registry import Registry
from tests.decided import bring_live
from tests.issuers import access_token, jwks, key_of, reader_table

DOCUMENT = Path(__file__).parents[2] / "openapi" / "openapi.json"
TOKEN = "a-token-of-the-fuzzer"  # noqa: S105 - known to this test alone
CALLER = f"""
[[caller]]
name = "fuzzer"
organisation = "test"
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""


_running: dict[str, Any] = {}


async def service(scope: Any, receive: Any, send: Any) -> None:
    """The application the fixture started; schemathesis wants one when tests are collected."""
    await _running["service"](scope, receive, send)


schema = schemathesis.openapi.from_path(DOCUMENT)
schema.app = service


@pytest.fixture(scope="module", autouse=True)
def _in_production(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A service in the production profile, with one caller, an issuer of readers' tokens and a
    database of its own."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "callers.toml").write_text(CALLER, encoding="utf-8")
    (folder / "keys.json").write_text(json.dumps(jwks(key_of("p256-1"))), encoding="utf-8")
    readers = reader_table("test", jwks_file="keys.json", networks=...)
    (folder / "readers.toml").write_text(readers, encoding="utf-8")
    key = base64.b64encode(bytes(32)).decode()
    production = Settings(
        profile="production",
        database_url=f"sqlite:///{folder / 'varsel.db'}",
        callers_file=folder / "callers.toml",
        readers_file=folder / "readers.toml",
        pseudonym_key=key,
        seal_key=key,
        allow_synthetic_models=True,
    )
    engine = open_engine(production.database)
    upgrade(engine)
    engine.dispose()
    bring_live(production)
    _running["service"] = create_app(production, registry)
    yield
    asgi.shutdown_lifespans()


@schema.exclude(path_regex="^/api/").parametrize()  # type: ignore[untyped-decorator]
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_documented(case: Any) -> None:
    """No 5xx; status, media type and body as the document says; nobody unknown is let in."""
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})


@schema.include(path="/cds-services/{id}").parametrize()  # type: ignore[untyped-decorator]
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_of_the_service_is_documented(case: Any) -> None:
    """The same for the one service there is; a request of the right form may still lack data."""
    case.path_parameters = {"id": "readmission-30d"}
    case.call_and_validate(
        headers={"Authorization": f"Bearer {TOKEN}"},
        excluded_checks=[schemathesis.checks.positive_data_acceptance],
    )


@schema.include(path="/cds-services/{id}/feedback").parametrize()  # type: ignore[untyped-decorator]
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_to_feedback_is_documented(case: Any) -> None:
    """Feedback on a service there is. Parts of an item that are not read, as a second dialect's
    reason beside the first, may be wrong: what a user did is not thrown away for them."""
    case.path_parameters = {"id": "readmission-30d"}
    case.call_and_validate(
        headers={"Authorization": f"Bearer {TOKEN}"},
        excluded_checks=[
            schemathesis.checks.positive_data_acceptance,
            schemathesis.checks.negative_data_rejection,
        ],
    )


@schema.include(path_regex="^/api/").parametrize()  # type: ignore[untyped-decorator]
@pytest.mark.parametrize("role", ["validator", "data-protection-officer"])
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_of_the_api_is_documented(case: Any, role: str) -> None:
    """To readers in each role. A cursor and a time of the right form may still be none."""
    case.call_and_validate(
        headers=access_token(role),
        excluded_checks=[schemathesis.checks.positive_data_acceptance],
    )
