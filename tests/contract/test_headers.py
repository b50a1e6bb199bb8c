"""What every answer says to browsers and caches, and which pages in a browser may call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.errors import SetupError
from cds_service.settings import Settings, read_settings
from models.registry import Registry

URL = "/cds-services/readmission-30d"
PAGE = "https://ehr.example"
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]

# method and path of one answer of each kind, refusals and the unknown among them
ASKED = sorted(
    [
        ("GET", "/cds-services"),
        ("HEAD", "/cds-services"),
        ("OPTIONS", "/cds-services"),
        ("GET", URL),
        ("POST", URL),
        ("POST", f"{URL}/feedback"),
        ("POST", "/cds-services/nothing"),
        ("GET", "/explanations/6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10"),
        ("GET", "/explanations/6f1d2b0a-3c44-4c8e-9a51-5a0f6a3f7d10.json"),
        ("GET", "/explanations/nonsense"),
        ("GET", "/api/v1/predictions"),
        ("GET", "/api/v1/predictions?purpose=HOPERAT"),
        ("GET", "/api/v1/models"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/static/favicon.svg"),
        ("GET", "/static/../app.py"),
        ("GET", "/nothing"),
        ("GET", "/"),
        ("TRACE", "/"),
    ]
)


@pytest.mark.parametrize(("method", "path"), ASKED)
def test_every_answer_forbids_guessing_framing_and_telling(
    client: TestClient, method: str, path: str
) -> None:
    """No sniffing of types, no frame, no referrer, nothing loaded but what a page needs; stored
    nowhere, but for the files that are the same for everybody."""
    headers = client.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers.get("cache-control") == "no-store") != path.startswith("/static/fav")
    for name in ("x-content-type-options", "content-security-policy", "cache-control"):
        assert len(headers.get_list(name)) <= 1
    assert "server" not in headers
    assert "x-powered-by" not in headers


def test_cards_and_pages_are_stored_nowhere(
    client: TestClient, hook_request: dict[str, Any]
) -> None:
    """Neither the answer to a hook nor the explanation it links to; the page keeps its policy."""
    answer = client.post(URL, json=hook_request)
    path = answer.json()["cards"][0]["links"][0]["url"].split("8000", 1)[1]
    for headers in (answer.headers, client.get(path).headers, client.get(f"{path}.json").headers):
        assert headers["cache-control"] == "no-store"
    policy = client.get(path).headers["content-security-policy"]
    assert "style-src 'unsafe-inline'" in policy
    assert "script-src" not in policy


# ---- pages in a browser ---------------------------------------------------------------------


@pytest.fixture
def open_to_a_page(tmp_path: Path, registry: Registry) -> Iterator[TestClient]:
    """A service that a page of one origin may call."""
    settings = Settings(profile="demo", state_dir=tmp_path, cors_origins=f"{PAGE} http://[::1]:90")
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


def preflight(client: TestClient, origin: str, headers: str = "authorization,content-type") -> Any:
    """What a browser asks before it calls a hook."""
    return client.options(
        URL,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": headers,
        },
    )


def test_r37_a_page_of_a_listed_origin_may_call_with_its_token(
    open_to_a_page: TestClient, hook_request: dict[str, Any]
) -> None:
    """The preflight allows Authorization and Content-Type; the answer names the origin."""
    for origin in (PAGE, "http://[::1]:90"):
        asked = preflight(open_to_a_page, origin)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        allowed = {h.strip() for h in asked.headers["access-control-allow-headers"].split(",")}
        assert {"Authorization", "Content-Type"} <= allowed
        assert "POST" in asked.headers["access-control-allow-methods"]
        answer = open_to_a_page.post(URL, json=hook_request, headers={"Origin": origin})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in answer.headers


def test_r37_a_page_may_read_why_it_was_refused(open_to_a_page: TestClient) -> None:
    """Refusals carry the origin too, else a developer sees a CORS fault instead of the cause; and
    when to come again, which a page reads only where it is told that it may."""
    answer = open_to_a_page.post(URL, content=b"", headers={"Origin": PAGE})
    assert answer.status_code == 415
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-expose-headers"] == "Retry-After"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", f"{PAGE}.evil.example", "http://ehr.example", "null"]
)
def test_r37_a_page_of_another_origin_may_not(open_to_a_page: TestClient, origin: str) -> None:
    """Neither ask nor read."""
    asked = preflight(open_to_a_page, origin)
    assert asked.status_code == 400
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["vary"].startswith("Origin")
    outcome = asked.json()
    assert outcome["resourceType"] == "OperationOutcome"
    (issue,) = outcome["issue"]
    assert (issue["code"], issue["diagnostics"]) == ("forbidden", "Disallowed CORS origin")
    assert "access-control-allow-origin" not in asked.headers
    answer = open_to_a_page.get("/cds-services", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_r37_a_preflight_says_which_header_it_refuses(open_to_a_page: TestClient) -> None:
    """Where the page is listed, but sends what no client of CDS Hooks does; it may read why."""
    asked = preflight(open_to_a_page, PAGE, "x-secret")
    assert asked.status_code == 400
    assert asked.json()["issue"][0]["diagnostics"] == "Disallowed CORS headers"
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "x-secret" not in asked.text


def test_r37_no_page_may_call_unless_one_is_listed(client: TestClient) -> None:
    """The default: the preflight is refused like any other method."""
    asked = preflight(client, PAGE)
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize(
    "value", ["*", "ehr.example", f"{PAGE}/", f"{PAGE}/path", f"{PAGE}, https://b.example"]
)
def test_an_origin_that_is_none_stops_the_start(value: str) -> None:
    """No wildcard, and nothing a browser would never send."""
    with pytest.raises(SetupError, match="VARSEL_CORS_ORIGINS"):
        read_settings(cors_origins=value)
