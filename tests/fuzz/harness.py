"""A running service and the property every mutated request is held against.

Never a 500 and never a wait; 200 with valid cards or a refusal that names a field; a number only
from data that are still there. Called by `test_mutated_requests.py` (some hundreds, in every test
run) and by `run` (thousands).
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.assess import MODEL_FAILED
from cds_service.service import Service, open_registry
from cds_service.settings import Settings
from fhir_adapters.codes import code_table
from fhir_adapters.features.language import USABLE, FeatureSpec
from tests.fuzz.mutations import MEANINGS, Mutant, changed, encode
from tests.logged import WHOLE_ROWS
from tests.matchers import check_response, refused_field

LONGEST_S = 5.0
"""Longest a call may take here; a real one takes hundredths of a second."""
MEASUREMENTS = ("Observation/", "QuestionnaireResponse/")
LARGEST = 1e300
"""Numbers beyond are none that a record holds, and an integer may be too long for a float."""
JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Fuzzed:
    """A running service, its database, and what was seen so far."""

    client: TestClient
    service: Service
    database: sqlite3.Connection
    calls: int = 0
    slowest_s: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    values_traced: int = 0

    def __repr__(self) -> str:
        """Short, since hypothesis prints it with every failure."""
        return f"<{self.calls} calls>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """The same for hypothesis, which prints a dataclass field by field."""
        printer.text(repr(self))

    def hold(self, mutant: Mutant) -> None:
        """Send a mutant; AssertionError says which part of the property it broke."""
        request = changed(mutant)
        self.calls += 1
        if isinstance(request.get("hookInstance"), str) and "hookInstance" not in {
            step.place[0] for step in mutant.steps
        }:
            request["hookInstance"] = str(uuid.UUID(int=self.calls))
        body = encode(request, mutant)
        answer = self.send(body, mutant.seed.service)
        self.check(answer, request, mutant.seed.service)

    def send(self, body: bytes, service: str) -> Response:
        """The answer to a body; AssertionError where it took too long."""
        started = time.perf_counter()
        answer = self.client.post(f"/cds-services/{service}", content=body, headers=JSON)
        took = time.perf_counter() - started
        self.slowest_s = max(self.slowest_s, took)
        assert took < LONGEST_S, f"took {took:.1f} s"
        return answer

    def check(self, answer: Response, request: Mapping[str, Any], service: str) -> None:
        """Hold the newest answer against the request it was of, as values."""
        self.seen[str(answer.status_code)] += 1
        if answer.status_code != 200:
            refused_field(answer)
            return
        check_response(answer)
        row = self.database.execute(f"{WHOLE_ROWS} ORDER BY p.rowid DESC LIMIT 1").fetchone()
        assert row["hook_instance"] == request["hookInstance"].lower(), "no row of this call"
        assert json.loads(row["response"]) == answer.json(), "the row holds another answer"
        assert row["reason"] != MODEL_FAILED, "the model failed"
        self.seen[row["status"]] += 1
        if row["features"] is not None:
            self._trace(row, request, service)

    def _trace(self, row: sqlite3.Row, request: Mapping[str, Any], service: str) -> None:
        """Every value of a feature leads to resources of the request, or to an answered query."""
        package = self.service.registry.find(service)
        sealed = self.service.privacy.unseal(row)
        there = Input(request.get("prefetch") or {})
        for value in json.loads(row["features"]):
            if value["value"] is None:
                assert value["status"] not in USABLE, value["name"]
                continue
            self.values_traced += 1
            spec = package.features.specs[value["name"]]
            sources = sealed["sources"].get(value["name"], [])
            for source in sources:
                assert there.has(source), f"{value['name']} rests on what was not sent"
                assert not _is_measured(spec) or source.startswith(MEASUREMENTS), (
                    f"{value['name']} is read off a {source.split('/')[0]}"
                )
            if len(sources) == 1 and value.get("original") is not None:
                assert there.says(sources[0], value["original"]), (
                    f"{value['name']} is a number that {sources[0].split('/')[0]} does not hold"
                )
            if not sources and not spec.from_:
                _require_answered(spec, value["value"], package.features.supplied_by, there)


def _is_measured(spec: FeatureSpec) -> bool:
    """Whether a feature is made of measurements alone."""
    table = code_table()
    known = [table.concept(name) for name in spec.of if name in table.names()]
    return bool(known) and all(concept.kind == "observation" for concept in known)


def _require_answered(
    spec: FeatureSpec, value: float, supplied_by: Mapping[str, str], there: Input
) -> None:
    """A value that rests on no resource says "none", and of a query that was answered."""
    assert value in (0.0, spec.never), f"{spec.name} is {value} and rests on nothing"
    for concept in spec.of:
        key = supplied_by.get(concept)
        assert key is None or there.answers(key), f"{spec.name} is 0 and {key} was not answered"


class Input:
    """What stands in a mutated prefetch: its resources by reference, and the keys answered."""

    def __init__(self, prefetch: Any) -> None:
        self._prefetch = prefetch if isinstance(prefetch, dict) else {}
        self._found: dict[str, list[Any]] = {}
        self._read(self._prefetch, None)

    def _read(self, value: Any, full_url: Any) -> None:
        if isinstance(value, dict):
            kind, name = (_meant(value.get(key)) for key in ("resourceType", "id"))
            if isinstance(kind, str):
                # one without an id goes by its full URL, or by no name
                for one in (name,) if name else (name, _last(_meant(full_url))):
                    self._found.setdefault(f"{kind}/{one}", []).append(value)
            for part in value.values():
                self._read(part, value.get("fullUrl"))
        elif isinstance(value, list):
            for part in value:
                self._read(part, None)

    def has(self, source: str) -> bool:
        """Whether a resource of this reference is there."""
        return source in self._found

    def says(self, source: str, number: float) -> bool:
        """Whether a resource of this reference holds the number anywhere."""
        return any(number in _numbers(resource) for resource in self._found[source])

    def answers(self, key: str) -> bool:
        """Whether something other than a failure stands under a key."""
        value = self._prefetch.get(key, ...)
        if value is ...:
            return False
        failed = isinstance(value, dict) and value.get("resourceType") == "OperationOutcome"
        return not failed or "4101" in json.dumps(value)


def _meant(value: Any) -> Any:
    """A value as a reader gets it: marks stand for what was put in their place."""
    return MEANINGS.get(value, value) if isinstance(value, str) else value


def _last(url: Any) -> str | None:
    return url.rstrip("/").split("/")[-1] if isinstance(url, str) else None


def _numbers(value: Any) -> Iterator[float]:
    """Every number anywhere in a value."""
    value = _meant(value)
    if isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and abs(value) < LARGEST:
        yield float(value)


@contextmanager
def fuzzed(folder: Path) -> Iterator[Fuzzed]:
    """A service of all bundled packages over a real database, in the demo profile."""
    settings = Settings(profile="demo", state_dir=folder, calls_per_minute=1_000_000)
    app = create_app(settings, open_registry(settings))
    with (
        TestClient(app, raise_server_exceptions=False) as client,
        closing(sqlite3.connect(folder / "varsel.db")) as database,
    ):
        database.row_factory = sqlite3.Row
        yield Fuzzed(client, app.state.service, database)
