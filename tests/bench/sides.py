"""Servers that take turns under the same load, and what a window of it saw.

Called by the benches that hold one server against another: `peer_bench`, `log_durability`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.client import send_for
from tests.bench.records import Request
from tests.bench.servers import Server

CONNECTIONS = 16
SHORTEST_WINDOW_S = 10.0
ROUNDS = 3
WARM_UP_S = 1.0


class Window(NamedTuple):
    """Answers per second, and the server's CPU milliseconds per answer."""

    per_second: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Side:
    """One of the servers that take turns."""

    name: str
    server: Server
    path: str
    token: str = ""

    async def answer(self, request: Request, seconds: float) -> Window:
        """A window of load; RuntimeError where an answer is not 200."""
        before = self.server.cpu_s()
        load = await send_for(
            self.server.port, self.path, request,
            connections=CONNECTIONS, seconds=seconds, token=self.token,
        )  # fmt: skip
        answered = len(load.latencies_s)
        return Window(answered / load.lasted_s, 1000 * (self.server.cpu_s() - before) / answered)
