"""The floor: a server that does only what an explained, logged answer cannot leave out.

The same uvicorn with the same settings, the same typed decode, the same booster and explanation
(of a matrix made beforehand), a committed row of the same size through the same log; and it sends
back the bytes it was sent. No routing, no facts, no features, no cards, no pseudonyms. Started as
`python -m tests.bench.floor`, on the address and state folder of the VARSEL_* settings.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.types import ASGIApp, Receive, Scope, Send

from cds_service import server
from cds_service.db.log import PredictionLog
from cds_service.protocol import HookRequest
from cds_service.service import open_log, open_registry
from cds_service.settings import Settings, read_settings
from fhir_adapters.decode import decode_prefetch
from models.package import Package
from tests.bench.records import SIZES, hook_request
from tests.bench.stages import MODEL, running_app, traced_call

_REQUEST = msgspec.json.Decoder(HookRequest)


class Prepared(NamedTuple):
    """What a size's requests need made beforehand: the model's matrix, and a row to commit."""

    matrix: NDArray[np.float64]
    row: dict[str, Any]


async def prepare(package: Package) -> dict[str, Prepared]:
    """By path (`/<resources>`): the matrix and the row the product itself makes of that size."""
    prepared = {}
    with tempfile.TemporaryDirectory() as folder:
        async with running_app(Path(folder)) as (app, log):
            for size in SIZES:
                call = await traced_call(app, log, hook_request(size))
                prepared[f"/{size}"] = Prepared(_matrix(package, call.row), call.row)
    return prepared


def _matrix(package: Package, row: dict[str, Any]) -> NDArray[np.float64]:
    values = {value["name"]: value["value"] for value in msgspec.json.decode(row["features"])}
    numbers = [values[column] for column in package.columns]
    return np.array([[math.nan if n is None else n for n in numbers]], dtype=np.float64)


def floor_app(package: Package, log: PredictionLog, prepared: dict[str, Prepared]) -> ASGIApp:
    """An ASGI application that answers `/<resources>` with the bytes posted to it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body:
            await _work(package, log, prepared[scope["path"]], body)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def _body(receive: Receive) -> bytes:
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _work(package: Package, log: PredictionLog, prepared: Prepared, body: bytes) -> None:
    request = _REQUEST.decode(body)
    decode_prefetch(request.prefetch or {}, package.expected)
    for head in package.heads:
        head.trees.risk(prepared.matrix)
        head.trees.points(prepared.matrix)
    ids = {"prediction_id": str(uuid.uuid4()), "hook_instance": request.hook_instance}
    await asyncio.wrap_future(log.store({**prepared.row, **ids}))


def serve(settings: Settings) -> None:
    """Serve the floor until told to stop."""
    package = open_registry(settings).find(MODEL)
    prepared = asyncio.run(prepare(package))
    with open_log(settings) as log:
        server._settle_memory()
        config = uvicorn.Config(
            floor_app(package, log, prepared),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            loop="auto",
            http="httptools",
            lifespan="off",
        )
        uvicorn.Server(config).run()


if __name__ == "__main__":
    serve(read_settings())
