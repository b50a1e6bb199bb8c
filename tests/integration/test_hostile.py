"""Text that means harm: nothing of a FHIR string reaches a card, a page or a terminal unescaped.

Markup, terminal escapes, bidirectional controls and Markdown stand in every free string of the
demo request (units, ids, displays, codes, names, references, answers). The server's log lines are
read in test_serving.py.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cds_service.cli.scoring import score_one
from cds_service.findings import Setting
from cds_service.settings import Settings
from cds_service.terminal import terminal_card
from models.package import Package

URL = "/cds-services/readmission-30d"
Change = Mapping[str, Any]
Changed = Callable[[Change], dict[str, Any]]
Post = Callable[[Change], Response]

EVIL = "<script>alert(1)</script>|`x`**b**[l](http://evil)\x1b[31m\u202eabc\u200b\r\n\x00\x9b"
MARKS = ("<script", "alert(1)", "evil", "\x1b", "\u202e", "\u200b", "\x9b", "\x00")
NAME, CPR, BORN = "Ilse Ørsted-Hjort", "0311361234", "1936-11-03"
READ_AS_IS = {"resourceType", "status", "intent", "reference", "start", "end", "system"}
"""Members without which the resource would not be read at all; `reference` is tried apart."""


def poisoned(value: Any, name: str = "") -> Any:
    """The value with evil text in every string that is not a time or a word of FHIR's own."""
    if isinstance(value, dict):
        return {
            key: part if key in READ_AS_IS else poisoned(part, key) for key, part in value.items()
        }
    if isinstance(value, list):
        return [poisoned(part, name) for part in value]
    if isinstance(value, str) and name in {"id", "unit", "text", "display", "value", "fullUrl"}:
        return value + EVIL
    return value


@pytest.fixture
def evil_request(hook_request: dict[str, Any]) -> dict[str, Any]:
    """The demo request, poisoned, with a named patient; still of the same patient."""
    request = copy.deepcopy(hook_request)
    prefetch = poisoned(request["prefetch"])
    prefetch["patient"]["id"] = request["context"]["patientId"]
    prefetch["patient"]["name"] = [{"text": NAME + EVIL}]
    prefetch["patient"]["identifier"] = [{"system": "urn:oid:1.2.208.176.1.2", "value": CPR}]
    for key in ("vitals", "laboratory", "conditions", "medications"):
        for entry in prefetch[key]["entry"]:
            code = "medicationCodeableConcept" if key == "medications" else "code"
            entry["resource"][code]["text"] = EVIL
            entry["resource"][code]["coding"].append({"system": EVIL, "code": EVIL})
            entry["resource"][code]["coding"][0]["display"] = EVIL
    # a unit nobody knows, a reference to nobody, a resource nobody can read, a key nobody asked for
    prefetch["laboratory"]["entry"][0]["resource"]["valueQuantity"] = {"value": 1, "unit": EVIL}
    prefetch["laboratory"]["entry"][1]["resource"]["subject"] = {"reference": "Patient/" + EVIL}
    prefetch["vitals"]["entry"][0]["resource"]["status"] = [EVIL]
    prefetch[EVIL] = {
        "resourceType": "QuestionnaireResponse",
        "id": EVIL,
        "status": "completed",
        "item": [{"linkId": EVIL, "answer": [{"valueString": EVIL}]}],
    }
    prefetch["x" + EVIL] = {"resourceType": "Observation", "status": 5}
    prefetch["y" + EVIL] = {"resourceType": EVIL}
    request["prefetch"] = prefetch
    request["hookInstance"] = str(uuid.uuid4())
    return request  # fmt: skip


class Text(HTMLParser):
    """What a browser would make of a page: its tags, and the text it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        """Notes text."""
        self.text += data


def test_no_evil_text_reaches_a_card(client: TestClient, evil_request: dict[str, Any]) -> None:
    """A card is made of the package's words and of numbers."""
    answer = client.post(URL, json=evil_request)
    assert answer.json()["cards"]
    for mark in (*MARKS, NAME, CPR, BORN):
        assert mark not in answer.text


def test_a_card_that_names_what_was_unreadable_escapes_it(
    client: TestClient, evil_request: dict[str, Any]
) -> None:
    """The insufficiency card says where; control characters go, Markdown and HTML are escaped."""
    evil_request["prefetch"]["laboratory"] = None
    (card,) = client.post(URL, json=evil_request).json()["cards"]
    assert "Kunne ikke læses" in card["detail"]
    for control in ("\x1b", "\u202e", "\u200b", "\x9b", "\x00"):
        assert control not in card["detail"]
    for unescaped in (r"(?<!\\)<", r"(?<!\\)`", r"(?<!\\)\["):
        assert not re.search(unescaped, card["detail"])


def test_no_evil_text_is_obeyed_by_the_explanation_page(
    client: TestClient, evil_request: dict[str, Any]
) -> None:
    """Source ids and paths are shown as text; no script, no control or bidirectional character."""
    (card,) = client.post(URL, json=evil_request).json()["cards"]
    path = card["links"][0]["url"].split("8000", 1)[1]
    page = client.get(path)
    assert page.status_code == 200
    seen = Text()
    seen.feed(page.text)
    assert "script" not in seen.tags
    assert not seen.tags & {"a", "img", "iframe", "b", "strong", "link", "form"}
    assert "<script>alert(1)</script>" in seen.text  # the id of a source, as text
    for control in ("\x1b", "\u202e", "\u200b", "\x9b", "\x00"):
        assert control not in page.text
    for identity in (NAME, CPR, BORN):
        assert identity not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]


def test_no_evil_text_reaches_the_terminal(
    evil_request: dict[str, Any], package: Package, tmp_path: Path
) -> None:
    """`varsel score` prints no character a terminal would obey."""
    site = Settings(profile="demo", state_dir=tmp_path)
    raw = json.dumps(evil_request).encode()
    answer = score_one(package, raw, as_of="latest", language="da", settings=site)
    printed = terminal_card(package.manifest, answer.prediction, Setting("da", site.zone, None))
    assert "kunne ikke læses" in printed
    assert all(c == "\n" or c.isprintable() for c in printed)
    for identity in (NAME, CPR, BORN):
        assert identity not in printed


def test_a_refusal_repeats_nothing_of_the_patient(post: Post) -> None:
    """Neither names, nor numbers, nor dates, nor ids, nor control characters."""
    person = {
        "resourceType": "Patient",
        "id": "id-of-" + CPR,
        "name": [{"text": NAME}],
        "birthDate": BORN,
    }
    refused = [
        post({"prefetch/patient": person}),
        post({"prefetch/patient": {**person, "birthDate": [BORN]}}),
        post({"prefetch/patient": NAME}),
        post({"context/patientId": NAME}),
        post({"context/encounterId": CPR + " " + EVIL}),
        post({"context/userId": NAME}),
        post({"context": NAME}),
        post({"hook": NAME + EVIL}),
        post({"hookInstance": CPR}),
        post({"fhirServer": "https://" + NAME}),
        post({"extension": {"dk.varsel.as-of": CPR}}),
        post({"extension": NAME}),
    ]
    for answer in refused:
        assert answer.status_code in {400, 412}
        for identity in (NAME, CPR, BORN):
            assert identity not in answer.text
        assert "\\u001b" not in answer.text
        assert answer.text.isprintable()


def test_a_resource_type_that_is_none_is_not_repeated(post: Post) -> None:
    """What stands there may be anything, a name too."""
    answer = post({"prefetch/patient": {"id": "x", "resourceType": NAME}})
    assert answer.status_code == 412
    assert NAME not in answer.text


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 5000, "1e-400", "-0", "0.1e309"])
def test_a_number_no_computer_holds_is_no_reason_to_fail(
    client: TestClient, changed: Changed, number: str
) -> None:
    """It is read, refused as implausible, or reported as unreadable; the rest is answered."""
    place = "prefetch/laboratory/entry/0/resource/valueQuantity/value"
    sent = json.dumps(changed({place: 123454321})).replace("123454321", number)
    answer = client.post(URL, content=sent, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["cards"]


@pytest.fixture(scope="module")
def places(demo_request: dict[str, Any]) -> list[str]:
    """The path of every value in the demo request's prefetch."""

    def walk(value: Any, path: str) -> Iterator[str]:
        yield path
        if isinstance(value, dict | list):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(part, f"{path}/{key}")

    return [path for path in walk(demo_request["prefetch"], "prefetch") if path.count("/") > 1]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_stands_anywhere_in_a_resource_the_service_answers(
    post: Post, places: list[str], data: st.DataObject
) -> None:
    """200, or a refusal by name: never a fault of ours."""
    place = data.draw(st.sampled_from(places))
    answer = post({place: data.draw(ANYTHING)})
    assert answer.status_code in {200, 400, 412}
