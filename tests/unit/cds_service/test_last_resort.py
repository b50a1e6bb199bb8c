"""What nobody foresaw: answered 500 with a number, found in the log by it, and never repeated."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from cds_service.app import bare_app

PATIENT = "Ilse Ørsted-Hjort 031136-1234"


@pytest.fixture
def broken() -> FastAPI:
    """The application with one more route, which fails with a patient's name in the error."""
    app = bare_app()

    @app.get("/broken")
    async def fail() -> None:
        raise KeyError(PATIENT)

    return app


def test_an_unforeseen_error_is_our_fault_and_goes_no_further(broken: FastAPI) -> None:
    """500 and an OperationOutcome; the server is given nothing it could print."""
    with capture_logs() as lines:
        answer = TestClient(broken, raise_server_exceptions=True).get("/broken")
    assert answer.status_code == 500
    (issue,) = answer.json()["issue"]
    assert (issue["severity"], issue["code"]) == ("fatal", "exception")
    (line,) = lines
    assert line["number"] in issue["diagnostics"]
    assert line["kind"] == "KeyError"
    assert any(place.startswith("fail:") for place in line["places"])
    assert PATIENT not in answer.text + str(lines)
