"""Reading predictions over the API: pages, filters, forms, and what stands in the audit trail.

Predictions are made by real calls of the hook; where thousands are needed, by copies of one.
"""

from __future__ import annotations

import csv
import io
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from cds_service.api import streaming
from cds_service.api.formats import disarmed
from cds_service.api.paging import PURPOSES, cursor_at
from cds_service.app import READS_AT_ONCE
from cds_service.db import search
from cds_service.errors import LogUnavailable, NotDurable
from models.registry import Registry
from tests.reading import LIST, House, house, token_of

OPENAPI = Path(__file__).parents[2] / "openapi" / "openapi.json"
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
BUNDLE, LINES = "application/fhir+json", "application/fhir+ndjson"
START = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 12_000


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, demo_request: dict[str, Any]
) -> Iterator[House]:
    """A service with four predictions: two scored, one on too few data, one not eligible."""
    with house(tmp_path_factory.mktemp("reading"), registry, demo_request) as running:
        running.predicts()
        running.predicts()
        running.predicts(laboratory=None)
        running.predicts(encounters=None)
        yield running


@pytest.fixture(scope="module")
def copies(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, demo_request: dict[str, Any]
) -> Iterator[tuple[House, list[str]]]:
    """A service with a hundred predictions, three a second, and their ids."""
    with house(tmp_path_factory.mktemp("copies"), registry, demo_request) as running:
        original = running.predicts()
        yield running, [original, *copied(running, original, 99)]


def copied(running: House, original: str, number: int, **columns: Any) -> list[str]:
    """Put so many copies of a prediction into the log, three a second; their ids."""
    rows = [
        {
            "prediction_id": str(uuid.uuid4()),
            "computed_at": START + timedelta(seconds=n // 3),
            **columns,
        }
        for n in range(number)
    ]
    running.copied(original, rows)
    return [row["prediction_id"] for row in rows]


def ids_of(answer: Any) -> list[str]:
    """The ids on a page."""
    return [row["prediction_id"] for row in answer.json()["predictions"]]


def follow(running: House, url: str) -> Any:
    """The page a `next` leads to."""
    assert url.startswith("https://varsel.example.dk/api/")
    path = url.removeprefix("https://varsel.example.dk")
    return running.client.get(path, headers=token_of("org-a", "validator"))


# ---- pages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [7, 50, 99, 100, 1000])
def test_pages_hold_every_prediction_once(copies: tuple[House, list[str]], limit: int) -> None:
    """Oldest first, whatever their length, also where many were computed in one second."""
    running, ids = copies
    answer, read = running.reads(limit=limit), []
    while True:
        assert answer.status_code == 200
        assert len(ids_of(answer)) <= limit
        read += answer.json()["predictions"]
        if answer.json()["next"] is None:
            break
        answer = follow(running, answer.json()["next"])
    assert sorted(row["prediction_id"] for row in read) == sorted(ids)
    assert [row["computed_at"] for row in read] == sorted(row["computed_at"] for row in read)


def test_predictions_added_while_pages_are_turned_make_neither_gap_nor_double(
    tmp_path: Path, registry: Registry, demo_request: dict[str, Any]
) -> None:
    """Before and after the page that is being read."""
    with house(tmp_path, registry, demo_request) as running:
        original = running.predicts()
        ids = {original, *copied(running, original, 99)}
        answer, read = running.reads(limit=20), []
        while True:
            read += ids_of(answer)
            copied(running, original, 3)
            copied(running, original, 1, computed_at=START + timedelta(hours=len(read)))
            if answer.json()["next"] is None:
                break
            answer = follow(running, answer.json()["next"])
    assert len(read) == len(set(read))
    assert ids <= set(read)


def test_the_next_page_asks_for_the_same(copies: tuple[House, list[str]]) -> None:
    """Filters, purpose and length stand in its address."""
    running, _ = copies
    answer = running.reads(limit=5, status="scored", unit="ward")
    assert answer.json() == {"predictions": [], "next": None}
    answer = running.reads(limit=5, status="scored", to="2026-03-01T00:00:03Z")
    assert len(ids_of(answer)) == 5
    last = follow(running, answer.json()["next"])
    assert len(ids_of(last)) == 4
    assert last.json()["next"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"purpose": ...}, "purpose"),
        ({"purpose": "CURIOSITY"}, "purpose"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-03-01"}, "from"),
        ({"to": "2026-03-01T00:00:00"}, "to"),
        ({"to": "0001-01-01T00:00:00+14:00"}, "to"),
        ({"pseudonim": "x"}, "pseudonim"),
        ({"service": ""}, "service"),
        ({"unit": "a\x00"}, "unit"),
        ({"unit": "a" * 257}, "unit"),
        ({"unit": ["a", "b"]}, "unit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "!!!!"}, "cursor"),
        ({"cursor": "WyJ4IiwieSJd"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"pseudonym": "010203-1234"}, "pseudonym"),
        ({"pseudonym": "A" * 32}, "pseudonym"),
        ({"unit": "0102031234"}, "unit"),
        ({"unit": "ward of 010203-1234"}, "unit"),
        ({"unit": "<b>"}, "unit"),
        ({"service": "0102031234"}, "service"),
        ({"version": "010203 1234"}, "version"),
        ({"status": "Hansen, Marie"}, "status"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    running: House, query: dict[str, Any], field: str
) -> None:
    """A misspelt filter that was passed over would give out more than was asked for."""
    answer = running.reads(**query)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == [field]


def test_a_number_typed_into_the_wrong_field_does_not_stay_in_the_trail(running: House) -> None:
    """Nothing can be taken out of the trail again: refused by name, and nothing is on record."""
    officer = ("/api/v1/audit", "data-protection-officer")
    for field, value in (
        ("subject", "0102031234"), ("subject", "010203-1234@1.0.0"), ("who", "0102031234"),
        ("who", "010203-1234"), ("who", "a" * 129), ("what", "read 010203-1234"),
    ):  # fmt: skip
        answer = running.reads(*officer, **{field: value})
        assert answer.status_code == 400
        assert answer.json()["issue"][0]["expression"] == [field]
        assert value not in answer.text
        assert value not in running.reads(*officer, limit=1000).text


def test_what_stands_in_the_trail_can_be_asked_for(running: House) -> None:
    """Names of people, of what is done, and of what it is done to."""
    for name, value in (
        ("subject", "readmission-30d@1.0.0"), ("subject", "0" * 64),
        ("who", "Søren Ågård (læge)"), ("who", "auth0|5f7c8ec7c33c6c"), ("what", "model hit rate"),
    ):  # fmt: skip
        answer = running.reads("/api/v1/audit", "data-protection-officer", **{name: value})
        assert (answer.status_code, answer.json()["audit"]) == (200, [])


def test_a_cursor_somebody_made_up_opens_nothing(running: House) -> None:
    """It is a place, and from there on the reader reads what is theirs."""
    row = {"at": START, "id": "0" * 36}
    cursor = cursor_at(row, "at", "id")
    others = running.reads(organisation="org-b", cursor=cursor)
    assert others.json()["predictions"] == []
    assert len(ids_of(running.reads(cursor=cursor))) == 4


# ---- filters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"service": "readmission-30d"}, 4),
        ({"service": "crc-surgery"}, 0),
        ({"version": "1.0.0", "mode": "live"}, 4),
        ({"status": "scored"}, 2),
        ({"status": "insufficient-data", "returned": "card"}, 1),
        ({"status": "not-eligible", "returned": "not-eligible"}, 1),
        ({"mode": "silent"}, 0),
        ({"unit": "ward"}, 0),
        ({"from": "2026-01-01T00:00:00+01:00"}, 4),
        ({"to": "2026-01-01T00:00:00Z"}, 0),
        ({"from": "2100-01-01T00:00:00Z"}, 0),
    ],
)
def test_filters_find_what_they_say(running: House, query: dict[str, Any], found: int) -> None:
    """Alone and together."""
    assert len(ids_of(running.reads(**query))) == found


def test_a_patients_predictions_are_found_by_pseudonym(running: House) -> None:
    """All four are of one patient; of another pseudonym there are none."""
    pseudonym = running.reads().json()["predictions"][0]["patient_pseudonym"]
    assert len(ids_of(running.reads(pseudonym=pseudonym))) == 4
    assert ids_of(running.reads(pseudonym=pseudonym[::-1])) == []


# ---- one ------------------------------------------------------------------------------------


def test_one_prediction_is_read_with_all_that_is_on_record(running: House) -> None:
    """The prediction, what it was made of, and what proves it; no identity, no reference."""
    (first, *_) = running.reads(status="scored").json()["predictions"]
    record = running.reads(f"{LIST}/{first['prediction_id']}").json()
    document = json.loads(OPENAPI.read_text(encoding="utf-8"))
    for name, row in (("PredictionRecord", record), ("LoggedPrediction", first)):
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        Draft202012Validator(schema).validate(row)
    assert record["prediction"] == first["prediction"]
    assert record["prediction"]["heads"][0]["risk"] > 0
    assert record["features"]
    assert not any(feature["sources"] for feature in record["features"])
    assert record["commitment"]
    text = json.dumps(record)
    patient = running.request["context"]["patientId"]
    assert f'"{patient}"' not in text
    assert f"/{patient}" not in text


@pytest.mark.parametrize(
    ("path", "status"), [("nonsense", 400), ("00000000-0000-8000-8000-000000000000", 404)]
)
def test_what_is_no_prediction_is_not_found(running: House, path: str, status: int) -> None:
    """400 for what is no id, 404 for one nobody has."""
    assert running.reads(f"{LIST}/{path}").status_code == status


def test_an_erased_prediction_is_listed_without_what_it_said(
    tmp_path: Path, registry: Registry, demo_request: dict[str, Any]
) -> None:
    """In every form: that it was made stays on record, what it said is gone."""
    with house(tmp_path, registry, demo_request) as running:
        erased = running.predicts()
        with running.log.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM prediction_payloads")
        (row,) = running.reads().json()["predictions"]
        assert row["prediction_id"] == erased
        assert row["prediction"] is None
        record = running.reads(f"{LIST}/{erased}").json()
        assert record["prediction"] is record["features"] is record["timings"] is None
        (line,) = csv.DictReader(io.StringIO(running.reads(accept=CSV).text))
        assert (line["prediction_id"], line["risk"]) == (erased, "")
        (parquet,) = parquet_rows(running.reads(accept=PARQUET).content)
        assert (parquet["prediction_id"], parquet["heads"]) == (erased, [])
        assert running.reads(accept=LINES).text == ""


# ---- forms ----------------------------------------------------------------------------------


def parquet_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as pq  # heavy

    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
    return rows


def test_every_form_says_the_same(running: House) -> None:
    """Ids, risks and times read back from JSON, CSV, Parquet and FHIR are equal."""
    listed = running.reads().json()["predictions"]
    risks = {
        row["prediction_id"]: [h["risk"] for h in row["prediction"]["heads"]] for row in listed
    }
    lines = list(csv.DictReader(io.StringIO(running.reads(accept=CSV).text)))
    for line, row in zip(lines, listed, strict=True):
        assert line["prediction_id"] == row["prediction_id"]
        assert line["computed_at"] == row["computed_at"]
        risk = [float(line["risk"])] if line["risk"] else []
        assert risk == risks[line["prediction_id"]]
    for record, row in zip(
        parquet_rows(running.reads(accept=PARQUET).content), listed, strict=True
    ):
        assert record["prediction_id"] == row["prediction_id"]
        assert record["computed_at"] == datetime.fromisoformat(row["computed_at"])
        assert [head["risk"] for head in record["heads"]] == risks[record["prediction_id"]]
        said = {feature["name"]: feature["value"] for feature in record["features"]}
        full = running.reads(f"{LIST}/{row['prediction_id']}").json()["features"] or []
        assert said == {feature["name"]: feature["value"] for feature in full}


@pytest.mark.parametrize("form", [BUNDLE, LINES])
def test_fhir_is_read_by_a_fhir_library(running: House, form: str) -> None:
    """One RiskAssessment for each scored prediction, its risk in percent (R4)."""
    from fhir.resources.R4B.bundle import Bundle  # heavy
    from fhir.resources.R4B.riskassessment import RiskAssessment  # as above

    answer = running.reads(accept=form, status="scored")
    assert answer.headers["content-type"].split(";")[0] == form
    if form == BUNDLE:
        found = [entry["resource"] for entry in answer.json()["entry"]]
        Bundle.model_validate(answer.json())
    else:
        found = [json.loads(line) for line in answer.text.splitlines()]
    for resource in found:
        RiskAssessment.model_validate(resource)
    percents = [float(r["prediction"][0]["probabilityDecimal"]) for r in found]
    rows = running.reads(status="scored").json()["predictions"]
    risks = [100 * row["prediction"]["heads"][0]["risk"] for row in rows]
    assert percents == pytest.approx(risks, abs=0.1)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", CSV),
        ("text/csv;q=0.5, application/json;q=0.4", CSV),
        ("text/csv;header=present", CSV),
        ("TEXT/CSV", CSV),
        ("application/json;q=0, */*", CSV),
        ("text/html, application/vnd.apache.parquet, */*;q=0.1", PARQUET),
        ("text/html", None),
        ("application/xml;q=1, image/*", None),
        ("*/*;q=0", None),
        ("nonsense", None),
    ],
)
def test_the_form_is_the_one_asked_for(
    running: House, accept: str | None, form: str | None
) -> None:
    """By weight; 406 where none of those made here is accepted."""
    answer = running.client.get(
        f"{LIST}?purpose=HQUALIMP",
        headers=token_of("org-a", "validator") | {"Accept": accept or ""},
    )
    assert answer.status_code == (200 if form else 406)
    if form:
        assert answer.headers["content-type"].split(";")[0] == form
    assert answer.headers["cache-control"] == "no-store"


def test_what_streams_has_no_pages(running: House) -> None:
    """A limit that was passed over would be taken for all there is."""
    answer = running.reads(accept=CSV, limit=10)
    assert answer.status_code == 400
    assert answer.json()["issue"][0]["expression"] == ["limit"]


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝＋－＠"))
def test_no_cell_is_taken_for_a_formula(
    tmp_path: Path, registry: Registry, demo_request: dict[str, Any], start: str
) -> None:
    """Whatever text begins so is put behind an apostrophe; a negative number stays a number."""
    assert disarmed(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"
    if start != "=":
        return
    with house(tmp_path, registry, demo_request) as running:
        hostile = '=HYPERLINK("https://x.example";"ward")'
        copied(running, running.predicts(), 1, unit=hostile, attempt=-1)
        line, _ = csv.DictReader(io.StringIO(running.reads(accept=CSV).text))
        assert line["unit"] == f"'{hostile}"
        assert line["attempt"] == "-1"


# ---- in constant memory ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(
    tmp_path_factory: pytest.TempPathFactory, registry: Registry, demo_request: dict[str, Any]
) -> Iterator[House]:
    """A service with 12,000 predictions, each with less to say than a real one."""
    with house(tmp_path_factory.mktemp("full"), registry, demo_request) as running:
        original = running.predicts()
        record = running.reads(f"{LIST}/{original}").json()
        small = record["prediction"] | {"missing": [], "cards": []}
        small["heads"] = [head | {"contributions": []} for head in small["heads"]]
        payload = {
            "document": json.dumps(small),
            "features": json.dumps(record["features"][:4]),
            "response": '{"cards":[]}',
        }
        copied(running, original, ROWS - 1, **payload)
        yield running


class Taker:
    """The other end of a connection: takes what is sent, and hangs up after so many pieces."""

    def __init__(self, hang_up_after: int | None = None, pause_s: float = 0.0) -> None:
        self.status, self.pieces, self.size, self.most_kb = 0, 0, 0, 0
        self.ended = False
        self._left = hang_up_after
        self._pause_s = pause_s
        self._gone = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        """Nothing more is asked; the end comes when this one hangs up."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message, after a pause."""
        await anyio.sleep(self._pause_s)
        self.status = message.get("status", self.status)
        self.pieces += bool(message.get("body"))
        self.size += len(message.get("body", b""))
        self.most_kb = max(self.most_kb, resident_kb())
        self.ended = message["type"] == "http.response.body" and not message["more_body"]
        if self.pieces == self._left:
            self._gone.set()


def resident_kb() -> int:
    """How much memory this process holds."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4


def taken(
    running: House, accept: str, to: datetime, hang_up_after: int | None = None, pause_s: float = 0
) -> Taker:
    """An export of what was computed before a time, taken piece by piece past the test client."""
    headers = token_of("org-a", "validator") | {"accept": accept}
    query = f"purpose=HOUTCOMS&to={to.isoformat().replace('+00:00', 'Z')}"
    scope = {
        "type": "http", "method": "GET", "path": LIST, "raw_path": LIST.encode(),
        "query_string": query.encode(), "root_path": "", "scheme": "https",
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def take() -> Taker:
        taker = Taker(hang_up_after, pause_s)
        await running.client.app(scope, taker.receive, taker.send)
        return taker

    assert running.client.portal is not None
    return running.client.portal.call(take)


@pytest.mark.parametrize("form", [CSV, PARQUET])
def test_memory_does_not_grow_with_what_is_exported(full: House, form: str) -> None:
    """Twenty thousand predictions take no more of it than two thousand; all of them leave."""
    few = taken(full, form, START + timedelta(seconds=2000 / 3))
    before = resident_kb()
    many = taken(full, form, datetime(2100, 1, 1, tzinfo=UTC))
    assert (many.status, many.ended) == (200, True)
    assert many.size > 5 * few.size
    assert many.pieces >= ROWS // 500
    assert many.most_kb - max(before, few.most_kb) < 24_000


def test_who_hangs_up_ends_it(full: House) -> None:
    """The next piece is not made, the turn is given back, and the trail says how far it came."""
    taker = taken(full, CSV, datetime(2100, 1, 1, tzinfo=UTC), hang_up_after=3)
    assert not taker.ended
    assert taker.pieces < 8
    until = time.monotonic() + 5
    last: dict[str, Any] = {}
    while last.get("what") != "export predictions ended" and time.monotonic() < until:
        trail = full.reads(
            "/api/v1/audit", "data-protection-officer", what="export predictions ended"
        )
        last = trail.json()["audit"][-1] if trail.json()["audit"] else {}
    assert last["details"]["whole"] is False
    assert last["details"]["rows"] < 5000


def test_who_takes_nothing_is_given_up(full: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute; here sooner. The turn is given back: nine in a row are as many as one more
    than there are."""
    monkeypatch.setattr(streaming, "LONGEST_STALL_S", 0.02)
    for _ in range(READS_AT_ONCE + 1):
        taker = taken(full, CSV, datetime(2100, 1, 1, tzinfo=UTC), pause_s=0.05)
        assert (taker.status, taker.pieces) == (200, 0)
    assert full.reads(limit=1).status_code == 200


def test_a_database_that_fails_under_way_cuts_the_answer_off(
    full: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its last chunk, HTTP shows it to be incomplete; nobody takes a part for the whole."""
    read, asked = search._read, []

    def fail_later(*given: Any) -> Any:
        asked.append(given)
        if len(asked) > 2:
            raise LogUnavailable("gone")
        return read(*given)

    monkeypatch.setattr(search, "_read", fail_later)
    taker = taken(full, CSV, datetime(2100, 1, 1, tzinfo=UTC))
    assert (taker.status, taker.ended) == (200, False)


# ---- on record ------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", sorted(PURPOSES))
def test_every_read_is_on_record_with_who_what_and_why(running: House, purpose: str) -> None:
    """Before it leaves; the reader's name as the issuer knows it, the role it was read in."""
    answer = running.reads(purpose=purpose, status="scored")
    assert len(ids_of(answer)) == 2
    entry = newest(running)
    assert (entry["who"], entry["role"], entry["what"]) == ("anna", "validator", "read predictions")
    assert entry["why"] == purpose
    assert entry["details"]["filters"] == {"status": "scored"}
    assert entry["details"]["rows"] == 2


def newest(running: House) -> dict[str, Any]:
    """The newest entry of the trail that is not of the trail itself."""
    officer = ("/api/v1/audit", "data-protection-officer")
    entries = running.reads(*officer, purpose="HCOMPL", limit=1000).json()["audit"]
    return dict([e for e in entries if e["what"] != "read audit"][-1])


def test_reading_one_patient_or_one_prediction_names_the_subject(running: House) -> None:
    """So that the trail can be asked who read this."""
    first = running.reads().json()["predictions"][0]
    for path, query, subject in (
        (f"{LIST}/{first['prediction_id']}", {}, first["prediction_id"]),
        (LIST, {"pseudonym": first["patient_pseudonym"]}, first["patient_pseudonym"]),
    ):
        assert running.reads(path, **query).status_code == 200
        assert newest(running)["subject"] == subject
        trail = running.reads("/api/v1/audit", "data-protection-officer", subject=subject)
        assert trail.json()["audit"]


def test_nothing_leaves_that_cannot_be_put_on_record(
    running: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, in every form: a read nobody can account for is not given."""

    def refuse(_: object) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(NotDurable("the prediction log did not commit"))
        return future

    first = running.reads().json()["predictions"][0]["prediction_id"]
    monkeypatch.setattr(running.log, "audit", refuse)
    for form in ("application/json", CSV, PARQUET, BUNDLE, LINES):
        answer = running.reads(accept=form)
        assert answer.status_code == 503
        assert first not in answer.text
    assert running.reads(f"{LIST}/{first}").status_code == 503


def test_the_trail_is_read_as_csv_too(running: House) -> None:
    """Its details as JSON in a cell; and that it was read stands in it."""
    officer = ("/api/v1/audit", "data-protection-officer")
    lines = list(csv.DictReader(io.StringIO(running.reads(*officer, accept=CSV).text)))
    assert lines
    assert all(json.loads(line["details"]) is not None for line in lines)
    again = list(csv.DictReader(io.StringIO(running.reads(*officer, accept=CSV).text)))
    assert {"export audit", "export audit ended"} <= {line["what"] for line in again}
    assert running.reads(*officer, accept=PARQUET).status_code == 406
