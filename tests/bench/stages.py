"""The parts of a hook call in one process, each in milliseconds of CPU.

The product's own application answers here, in its own order and with its own garbage collector
settings, called as the web server calls it but without a network. Only the clock its timings are
read from is exchanged, for one that counts this process's CPU time.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from time import process_time, time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import msgspec
from starlette.types import ASGIApp, Message

from cds_service import assess, gather, server
from cds_service.app import create_app
from cds_service.db.claims import Claim
from cds_service.db.log import PredictionLog
from cds_service.db.store import Stored
from cds_service.routes import hooks
from cds_service.settings import Settings
from tests.bench.records import Request

MODEL = "readmission-30d"
PATH = f"/cds-services/{MODEL}"
_CPU_CLOCK = SimpleNamespace(perf_counter=process_time, time=time)
_HEADERS = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]


@dataclass(frozen=True, slots=True)
class Traced:
    """One call: the row it committed, and seconds of CPU: in all, until the body was asked for,
    from there until the row was handed over, and while it was committed (its thread counted too).
    """

    row: dict[str, Any]
    all_s: float
    until_body_s: float
    until_row_s: float
    commit_s: float


async def traced_call(app: ASGIApp, log: PredictionLog, request: Request) -> Traced:
    """One request through the application; only one that is scored and shown measures what we mean.

    Raises RuntimeError where it is answered otherwise.
    """
    body = request.body(uuid.uuid4())
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []
    kept: dict[str, Any] = {}
    store = log.store

    async def receive() -> Message:
        kept.setdefault("body", process_time())
        if not waiting:  # the client waits for its answer
            await asyncio.Event().wait()
        return waiting.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    def watched(row: dict[str, Any], claim: Claim | None = None) -> Future[Stored]:
        kept.update(row=row, handed_over=process_time())
        future = store(row, claim)
        future.add_done_callback(lambda _: kept.update(committed=process_time()))
        return future

    with patch.object(log, "store", watched):
        started = process_time()
        await app(_scope(len(body)), receive, send)
        ended = process_time()
    row = kept.get("row")
    if row is None or (row["status"], row["returned"]) != ("scored", "card"):
        raise RuntimeError(f"not a scored, shown call: {_said(row) if row else sent}")
    return Traced(
        row=row,
        all_s=ended - started,
        until_body_s=kept["body"] - started,
        until_row_s=kept["handed_over"] - kept["body"],
        commit_s=kept["committed"] - kept["handed_over"],
    )


def _said(row: dict[str, Any]) -> str:
    return f"{row['status']}, {row['reason']}, {row['returned']}"


def _scope(length: int) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*_HEADERS, (b"content-length", str(length).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


@asynccontextmanager
async def running_app(state: Path) -> AsyncIterator[tuple[ASGIApp, PredictionLog]]:
    """The application over a log in a folder of its own, settled as a serving process is."""
    app = create_app(Settings(profile="demo", state_dir=state))
    with _events_to_nowhere():
        async with app.router.lifespan_context(app):
            server._settle_memory()
            yield app, app.state.service.log


@contextmanager
def _events_to_nowhere() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere:
        with redirect_stderr(nowhere):
            server.configure_logging()
        yield


async def stage_times(
    app: ASGIApp, log: PredictionLog, request: Request, repeats: int
) -> list[dict[str, float]]:
    """Milliseconds of CPU per stage, of some calls of a request; one before them is not counted.

    `request` to `cards` are the product's own timings. `row`: the log row with the digest of the
    content and the seal; `commit`: the database; `web`: routing, headers, the answer, the event.
    """
    with ExitStack() as patches:
        for module in (hooks, gather, assess):
            patches.enter_context(patch.object(module, "time", _CPU_CLOCK))
        calls = [await traced_call(app, log, request) for _ in range(repeats + 1)]
    return [_stages(call) for call in calls[1:]]


def _stages(call: Traced) -> dict[str, float]:
    timings: dict[str, float] = msgspec.json.decode(call.row["timings"])
    answered = timings.pop("total")
    after = call.all_s - call.until_body_s - call.until_row_s - call.commit_s
    return {
        **timings,
        "row": 1000 * call.until_row_s - answered,
        "commit": 1000 * call.commit_s,
        "web": 1000 * (call.until_body_s + after),
        "all": 1000 * call.all_s,
    }


def validation_time(request: Request) -> float:
    """Milliseconds of CPU of one full R4B validation of the same record."""
    from fhir.resources.R4B.bundle import Bundle

    model: Any = Bundle
    started = process_time()
    model.model_validate_json(request.bundle)
    return 1000 * (process_time() - started)
