"""No text of a request reaches a card, page, log line or terminal unescaped: each string in turn.

Every place of the demo request that holds a string gets HTML, Markdown, terminal escapes, line
breaks and bidirectional controls, one kind of place at a time, over HTTP; then all at once, through
`varsel score` too. tests/integration/test_hostile.py has the places an attacker would choose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cds_service.cli import app as command_line
from cds_service.cli import main

URL = "/cds-services/readmission-30d"
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]

ATTACKS = {
    "html": "<img src=x onerror=alert(1)><script>alert(1)</script>&lt;b&gt;\"'",
    "markdown": "![x](http://evil.example)[x](javascript:alert(1))`x`**x**|x|\n# x\n",
    "terminal": "\x1b[2J\x1b]0;evil\x07\x9b31m\x08\r\n\x00",
    "bidirectional": "\u202eevil\u202c\u2066evil\u2069\u200f\u200b\ufeff\u061c",
}
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
EVERYTHING = "".join(ATTACKS.values())
SHAPES = sorted(
    [
        "context/userId", "context/patientId", "context/encounterId", "hook", "hookInstance",
        "fhirServer", "resourceType", "type", "id", "fullUrl", "status", "intent", "reference",
        "system", "code", "display", "text", "unit", "comparator", "value", "url", "relation",
        "mode", "start", "end", "birthDate", "gender", "family", "given", "recordedDate",
        "effectiveDateTime", "authoredOn", "performedDateTime", "issued",
    ]
)  # fmt: skip
"""Names of the members that hold strings, here and in what other systems send."""


def poisoned(value: Any, name: str, attack: str, at: str = "") -> Any:
    """The value with the attack behind every string under members of a name."""
    if isinstance(value, dict):
        return {key: poisoned(part, name, attack, key) for key, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part, name, attack, at) for part in value]
    return value + attack if isinstance(value, str) and name in (at, "*") else value


def with_more_texts(request: dict[str, Any]) -> dict[str, Any]:
    """The request with the texts other systems send too: narrative, names, notes, extensions."""
    texts = {
        "text": {"status": "generated", "div": f"<div>{EVERYTHING}</div>"},
        "extension": [{"url": "http://x" + EVERYTHING, "valueString": EVERYTHING}],
        "note": [{"text": EVERYTHING}],
        "name": [{"family": "x", "given": ["x"]}],
        "contained": [{"resourceType": "Medication", "id": "x", "code": {"text": EVERYTHING}}],
    }
    for value in request["prefetch"].values():
        held = [entry["resource"] for entry in (value or {}).get("entry", [])] or [value or {}]
        for resource in held:
            resource.update(texts)
    request["extension"][EVERYTHING] = {EVERYTHING: EVERYTHING}
    request[EVERYTHING] = EVERYTHING
    return request


@pytest.fixture
def texts(changed: Changed) -> dict[str, Any]:
    """The demo request with a text wherever there can be one."""
    return with_more_texts(changed({}))


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def strings(value: Any) -> Iterator[str]:
    """Every string of an answer, names of members too."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def assert_harmless(text: str) -> None:
    """Text of a card: our own Markdown and nothing of the sender's that would be obeyed."""
    assert not CONTROLS.search(text), text
    assert not re.search(r"(?<!\\)<(?!br>)", text), text
    assert not re.search(r"(?<!\\)`", text), text
    assert not re.search(r"(?<!\\)!?\[[^\]]*(?<!\\)\]\(", text), text
    assert "javascript:" not in re.sub(r"\\.", "", text), text


def check(client: TestClient, request: dict[str, Any]) -> int:
    """Post a request and look through its answer, its page and our log; the answer's status."""
    with capture_logs() as lines:
        answer = client.post(URL, content=json.dumps(request).encode(), headers=JSON)
    assert answer.status_code in {200, 400, 412}
    for line in lines:
        assert not CONTROLS.search("".join(strings(json.loads(json.dumps(line, default=str)))))
        assert "evil" not in str(line)
        assert "alert" not in str(line)
    for text in strings(answer.json()):
        assert not CONTROLS.search(text)
    for card in answer.json().get("cards", []):
        for text in strings({k: v for k, v in card.items() if k != "links"}):
            assert_harmless(text)
        for link in card.get("links", []):
            assert re.fullmatch(r"http://127\.0\.0\.1:8000/explanations/[0-9a-f-]{36}", link["url"])
            check_page(client, link["url"].split("8000", 1)[1])
    return answer.status_code


JSON = {"Content-Type": "application/json"}


def check_page(client: TestClient, path: str) -> None:
    """The explanation page holds our tags only; texts stand in it as text."""
    page = client.get(path)
    assert page.status_code == 200
    assert not CONTROLS.search(page.text)
    seen = Tags()
    seen.feed(page.text)
    assert not seen.tags & {"script", "img", "a", "b", "iframe", "link", "form", "object", "svg"}
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert client.get(f"{path}.json").headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", SHAPES)
def test_a_hostile_text_under_any_member_is_obeyed_by_nobody(
    client: TestClient, texts: dict[str, Any], name: str
) -> None:
    """Card, page, refusal and log of a request whose every such string carries an attack."""
    member = name.rpartition("/")[2]
    check(client, poisoned(texts, member, EVERYTHING))


@pytest.mark.parametrize("attack", sorted(ATTACKS))
@pytest.mark.parametrize("lacking", ["nothing", "laboratory"])
def test_a_request_full_of_one_attack_is_answered_without_obeying_it(
    client: TestClient, texts: dict[str, Any], attack: str, lacking: str
) -> None:
    """In ids, displays, units, texts and prefetch keys at once; with a number and without."""
    request = texts
    for member in ("id", "display", "text", "unit", "fullUrl"):
        request = poisoned(request, member, ATTACKS[attack])
    request["prefetch"]["patient"]["id"] = request["context"]["patientId"]
    request["prefetch"] |= {
        f"x{ATTACKS[attack]}": {"resourceType": "Observation", "status": ATTACKS[attack]},
        f"y{ATTACKS[attack]}": {"resourceType": ATTACKS[attack]},
    }
    if lacking != "nothing":
        request["prefetch"][lacking] = {"resourceType": "Bundle", "entry": [{"resource": 5}]}
    assert check(client, request) == 200


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_command_line_prints_no_hostile_text(
    texts: dict[str, Any], tmp_path: Path, form: str
) -> None:
    """`varsel score` of the same request, as text and as JSON: nothing a terminal would obey."""
    for member in ("id", "display", "text", "unit"):
        texts = poisoned(texts, member, EVERYTHING)
    texts["prefetch"]["patient"]["id"] = texts["context"]["patientId"]
    texts["prefetch"][f"x{EVERYTHING}"] = {"resourceType": "Observation", "status": 5}
    file = tmp_path / "request.json"
    file.write_text(json.dumps(texts), encoding="utf-8")
    typed = ["score", str(file), "--as-of", "latest", *(["--json"] if form == "json" else [])]
    environment = {"VARSEL_PROFILE": "demo", "VARSEL_STATE_DIR": str(tmp_path)}
    done = CliRunner().invoke(command_line, typed, env=environment)
    assert done.exit_code == 0, done.output
    assert not CONTROLS.search(done.output)
    if form == "json":
        assert json.loads(done.stdout)


def test_a_file_with_a_hostile_name_or_content_is_refused_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with an input is said without repeating what a terminal would obey."""
    file = tmp_path / f"x{ATTACKS['bidirectional']}.json"
    file.write_text(json.dumps({"resourceType": EVERYTHING}), encoding="utf-8")
    monkeypatch.setenv("VARSEL_PROFILE", "demo")
    monkeypatch.setenv("VARSEL_STATE_DIR", str(tmp_path))
    for path in (file, tmp_path / f"nowhere{ATTACKS['terminal'][:-1]}"):
        monkeypatch.setattr("sys.argv", ["varsel", "score", str(path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.err
        assert not CONTROLS.search(printed.out + printed.err)
