"""What one request may hold and one caller may ask: each limit refuses by its own name and number.

Bodies that arrive too slowly and callers that go away are met in
tests/integration/test_deadline.py, over real sockets.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import timeit
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from cds_service.app import create_app
from cds_service.errors import BadRequest, TooBusy, TooManyCalls
from cds_service.limits import Turns, check_texts
from cds_service.settings import Settings
from models.registry import Registry
from tests.bench.records import hook_request as record_of_size

URL = "/cds-services/readmission-30d"
JSON = {"Content-Type": "application/json"}
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]
Serve = Callable[..., TestClient]


@pytest.fixture
def serve(tmp_path: Path, registry: Registry) -> Iterator[Serve]:
    """Starts a service with some limits; ends all of them."""
    running: list[TestClient] = []

    def start(**limits: object) -> TestClient:
        settings = Settings(profile="demo", state_dir=tmp_path, **limits)  # type: ignore[arg-type]
        client = TestClient(create_app(settings, registry), raise_server_exceptions=False)
        running.append(client.__enter__())
        return running[-1]

    yield start
    for client in running:
        client.__exit__(None, None, None)


def refusal(answer: Response) -> tuple[int, str, str, str | None]:
    """Status, issue code, words and field of a refusal."""
    (issue,) = answer.json()["issue"]
    (field,) = issue.get("expression", [None])
    return answer.status_code, issue["code"], issue["diagnostics"], field


# ---- one request ----------------------------------------------------------------------------


@pytest.mark.parametrize("says_its_length", [True, False])
def test_a_body_of_more_bytes_than_the_limit_is_413(serve: Serve, says_its_length: bool) -> None:
    """With Content-Length before any of it is read; without, as soon as it is too much."""
    body = b" " * 3000
    content = body if says_its_length else iter([body[:1500], body[1500:]])
    answer = serve(max_body_bytes=2000).post(URL, content=content, headers=JSON)
    assert refusal(answer) == (413, "too-long", "the body is larger than 2000 bytes", "$")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity"])
def test_a_compressed_body_is_415(serve: Serve, coding: str) -> None:
    """What unpacks to a thousand times its size is not unpacked."""
    answer = serve().post(URL, content=b"x", headers={**JSON, "Content-Encoding": coding})
    assert refusal(answer)[::3] == (415, "Content-Encoding")


NESTED: dict[str, Callable[[int], tuple[str, str]]] = {
    "lists under an unknown member": lambda n: ('"unknown"', "[" * n + "]" * n),
    "objects under an unknown member": lambda n: ('"unknown"', '{"a":' * n + "1" + "}" * n),
    "the extension": lambda n: ('"extension"', '{"a":' * n + "1" + "}" * n),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("levels", [900, 950, 980, 990, 1000, 1010, 1100, 5000, 200_000])
def test_a_body_nested_too_deeply_is_400(
    serve: Serve, changed: Changed, kind: str, levels: int
) -> None:
    """The decoder bounds the nesting at about a thousand; near the bound nothing else gives way."""
    member, value = NESTED[kind](levels)
    text = json.dumps(changed({"extension": ...}))[:-1] + f", {member}: {value}}}"
    answer = serve().post(URL, content=text, headers=JSON)
    assert answer.status_code in ({200, 400} if levels <= 1000 else {400})
    if answer.status_code == 400:
        assert refusal(answer)[1:3] == ("invalid", "nested too deeply")


@pytest.mark.parametrize("levels", [200, 450, 480, 495, 510, 600, 5000])
def test_answers_of_a_questionnaire_nested_too_deeply_are_no_fault_of_ours(
    serve: Serve, changed: Changed, levels: int
) -> None:
    """The one resource that may nest in itself: what is too deep is refused or reported."""
    item: dict[str, Any] = {"linkId": "1"}
    text = '{"linkId":"1","item":[' * levels + json.dumps(item) + "]}" * levels
    response = {"resourceType": "QuestionnaireResponse", "status": "completed", "item": ["ITEM"]}
    sent = json.dumps(changed({"prefetch/answers": response})).replace('"ITEM"', text)
    assert serve().post(URL, content=sent, headers=JSON).status_code in {200, 400}


def test_more_resources_than_the_limit_are_413(serve: Serve, changed: Changed) -> None:
    """Counted over all keys, before they are read."""
    request = changed({})
    held = sum(
        len(value["entry"]) if value and "entry" in value else 0
        for value in request["prefetch"].values()
    )
    most = held + len(request["prefetch"])
    assert serve(max_resources=most).post(URL, json=request).status_code == 200
    answer = serve(max_resources=most - 1).post(URL, json=changed({}))
    said = f"the request holds more than {most - 1} resources"
    assert refusal(answer) == (413, "too-long", said, "prefetch")


def test_a_bundle_of_a_million_entries_costs_no_more_than_counting_them(
    serve: Serve, changed: Changed
) -> None:
    """It is refused well before each of them could have been looked at."""
    text = json.dumps(changed({"prefetch/vitals/entry": "ENTRIES"}))
    sent = text.replace('"ENTRIES"', "[" + '{"a":1},' * 999_999 + "{}]")
    client = serve()
    began = time.process_time()
    answer = client.post(URL, content=sent, headers=JSON)
    assert refusal(answer)[::3] == (413, "prefetch")
    assert time.process_time() - began < 2


def test_a_text_longer_than_the_limit_is_400(serve: Serve, changed: Changed) -> None:
    """Wherever it stands, in a part nobody reads too."""
    limited = serve(max_string_bytes=2000)
    for place in ("unknown", "prefetch/patient/photo"):
        assert limited.post(URL, json=changed({place: "x" * 2000})).status_code == 200
        answer = limited.post(URL, json=changed({place: "x" * 4001}))
        said = "a text, or a stretch without one, is longer than 2000 bytes"
        assert refusal(answer) == (400, "invalid", said, "$")


def test_a_stretch_without_any_text_is_no_longer_either(serve: Serve) -> None:
    """Nothing in FHIR looks so: blanks, brackets or empty objects by the million."""
    for stretch in (b" ", b"[", b"{},"):
        answer = serve().post(URL, content=b'{"a":' + stretch * 1_100_000, headers=JSON)
        assert refusal(answer)[::3] == (400, "$")


@pytest.mark.parametrize("before", [0, 1, 499, 500, 750])
@pytest.mark.parametrize("text", ["x", '\\"', "\\u0022"])
def test_a_long_text_is_found_wherever_it_begins_and_however_it_is_escaped(
    before: int, text: str
) -> None:
    """To the byte: as long as the limit is read, one more is refused."""
    longest = 1000 // len(text) * len(text)
    for more in (0, len(text)):
        written = text * ((longest + more) // len(text))
        body = ('{"a": "' + " " * before + '", "b": "' + written + '", "c": 1}').encode()
        if more:
            with pytest.raises(BadRequest):
                check_texts(body, longest)
        else:
            check_texts(body, longest)


def test_ordinary_requests_pay_next_to_nothing_for_the_limit_of_texts() -> None:
    """At 5,000 resources well under a hundredth of the call."""
    body = record_of_size(5000).body(uuid.uuid4())
    began = time.process_time()
    for _ in range(10):
        check_texts(body, 1_000_000)
    assert (time.process_time() - began) / 10 < 0.001


def test_long_texts_full_of_escaped_marks_are_passed_over_quickly() -> None:
    """24 texts just below the limit, each of half a million escaped marks: as quick as a few passes
    over them, because other calls wait meanwhile."""
    body = b"[" + b",".join([b'"' + b'\\"' * 499_990 + b'"'] * 24) + b"]"

    def quickest(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, time.process_time, repeat=3, number=1))

    one_pass = quickest(lambda: body.count(b'\\"'))
    assert quickest(lambda: check_texts(body, 1_000_000)) < 18 * one_pass


@pytest.mark.parametrize("seed", range(4))
def test_the_limit_of_texts_is_what_it_says_for_any_bytes(seed: int) -> None:
    """Refused: where some half of the limit, counted from the start, lies in a longer text."""
    draw = random.Random(seed)
    for _ in range(3000):
        body = bytes(draw.choices(b'x\\"', (draw.randrange(1, 20), 2, 2), k=draw.randrange(60)))
        longest = draw.randrange(2, 20)
        half = longest // 2
        texts = [match.span() for match in re.finditer(rb'(?:[^"]|(?<=\\)")+', body)]
        refused = any(
            end - start > longest and -(-start // half) * half + half <= end for start, end in texts
        )
        if refused:
            with pytest.raises(BadRequest):
                check_texts(body, longest)
        else:
            check_texts(body, longest)


# ---- many requests --------------------------------------------------------------------------


def test_a_caller_that_calls_too_often_is_429(serve: Serve, changed: Changed) -> None:
    """With Retry-After; the limit is named."""
    limited = serve(calls_per_minute=2)
    answers = [limited.post(URL, json=changed({})) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert refusal(answers[2]) == (429, "throttled", "more than 2 calls a minute", None)
    assert int(answers[2].headers["retry-after"]) >= 1


async def _take(turns: Turns, caller: str, lasts_s: float = 0.0) -> None:
    async with turns.turn(caller):
        await asyncio.sleep(lasts_s)


async def _take_many(turns: Turns, caller: str, calls: int) -> None:
    for _ in range(calls):
        await _take(turns, caller)


def test_one_caller_that_calls_too_often_costs_another_nothing() -> None:
    """Each has its own count; calls come back evenly over the minute."""

    async def calls() -> None:
        turns = Turns(Settings(calls_per_minute=6000))
        await _take_many(turns, "hasty", 6000)
        with pytest.raises(TooManyCalls):
            await _take_many(turns, "hasty", 100)
        await _take(turns, "calm")
        await asyncio.sleep(0.05)  # 5 calls of 6,000 a minute
        await _take(turns, "hasty")

    asyncio.run(calls())


def test_a_call_more_than_are_answered_at_once_waits_and_then_is_503() -> None:
    """It gets the turn of one that ends in time; else it is told how long it waited."""

    async def calls() -> None:
        turns = Turns(Settings(max_calls=2, wait_seconds=0.2))
        short = [asyncio.create_task(_take(turns, "a", 0.05)) for _ in range(2)]
        await asyncio.sleep(0)
        await _take(turns, "b")
        await asyncio.gather(*short)
        long = [asyncio.create_task(_take(turns, "a", 1.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooBusy, match=r"2 calls are being answered, and none ended in 0\.2 s"):
            await _take(turns, "b")
        await asyncio.gather(*long)
        await _take(turns, "b")

    asyncio.run(calls())


def test_a_turn_lasts_as_long_as_the_work_that_outlives_its_call() -> None:
    """A caller answered 503 for lateness has not made room: the work still runs."""

    async def calls() -> None:
        turns = Turns(Settings(max_calls=1, wait_seconds=0.0))
        work = asyncio.ensure_future(asyncio.sleep(0.05))
        async with turns.turn("a") as turn:
            turn.lasts_until(work)
        with pytest.raises(TooBusy):
            await _take(turns, "b")
        await work
        await asyncio.sleep(0)
        await _take(turns, "b")

    asyncio.run(calls())


def test_a_caller_too_many_at_once_is_told_when_to_come_again(
    serve: Serve, changed: Changed
) -> None:
    """503 with Retry-After over HTTP, and never an empty list of cards."""
    client = serve(max_calls=1, wait_seconds=0.0)
    turns = client.app.state.service.turns  # type: ignore[attr-defined]
    asyncio.run(turns._free.acquire())
    answer = client.post(URL, json=changed({}))
    turns._free.release()
    assert answer.status_code == 503
    assert answer.json()["issue"][0]["code"] == "throttled"
    assert int(answer.headers["retry-after"]) >= 1
    assert client.post(URL, json=changed({})).status_code == 200
