"""The same call again: the stored answer, a further attempt, or a refusal; never half of anything.

Through the service, in threads and in processes of their own on one database.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.db import store
from cds_service.errors import NotDurable
from cds_service.routes import hooks
from cds_service.settings import Settings
from models.registry import Registry
from tests.logged import rows_at

URL = "/cds-services/readmission-30d"
AS_OF = "dk.varsel.as-of"
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Rows = Callable[[], list[dict[str, Any]]]

OTHER_DATA: dict[str, Change] = {
    "a result gone": {"prefetch/laboratory": None},
    "a key gone": {"prefetch/vitals": ...},
    "another value": {"prefetch/laboratory/entry/1/resource/valueQuantity/value": 5.5},
    "another moment": {f"extension/{AS_OF}": "2023-10-20T08:00:00+02:00"},
}
OTHER_CONTEXT: dict[str, Change] = {
    "another user": {"context/userId": "Practitioner/another"},
    "no encounter": {"context/encounterId": "another"},
    "another FHIR server": {"fhirServer": "https://other.example/fhir"},
    "another patient": {
        "context/patientId": "another",
        "prefetch/patient/id": "another",
        "prefetch/encounters": None,
    },
    "other data too": {"context/userId": "Practitioner/another", "prefetch/laboratory": None},
}


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Demo settings, on a database of each kind."""
    return Settings(profile="demo", state_dir=tmp_path, database_url=database_url)


@pytest.fixture
def rows(database_url: str) -> Rows:
    """Reads all rows of the prediction log of `client`, past the service."""
    return lambda: rows_at(database_url)


@pytest.fixture
def again(changed: Changed) -> Changed:
    """The demo request with some changes, always under the same hookInstance."""
    instance = str(uuid.uuid4())
    return lambda changes: changed({"hook": "patient-view", **changes, "hookInstance": instance})


def post(client: TestClient, request: Any) -> Response:
    return client.post(URL, json=request)


# ---- the three cases ------------------------------------------------------------------------


def test_the_same_call_gets_the_stored_answer_and_leaves_one_row(
    client: TestClient, again: Changed, rows: Rows
) -> None:
    """Byte by byte, though the token is another and the hookInstance is spelt otherwise."""
    first = again({})
    token = {"token_type": "Bearer", "expires_in": 300, "scope": "s", "subject": "u"}
    second = copy.deepcopy(first) | {"hookInstance": first["hookInstance"].upper()}
    second["fhirAuthorization"] = {**token, "access_token": "another"}
    answers = [post(client, request) for request in (first, second)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert [(row["attempt"], row["attempt_of"]) for row in rows()] == [(0, None)]


@pytest.mark.parametrize("kind", sorted(OTHER_DATA))
def test_the_same_context_with_other_data_is_a_new_attempt(
    client: TestClient, again: Changed, rows: Rows, kind: str
) -> None:
    """Answered anew and linked to the first; each of the two is found again afterwards."""
    requests = again({}), again(OTHER_DATA[kind])
    first, second = (post(client, request) for request in requests)
    assert (first.status_code, second.status_code) == (200, 200)
    one, two = sorted(rows(), key=lambda row: int(row["attempt"]))
    assert (one["attempt"], one["attempt_of"]) == (0, None)
    assert (two["attempt"], two["attempt_of"]) == (1, one["prediction_id"])
    assert one["context_digest"] == two["context_digest"]
    for request, answer, row in zip(requests, (first, second), (one, two), strict=True):
        assert post(client, request).content == answer.content
        assert row["response"] == answer.text
    assert len(rows()) == 2


@pytest.mark.parametrize("kind", sorted(OTHER_CONTEXT))
def test_another_context_under_a_used_hook_instance_is_a_conflict(
    client: TestClient, again: Changed, rows: Rows, kind: str
) -> None:
    """409 names hookInstance and holds no card; the rows stand as they were."""
    shown = post(client, again({})).json()["cards"][0]["summary"]
    post(client, again({"prefetch/laboratory": None}))
    before = rows()
    answer = post(client, again(OTHER_CONTEXT[kind]))
    assert (answer.status_code, answer.json()["issue"][0]["expression"]) == (409, ["hookInstance"])
    assert shown not in answer.text
    assert rows() == before


def test_each_attempt_has_its_own_page_and_cards(
    client: TestClient, again: Changed, rows: Rows
) -> None:
    """A card leads to what it was made of, not to what another attempt was made of."""
    for request in (again({}), again({"prefetch/laboratory": None})):
        (card,) = post(client, request).json()["cards"]
        (link,) = card["links"]
        page = client.get("/explanations/" + link["url"].rsplit("/", 1)[1] + ".json").json()
        assert [c["uuid"] for c in page["cards"]] == [card["uuid"]]
    assert len({row["prediction_id"] for row in rows()}) == 2


# ---- what is not remembered -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"prefetch/encounters": ...}, 412), ({"context/patientId": "another"}, 400)],
)
def test_a_refused_call_is_not_remembered(
    client: TestClient, again: Changed, rows: Rows, changes: Change, status: int
) -> None:
    """Asked rightly afterwards, the same hookInstance is answered as a first call."""
    assert post(client, again(changes)).status_code == status
    assert rows() == []
    assert post(client, again({})).status_code == 200
    assert [row["attempt"] for row in rows()] == [0]


@pytest.mark.parametrize("place", ["assess", "_report"])
def test_after_our_500_the_same_call_is_answered_once(
    client: TestClient, again: Changed, rows: Rows, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Whether we failed before the row was kept or after it: one row, one answer."""
    with monkeypatch.context() as broken:

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("broken")

        broken.setattr(hooks, place, fail)
        answer = post(client, again({}))
    assert (answer.status_code, answer.json()["resourceType"]) == (500, "OperationOutcome")
    kept = [row["response"] for row in rows()]
    answers = [post(client, again({})) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    (row,) = rows()
    assert {answer.text for answer in answers} == {row["response"]}
    assert kept in ([], [row["response"]])


def test_after_a_503_the_same_call_is_answered_once(
    client: TestClient, again: Changed, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that was not committed is not there: the retry is the first call."""

    def fail(*_: Any, **__: Any) -> None:
        raise NotDurable("broken")

    with monkeypatch.context() as broken:
        broken.setattr(store, "_stored_or_found", fail)
        assert post(client, again({})).status_code == 503
    assert rows() == []
    assert post(client, again({})).json()["cards"]
    assert len(rows()) == 1


# ---- at the same time -----------------------------------------------------------------------


@pytest.fixture
def two_services(settings: Settings, registry: Registry) -> Iterator[list[TestClient]]:
    """Two services with writers of their own on one database."""
    with ExitStack() as running:
        yield [running.enter_context(TestClient(create_app(settings, registry))) for _ in range(2)]


def test_two_that_arrive_together_get_one_answer(
    two_services: list[TestClient], again: Changed, rows: Rows
) -> None:
    """In one service or in two: whoever is first, both get the same bytes of one row."""
    together = threading.Barrier(8)

    def send(number: int) -> bytes:
        together.wait()
        return post(two_services[number % 2], again({})).content

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(8)))
    (row,) = rows()
    assert answers == {row["response"].encode()}


def test_attempts_that_arrive_together_each_get_their_own_answer(
    two_services: list[TestClient], again: Changed, rows: Rows
) -> None:
    """Numbered without a gap and linked to the one that came first."""
    values = [5.0 + number / 10 for number in range(4)] * 2
    together = threading.Barrier(len(values))
    place = "prefetch/laboratory/entry/1/resource/valueQuantity/value"

    def send(number: int) -> tuple[float, bytes]:
        together.wait()
        answer = post(two_services[number % 2], again({place: values[number]}))
        return values[number], answer.content

    with ThreadPoolExecutor(len(values)) as pool:
        answers = set(pool.map(send, range(len(values))))
    assert len(answers) == 4
    found = sorted(rows(), key=lambda row: int(row["attempt"]))
    assert [row["attempt"] for row in found] == [0, 1, 2, 3]
    assert [row["attempt_of"] for row in found] == [None, *[found[0]["prediction_id"]] * 3]
    assert {row["response"].encode() for row in found} == {answer for _, answer in answers}


WRITER = """
import json, sys, uuid
from cds_service.db.log import PredictionLog, open_engine
from tests.logged import PRIVACY, a_row

url, me, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
said = []
with PredictionLog(open_engine(url), PRIVACY) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    waiting = []
    for number in range(calls):
        for data in ("shared", me):
            row = a_row(
                caller=me, hook_instance=str(uuid.UUID(int=number)), content_digest=data,
                response=f"{me} {number} {data}",
            )
            waiting.append((number, data, log.store(row)))
    for number, data, future in waiting:
        stored = future.result(60)
        said.append([number, data, stored.response, stored.attempt, stored.replayed])
print(json.dumps(said))
"""


def test_processes_on_one_database_agree_on_every_call(database_url: str) -> None:
    """Three processes store the same calls at once, with data they share and data of their own:
    one row for what they share, which all of them got; one for each own, numbered without a gap."""
    names, calls = ["one", "two", "three"], 60
    said = dict(zip(names, in_processes(database_url, names, calls), strict=True))
    asked = ("hook_instance", "content_digest", "response", "attempt")
    rows = [tuple(row[name] for name in asked) for row in rows_at(database_url)]
    assert len(rows) == calls * (1 + len(names))
    by_call = {(uuid.UUID(i).int, data): (response, n) for i, data, response, n in rows}
    assert Counter(n for *_, n in rows) == dict.fromkeys(range(1 + len(names)), calls)
    for name in names:
        for number, data, response, attempt, replayed in said[name]:
            assert (response, attempt) == by_call[number, data]
            assert replayed == (not response.startswith(f"{name} "))
    made = Counter(
        response.split()[0] for data, (response, _) in by_call.items() if "shared" in data
    )
    assert sum(made.values()) == calls


def in_processes(url: str, names: list[str], calls: int) -> list[Any]:
    """What processes of these names were told, which all began at the same moment."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, name, str(calls)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=120)[0]) for process in running]
