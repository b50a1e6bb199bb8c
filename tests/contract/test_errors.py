"""One table of errors: classes, docs/errors.md and what is sent agree; every route keeps to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service import errors
from cds_service.app import bare_app
from cds_service.errors import OurFault, RequestRefused
from tests.matchers import empty_members

ROOT = Path(__file__).parents[2]
URL = "/cds-services/readmission-30d"
ISSUE_TYPES = {
    "invalid", "login", "forbidden", "suppressed", "not-found", "deleted", "timeout", "conflict",
    "required", "too-long", "not-supported", "throttled", "exception", "transient", "processing",
}  # fmt: skip
"""The codes of http://hl7.org/fhir/issue-type that are used."""
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
Kind = type[RequestRefused] | type[OurFault]


def kinds() -> Iterator[Kind]:
    """Every error a caller can get."""
    classes = (found for found in vars(errors).values() if isinstance(found, type))
    for kind in classes:
        if issubclass(kind, RequestRefused | OurFault) and kind is not RequestRefused:
            yield kind


def test_the_documented_table_is_the_table() -> None:
    """docs/errors.md has one row an error, with its status, code and whether to come again."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = {
        tuple(cell.strip() for cell in (row[0], row[1], row[2], row[5]))
        for row in re.findall(
            r"^\| `(\w+)` \| (\d+) \| `([\w-]+)` \| (.*?) \| (.*?) \|(.*)\|$", page, re.MULTILINE
        )
    }
    true = {
        (
            kind.__name__,
            str(kind.status),
            kind.issue_code,
            f"{kind.retry_after_s} s" if kind.retry_after_s else "",
        )
        for kind in kinds()
    }
    assert documented == true


def test_the_tree_in_the_module_names_every_error_with_its_status() -> None:
    """Who opens the module sees them all."""
    tree = errors.__doc__ or ""
    drawn = set(re.findall(r"[├└]── (\w+)\s+(\d+)", tree))
    assert drawn == {(k.__name__, str(k.status)) for k in kinds() if k is not OurFault}


@pytest.mark.parametrize("kind", sorted(kinds(), key=str))
def test_an_error_is_sent_as_the_table_says(kind: Kind) -> None:
    """Whichever route raises it: status, code and Retry-After."""
    app = bare_app()

    @app.get("/failing")
    async def fail() -> None:
        raise kind("what is wrong")

    answer = TestClient(app).get("/failing")
    issue = the_issue(answer)
    assert (answer.status_code, issue["code"]) == (kind.status, kind.issue_code)
    assert issue["code"] in ISSUE_TYPES
    said = answer.headers.get("retry-after")
    assert said == (str(kind.retry_after_s) if kind.retry_after_s else None)
    assert ("www-authenticate" in answer.headers) == (kind.status == 401)


def the_issue(answer: Response) -> dict[str, Any]:
    """The one issue of an OperationOutcome; there is no other kind of refusal."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome"
    assert "cards" not in body
    assert list(empty_members(body)) == []
    (issue,) = body["issue"]
    assert issue["severity"] in {"error", "fatal"}
    assert issue["diagnostics"]
    found: dict[str, Any] = issue
    return found


METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "BREW")
PATHS = sorted(
    [
        "/", "//", "/nothing", "/cds-services/", "/cds-services//", "/cds-services/x/y/z",
        "/cds-services/%00", "/cds-services/%ff", "/cds-services/..%2f..", "/cds-services/a b",
        "/cds-services/" + "a" * 5000, "/cds-services?a=%zz&&=&b[",
        "/cds-services?" + "a=1&" * 2000,
        "/api", "/api/v1/predictions/", "/api/v1/predictions?%ff", "/api/v1/predictions/x",
        "/api/v1/audit?limit=%00", "/api/v1/models?a=1",
        "/explanations/", "/explanations/x", "/explanations/x.json", "/healthz/", "/healthz?%ff",
        "/static/", "/static/nothing", "/static/..%2fapp.py", "/openapi.json/", "/docs/x",
        URL, f"{URL}/", f"{URL}/feedback", f"{URL}/feedback/x", f"{URL}?x=%ff",
    ]
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_whatever_is_asked_of_whatever_path_the_refusal_is_an_operation_outcome(
    client: TestClient, method: str
) -> None:
    """No fault of ours, no page of the framework, no redirect elsewhere; a body only where HTTP
    allows one."""
    for path in PATHS:
        answer = client.request(method, path, follow_redirects=False)
        assert answer.status_code < 500, (method, path)
        if answer.status_code == 405:
            assert answer.headers["allow"], (method, path)
        if answer.status_code in range(300, 400):
            assert answer.headers["location"].startswith("http://testserver/"), (method, path)
        elif answer.status_code >= 400 and method != "HEAD":
            the_issue(answer)


def test_a_websocket_is_closed(client: TestClient) -> None:
    """Nothing here speaks it; the scope ends without an error."""
    sent: list[Any] = []

    async def talk() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "websocket", "path": URL, "raw_path": URL.encode(), "query_string": b"",
            "headers": [], "scheme": "ws", "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1), "subprotocols": [],
        }  # fmt: skip
        await client.app(scope, receive, send)

    asyncio.run(talk())
    assert [message["type"] for message in sent] == ["websocket.close"]
