"""Organisations are silos: what one sends, another neither sees nor disturbs, however it tries."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.settings import Settings
from models.registry import Registry
from tests.issuers import HOOK_PATH, SERVICE_URL, caller_table, claims, jwks, key_of, signed

Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
Rows = Callable[[], list[sqlite3.Row]]
SITES = {"org-a": ("https://a.example", "ec-1"), "org-b": ("https://b.example", "ec-2")}


@pytest.fixture
def client(tmp_path: Path, registry: Registry) -> Iterator[TestClient]:
    """The service with a caller of each of two organisations, each with its own issuer and key."""
    tables = []
    for organisation, (issuer, kid) in SITES.items():
        name = f"{organisation}.json"
        (tmp_path / name).write_text(json.dumps(jwks(key_of(kid))), encoding="utf-8")
        caller = f"caller-of-{organisation}"
        tables.append(caller_table(caller, organisation, issuer=issuer, jwks_file=name))
    file = tmp_path / "callers.toml"
    file.write_text("".join(tables), encoding="utf-8")
    settings = Settings(profile="demo", state_dir=tmp_path, callers_file=file, base_url=SERVICE_URL)
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


def token_of(organisation: str, **changes: Any) -> dict[str, str]:
    """A token of an organisation's issuer, under its own key."""
    issuer, kid = SITES[organisation]
    return signed(key_of(kid), claims(iss=issuer, **changes))


def test_r36_the_same_call_of_another_organisation_is_another_call(
    client: TestClient, changed: Changed, rows: Rows
) -> None:
    """The same patient, FHIR base, hookInstance and jti: not the stored answer but its own, and no
    pseudonym or id by which the two could be joined."""
    request = changed({})
    for organisation in SITES:
        headers = token_of(organisation, jti="the-same")
        assert client.post(HOOK_PATH, json=request, headers=headers).status_code == 200
    first, second = rows()
    assert [first["organisation"], second["organisation"]] == list(SITES)
    for name in (
        "prediction_id",
        "patient_pseudonym",
        "encounter_pseudonym",
        "context_digest",
        "caller",
    ):
        assert first[name] != second[name], name
    assert first["attempt"] == second["attempt"] == 0
    assert first["prediction_id"] not in second["response"]


def test_r36_another_organisations_hook_instance_is_free(
    client: TestClient, changed: Changed
) -> None:
    """Used by one with one patient's context, it neither blocks nor answers the other's call."""
    request = changed({})
    other = copy.deepcopy(request)
    other["context"]["userId"] = "Practitioner/another"
    assert client.post(HOOK_PATH, json=request, headers=token_of("org-a")).status_code == 200
    assert client.post(HOOK_PATH, json=other, headers=token_of("org-a")).status_code == 409
    assert client.post(HOOK_PATH, json=other, headers=token_of("org-b")).status_code == 200


def test_r36_what_one_was_shown_is_not_kept_from_the_other(
    client: TestClient, changed: Changed
) -> None:
    """A card shown once per stay is shown once in each organisation: silence would tell that the
    patient is known elsewhere."""
    shown = [
        client.post(HOOK_PATH, json=changed({}), headers=token_of(organisation)).json()["cards"]
        for organisation in SITES
    ]
    assert all(shown)
    assert shown[0][0]["summary"] == shown[1][0]["summary"]


def test_r36_nobody_writes_under_another_organisation(
    client: TestClient, changed: Changed, rows: Rows
) -> None:
    """A token that names the other's issuer under one's own key is refused, and leaves nothing."""
    issuer, _ = SITES["org-b"]
    for kid in ("ec-1", "ec-3"):
        for header in ({}, {"kid": "ec-2"}):
            forged = signed(key_of(kid), claims(iss=issuer), **header)
            assert client.post(HOOK_PATH, json=changed({}), headers=forged).status_code == 401
    assert rows() == []
