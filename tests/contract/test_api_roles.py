"""Who reads what of the governance API: every role at every route, of both hospitals.

Denied by default: what is not in the table of `cds_service/auth/roles.py` nobody reads.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from cds_service.app import bare_app
from cds_service.auth.roles import (
    AUDIT_ROUTE,
    MAY_READ,
    MODELS_ROUTE,
    PREDICTION_ROUTE,
    PREDICTIONS_ROUTE,
    ROLES,
)
from cds_service.db.tables import audit_entries, predictions
from models.registry import Registry
from tests.reading import House, house

ROOT = Path(__file__).parents[2]
LISTS = {PREDICTIONS_ROUTE: "predictions", AUDIT_ROUTE: "audit", MODELS_ROUTE: "models"}


def walked(routes: Iterable[Any]) -> Iterator[Any]:
    """The routes of an application, those of its routers among them."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from walked(inner.routes)


APPLICATION = {route.path: route for route in walked(bare_app().routes)}


def routes() -> list[str]:
    """Every route of the application below /api, from the application itself."""
    assert {"/healthz", "/cds-services/{id}", "/docs"} <= set(APPLICATION)
    return sorted(path for path in APPLICATION if path.startswith("/api"))


@pytest.fixture(scope="module")
def hospitals(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, demo_request: dict[str, Any]
) -> Iterator[tuple[House, dict[str, str]]]:
    """A service with two hospitals, each with a prediction that was read, and their ids."""
    with house(tmp_path_factory.mktemp("roles"), registry, demo_request) as running:
        ids = {name: running.predicts(name) for name in ("org-a", "org-b")}
        for name in ids:
            assert running.reads(organisation=name).status_code == 200
        yield running, ids


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    """A new route is denied to everybody, and this test fails, until somebody says who reads it."""
    assert routes() == sorted(MAY_READ)


def test_the_only_method_is_get() -> None:
    """Nothing is changed over the API."""
    assert {method for path in routes() for method in APPLICATION[path].methods} == {"GET"}


def test_the_table_names_columns_there_are() -> None:
    """And none that holds an identity or a key."""
    made = {"prediction", "features", "timings"}
    for route, table in ((PREDICTIONS_ROUTE, predictions), (AUDIT_ROUTE, audit_entries)):
        columns = {c for shown in MAY_READ[route].values() for c in shown}
        assert columns - {c.name for c in table.columns} <= made
    every = {c for shown in MAY_READ.values() for row in shown.values() for c in row}
    assert not every & {"sealed", "wrapped", "seal_key", "key_id", "cpr_pseudonym", "salt"}


@pytest.mark.parametrize(
    ("route", "role", "of"), list(product(routes(), ROLES, ("org-a", "org-b")))
)
def test_each_role_reads_what_the_table_says_of_its_own_hospital(
    hospitals: tuple[House, dict[str, str]], route: str, role: Any, of: str
) -> None:
    """Somebody of hospital a asks, of their own and of hospital b. A list they may not have is
    403; one prediction is 404, whether it is not there, another hospital's, or not for them."""
    running, ids = hospitals
    path = route.replace("{prediction_id}", ids[of])
    answer = running.reads(path, role, purpose=... if route == MODELS_ROUTE else "HCOMPL")
    columns = MAY_READ[route].get(role)
    if route == PREDICTION_ROUTE:
        assert answer.status_code == (200 if columns and of == "org-a" else 404)
        rows = [answer.json()] if answer.status_code == 200 else []
    else:
        assert answer.status_code == (200 if columns else 403)
        rows = answer.json().get(LISTS[route], [])
        assert rows or not columns
    for row in rows:
        assert set(row) == set(columns or ())
        assert row.get("organisation", "org-a") == "org-a"


def test_an_unknown_prediction_and_a_forbidden_one_are_answered_alike(
    hospitals: tuple[House, dict[str, str]],
) -> None:
    """To the byte: nobody learns from the answer that another hospital has it."""
    running, ids = hospitals
    unknown = running.reads(f"{PREDICTIONS_ROUTE}/00000000-0000-8000-8000-000000000000")
    others = running.reads(f"{PREDICTIONS_ROUTE}/{ids['org-b']}")
    forbidden = running.reads(f"{PREDICTIONS_ROUTE}/{ids['org-a']}", "administrator")
    assert unknown.status_code == 404
    assert unknown.content == others.content == forbidden.content
    assert dict(unknown.headers) == dict(others.headers) == dict(forbidden.headers)


def test_a_list_holds_nothing_of_another_hospital_whatever_is_asked(
    hospitals: tuple[House, dict[str, str]],
) -> None:
    """Neither by filter nor by cursor; and the other hospital's reader sees just the other's."""
    running, ids = hospitals
    for of, other in (("org-a", "org-b"), ("org-b", "org-a")):
        listed = running.reads(organisation=of).json()["predictions"]
        assert [row["prediction_id"] for row in listed] == [ids[of]]
        theirs = running.reads(organisation=other).json()["predictions"][0]["patient_pseudonym"]
        assert running.reads(organisation=of, pseudonym=theirs).json()["predictions"] == []
        exported = running.reads(organisation=of, accept="text/csv").text
        assert ids[of] in exported
        assert ids[other] not in exported


@pytest.mark.parametrize("role", ["operator", "data-protection-officer"])
@pytest.mark.parametrize("accept", ["application/fhir+json", "application/fhir+ndjson"])
def test_risks_do_not_leave_as_fhir_for_who_does_not_read_them(
    hospitals: tuple[House, dict[str, str]], role: str, accept: str
) -> None:
    """A RiskAssessment is the payload."""
    running, _ = hospitals
    assert running.reads(PREDICTIONS_ROUTE, role, accept=accept).status_code == 403


def test_who_sees_no_pseudonyms_cannot_ask_by_them(
    hospitals: tuple[House, dict[str, str]],
) -> None:
    """Or they would learn from the length of the list what they may not see."""
    running, _ = hospitals
    answer = running.reads(PREDICTIONS_ROUTE, "operator", pseudonym="0" * 32)
    assert answer.status_code == 403
    assert answer.json()["issue"][0]["expression"] == ["pseudonym"]
    officer = running.reads(PREDICTIONS_ROUTE, "data-protection-officer", pseudonym="0" * 32)
    assert officer.status_code == 200


@pytest.mark.parametrize("accept", ["text/csv", "application/vnd.apache.parquet"])
@pytest.mark.parametrize("role", ["operator", "data-protection-officer"])
def test_tables_hold_the_columns_of_the_role_and_no_more(
    hospitals: tuple[House, dict[str, str]], role: Any, accept: str
) -> None:
    """In whichever form it leaves."""
    import pyarrow.csv  # heavy
    import pyarrow.parquet  # as above

    running, _ = hospitals
    body = io.BytesIO(running.reads(PREDICTIONS_ROUTE, role, accept=accept).content)
    read = pyarrow.csv.read_csv if accept == "text/csv" else pyarrow.parquet.read_table
    assert tuple(read(body).column_names) == MAY_READ[PREDICTIONS_ROUTE][role]


def test_several_roles_are_read_in_the_one_that_shows_most(
    hospitals: tuple[House, dict[str, str]],
) -> None:
    """And the audit trail says in which."""
    running, _ = hospitals
    answer = running.reads(PREDICTIONS_ROUTE, "operator", "validator", "clinician")
    assert "prediction" in answer.json()["predictions"][0]
    trail = running.reads(AUDIT_ROUTE, "data-protection-officer", limit=1000).json()["audit"]
    assert trail[-1]["role"] == "validator"


@pytest.mark.parametrize("route", [PREDICTIONS_ROUTE, PREDICTION_ROUTE])
def test_a_role_shows_at_least_what_the_later_ones_show(route: str) -> None:
    """So that reading in the first allowed role is reading in all of them."""
    shown = [set(MAY_READ[route][role]) for role in ROLES if role in MAY_READ[route]]
    assert all(later <= earlier for earlier, later in pairwise(shown))


def test_the_documented_matrix_is_the_table() -> None:
    """docs/api.md says of each route which role reads it."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    header, _, *rows = re.findall(r"^\|.*\|$", page.split("## Roles")[1], re.MULTILINE)[
        : 2 + len(MAY_READ)
    ]
    roles = [cell.strip(" `") for cell in header.strip("|").split("|")][1:]
    documented = {}
    for row in rows:
        path, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        allowed = {role for role, cell in zip(roles, cells, strict=True) if cell != "no"}
        documented[path.strip("`").removeprefix("GET ")] = allowed
    assert documented == {route: set(allowed) for route, allowed in MAY_READ.items()}
    assert set(roles) == set(ROLES)
