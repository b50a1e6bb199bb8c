"""The load: kept-alive connections on loopback, each asking again as soon as it is answered.

Written on bare sockets so that the client, which shares the machine with the server it measures,
costs little beside it.
"""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.bench.records import Request

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a burst of requests saw: each one's latency in seconds, and how long the burst took."""

    latencies_s: list[float]
    lasted_s: float


async def send_burst(
    port: int, path: str, request: Request, *, connections: int, total: int, token: str = ""
) -> Load:
    """Send `total` requests over some connections, every one under a new hookInstance.

    `token`: a bearer token, where there is one. Raises RuntimeError where one is not answered 200.
    """
    turns = iter(range(total))
    head = _head(port, path, request, token)
    return await _send(head, port, request, turns=turns, at_once=connections)


async def send_for(
    port: int, path: str, request: Request, *, connections: int, seconds: float, token: str = ""
) -> Load:
    """The same for some seconds instead of a number; with a bearer token, where there is one."""
    head = _head(port, path, request, token)
    turns = _until(time.perf_counter() + seconds)
    timeout_s = seconds + _TIMEOUT_S
    return await _send(head, port, request, turns=turns, at_once=connections, timeout_s=timeout_s)


def _until(end: float) -> Iterator[None]:
    while time.perf_counter() < end:
        yield None


def _head(port: int, path: str, request: Request, token: str = "") -> bytes:
    proof = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{proof}"
        f"Content-Type: application/json\r\nContent-Length: {len(request)}\r\n\r\n"
    ).encode()


async def _send(
    head: bytes,
    port: int,
    request: Request,
    *,
    turns: Iterable[object],
    at_once: int,
    timeout_s: float = _TIMEOUT_S,
) -> Load:
    """One request a turn, the turns shared by so many connections."""
    latencies: list[float] = []
    left = iter(turns)

    async def connection() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            for _ in left:
                message = head + request.body(uuid.uuid4())
                began = time.perf_counter()
                await loop.sock_sendall(sock, message)
                await _read_answer(loop, sock)
                latencies.append(time.perf_counter() - began)

    started = time.perf_counter()
    async with asyncio.timeout(timeout_s):
        await asyncio.gather(*(connection() for _ in range(at_once)))
    return Load(latencies, time.perf_counter() - started)


async def _read_answer(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Read one answer to its end; RuntimeError where it is not 200."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += await _received(loop, sock)
    head, _, body = got.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {head.splitlines()[0].decode()}: {body[:500].decode()}")
    left = _content_length(head) - len(body)
    while left > 0:
        left -= len(await _received(loop, sock))


async def _received(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    chunk = await loop.sock_recv(sock, 1 << 20)
    if not chunk:
        raise RuntimeError("the server closed the connection")
    return chunk


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError("the answer names no Content-Length")
