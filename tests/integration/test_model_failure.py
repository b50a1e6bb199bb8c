"""A model that fails while scoring: said on a card, logged, reported; the alarms stand."""

from __future__ import annotations

import copy
import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from cds_service.app import create_app
from cds_service.cli import app as command_line
from cds_service.cli import scoring
from cds_service.settings import Settings
from models.engines import xgboost
from models.package import Package
from models.registry import BUNDLED, Registry, admit
from models.risk_model import Floats
from models.trees import Trees
from tests.conftest import Changed
from tests.decided import decided

NAME = "readmission-30d"
URL = f"/cds-services/{NAME}"
SECRET = "the value 51.3 of Patient/7"  # noqa: S105 - what must not reach a log
Rows = Callable[[], list[sqlite3.Row]]
DANGEROUS = {
    "resourceType": "Bundle",
    "type": "searchset",
    "entry": [
        {
            "resource": {
                "resourceType": "Observation",
                "id": "spo2",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "59408-5"}]},
                "effectiveDateTime": "2023-10-20T08:00:00+02:00",
                "valueQuantity": {
                    "value": 31,
                    "unit": "%",
                    "system": "http://unitsofmeasure.org",
                    "code": "%",
                },
            }
        }
    ],
}
"""A saturation of 31 %: wrong, or the patient is dying."""


@cache
def bundled() -> Package:
    return admit(BUNDLED / NAME, allow_synthetic=True)


class WithOneColumnLess(Trees):
    """The bundled trees, asked with a column too few: xgboost itself raises."""

    def risk(self, rows: Floats) -> Floats:
        return super().risk(np.ascontiguousarray(rows[:, 1:]))


class Unexplainable(Trees):
    """The bundled trees, whose explanation fails."""

    def points(self, _: Floats) -> Floats:
        raise ArithmeticError(SECRET)


class NotANumber(Trees):
    """The bundled trees, whose risk is no number."""

    def risk(self, rows: Floats) -> Floats:
        return np.full(len(rows), np.nan)


def failing(kind: type[Trees]) -> Package:
    """The bundled package with its own trees, made to fail."""
    package = bundled()
    (head,) = package.heads
    assert isinstance(head.model, Trees)
    broken = copy.copy(head.model)
    broken.__class__ = kind
    return dataclasses.replace(package, heads=(dataclasses.replace(head, model=broken),))


@contextmanager
def service(settings: Settings, package: Package) -> Iterator[TestClient]:
    registry = Registry({NAME: package}, {})
    with TestClient(create_app(settings, registry), raise_server_exceptions=False) as running:
        yield running


@pytest.mark.parametrize("kind", [WithOneColumnLess, Unexplainable, NotANumber])
def test_the_failure_is_said_beside_the_alarm_and_logged(
    settings: Settings,
    changed: Changed,
    rows: Rows,
    capsys: pytest.CaptureFixture[str],
    kind: type[Trees],
) -> None:
    """No 500 that would take the alarm with it, and no empty list that would read as low risk."""
    with service(settings, failing(kind)) as client:
        answer = client.post(URL, json=changed({"prefetch/vitals": DANGEROUS}))
        assert answer.status_code == 200, answer.text
        alarm, failed = answer.json()["cards"]
        page = client.get(failed["links"][0]["url"].removeprefix(settings.url)).text
    assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")
    assert "Prognosen kunne ikke beregnes: fejl i modellen" in failed["summary"]
    assert failed["indicator"] == "warning"
    assert "%" not in failed["summary"]
    assert "Prognosen kunne ikke beregnes: fejl i modellen" in page
    (row,) = rows()
    assert (row["status"], row["reason"], row["returned"]) == ("refused", "model-failed", "card")
    assert json.loads(row["document"])["heads"] == []
    reported = "".join(capsys.readouterr())
    (event,) = [line for line in reported.splitlines() if "model failed" in line]
    assert f"service={NAME}" in event
    assert "places=['_scores:" in event
    assert SECRET not in reported


def test_xgboost_itself_raises_for_a_row_that_is_not_its_own() -> None:
    """So that the first failure above is one of its own, before a page is drawn of it."""
    package = failing(WithOneColumnLess)
    with pytest.raises((xgboost.core.XGBoostError, ValueError), match=r"[Ff]eature"):
        package.heads[0].model.risk(np.zeros((1, len(package.columns))))


def test_a_silent_version_that_fails_shows_nothing_but_alarms(
    settings: Settings, changed: Changed, rows: Rows
) -> None:
    package = failing(Unexplainable)
    decided(settings, package, "silent")
    with service(settings, package) as client:
        (alarm,) = client.post(URL, json=changed({"prefetch/vitals": DANGEROUS})).json()["cards"]
        assert client.post(URL, json=changed({})).json()["cards"] == []
    assert alarm["summary"].startswith("Kontrollér måling og tilstand nu")
    assert {row["reason"] for row in rows()} == {"model-failed"}


def test_on_the_command_line_it_is_our_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hook_request: dict[str, Any]
) -> None:
    """Exit code 1, the model named with where it failed, and the answer printed all the same."""
    monkeypatch.setenv("VARSEL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(scoring, "admit", lambda *_, **__: failing(Unexplainable))
    asked = tmp_path / "request.json"
    asked.write_text(json.dumps(hook_request), encoding="utf-8")
    command = ["score", str(asked), "--as-of", "latest", "--model", NAME]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(command_line, [*command, *more])
        assert done.exit_code == 1
        assert f"{NAME} failed while scoring: ArithmeticError at " in done.stderr
        assert SECRET not in done.output
        assert ("kunne ikke beregnes" in done.stdout) or ('"model-failed"' in done.stdout)
