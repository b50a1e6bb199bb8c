"""A real FHIR R4 server for the tests: `sekmet-fhir`, in an environment of its own, on loopback.

It wants a bearer token, pages, and writes references as absolute URLs, as Epic does.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / ".venv-fhir" / "bin" / "sekmet"
TOKEN = "let-me-read"  # noqa: S105 - of this server only
_SETTINGS = f"""
server_auth: {{types: [bearer], tokens: [{TOKEN}]}}
validation: {{inbound: warn}}
simulator: {{enabled: false}}
server_behaviour: {{absolute_references: true}}
"""
_LONGEST_START_S = 60.0


@dataclass(frozen=True, slots=True)
class FhirServer:
    """A running FHIR server: its base, and the token it wants."""

    base: str
    token: str = TOKEN

    def put(self, resources: Iterable[dict[str, Any]]) -> None:
        """Store resources under their own ids."""
        entries = []
        for resource in resources:
            place = f"{resource['resourceType']}/{resource['id']}"
            request = {"method": "PUT", "url": place}
            full_url = f"{self.base}/{place}"
            entries.append({"fullUrl": full_url, "resource": resource, "request": request})
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        headers = {"Authorization": f"Bearer {self.token}"}
        httpx2.post(self.base, json=bundle, headers=headers, timeout=60).raise_for_status()


@contextmanager
def running(folder: Path) -> Iterator[FhirServer]:
    """An empty server with its files in a folder; ended on the way out.

    Raises RuntimeError where it is not installed or does not start, with what it said.
    """
    if not COMMAND.exists():
        raise RuntimeError("the FHIR server of the tests is not installed; `make setup` does that")
    (folder / "settings.yaml").write_text(_SETTINGS, encoding="utf-8")
    port = _free_port()
    base = f"http://127.0.0.1:{port}/fhir"
    said = folder / "output.txt"
    with said.open("wb") as output:
        child = subprocess.Popen(
            [COMMAND, "serve", "-c", "settings.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={
                **os.environ,
                "SEKMET_BASE_URL": base,
                "SEKMET_DB": str(folder / "fhir.db"),
            },
            stdout=output,
            stderr=output,
        )
        try:
            _await(child, f"{base}/metadata", said)
            yield FhirServer(base)
        finally:
            child.terminate()
            child.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(child: subprocess.Popen[bytes], url: str, said: Path) -> None:
    deadline = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"the FHIR server ended: {said.read_text()[-500:]}")
        try:
            httpx2.get(url, timeout=5)
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the FHIR server was not ready in time")
