"""A client of others: `@medplum/core`, over HTTP against a server process.

Installed by `make setup` where there is Node 20 or newer (tests/clients/medplum/); where there is
none these tests are skipped, and say so.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.bench.servers import PRODUCT, Server, running
from tests.matchers import check_card, empty_members

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "tests" / "clients" / "medplum"
DEMO = ROOT / "cds_service" / "demo" / "hook-request.json"
FAULTY = ("-m", "tests.clients.faulty")
OLDEST_NODE = 20
LONGEST_S = 60


@pytest.fixture(scope="module")
def node() -> str:
    """Node; skips where there is none, or one that is too old for the client."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("no Node on this machine: the npm client @medplum/core is not tried")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node {version.strip()} is older than {OLDEST_NODE}: no npm client")
    assert (CLIENT / "node_modules" / "@medplum" / "core").is_dir(), "run `make setup`"
    return path


def medplum_call(node: str, server: Server) -> dict[str, Any]:
    """What the client was offered, sent and got."""
    done = subprocess.run(
        [node, "--experimental-websocket", "call.mjs", f"http://127.0.0.1:{server.port}", DEMO],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def logged(folder: Path) -> list[tuple[str, str, str]]:
    """The rows of a server's prediction log: hookInstance, status and response."""
    with closing(sqlite3.connect(folder / "varsel.db")) as connection:
        return connection.execute(
            "SELECT hook_instance, status, response FROM predictions JOIN prediction_payloads "
            "USING (prediction_id)"
        ).fetchall()


def test_medplum_finds_the_services_and_gets_a_card(node: str, tmp_path: Path) -> None:
    """Discovery, a built request without fhirServer and with `null` under what it cannot resolve,
    and one valid card that stands in the log."""
    with running(PRODUCT, tmp_path) as server:
        said = medplum_call(node, server)
    assert {"readmission-30d"} <= {service["id"] for service in said["services"]}
    assert "fhirServer" not in said["request"]
    assert said["request"]["prefetch"]["function"] is None
    assert [attempt["status"] for attempt in said["attempts"]] == [200]
    (card,) = said["response"]["cards"]
    check_card(card)
    assert list(empty_members(said["response"])) == []
    ((instance, status, response),) = logged(tmp_path)
    assert (instance, status) == (said["request"]["hookInstance"], "scored")
    assert json.loads(response) == said["response"]


def test_medplum_tries_again_after_our_500_and_gets_the_card_of_the_one_row(
    node: str, tmp_path: Path
) -> None:
    """It repeats the POST with the same hookInstance; the answer is the one that was committed."""
    with running(FAULTY, tmp_path) as server:
        said = medplum_call(node, server)
    assert [attempt["status"] for attempt in said["attempts"]] == [500, 200]
    assert len({attempt["hookInstance"] for attempt in said["attempts"]}) == 1
    ((_, status, response),) = logged(tmp_path)
    assert status == "scored"
    assert json.loads(response) == said["response"]
    assert said["response"]["cards"]
