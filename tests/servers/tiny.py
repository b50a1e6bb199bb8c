"""A server of a few lines, for answers no well-behaved server gives. On loopback, in this process.

What it was asked is kept, headers and all, so that a test can say what was sent to whom.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its target, and its headers with names in lower case."""

    target: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Tiny:
    """A running server, and what it was asked."""

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def base(self) -> str:
        """Its FHIR base."""
        return f"http://127.0.0.1:{self.port}/fhir"


Answer = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Tiny]:
    """A server that answers as told; a connection is kept until its client closes it."""
    connections: set[asyncio.StreamWriter] = set()
    tiny = Tiny(0)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        try:
            while head := await _head(reader):
                tiny.asked.append(head)
                await answer(head, writer)
                await writer.drain()
        except ConnectionError:
            pass  # the client had enough
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    tiny.port = server.sockets[0].getsockname()[1]
    try:
        yield tiny
    finally:
        server.close()
        for writer in connections:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def _head(reader: asyncio.StreamReader) -> Asked | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    return Asked(first.split(" ")[1], {name.lower(): value.strip() for name, value in pairs})


def response(
    body: Any, *, status: int = 200, kind: str = "application/fhir+json", more: str = ""
) -> bytes:
    """A whole response; `body`: bytes, or anything that becomes JSON; `more`: header lines."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\n{more}"
    return head.encode() + b"\r\n" + raw


def bundle(*ids: str, next_url: str | None = None, total: int | None = None) -> dict[str, Any]:
    """A searchset page of conditions with these ids."""
    entries = [{"resource": {"resourceType": "Condition", "id": i}} for i in ids]
    page: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    if next_url is not None:
        page["link"] = [{"relation": "next", "url": next_url}]
    if total is not None:
        page["total"] = total
    return page
