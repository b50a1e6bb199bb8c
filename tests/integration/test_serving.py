"""A real server in a process of its own: what it answers, what it logs, what it imports."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 60.0


def environment(folder: Path) -> dict[str, str]:
    """This environment without any setting of ours, but demo and a state folder."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VARSEL_")}
    return clean | {
        "VARSEL_PROFILE": "demo",
        "VARSEL_STATE_DIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }


@dataclass(frozen=True, slots=True)
class Server:
    """A running `varsel serve`."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Status and text of an answer."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path, data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def call(self, request: dict[str, Any]) -> tuple[int, str]:
        """The answer to a hook."""
        return self.ask("/cds-services/readmission-30d", json.dumps(request).encode())

    def log(self) -> str:
        """What it printed on standard error so far."""
        return (self.folder / "stderr").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`varsel serve` on a free port, in the demo profile, ready."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "cds_service", "serve", "--port", "0"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment(folder), cwd=folder
        )
    try:
        yield Server(_when_ready(process, folder), process, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _when_ready(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The URL the server printed, once it answers there."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        printed = re.search(r"on (http://\S+)", (folder / "stdout").read_text(encoding="utf-8"))
        if printed:
            host, port = printed.group(1).removeprefix("http://").split(":")
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return printed.group(1)
        time.sleep(0.1)
    raise AssertionError((folder / "stderr").read_text(encoding="utf-8"))


def test_it_prints_its_urls_and_is_ready(server: Server) -> None:
    """Every printed URL answers 200."""
    printed = (server.folder / "stdout").read_text(encoding="utf-8")
    urls = re.findall(r"^  http://\S+(/\S+)$", printed, re.MULTILINE)
    assert urls
    for path in [*urls, "/healthz", "/openapi.json", "/static/swagger-ui-bundle.js"]:
        status, _ = server.ask(path)
        assert status == 200, path
    assert json.loads(server.ask("/readyz")[1])["status"] == "ready"


def test_it_answers_a_hook_and_links_to_a_page_of_its_own(
    server: Server, hook_request: dict[str, Any]
) -> None:
    """The link on the card holds the port it really listens on."""
    status, text = server.call(hook_request)
    assert status == 200
    (link,) = json.loads(text)["cards"][0]["links"]
    assert link["url"].startswith(f"{server.url}/explanations/")
    status, page = server.ask(link["url"].removeprefix(server.url))
    assert status == 200
    assert "Tidligere indlæggelser" in page


def test_its_log_holds_ids_and_counts_and_nothing_of_the_patient(
    server: Server, hook_request: dict[str, Any]
) -> None:
    """JSON lines; no name, number, birth date or id of the patient, whatever went wrong."""
    name, cpr = "Ilse Ørsted-Hjort", "0311361234"
    evil = f"\x1b[31m{name}\u202e"
    patient = hook_request["prefetch"]["patient"]
    patient |= {"name": [{"text": name}], "identifier": [{"value": cpr}]}
    broken = {"resourceType": "Observation", "id": evil, "status": [cpr]}
    hook_request["prefetch"]["vitals"]["entry"].append({"resource": broken})
    requests = [
        hook_request,
        hook_request | {"context": {"userId": evil, "patientId": cpr}},
        hook_request | {"prefetch": {evil: patient}},
        hook_request | {"hook": evil},
        hook_request | {"extension": {"dk.varsel.as-of": cpr}},
    ]
    answers = [server.call(r | {"hookInstance": str(uuid.uuid4())}) for r in requests]
    assert [status for status, _ in answers] == [200, 400, 412, 400, 400]
    for secret in (name, "rsted", cpr, patient["id"], patient["birthDate"], "\x1b", "\u202e"):
        assert secret not in server.log()
    lines = [json.loads(line) for line in server.log().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("refused") >= 4
    answered = [line for line in lines if line["event"] == "answered"][-1]
    assert answered["troubles"] == 1
    assert answered["status"] == "scored"


def test_a_body_that_ends_early_leaves_the_server_well(server: Server) -> None:
    """A client that goes away in the middle costs neither a row nor a traceback."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /cds-services/readmission-30d HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
    assert server.ask("/healthz")[0] == 200
    assert "Traceback" not in server.log()
    assert "unforeseen" not in server.log()


IMPORTED = """
import asyncio, json, sys
from importlib.resources import files
from cds_service import cli, server  # as `varsel serve` does
from cds_service.app import create_app
from cds_service.settings import Settings

app = create_app(Settings())
body = files("cds_service").joinpath("demo/hook-request.json").read_bytes()
sent = []

async def call(scope, received):
    waiting = list(received)
    async def receive():
        return waiting.pop(0) if waiting else await asyncio.Event().wait()
    async def send(message):
        sent.append(message)
    await app(scope, receive, send)

async def main():
    async with app.router.lifespan_context(app):
        await call(
            {"type": "http", "method": "POST", "path": "/cds-services/readmission-30d",
             "raw_path": b"", "query_string": b"", "scheme": "http", "http_version": "1.1",
             "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
             "headers": [(b"content-type", b"application/json")]},
            [{"type": "http.request", "body": body, "more_body": False}],
        )

asyncio.run(main())
json.dump({"status": sent[0]["status"], "modules": sorted(sys.modules)}, sys.stderr)
"""


def test_the_process_that_answers_imports_nothing_heavy(tmp_path: Path) -> None:
    """With all that `varsel serve` imports: no evidently, matplotlib, scikit-learn or the like."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=True,
    )
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["status"] == 200
    roots = {name.split(".")[0] for name in told["modules"]}
    heavy = {"evidently", "matplotlib", "dask", "statsmodels", "sklearn", "plotly", "fhir"}
    assert roots & heavy == set()
    assert "scipy.stats" not in told["modules"]
    assert "shap" in roots
