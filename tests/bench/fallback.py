"""`make bench-fallback`: what completing a prefetch from a FHIR server adds to a hook call.

The product in its own process, and beside it a FHIR server that answers each query after 20 ms.
Calls with the whole prefetch and calls without any take turns; what the latter take longer is the
figure. Ends with one line of JSON and exits 1 where the target is missed. Figures of a day:
docs/fhir-client.md.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2

from tests.bench.servers import PRODUCT, running
from tests.servers.tiny import Asked, Tiny, response, serving

MOST_ADDED_MS = 80.0
ANSWERS_AFTER_S = 0.020
ROUNDS = 60
TOKEN = "bench"  # noqa: S105 - of this bench
SERVICE = "readmission-30d"


def main() -> int:
    """Run the bench; 1 where the target is missed."""
    demo = json.loads(
        files("cds_service").joinpath("demo/hook-request.json").read_text(encoding="utf-8")
    )
    with tempfile.TemporaryDirectory() as folder, fhir_server(demo) as server:
        state = Path(folder)
        settings = {"VARSEL_CALLERS_FILE": str(callers_file(state, server.base))}
        with running(PRODUCT, state, settings) as product:
            url = f"http://127.0.0.1:{product.port}/cds-services/{SERVICE}"
            sent, fetched = in_turns(url, demo, server.base)
        asked = len(server.asked)
    figures = {
        "searches": asked / (ROUNDS + 1),
        "answers_after_ms": 1000 * ANSWERS_AFTER_S,
        "sent_ms": round(median(sent), 1),
        "fetched_ms": round(median(fetched), 1),
        "added_ms": round(median(fetched) - median(sent), 1),
        "added_p95_ms": round(quantiles(fetched, n=20)[-1] - median(sent), 1),
    }
    missed = []
    if figures["added_ms"] > MOST_ADDED_MS:
        missed.append(f"added {figures['added_ms']} ms, at most {MOST_ADDED_MS:g}")
    print(json.dumps({"target": "bench-fallback", "figures": figures, "missed": missed}))
    return 1 if missed else 0


def callers_file(folder: Path, base: str) -> Path:
    """A file of one caller, for whom the FHIR server is registered."""
    file = folder / "callers.toml"
    file.write_text(
        f"""
        [[caller]]
        name = "bench"
        organisation = "bench"
        token_sha256 = "{sha256(TOKEN.encode()).hexdigest()}"
        [[caller.fhir]]
        base = "{base}"
        networks = ["127.0.0.0/8"]
        """,
        encoding="utf-8",
    )
    return file


def in_turns(url: str, demo: Mapping[str, Any], base: str) -> tuple[list[float], list[float]]:
    """Milliseconds of calls with the whole prefetch, and of calls without; a first pair apart."""
    sent, fetched = [], []
    with httpx2.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
        for _ in range(ROUNDS + 1):
            sent.append(timed_call(client, url, {**demo, "fhirServer": base}))
            fetched.append(timed_call(client, url, {**demo, "fhirServer": base, "prefetch": {}}))
    return sent[1:], fetched[1:]


def timed_call(client: httpx2.Client, url: str, request: Mapping[str, Any]) -> float:
    """Milliseconds of one call under a new hookInstance; it must bring a card."""
    body = json.dumps({**request, "hookInstance": str(uuid.uuid4())}).encode()
    began = time.perf_counter()
    answer = client.post(url, content=body, headers={"Content-Type": "application/json"})
    took_ms = 1000 * (time.perf_counter() - began)
    if answer.status_code != httpx2.codes.OK or not answer.json()["cards"]:
        raise RuntimeError(f"answered {answer.status_code}: {answer.text[:300]}")
    return took_ms


@contextmanager
def fhir_server(demo: Mapping[str, Any]) -> Iterator[Tiny]:
    """A FHIR server in a thread of its own, that holds what the demo request's prefetch holds."""
    answers = {place_of(key): response(value) for key, value in demo["prefetch"].items()}

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ANSWERS_AFTER_S)
        writer.write(next(raw for place, raw in answers.items() if place in asked.target))

    ready = threading.Event()
    running_server: list[tuple[Tiny, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with serving(answer) as tiny:
            over = asyncio.Event()
            running_server.append((tiny, asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    tiny, loop, over = running_server[0]
    try:
        yield tiny
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def place_of(key: str) -> str:
    """What tells the query under a prefetch key from the others, in its URL."""
    return {
        "patient": "/Patient/",
        "encounters": "/Encounter?",
        "conditions": "/Condition?",
        "vitals": "category=vital-signs",
        "laboratory": "category=laboratory",
        "function": "category=survey",
        "procedures": "/Procedure?",
        "medications": "/MedicationRequest?",
    }[key]


if __name__ == "__main__":
    sys.exit(main())
