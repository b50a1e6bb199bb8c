"""Tokens and patients leave no trace: a production server's output and database, searched through.

Calls that succeed, that are refused and that fail within are made first; whatever they carried is
then looked for in all the server printed and in every byte of its database.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.served import Caller, Production, answer_on, production, send

ROOT = Path(__file__).parents[2]
CALLER = Caller("ward-a", "token-that-must-never-be-printed-4711")
ACCESS_TOKEN = "fhir-access-token-that-must-never-be-kept-0815"  # noqa: S105 - known to this test
NAME, CPR, BORN = "Ilse Ørsted-Hjort", "0311361234", "1936-11-03"
PATIENT_ID = "patient-id-to-be-sealed-2718"
Changed = Callable[[Mapping[str, Any]], dict[str, Any]]


def jwt_like() -> str:
    """What looks like a JWT, signed by nobody."""
    parts = ({"alg": "RS384", "kid": "k", "typ": "JWT"}, {"iss": "https://ehr.example", "jti": CPR})
    coded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    return b".".join([*coded, b"c2lnbmF0dXJlLXRoYXQtaXMtbm9uZQ"]).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """An installation with one caller and a small limit of bytes."""
    folder = tmp_path_factory.mktemp("secrets")
    with production(folder, [CALLER], max_body_bytes=400_000) as running:
        yield running


def of_the_patient(changed: Changed) -> dict[str, Any]:
    """The demo request about a patient with a name, number and id of its own, with a token."""
    text = json.dumps(changed({"extension": ...}))
    request: dict[str, Any] = json.loads(text)
    old = request["context"]["patientId"]
    request = json.loads(
        json.dumps(request)
        .replace(f'"{old}"', f'"{PATIENT_ID}"')
        .replace(f"Patient/{old}", f"Patient/{PATIENT_ID}")
    )
    request["prefetch"]["patient"] |= {
        "name": [{"text": NAME}],
        "identifier": [{"system": "urn:oid:1.2.208.176.1.2", "value": CPR}],
        "birthDate": BORN,
    }
    request["fhirServer"] = "https://ehr.example/fhir"
    request["fhirAuthorization"] = {
        "access_token": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "patient/*.read",
        "subject": "cds",
        "patient": PATIENT_ID,
    }
    return request


@pytest.fixture
def statuses(server: Production, changed: Changed) -> list[int]:
    """The statuses of calls of every kind, made as somebody with secrets makes them."""
    request = of_the_patient(changed)

    def again(**changes: object) -> dict[str, Any]:
        return {**of_the_patient(changed), **changes}

    known = [
        request,
        request,
        again(prefetch={"patient": request["prefetch"]["patient"]}),
        again(context={"userId": NAME, "patientId": CPR}),
        again(extension={"dk.varsel.as-of": CPR}),
        again(hook=NAME),
        again(fhirServer=f"https://{CPR}@ehr.example/{ACCESS_TOKEN}"),
        again(unknown="x" * 400_000),
        {**request, "context": {**request["context"], "userId": "Practitioner/other"}},
    ]
    found = [server.call(CALLER, call).status for call in known]
    wrong = (jwt_like(), CALLER.token[:-1], f"{CALLER.token} x", ACCESS_TOKEN)
    found += [server.call(Caller("nobody", token), request).status for token in wrong]
    with closing(server.connect()) as connection:
        send(connection, CALLER.token, b'{"hook": "' + NAME.encode() + b'", ')
        found.append(answer_on(connection).status)
    found.append(_asked(server, f"GET /cds-services?token={CALLER.token}&p={CPR} HTTP/1.1"))
    found.append(_asked(server, f"GET /{CPR} HTTP/1.1"))
    return found


def _asked(server: Production, line: str) -> int:
    with closing(server.connect()) as connection:
        connection.sendall(f"{line}\r\nHost: test\r\n\r\n".encode())
        return answer_on(connection).status


def test_no_token_and_no_patient_is_printed_or_kept_in_clear(
    server: Production, statuses: list[int]
) -> None:
    """Neither of calls that were answered nor of calls that were refused."""
    assert statuses == [200, 200, 412, 400, 400, 400, 200, 413, 409, *[401] * 4, 400, 401, 404]
    kept = b"".join(path.read_bytes() for path in sorted(server.folder.glob("varsel.db*")))
    printed = server.printed().encode()
    assert b'"answered"' in printed
    assert b"readmission-30d" in kept
    signature = jwt_like().rsplit(".", 1)[1]
    for secret in (CALLER.token, ACCESS_TOKEN, signature, NAME, "rsted", CPR, BORN, PATIENT_ID):
        for form in (secret, json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()):
            assert form.encode() not in printed, secret
            assert form.encode() not in kept, secret
    assert b"Traceback" not in printed


def test_an_answer_tells_nothing_of_the_software_below(server: Production) -> None:
    """No server header; a bare 401."""
    answer = server.call(Caller("nobody", "x"), {})
    assert answer.status == 401
    assert "server" not in answer.headers
    assert answer.json()["issue"][0]["diagnostics"] == "not authenticated"


def test_an_upgrade_to_a_websocket_is_no_way_in(server: Production) -> None:
    """Answered like any other request."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"GET /cds-services HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert answer_on(connection).status == 401


# ---- the code -------------------------------------------------------------------------------

SECRET = re.compile(r"token|secret|signature|password|sha256|\bmac\b|\bkey\b")


def comparisons() -> Iterator[tuple[Path, ast.Compare]]:
    """Every comparison for equality in what runs beside secrets."""
    for path in sorted((ROOT / "cds_service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
                yield path, node


def test_no_secret_is_compared_letter_by_letter() -> None:
    """A comparison that ends at the first difference tells by its time how much was right."""
    both = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path, node in comparisons()
        if path.parts[-2] == "auth" or path.name == "privacy.py"
        if SECRET.search(ast.unparse(node.left)) and SECRET.search(ast.unparse(node.comparators[0]))
    ]
    assert both == []


def test_every_security_rule_that_is_silenced_says_why() -> None:
    """`# noqa: S…` without a reason is a hole somebody was too busy to look into."""
    silent = [
        f"{path.relative_to(ROOT)}:{number}"
        for room in ("cds_service", "fhir_adapters", "models", "monitoring", "validation")
        for path in sorted((ROOT / room).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"#\s*noqa: S\d+\s*$", line)
    ]
    assert silent == []


def test_every_test_the_threat_model_names_exists() -> None:
    """docs/security.md says which test shows it; a name that leads nowhere shows nothing."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert named
    lost = [
        f"{file}::{test}"
        for file, test in named
        if f"def {test}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert lost == []
    rows = [line for line in page.splitlines() if line.startswith("|") and "::" in line]
    assert len(rows) >= 15
